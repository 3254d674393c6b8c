"""Messages in pieces, cut anywhere, as often as one likes."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import frames as fr
from protocol.codec import encode
from protocol.errors import LocalError, ProtocolError
from protocol.reader import Piece, Reader

BODY = Random(1).randbytes(500)


def feed(reader: Reader, message: bytes, *cuts: int) -> list[Piece | bytes]:
    """Everything that comes out of one message, cut at these offsets."""
    bounds = [0, *sorted(cut for cut in cuts if cut < len(message)), len(message)]
    got = [reader.feed(message[a:b], a, len(message)) for a, b in zip(bounds, bounds[1:], strict=False)]
    return [bytes(one) if isinstance(one, (bytearray, memoryview)) else one for one in got if one is not None]


def payload(pieces: list[Piece | bytes]) -> bytes:
    return b"".join(bytes(piece.data) for piece in pieces if isinstance(piece, Piece))


def test_a_whole_data_frame_is_one_piece_without_a_copy() -> None:
    message = encode(fr.Data(7, BODY, end=True))
    (piece,) = feed(Reader(), message)
    assert isinstance(piece, Piece)
    assert (piece.stream, piece.end, piece.first, piece.last, piece.length) == (7, True, True, True, len(message))
    assert piece.data.obj is message


def test_any_other_frame_comes_out_as_it_is() -> None:
    for frame in (fr.Ack(1), fr.Message(1, BODY, text=True), fr.Trailers(1, [(b"a", BODY)])):
        message = encode(frame)
        reader = Reader()
        assert feed(reader, message) == [message]
        assert feed(reader, message, 1, 2, 12) == [message]


@given(cuts=st.lists(st.integers(0, 512), max_size=6), end=st.booleans())
def test_data_is_passed_on_as_it_comes(cuts: list[int], end: bool) -> None:
    message = encode(fr.Data(7, BODY, end=end))
    reader = Reader()
    pieces = feed(reader, message, *cuts)
    assert payload(pieces) == BODY
    assert [piece.first for piece in pieces if isinstance(piece, Piece)] == [True] + [False] * (len(pieces) - 1)
    last = pieces[-1]
    assert isinstance(last, Piece) and last.last
    assert not any(piece.last for piece in pieces[:-1] if isinstance(piece, Piece))
    assert payload(feed(reader, message)) == BODY, "ready for the next"


@given(data=st.data())
def test_every_byte_comes_out_once_over_any_number_of_sockets(data: st.DataObject) -> None:
    """The next counted frame is replayed on each socket until it was whole; DATA is passed on meanwhile."""
    messages = [encode(fr.Data(1, BODY[:n], end=n == 3)) for n in (0, 100, 1, 3)]
    reader = Reader()
    out: list[list[bytes]] = []
    for message in messages:
        got: list[bytes] = []
        while True:
            is_cut = data.draw(st.booleans())
            size = data.draw(st.integers(0, len(message) - 1)) if is_cut else len(message)
            cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=3))})
            pieces = [reader.feed(message[a:b], a, len(message)) for a, b in zip(cuts, cuts[1:], strict=False)]
            got += [bytes(piece.data) for piece in pieces if isinstance(piece, Piece)]
            if not is_cut:
                break
            reader.cut()
        out.append(got)
    assert [b"".join(got) for got in out] == [message[12:] for message in messages]


def test_a_cut_before_the_prefix_was_seen_again_keeps_the_longer_one() -> None:
    message = encode(fr.Data(1, BODY))
    reader = Reader()
    first = feed_part(reader, message, 300)
    reader.cut()
    assert feed_part(reader, message, 100) == b""
    reader.cut()
    assert first + payload(feed(reader, message)) == BODY


def feed_part(reader: Reader, message: bytes, size: int) -> bytes:
    piece = reader.feed(message[:size], 0, len(message))
    return bytes(piece.data) if isinstance(piece, Piece) else b""


@pytest.mark.parametrize(
    "other",
    [fr.Data(2, BODY), fr.Data(1, BODY, end=True), fr.Data(1, BODY[1:])],
    ids=["stream", "type", "length"],
)
@pytest.mark.parametrize("cuts", [(), (200,)])
def test_another_frame_in_the_place_of_the_cut_one_is_an_error(other: fr.Data, cuts: tuple[int, ...]) -> None:
    reader = Reader()
    feed_part(reader, encode(fr.Data(1, BODY)), 100)
    reader.cut()
    with pytest.raises(ProtocolError):
        feed(reader, encode(other), *cuts)


def test_a_counted_frame_in_the_place_of_the_cut_one_is_an_error() -> None:
    reader = Reader()
    feed_part(reader, encode(fr.Data(1, BODY)), 100)
    reader.whole_counted()  # of this socket's order nothing is wrong yet
    reader.cut()
    with pytest.raises(ProtocolError):
        reader.whole_counted()


def test_a_frame_of_which_nothing_was_passed_on_leaves_nothing_behind() -> None:
    reader = Reader()
    message = encode(fr.Data(1, BODY))
    for size in (5, 12):
        assert feed_part(reader, message, size) == b""
        reader.cut()
    assert payload(feed(reader, encode(fr.Data(2, b"other")))) == b"other"


def test_the_declared_length_is_checked_before_anything_is_passed_on() -> None:
    message = encode(fr.Data(1, BODY))
    for length in (len(message) - 1, len(message) + 1):
        with pytest.raises(ProtocolError):
            Reader().feed(message[:100], 0, length)
        with pytest.raises(ProtocolError):
            reader = Reader()
            reader.feed(message[:5], 0, length)
            reader.feed(message[5:100], 5, length)


def test_a_message_above_1_mib_is_refused_at_its_first_byte() -> None:
    with pytest.raises(ProtocolError):
        Reader().feed(b"\x93", 0, fr.MAX_FRAME_SIZE + 1)


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (99, 512), (101, 512), (100, 511), (100, 513)])
def test_parts_out_of_order_are_the_drivers_mistake(offset: int, length: int) -> None:
    message = encode(fr.Data(1, BODY))
    assert len(message) == 512
    reader = Reader()
    before = feed_part(reader, message, 100)
    with pytest.raises(LocalError):
        reader.feed(message[100:200], offset, length)
    piece = reader.feed(message[100:], 100, 512)
    assert isinstance(piece, Piece) and before + bytes(piece.data) == BODY, "nothing changed"


def test_a_part_beyond_its_message_is_the_drivers_mistake() -> None:
    with pytest.raises(LocalError):
        Reader().feed(bytes(10), 0, 9)
