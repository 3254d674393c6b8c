"""What goes to the socket next: the order of sending, turns, what is discarded, and what a full ledger holds back."""

from __future__ import annotations

from protocol.codec import decode, encode
from protocol.flow import Budget, ReceiveCredit, SendCredit
from protocol.frames import Ack, Credit, Data, Frame, Leased, Message, Park, Reset, Response, Trailers
from protocol.ledger import FRAME_COST, ReceiveLedger, SendLedger
from protocol.scheduler import QUANTUM, Scheduler
from protocol.stream import QueuedEnd, QueuedFrame, QueuedMessage, Stream

ROOM = 1 << 30
CUT = 16 << 10


class Bench:
    """A scheduler, its ledgers and its streams. Begins with none of them used."""

    def __init__(self, max_bytes: int = 8 << 20, max_frames: int = 8192, data_size: int = CUT) -> None:
        self.sender = SendLedger(max_bytes, max_frames)
        self.receiver = ReceiveLedger()
        self.sent_of: list[int] = []
        self.scheduler = Scheduler(self.sender, self.receiver, lambda stream: self.sent_of.append(stream.id), data_size)
        self.held_back = max_bytes - max_bytes // 8

    def stream(self, number: int, *queue: object, credit: int = ROOM) -> Stream:
        budget = Budget()
        stream = Stream(
            number,
            SendCredit(credit),
            ReceiveCredit(0, 0, budget, 0.0),
            is_websocket=False,
            is_announced=True,
            max_message=1,
        )
        self.queue(stream, *queue)
        return stream

    def queue(self, stream: Stream, *queue: object) -> None:
        for item in queue:
            stream.queue.append(item)  # type: ignore[arg-type]
            if isinstance(item, (bytes, memoryview)):
                stream.queued += len(item)
            elif isinstance(item, QueuedMessage):
                stream.queued += len(item.data)
        self.scheduler.schedule(stream)

    def take(self, budget: int = ROOM, *, acknowledge: bool = False, now: float = 0.0) -> list[Frame]:
        return [decode(frame) for frame in self.scheduler.take(budget, now, acknowledge=acknowledge)]

    def fill(self, left: int) -> None:
        """Let the ledger have room for `left` bytes of cost below where frames are held back."""
        self.sender.keep(bytes(self.held_back - left - FRAME_COST - self.sender.bytes), 0.0)


def head(number: int, size: int = 0) -> bytes:
    return encode(Response(number, 200, [(b"a", bytes(size))]))


def turns(frames: list[Frame]) -> list[int]:
    return [frame.stream for frame in frames if isinstance(frame, Data)]


class TestOrder:
    def test_replay_then_control_then_credit_then_heads_then_streams_then_the_acknowledgement(self) -> None:
        bench = Bench()
        bench.stream(1, b"old")
        replayed = bench.take()
        bench.sender.rewind(0)
        bench.receiver.receive(1, 0.0)
        bench.stream(3, b"body")
        headed = bench.stream(5)
        bench.scheduler.head(headed, head(5))
        bench.scheduler.credit(1, 9)
        bench.scheduler.control(encode(Reset(7, 1)))
        frames = bench.take(acknowledge=True, now=0.05)
        assert frames[:1] == replayed
        assert [type(frame) for frame in frames[1:]] == [Reset, Credit, Response, Data, Ack]
        assert bench.take(acknowledge=True, now=9.0) == []
        assert not bench.scheduler.has_work

    def test_nothing_new_before_the_replay_has_left_whole(self) -> None:
        bench = Bench()
        bench.stream(1, *[bytes(CUT)] * 4)
        replayed = bench.take()
        assert len(replayed) == 4
        bench.sender.rewind(1)
        bench.scheduler.control(encode(Reset(1, 1)))
        assert bench.take(1) == replayed[1:2]
        assert bench.take(1) == replayed[2:3]
        assert bench.take(CUT + 1000) == [replayed[3], Reset(1, 1)]

    def test_heads_in_the_order_in_which_they_came(self) -> None:
        bench = Bench()
        streams = [bench.stream(number) for number in (5, 1, 3)]
        for stream in streams:
            bench.scheduler.head(stream, head(stream.id))
        assert [frame.stream for frame in bench.take() if isinstance(frame, Response)] == [5, 1, 3]
        assert bench.sent_of == [5, 1, 3]

    def test_nothing_of_a_stream_before_its_head(self) -> None:
        bench = Bench()
        stream = bench.stream(1)
        bench.scheduler.head(stream, head(1))
        bench.queue(stream, b"body", QueuedEnd())
        assert stream.has_unsent
        assert [type(frame) for frame in bench.take(1)] == [Response]
        assert bench.take() == [Data(1, b"body", end=True)]
        assert not stream.has_unsent

    def test_a_late_frame_is_made_when_it_is_sent(self) -> None:
        bench = Bench()
        bench.scheduler.control(lambda now: Park(1, int(now), bench.receiver.state()))
        bench.receiver.receive(1, 0.0)
        assert bench.take(acknowledge=True, now=7.0) == [Park(1, 7, 1)], "and acknowledges what came until then"

    def test_an_acknowledgement_only_when_it_is_due_and_wanted(self) -> None:
        bench = Bench()
        bench.receiver.receive(1, 0.0)
        assert bench.take(acknowledge=True, now=0.049) == []
        assert bench.take(acknowledge=False, now=0.05) == []
        assert bench.take(acknowledge=True, now=0.05) == [Ack(1)]
        assert bench.take(acknowledge=True, now=0.05) == []
        assert bench.sender.sent == 0, "it is not counted"


class TestTurns:
    def test_streams_take_turns_of_64_kib(self) -> None:
        bench = Bench()
        for number in (1, 3, 5):
            bench.stream(number, bytes(2 * QUANTUM))
        each = QUANTUM // CUT
        assert turns(bench.take()) == ([1] * each + [3] * each + [5] * each) * 2
        assert QUANTUM == 64 << 10

    def test_a_small_budget_moves_the_turn_on(self) -> None:
        bench = Bench()
        for number in (1, 3):
            bench.stream(number, bytes(4 * CUT))
        assert [turns(bench.take(CUT)) for _ in range(4)] == [[1], [3], [1], [3]]

    def test_a_newcomer_waits_for_one_turn_and_not_for_a_whole_body(self) -> None:
        bench = Bench()
        bench.stream(1, bytes(10 * QUANTUM))
        bench.take(QUANTUM)
        bench.stream(3, b"small")
        order = turns(bench.take())
        assert order.index(3) <= QUANTUM // CUT

    def test_pieces_are_joined_and_cut_and_the_end_travels_with_the_last(self) -> None:
        bench = Bench(data_size=10)
        bench.stream(1, b"abc", memoryview(b"def"), b"g" * 20, QueuedEnd())
        frames = bench.take()
        assert frames == [Data(1, b"abcdefgggg"), Data(1, b"g" * 10), Data(1, b"g" * 6, end=True)]

    def test_an_end_alone(self) -> None:
        bench = Bench()
        bench.stream(1, QueuedEnd(), credit=0)
        assert bench.take() == [Data(1, b"", end=True)]

    def test_trailers_keep_their_place_behind_the_body(self) -> None:
        bench = Bench()
        bench.stream(1, b"body", QueuedFrame(encode(Trailers(1, [(b"a", b"b")]))), credit=4)
        assert bench.take() == [Data(1, b"body"), Trailers(1, [(b"a", b"b")])]

    def test_a_stream_sends_no_byte_beyond_its_credit_and_stops_nobody_else(self) -> None:
        bench = Bench(data_size=10)
        slow = bench.stream(1, b"x" * 25, QueuedEnd(), credit=12)
        bench.stream(3, b"y" * 15)
        assert bench.take() == [Data(1, b"x" * 10), Data(1, b"xx"), Data(3, b"y" * 10), Data(3, b"y" * 5)]
        assert bench.take() == [] and slow.queued == 13
        assert slow.send_credit.raise_to(25)
        bench.scheduler.schedule(slow)
        assert bench.take() == [Data(1, b"x" * 10), Data(1, b"xxx", end=True)]
        assert slow.queued == 0

    def test_a_message_is_cut_and_counts_its_payload(self) -> None:
        bench = Bench(data_size=4)
        stream = bench.stream(1, QueuedMessage(b"abcdefghi", text=True), QueuedMessage(b"", text=False), credit=100)
        assert bench.take() == [
            Message(1, b"abcd", text=True, last=False),
            Message(1, b"efgh", text=True, last=False),
            Message(1, b"i", text=True),
            Message(1, b"", text=False),
        ]
        assert stream.send_credit.offset == 10, "an empty one counts a byte: otherwise nothing would bound them"

    def test_a_message_waits_for_credit(self) -> None:
        bench = Bench()
        stream = bench.stream(1, QueuedMessage(b"abc", text=True), QueuedMessage(b"", text=True), credit=2)
        assert bench.take() == [Message(1, b"ab", text=True, last=False)]
        stream.send_credit.raise_to(3)
        bench.scheduler.schedule(stream)
        assert bench.take() == [Message(1, b"c", text=True)]
        stream.send_credit.raise_to(4)
        bench.scheduler.schedule(stream)
        assert bench.take() == [Message(1, b"", text=True)]

    def test_the_budget_is_kept_but_for_the_last_frame(self) -> None:
        bench = Bench()
        bench.stream(1, bytes(20 * CUT))
        for budget in (1, CUT, 3 * CUT + 1):
            assert budget <= sum(len(encode(frame)) for frame in bench.take(budget)) < budget + CUT + 12


class TestDiscarding:
    def test_a_reset_stream_sends_nothing_of_its_body(self) -> None:
        bench = Bench()
        stream = bench.stream(1, bytes(10 * CUT), QueuedEnd())
        bench.take(CUT)
        bench.scheduler.control(encode(Reset(1, 1)))
        stream.discard_unsent()
        assert bench.take() == [Reset(1, 1)]
        assert not bench.scheduler.has_work

    def test_nor_its_head(self) -> None:
        bench = Bench()
        stream, other = bench.stream(1), bench.stream(3)
        for each in (stream, other):
            bench.scheduler.head(each, head(each.id))
            bench.queue(each, b"body")
        bench.scheduler.control(encode(Reset(1, 1)))
        stream.discard_unsent()
        assert bench.take() == [Reset(1, 1), decode(head(3)), Data(3, b"body")]

    def test_unsent_grants_merge_into_the_latest(self) -> None:
        bench = Bench()
        for stream, offset in ((1, 10), (3, 5), (1, 20), (1, 30)):
            bench.scheduler.credit(stream, offset)
        assert bench.take() == [Credit(1, 30), Credit(3, 5)]

    def test_a_forgotten_streams_grant_is_dropped(self) -> None:
        bench = Bench()
        stream = bench.stream(1)
        bench.scheduler.credit(1, 10)
        bench.scheduler.forget(stream)
        assert bench.take() == []


class TestFullLedger:
    def test_heads_and_bodies_are_held_back_at_seven_eighths_while_control_passes(self) -> None:
        bench = Bench(max_bytes=1 << 20)
        bench.fill(left=0)
        headed = bench.stream(1)
        bench.scheduler.head(headed, head(1))
        bench.stream(3, b"body", QueuedEnd())
        bench.stream(5, QueuedMessage(b"message", text=True))
        bench.stream(7, QueuedFrame(encode(Trailers(7))))
        bench.scheduler.control(encode(Reset(9, 1)))
        bench.scheduler.control(lambda now: Park(1, 0, 0))
        bench.scheduler.credit(3, 100)
        assert bench.take() == [Reset(9, 1), Park(1, 0, 0), Credit(3, 100)]
        assert bench.take() == [] and bench.scheduler.has_work
        bench.sender.release(1)
        assert bench.take() == [
            decode(head(1)),
            Data(3, b"body", end=True),
            Message(5, b"message", text=True),
            Trailers(7, []),
        ]

    def test_the_last_frame_that_has_room_goes(self) -> None:
        for left, goes in ((CUT + 12 + FRAME_COST, True), (CUT + 12 + FRAME_COST - 1, False)):
            bench = Bench(max_bytes=1 << 20)
            bench.fill(left=left)
            bench.stream(1, bytes(CUT))
            assert bool(bench.take()) is goes

    def test_frames_are_bounded_as_well_as_bytes(self) -> None:
        bench = Bench(max_frames=64, data_size=1)
        bench.stream(1, bytes(100))
        assert len(bench.take()) == 56
        for number in range(20):
            bench.scheduler.control(encode(Reset(number + 1, 1)))
        assert len(bench.take()) == 8, "and control frames by the whole bound"
        bench.sender.release(10)
        assert [type(frame) for frame in bench.take()] == [Reset] * 10
        bench.sender.release(64)
        frames = bench.take()
        assert [type(frame) for frame in frames] == [Reset] * 2 + [Data] * 44

    def test_the_round_goes_on_where_it_was_held(self) -> None:
        bench = Bench(max_bytes=1 << 20)
        bench.fill(left=CUT + 12 + FRAME_COST)
        for number in (1, 3):
            bench.stream(number, bytes(2 * CUT))
        assert turns(bench.take()) == [1]
        bench.sender.release(bench.sender.sent)
        assert turns(bench.take()) == [1, 3, 3]

    def test_a_held_head_holds_those_behind_it_in_their_order(self) -> None:
        bench = Bench(max_bytes=1 << 20)
        bench.fill(left=5000)
        for number, size in ((1, 10_000), (3, 10)):
            bench.scheduler.head(bench.stream(number), head(number, size))
        assert bench.take() == []
        bench.sender.release(1)
        assert [frame.stream for frame in bench.take() if isinstance(frame, Response)] == [1, 3]


class TestLeaseHeads:
    def test_leased_follows_the_requests_that_wait(self) -> None:
        bench = Bench()
        for number in (1, 3):
            bench.scheduler.head(bench.stream(number), head(number))
        bench.scheduler.head(None, encode(Leased(1)))
        bench.scheduler.head(bench.stream(5), head(5))
        assert [type(frame) for frame in bench.take()] == [Response, Response, Leased, Response]

    def test_leased_is_never_held_back(self) -> None:
        bench = Bench(max_bytes=1 << 20)
        bench.fill(left=0)
        for number in (1, 3):
            bench.scheduler.head(bench.stream(number), head(number))
        bench.scheduler.head(None, encode(Leased(1)))
        bench.scheduler.head(bench.stream(5), head(5))
        assert bench.take() == [Leased(1)]
        bench.sender.release(1)
        assert [frame.stream for frame in bench.take() if isinstance(frame, Response)] == [1, 3, 5]

    def test_leased_waits_for_the_whole_bound(self) -> None:
        bench = Bench(max_frames=64)
        for _ in range(64):
            bench.sender.keep(b"", 0.0)
        bench.scheduler.head(None, encode(Leased(1)))
        assert bench.take() == []
        bench.sender.release(1)
        assert bench.take() == [Leased(1)]
