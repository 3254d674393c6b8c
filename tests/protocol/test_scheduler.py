"""The order of what leaves, and that no stream waits for another."""

from __future__ import annotations

from collections import Counter

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import decode
from protocol.dial import Limits
from protocol.ledger import MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES
from protocol.session import Session
from tests.protocol.pair import Pair

MANY = Limits(credit=1 << 22, unacked=1 << 26, frames=1 << 20)


def wide(**options: int) -> Pair:
    return Pair.leased(function=MANY, gateway=MANY, **options)


def kinds(frames: list[fr.Frame]) -> list[tuple[str, int]]:
    return [(type(frame).__name__, getattr(frame, "stream", 0)) for frame in frames]


def test_control_goes_before_heads_and_heads_before_data() -> None:
    pair = wide()
    one, two = pair.answered(), pair.opened()
    pair.function.send_data(one, b"data")
    pair.function.send_response(two, 200, [])
    pair.function.stop(one, 0)
    pair.consumes = False
    assert kinds(pair.frames(pair.function)) == [("Stop", one), ("Response", two), ("Data", one)]


def test_a_grant_goes_before_data() -> None:
    pair = wide()
    stream = pair.answered()
    pair.gateway.send_data(stream, bytes(1 << 21))
    messages = pair.take(pair.gateway)
    pair.function.send_data(stream, b"data")
    pair.give(pair.function, messages)
    sent = kinds(pair.frames(pair.function))
    assert sent.index(("Credit", stream)) < sent.index(("Data", stream))


def test_requests_go_before_leased_in_the_same_write() -> None:
    pair = Pair()
    pair.dial()
    lease = pair.function.offer_lease("t", 4, 9.0, pair.now)
    pair.pump()
    one, two = pair.open(), pair.open()
    pair.gateway.grant(lease, 0.0, pair.now)
    pair.gateway.release()
    pair.gateway.send_data(one, b"data")
    assert kinds([decode(message) for message in pair.gateway.frames_to_send(1 << 20, pair.now)]) == [
        ("Request", one),
        ("Request", two),
        ("Leased", 0),
        ("Release", 0),
        ("Data", one),
    ]


def test_welcome_then_replay_then_what_is_new() -> None:
    pair = wide()
    stream = pair.answered()
    pair.gateway.send_data(stream, b"old")
    pair.take(pair.gateway)
    pair.cut()
    pair.gateway.accept(pair.function.dial(pair.now), pair.now)
    pair.gateway.send_data(stream, b"new")
    new = pair.open()
    sent = pair.frames(pair.gateway)
    assert kinds(sent) == [("Welcome", 0), ("Data", stream), ("Request", new), ("Data", stream)]
    assert [bytes(frame.payload) for frame in sent if isinstance(frame, fr.Data)] == [b"old", b"new"]


def test_streams_take_turns_of_64_kib() -> None:
    pair = wide(data_size=1 << 14)
    streams = [pair.answered() for _ in range(3)]
    for stream in streams:
        pair.function.send_data(stream, bytes(1 << 18))
    turns = [frame.stream for frame in pair.frames(pair.function) if isinstance(frame, fr.Data)]
    for round_ in range(4):
        one_round = turns[round_ * 12 : round_ * 12 + 12]
        assert one_round == [streams[0]] * 4 + [streams[1]] * 4 + [streams[2]] * 4


def test_a_stream_of_small_frames_gets_as_many_bytes_as_one_of_large_frames() -> None:
    pair = wide()
    small, large = pair.answered(), pair.answered()
    sent: Counter[int] = Counter()
    pair.function.send_data(large, bytes(1 << 22))
    for _ in range(40):
        for _ in range(200):
            pair.function.send_data(small, bytes(1000))
        for message in pair.function.frames_to_send(1 << 17, pair.now):
            frame = decode(message)
            assert isinstance(frame, fr.Data)
            sent[frame.stream] += len(frame.payload)
        if not pair.function.is_writable(large):
            continue
    assert sent[small] == pytest.approx(sent[large], rel=0.05)


def test_a_budget_of_one_byte_still_sends_and_still_takes_turns() -> None:
    pair = wide(data_size=1000)
    streams = [pair.answered() for _ in range(3)]
    for stream in streams:
        pair.function.send_data(stream, bytes(3000))
    order = []
    while taken := pair.function.frames_to_send(1, pair.now):
        assert len(taken) == 1
        frame = decode(taken[0])
        assert isinstance(frame, fr.Data)
        order.append(frame.stream)
    assert order == streams * 3
    assert pair.function.frames_to_send(0, pair.now) == []


def test_a_stream_without_credit_keeps_nobody_waiting() -> None:
    pair = Pair.leased(gateway=Limits(credit=100))
    blocked, free = pair.answered(), pair.answered()
    pair.function.send_data(blocked, bytes(500))
    pair.function.send_data(free, bytes(50))
    sent = pair.frames(pair.function)
    assert [(frame.stream, len(frame.payload)) for frame in sent if isinstance(frame, fr.Data)] == [
        (blocked, 100),
        (free, 50),
    ]
    assert not pair.function.has_frames_to_send


def test_small_pieces_leave_together_and_end_travels_with_the_last() -> None:
    pair = wide(data_size=1000)
    stream = pair.answered()
    for piece in range(1500):
        pair.function.send_data(stream, bytes([piece % 256]))
    pair.function.send_data(stream, b"", end=True)
    one, two = pair.frames(pair.function)
    assert isinstance(one, fr.Data) and isinstance(two, fr.Data)
    assert (len(one.payload), one.end, len(two.payload), two.end) == (1000, False, 500, True)
    assert bytes(one.payload) + bytes(two.payload) == bytes(piece % 256 for piece in range(1500))


def test_a_large_piece_is_cut_and_any_buffer_may_be_sent() -> None:
    pair = wide(data_size=1000)
    stream = pair.answered()
    body = bytes(range(250)) * 10
    pair.function.send_data(stream, memoryview(body))
    pair.function.send_data(stream, bytearray(b"tail"), end=True)
    sizes = [len(frame.payload) for frame in pair.frames(pair.function) if isinstance(frame, fr.Data)]
    assert sizes == [1000, 1000, 504]


def test_trailers_go_after_all_data() -> None:
    pair = wide()
    stream = pair.answered()
    pair.function.send_data(stream, bytes(1 << 17))
    pair.function.send_trailers(stream, [(b"a", b"b")])
    assert [name for name, _ in kinds(pair.frames(pair.function))] == ["Data", "Data", "Trailers"]


class TestAtTheLedgersLimit:
    """Data, heads and trailers wait for an acknowledgement; control frames do not, up to the whole bound."""

    def full(self) -> tuple[Pair, int]:
        tiny = Limits(credit=1 << 22, unacked=MIN_UNACKED_BYTES, frames=MIN_UNACKED_FRAMES)
        pair = Pair.leased(function=tiny, gateway=tiny, data_size=100)
        stream = pair.answered()
        pair.function.send_data(stream, bytes(100_000))
        self.sent = pair.take(pair.function)
        assert pair.function._sender.frames == MIN_UNACKED_FRAMES * 7 // 8
        return pair, stream

    def test_everything_that_waits_for_a_consumer_is_held_back(self) -> None:
        pair, stream = self.full()
        waiting = pair.open()
        pair.give(pair.function, pair.take(pair.gateway))
        pair.function.send_response(waiting, 200, [])
        assert pair.take(pair.function) == []
        assert pair.function.has_frames_to_send, "it is ready, but for the ledger"

    def test_control_frames_are_not(self) -> None:
        pair, stream = self.full()
        pair.function.stop(stream, 0)
        assert kinds(pair.frames(pair.function)) == [("Stop", stream)]
        pair.function.reset(stream, 1)
        assert kinds(pair.frames(pair.function)) == [("Reset", stream)]
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        assert kinds(pair.frames(pair.function)) == [("Lease", 0)]

    def test_the_whole_bound_holds_for_control_frames_too_and_an_acknowledgement_frees_them(self) -> None:
        """`many_small_requests_broke_an_honest_session`: it was a protocol error of the peer."""
        pair, _ = self.full()
        for _ in range(30):
            pair.function.offer_lease("t", 1, 9.0, pair.now)
        held = pair.take(pair.function)
        assert len(held) == MIN_UNACKED_FRAMES - pair.function.limits.frames * 7 // 8
        assert pair.function._sender.frames == MIN_UNACKED_FRAMES
        pair.give(pair.gateway, self.sent)
        pair.give(pair.function, pair.take(pair.gateway))
        assert pair.take(pair.function), "and on it goes"

    def test_an_acknowledgement_always_goes(self) -> None:
        pair, stream = self.full()
        pair.gateway.send_data(stream, bytes(3000))
        pair.give(pair.function, pair.take(pair.gateway))
        assert fr.Ack in {type(frame) for frame in pair.frames(pair.function)}

    def test_a_held_head_keeps_data_from_using_up_the_room_that_it_waits_for(self) -> None:
        tiny = Limits(credit=1 << 22, unacked=MIN_UNACKED_BYTES, frames=8192)
        pair = Pair.leased(function=tiny, gateway=tiny)
        stream, other = pair.answered(), pair.opened()
        pair.function.send_data(stream, bytes(190_000))
        pair.take(pair.function)
        pair.function.send_response(other, 200, [(b"a", bytes(60_000))])
        pair.function.send_data(stream, b"small")
        assert pair.take(pair.function) == []

    def test_leased_is_not_held_back_behind_requests_that_are(self) -> None:
        tiny = Limits(credit=1 << 22, unacked=MIN_UNACKED_BYTES, frames=MIN_UNACKED_FRAMES)
        pair = Pair.leased(function=tiny, gateway=tiny, data_size=100)
        stream = pair.answered()
        lease = pair.function.offer_lease("t", 9, 9.0, pair.now)
        pair.give(pair.gateway, pair.take(pair.function))
        pair.gateway.send_data(stream, bytes(100_000))
        pair.take(pair.gateway)
        waiting = pair.open()
        pair.gateway.grant(lease, 0.0, pair.now)
        assert kinds(pair.frames(pair.gateway)) == [("Leased", 0)]
        assert pair.gateway.is_open(waiting)

    def test_at_the_whole_bound_leased_waits_too(self) -> None:
        tiny = Limits(credit=1 << 22, unacked=MIN_UNACKED_BYTES, frames=MIN_UNACKED_FRAMES)
        pair = Pair.leased(function=tiny, gateway=tiny)
        for _ in range(MIN_UNACKED_FRAMES + 5):
            lease = pair.function.offer_lease("t", 9, 9.0, pair.now)
            pair.give(pair.gateway, pair.take(pair.function))
            pair.gateway.grant(lease, 0.0, pair.now)
            sent = pair.take(pair.gateway)
            pair.give(pair.function, [message for message in sent if type(decode(message)) is fr.Ack])
        assert sent == [] and pair.gateway._sender.frames == MIN_UNACKED_FRAMES
        assert pair.gateway.has_frames_to_send

    def test_large_trailers_are_held_back_too(self) -> None:
        """They were measured by the bytes queued before them, and broke the bound."""
        tiny = Limits(credit=1 << 22, unacked=MIN_UNACKED_BYTES, frames=8192)
        pair = Pair.leased(function=tiny, gateway=tiny, data_size=60_000)
        stream = pair.answered()
        pair.function.send_data(stream, bytes(4 * 60_000))
        pair.function.send_trailers(stream, [(b"a", bytes(60_000))])
        sent = pair.take(pair.function)
        assert pair.function._sender.bytes <= MIN_UNACKED_BYTES
        pair.give(pair.gateway, sent)
        pair.later(1.0)
        pair.pump()
        assert pair.seen(pair.gateway, ev.TrailersReceived)


class TestReset:
    def test_it_overtakes_and_discards_its_own_streams_data_alone(self) -> None:
        pair = wide()
        one, two = pair.answered(), pair.answered()
        pair.function.send_data(one, bytes(1 << 20))
        pair.function.send_data(two, b"other")
        pair.function.reset(one, fr.Code.INTERNAL)
        assert kinds(pair.frames(pair.function)) == [("Reset", one), ("Data", two)]

    def test_it_discards_a_head_that_waits(self) -> None:
        pair = wide()
        one, two = pair.opened(), pair.opened()
        pair.function.send_informational(one, 103, [])
        pair.function.send_response(two, 200, [])
        pair.function.send_response(one, 200, [])
        pair.function.reset(one, fr.Code.INTERNAL)
        assert kinds(pair.frames(pair.function)) == [("Reset", one), ("Response", two)]


@pytest.mark.parametrize("messages", [False, True])
def test_writable_is_told_once_when_little_is_left(messages: bool) -> None:
    pair = wide()
    stream = pair.answered({"websocket": []} if messages else {}, 101 if messages else 200)

    def send(session: Session, data: bytes) -> None:
        if messages:
            session.send_message(stream, data, text=False)
        else:
            session.send_data(stream, data)

    function = pair.function
    send(function, bytes((64 << 10) - 1))
    assert function.is_writable(stream)
    send(function, b"x")
    assert not function.is_writable(stream) and not function.is_writable(stream)
    send(function, bytes(1 << 17))
    pair.take(function)
    assert [type(event) for event in pair.function_saw if isinstance(event, ev.StreamWritable)] == [ev.StreamWritable]
    assert function.is_writable(stream)


def test_many_small_pieces_are_not_little() -> None:
    pair = Pair.leased()
    stream = pair.answered()
    for _ in range(1024):
        assert pair.function.is_writable(stream)
        pair.function.send_data(stream, b"x")
    assert not pair.function.is_writable(stream)


def test_an_empty_message_counts_a_byte_of_credit() -> None:
    pair = Pair.leased(function=Limits(credit=10))
    stream = pair.answered({"websocket": []}, 101)
    for _ in range(11):
        pair.gateway.send_message(stream, b"", text=True)
    assert kinds(pair.frames(pair.gateway)) == [("Message", stream)] * 10, "or nothing would bound them"


def test_a_small_request_does_not_overtake_a_large_one_that_is_held_back() -> None:
    limits = Limits(unacked=MIN_UNACKED_BYTES)
    pair = Pair.leased(gateway=limits)
    for _ in range(3):
        pair.open({}, [(b"a", bytes(60_000))])
    assert [name for name, _ in kinds(pair.frames(pair.gateway))] == ["Request"] * 3
    pair.open({}, [(b"a", bytes(60_000))])
    pair.open()
    pair.gateway.release()  # what is never held back is looked for behind them
    assert kinds(pair.frames(pair.gateway)) == [("Release", 0)]
