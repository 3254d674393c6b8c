"""Messages in parts: the same as whole ones, and what was passed on before a cut is skipped in the replay."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.errors import LocalError, ProtocolError
from protocol.frames import DATA_OVERHEAD, MAX_FRAME_SIZE, Ack, Credit, Data, Frame, Message, Trailers
from protocol.reader import Piece, Reader

DATA = encode(Data(5, b"0123456789"))

frames = st.one_of(
    st.builds(Data, st.integers(1, 3), st.binary(max_size=40), st.booleans()),
    st.builds(Message, st.integers(1, 3), st.binary(max_size=40), st.booleans(), st.booleans()),
    st.builds(Trailers, st.integers(1, 3), st.just([(b"name", b"v" * 30)])),
    st.builds(Credit, st.integers(1, 3), st.integers(0, 1 << 62)),
)


class Sink:
    """What a session would see, over any number of sockets: payload by frame, and other messages."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.got: list[tuple[int, bytes, bool] | bytes] = []
        self.payload = b""  # of the DATA frame that is coming, over all sockets
        self.is_first = True  # the next piece is the first of its frame on this socket

    def feed(self, message: bytes, cuts: list[int], until: int | None = None) -> None:
        """The message in parts, of which no more than `until` bytes come."""
        end = len(message) if until is None else until
        edges = sorted({0, end, *(cut for cut in cuts if cut < end)})
        for start, stop in zip(edges, edges[1:], strict=False):
            self.take(self.reader.feed(message[start:stop], start, len(message)))

    def take(self, got: object) -> None:
        if isinstance(got, Piece):
            assert got.first == self.is_first
            self.is_first = got.last
            self.payload += bytes(got.data)
            if got.last:
                assert got.length == DATA_OVERHEAD + len(self.payload)
                self.got.append((got.stream, self.payload, got.end))
                self.payload = b""
        elif got is not None:
            assert isinstance(got, (bytes, bytearray, memoryview))
            self.reader.whole_counted()
            self.got.append(bytes(got))

    def cut(self) -> None:
        self.reader.cut()
        self.is_first = True


def expected(frame: Frame, message: bytes) -> tuple[int, bytes, bool] | bytes:
    return (frame.stream, bytes(frame.payload), frame.end) if isinstance(frame, Data) else message


@given(st.lists(st.tuples(frames, st.lists(st.integers(1, 60), max_size=6)), max_size=6))
def test_parts_cut_anywhere_give_the_same_as_the_whole(sent: list[tuple[Frame, list[int]]]) -> None:
    sink = Sink()
    for frame, cuts in sent:
        sink.feed(encode(frame), cuts)
    assert sink.got == [expected(frame, encode(frame)) for frame, _ in sent]


def test_every_byte_a_part() -> None:
    sink = Sink()
    for message in (DATA, encode(Trailers(1, [(b"a", b"b" * 300)])), encode(Ack(1)), DATA):
        sink.feed(message, list(range(len(message))))
    assert sink.got == [
        (5, b"0123456789", False),
        encode(Trailers(1, [(b"a", b"b" * 300)])),
        encode(Ack(1)),
        sink.got[0],
    ]


@given(
    st.lists(
        st.tuples(frames, st.lists(st.tuples(st.floats(0, 1), st.lists(st.integers(1, 60), max_size=4)), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_sockets_lost_anywhere_lose_and_double_nothing(
    sent: list[tuple[Frame, list[tuple[float, list[int]]]]],
) -> None:
    sink = Sink()
    for frame, losses in sent:
        message = encode(frame)
        for share, cuts in losses:  # some of it came, then the socket was lost: it is replayed
            sink.feed(message, cuts, until=int(share * (len(message) - 1)))
            sink.cut()
        sink.feed(message, [7, 20])
    assert sink.got == [expected(frame, encode(frame)) for frame, _ in sent]


def test_each_piece_is_passed_on_at_once() -> None:
    reader = Reader()
    assert reader.feed(DATA[:5], 0, len(DATA)) is None
    first = reader.feed(DATA[5:15], 5, len(DATA))
    assert isinstance(first, Piece)
    assert (first.stream, bytes(first.data), first.first, first.last, first.length) == (5, b"012", True, False, 22)
    last = reader.feed(DATA[15:], 15, len(DATA))
    assert isinstance(last, Piece)
    assert (bytes(last.data), last.first, last.last, last.end) == (b"3456789", False, True, False)


def test_what_was_passed_on_is_skipped_and_only_once() -> None:
    reader = Reader()
    reader.feed(DATA[:16], 0, len(DATA))  # 0123
    reader.cut()
    reader.feed(DATA[:14], 0, len(DATA))  # the second socket is lost before it has said anything new
    reader.cut()
    again = reader.feed(DATA[:15], 0, len(DATA))
    assert isinstance(again, Piece) and again.first and bytes(again.data) == b""
    rest = reader.feed(DATA[15:], 15, len(DATA))
    assert isinstance(rest, Piece) and rest.last and bytes(rest.data) == b"456789"
    other = reader.feed(DATA, 0, len(DATA))
    assert isinstance(other, Piece) and bytes(other.data) == b"0123456789", "the next frame is whole"


def test_a_whole_frame_is_skipped_as_well() -> None:
    reader = Reader()
    reader.feed(DATA[:16], 0, len(DATA))
    reader.cut()
    whole = reader.feed(DATA, 0, len(DATA))
    assert isinstance(whole, Piece) and whole.first and whole.last and bytes(whole.data) == b"456789"


@pytest.mark.parametrize(
    "other",
    [
        encode(Data(6, b"0123456789")),
        encode(Data(5, b"0123456789", end=True)),
        encode(Data(5, b"012345678")),
        encode(Data(5, b"")),
    ],
    ids=["stream", "type", "length", "empty"],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_replay_that_is_another_frame_is_refused(other: bytes, parts: int) -> None:
    sink = Sink()
    sink.feed(DATA, [], until=16)
    sink.cut()
    with pytest.raises(ProtocolError):
        sink.feed(other, [] if parts == 1 else [DATA_OVERHEAD - 1])


@pytest.mark.parametrize("other", [Credit(5, 1), Trailers(5), Message(5, b"0123456789", text=True)], ids=repr)
@pytest.mark.parametrize("cuts", [[], [1]])
def test_a_replay_that_is_no_data_is_refused(other: Frame, cuts: list[int]) -> None:
    sink = Sink()
    sink.feed(DATA, [], until=16)
    sink.cut()
    with pytest.raises(ProtocolError):
        sink.feed(encode(other), cuts)


def test_a_frame_of_which_nothing_was_passed_on_leaves_nothing() -> None:
    reader = Reader()
    reader.feed(DATA[:11], 0, len(DATA))
    reader.cut()
    reader.whole_counted()  # any frame may come
    other = encode(Data(9, b"other"))
    piece = reader.feed(other, 0, len(other))
    assert isinstance(piece, Piece) and bytes(piece.data) == b"other"


def test_a_message_cut_in_half_is_forgotten() -> None:
    reader = Reader()
    whole = encode(Trailers(1, [(b"a", b"b" * 100)]))
    assert reader.feed(whole[:50], 0, len(whole)) is None
    reader.cut()
    assert reader.feed(whole, 0, len(whole)) == whole


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1])
def test_a_declared_length_is_checked_before_anything_is_passed_on(length: int) -> None:
    with pytest.raises(ProtocolError):
        Reader().feed(DATA[:DATA_OVERHEAD], 0, length)
    for at in range(DATA_OVERHEAD - 1):
        reader = Reader()
        assert reader.feed(DATA[: at + 1], 0, length) is None
        with pytest.raises(ProtocolError):
            reader.feed(DATA[at + 1 : DATA_OVERHEAD], at + 1, length)


def test_1_mib_is_the_longest() -> None:
    message = encode(Data(1, bytes(MAX_FRAME_SIZE - DATA_OVERHEAD)))
    sink = Sink()
    sink.feed(message, [12, 500_000])
    assert sink.got == [(1, bytes(MAX_FRAME_SIZE - DATA_OVERHEAD), False)]
    with pytest.raises(ProtocolError, match="1 MiB"):
        Reader().feed(b"\x93", 0, MAX_FRAME_SIZE + 1)
    with pytest.raises(ProtocolError, match="1 MiB"):
        Reader().feed(bytes(MAX_FRAME_SIZE + 1), 0, MAX_FRAME_SIZE + 1)


@pytest.mark.parametrize(("offset", "length"), [(1, 22), (6, 22), (5, 23), (5, 21), (0, 22)])
def test_parts_out_of_order_are_the_callers_mistake(offset: int, length: int) -> None:
    reader = Reader()
    reader.feed(DATA[:5], 0, 22)
    with pytest.raises(LocalError):
        reader.feed(DATA[offset:], offset, length)


def test_more_than_the_length_is_the_callers_mistake() -> None:
    with pytest.raises(LocalError):
        Reader().feed(DATA, 0, len(DATA) - 1)


def test_a_long_run_over_many_sockets() -> None:
    chance = Random(0)
    for _ in range(200):
        sink, body = Sink(), chance.randbytes(chance.randrange(1, 400))
        cut = chance.randrange(1, 60)
        sent = [encode(Data(1, body[at : at + cut])) for at in range(0, len(body), cut)]
        for message in sent:
            while chance.random() < 0.5:
                sink.feed(message, [chance.randrange(len(message))], until=chance.randrange(len(message)))
                sink.cut()
            sink.feed(message, [chance.randrange(len(message))])
        assert b"".join(item[1] for item in sink.got if isinstance(item, tuple)) == body
