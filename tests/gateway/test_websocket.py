"""The framing of links: any split gives the same, what is malformed gets its code, and `websockets` agrees."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.speedups import apply_mask

from gateway.websocket import BINARY, CLOSE, NO_STATUS, PING, PONG, FramingError, Parser, close_frame, frame_header

MAX_SIZE = 1 << 20
Told = tuple[str, bytes | int]


@dataclass
class Heard:
    """A receiver that puts parts together, and checks that they come in order."""

    told: list[Told] = field(default_factory=list)
    parts: int = 0
    _message: bytearray = field(default_factory=bytearray)

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        assert type(part) is bytes, "a view of a buffer that is used again would change"
        assert offset == len(self._message) and offset + len(part) <= length
        assert part or not length
        self.parts += 1
        self._message += part
        if len(self._message) == length:
            self.told.append(("message", bytes(self._message)))
            self._message.clear()

    def ping_received(self, payload: bytes) -> None:
        self.told.append(("ping", payload))

    def pong_received(self) -> None:
        self.told.append(("pong", b""))

    def close_received(self, code: int) -> None:
        self.told.append(("close", code))


def frame(
    opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0, mask: bytes = b"\x01\x02\xf3\x04"
) -> bytes:
    """A masked frame as a client sends it; an empty `mask`: not masked."""
    size = len(payload)
    short = size if size < 126 else 126 if size < 1 << 16 else 127
    extended = b"" if size < 126 else struct.pack("!H" if size < 1 << 16 else "!Q", size)
    first = (0x80 if final else 0) | reserved | opcode
    masked = apply_mask(payload, mask) if mask else payload
    return bytes((first, (0x80 if mask else 0) | short)) + extended + mask + masked


def parse(pieces: Iterable[bytes]) -> tuple[list[Told], int | None]:
    """What a parser tells, and the code of its error."""
    heard = Heard()
    parser = Parser(heard, MAX_SIZE)
    try:
        for piece in pieces:
            parser.feed(piece)
    except FramingError as error:
        return heard.told, error.code
    return heard.told, None


def oracle(data: bytes) -> tuple[list[Told], int | None]:
    """The same of `websockets`. Text is refused here, as a link does."""
    server = ServerProtocol(state=State.OPEN, max_size=MAX_SIZE)
    server.receive_data(data)
    told: list[Told] = []
    fragments: list[bytes] = []
    for event in server.events_received():
        assert isinstance(event, Frame)
        match event.opcode:
            case Opcode.TEXT:
                return told, 1003
            case Opcode.PING:
                told.append(("ping", bytes(event.data)))
            case Opcode.PONG:
                told.append(("pong", b""))
            case Opcode.CLOSE:
                code = Close.parse(bytes(event.data)).code if event.data else NO_STATUS
                return [*told, ("close", int(code))], None
            case Opcode.BINARY | Opcode.CONT:
                fragments.append(bytes(event.data))
                if event.fin:
                    told.append(("message", b"".join(fragments)))
                    fragments = []
    error = server.parser_exc
    if error is None or isinstance(error, EOFError):
        return told, None
    return told, {"PayloadTooBig": 1009, "ProtocolError": 1002, "UnicodeDecodeError": 1007}[type(error).__name__]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in zip(at, at[1:], strict=False)]


payloads = st.one_of(st.binary(max_size=20), st.integers(120, 70_000).map(lambda size: os.urandom(8) * (size // 8)))
masks = st.binary(min_size=4, max_size=4)
controls = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=masks)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message in fragments, control frames between them."""
    pieces = draw(st.lists(payloads, min_size=1, max_size=4))
    data = b""
    for number, piece in enumerate(pieces):
        opcode = BINARY if number == 0 else 0
        data += frame(opcode, piece, final=number == len(pieces) - 1, mask=draw(masks))
        data += b"".join(draw(st.lists(controls, max_size=1)))
    return data


conversations = st.lists(st.one_of(messages(), controls), max_size=6).map(b"".join)


@given(conversations, st.lists(st.integers(0, 1 << 20), max_size=40))
def test_any_split_of_any_frames_gives_the_same_messages(data: bytes, cuts: list[int]) -> None:
    told, code = parse([data])
    assert code is None
    assert parse(split(data, cuts)) == (told, None)
    assert oracle(data) == (told, None)


@given(messages())
@settings(max_examples=20)
def test_byte_by_byte_is_a_split_too(data: bytes) -> None:
    data = data[:3000]
    assert parse(data[at : at + 1] for at in range(len(data))) == parse([data])


@given(conversations, st.data())
@settings(max_examples=300)
def test_what_is_malformed_is_refused_where_websockets_refuses_it(data: bytes, draw: st.DataObject) -> None:
    """One byte of a header is another: the same messages came before, and the code is the same.

    Or the parser is stricter: it does not wait for a payload that it will not take, nor for the end of a message before
    it refuses a text, and takes no longer form of a control frame's length (RFC 6455 §5.2: the shortest must be used).
    """
    at = draw.draw(st.integers(0, max(0, min(len(data) - 1, 40))))
    changed = bytearray(data or frame(BINARY, b"x"))
    changed[at] = draw.draw(st.integers(0, 255))
    expected, wanted = oracle(bytes(changed))
    if wanted == 1007 or any(kind == "close" for kind, _ in expected):
        return  # what a close frame's reason says is nobody's business here
    told, code = parse(split(bytes(changed), draw.draw(st.lists(st.integers(0, 1 << 20), max_size=5))))
    assert (told, code) == (expected, wanted) or (told == expected[: len(told)] and code in (1002, 1003))


MALFORMED = {
    "not masked": (frame(BINARY, b"x", mask=b""), 1002),
    "an empty frame that is not masked": (frame(BINARY, b"", mask=b""), 1002),
    "reserved bit 1, compression": (frame(BINARY, b"x", reserved=0x40), 1002),
    "reserved bit 3": (frame(PING, b"", reserved=0x10), 1002),
    "opcode 3": (frame(3, b"x"), 1002),
    "opcode 7": (frame(7, b"x"), 1002),
    "opcode 11": (frame(11, b""), 1002),
    "opcode 15": (frame(15, b""), 1002),
    "text": (frame(1, b"x"), 1003),
    "text that is begun": (frame(1, b"", final=False), 1003),
    "text inside a message": (frame(BINARY, b"x", final=False) + frame(1, b"x"), 1003),
    "a continuation of nothing": (frame(0, b"x"), 1002),
    "a message inside a message": (frame(BINARY, b"x", final=False) + frame(BINARY, b"x"), 1002),
    "a fragmented ping": (frame(PING, b"", final=False), 1002),
    "a ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a message of 1 MiB and one byte": (frame(BINARY, bytes(MAX_SIZE + 1))[:100], 1009),
    "a length of 2^63": (b"\x82\xff\x80" + bytes(7) + b"mask", 1009),
    "fragments of more than 1 MiB": (
        frame(BINARY, bytes(MAX_SIZE), final=False) + frame(0, b"x"),
        1009,
    ),
    "fragments of more than 1 MiB, the last far larger": (
        frame(BINARY, b"x", final=False) + frame(0, bytes(MAX_SIZE))[:20],
        1009,
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_frame_has_its_close_code_in_every_split(case: str) -> None:
    data, code = MALFORMED[case]
    before = frame(PING, b"before")
    assert parse([before + data]) == ([("ping", b"before")], code)
    assert parse([before[:3], before[3:] + data[:1], data[1:]]) == ([("ping", b"before")], code)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (frame(BINARY, b""), ("message", b"")),
        (frame(BINARY, b"", final=False) + frame(0, b""), ("message", b"")),
        (frame(BINARY, bytes(MAX_SIZE)), ("message", bytes(MAX_SIZE))),
        (frame(BINARY, bytes(MAX_SIZE - 1), final=False) + frame(0, b"\0"), ("message", bytes(MAX_SIZE))),
        (frame(PING, bytes(125)), ("ping", bytes(125))),
        (frame(CLOSE, b""), ("close", NO_STATUS)),
        (frame(CLOSE, b"\x03\xe9going"), ("close", 1001)),
    ],
)
def test_what_is_just_within_the_limits_is_taken(data: bytes, told: Told) -> None:
    assert parse([data]) == ([told], None)


def test_a_message_is_told_before_it_is_whole() -> None:
    heard = Heard()
    parser = Parser(heard, MAX_SIZE)
    data = frame(BINARY, b"abcdef")
    parser.feed(data[:-2])
    assert (heard.parts, heard.told) == (1, [])
    parser.feed(data[-2:])
    assert (heard.parts, heard.told) == (2, [("message", b"abcdef")])


def test_a_buffer_that_is_used_again_does_not_change_what_was_told() -> None:
    heard = Heard()
    parser = Parser(heard, MAX_SIZE)
    buffer = bytearray(frame(BINARY, b"abcdef") + frame(BINARY, b"x")[:3])
    parser.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    parser.feed(frame(BINARY, b"x")[3:])
    assert heard.told == [("message", b"abcdef"), ("message", b"x")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, MAX_SIZE])
@pytest.mark.parametrize("opcode", [BINARY, PONG])
def test_headers_are_those_of_websockets(size: int, opcode: int) -> None:
    if opcode == PONG and size > 125:
        return
    payload = bytes(size)
    assert frame_header(opcode, size) + payload == Frame(Opcode(opcode), payload).serialize(mask=False)


def test_a_close_frame_is_that_of_websockets_and_its_reason_is_cut() -> None:
    payload = Close(4002, "the session is over").serialize()
    assert close_frame(4002, "the session is over") == Frame(Opcode.CLOSE, payload).serialize(mask=False)
    assert len(close_frame(1002, "x" * 300)) == 2 + 125
    assert close_frame(1002, "é" * 300)[4:] == ("é" * 61).encode(), "no half of a character"
    assert close_frame(NO_STATUS) == b"\x88\x00"
