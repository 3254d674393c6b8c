"""Messages of clients: any split gives the same, and `websockets` agrees on messages, closes and errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.message_parser import MessageParser
from gateway.websocket import BINARY, CLOSE, NO_STATUS, PING, TEXT, FramingError, is_close_code
from tests.gateway.test_websocket import controls, frame, masks, payloads, split

MAX_SIZE = 1 << 20
Told = tuple[str, object]


@dataclass
class Heard:
    """Keeps what it is told."""

    told: list[Told] = field(default_factory=list)

    def message_received(self, data: bytes, text: bool) -> None:
        assert type(data) is bytes
        self.told.append(("text" if text else "binary", data))

    def ping_received(self, payload: bytes) -> None:
        self.told.append(("ping", payload))

    def pong_received(self) -> None:
        self.told.append(("pong", b""))

    def close_received(self, code: int, reason: bytes) -> None:
        self.told.append(("close", (code, reason)))


def parse(pieces: Iterable[bytes], max_size: int = MAX_SIZE) -> tuple[list[Told], int | None]:
    heard = Heard()
    parser = MessageParser(heard, max_size)
    try:
        for piece in pieces:
            parser.feed(piece)
    except FramingError as error:
        return heard.told, error.code
    return heard.told, None


def oracle(data: bytes) -> tuple[list[Told], int | None]:
    """The same of `websockets`, whose text is checked at its end alone."""
    server = ServerProtocol(state=State.OPEN, max_size=MAX_SIZE)
    server.receive_data(data)
    told: list[Told] = []
    kind, fragments = "", b""
    for event in server.events_received():
        assert isinstance(event, Frame)
        payload = bytes(event.data)
        match event.opcode:
            case Opcode.PING:
                told.append(("ping", payload))
            case Opcode.PONG:
                told.append(("pong", b""))
            case Opcode.CLOSE:
                try:
                    closed = Close.parse(payload) if payload else None
                    told.append(("close", (int(closed.code), closed.reason.encode()) if closed else (NO_STATUS, b"")))
                except (ProtocolError, UnicodeDecodeError) as error:
                    return told, 1002 if isinstance(error, ProtocolError) else 1007
                return told, None
            case _:
                kind = {Opcode.TEXT: "text", Opcode.BINARY: "binary"}.get(event.opcode, kind)
                fragments += payload
                if event.fin:
                    if kind == "text" and not is_utf8(fragments):
                        return told, 1007
                    told.append((kind, fragments))
                    fragments = b""
    error = server.parser_exc
    if error is None or isinstance(error, EOFError):
        return told, None
    return told, {"PayloadTooBig": 1009, "ProtocolError": 1002, "UnicodeDecodeError": 1007}[type(error).__name__]


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message in fragments, cut anywhere, control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(st.text(max_size=40).map(str.encode)) if opcode == TEXT else draw(payloads)
    pieces = split(payload, draw(st.lists(st.integers(0, 1 << 20), max_size=3))) or [b""]
    data = b""
    for number, piece in enumerate(pieces):
        data += frame(opcode if number == 0 else 0, piece, final=number == len(pieces) - 1, mask=draw(masks))
        data += b"".join(draw(st.lists(controls, max_size=1)))
    return data


conversations = st.lists(st.one_of(messages(), controls), max_size=6).map(b"".join)


@given(conversations, st.lists(st.integers(0, 1 << 20), max_size=40))
def test_any_split_of_any_frames_gives_the_same_messages(data: bytes, cuts: list[int]) -> None:
    told, code = parse([data])
    assert code is None
    assert parse(split(data, cuts)) == (told, None)
    assert oracle(data) == (told, None)


@given(conversations, st.data())
@settings(max_examples=300)
def test_what_is_malformed_is_refused_where_websockets_refuses_it(data: bytes, draw: st.DataObject) -> None:
    """One byte of the first forty is another. Or the parser is stricter: it waits for no text to end, and not for
    a payload that it will not take, and takes no longer form of a control frame's length."""
    changed = bytearray(data or frame(BINARY, b"x"))
    changed[draw.draw(st.integers(0, min(len(changed) - 1, 40)))] = draw.draw(st.integers(0, 255))
    expected, wanted = oracle(bytes(changed))
    if any(kind == "close" for kind, _ in expected):
        return  # what follows a close is nobody's business
    told, code = parse(split(bytes(changed), draw.draw(st.lists(st.integers(0, 1 << 20), max_size=5))))
    assert (told, code) == (expected, wanted) or (told == expected[: len(told)] and code in (1002, 1007))


@given(st.binary(max_size=30), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30))
@example(b"\xed\xa0\x80", [], 0)
@example(b"\xf4\x90\x80\x80", [1, 2, 3], 2)
def test_text_is_utf8_or_refused_at_the_latest_at_its_end(payload: bytes, cuts: list[int], fragment: int) -> None:
    begin, end = payload[: fragment % (len(payload) + 1)], payload[fragment % (len(payload) + 1) :]
    data = frame(TEXT, begin, final=False) + frame(PING, b"") + frame(0, end)
    told, code = parse(split(data, cuts))
    if is_utf8(payload):
        assert (told, code) == ([("ping", b""), ("text", payload)], None)
    else:
        assert code == 1007 and ("text", payload) not in told


@pytest.mark.parametrize("code", [*range(995, 1020), 1099, 2999, 3000, 4999, 5000, 65_535, 0])
def test_close_codes(code: int) -> None:
    told, error = parse([frame(CLOSE, code.to_bytes(2, "big") + b"why")])
    if is_close_code(code):
        assert (told, error) == ([("close", (code, b"why"))], None)
    else:
        assert (told, error) == ([], 1002)
    try:
        Close(code, "").check()
        is_good = True
    except ProtocolError:
        is_good = False
    assert is_good is is_close_code(code), "as websockets has it"


def test_a_pause_keeps_what_follows() -> None:
    heard = Heard()
    parser = MessageParser(heard, MAX_SIZE)
    parser.is_paused = True
    parser.feed(frame(TEXT, b"a") + frame(TEXT, b"b"))
    parser.feed(frame(TEXT, b"c")[:3])
    assert heard.told == []
    parser.is_paused = False
    parser.feed(b"")
    assert heard.told == [("text", b"a"), ("text", b"b")]
    parser.feed(frame(TEXT, b"c")[3:])
    assert heard.told[2:] == [("text", b"c")]


@pytest.mark.parametrize("size", [9, 10, 11])
def test_the_limit_is_of_the_whole_message(size: int) -> None:
    whole = frame(BINARY, bytes(size))
    pieces = frame(BINARY, bytes(5), final=False) + frame(0, bytes(size - 5))
    for data in (whole, pieces):
        assert parse([data], 10)[1] == (None if size <= 10 else 1009)
