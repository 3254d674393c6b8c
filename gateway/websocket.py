"""The WebSocket framing of a dialled link, server side, sans-I/O (RFC 6455 §5). Knows no socket and no session.

Payloads are handed on as they come, unmasked in C: a frame of 1 MiB need not be whole before its first byte goes on.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import Final, Protocol

from websockets.speedups import apply_mask

MAX_CONTROL_SIZE: Final = 125  # bytes, RFC 6455 §5.5
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA


class FramingError(Exception):
    """The peer broke RFC 6455; `code` is the close code that says how."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Receiver(Protocol):
    """Whom a parser tells."""

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        """The next bytes of a binary message of `length` bytes."""

    def ping_received(self, payload: bytes) -> None: ...
    def pong_received(self) -> None: ...
    def close_received(self, code: int) -> None: ...


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a client's key (RFC 6455 §4.2.2)."""
    return b64encode(sha1((key + _GUID).encode("ascii"), usedforsecurity=False).digest()).decode("ascii")


def frame_header(opcode: int, size: int) -> bytes:
    """The header of an unmasked, unfragmented frame."""
    if size < 126:
        return bytes((0x80 | opcode, size))
    if size < 1 << 16:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()[: MAX_CONTROL_SIZE - 2]


class Parser:
    """Begins after the handshake; ends with its socket, or with the `FramingError` that it raised."""

    __slots__ = ("_fragments", "_header", "_length", "_mask", "_max_size", "_offset", "_opcode", "_receiver", "_small")

    def __init__(self, receiver: Receiver, max_size: int) -> None:
        """`max_size`: bytes of a message, of all its fragments together."""
        self._receiver = receiver
        self._max_size = max_size
        self._header = bytearray()  # of a frame whose header is not whole
        self._opcode = -1  # of the frame that is being read; -1: a header comes next
        self._length = 0
        self._offset = 0  # payload bytes read
        self._mask = b""
        self._small = bytearray()  # payload of a control frame, or of a fragment
        self._fragments: bytearray | None = None  # of an unfinished fragmented message

    def feed(self, data: bytes | memoryview) -> None:
        """Raises `FramingError`; whatever the receiver raises passes through."""
        view = memoryview(data)
        while view:
            if self._opcode < 0:
                view = self._read_header(view)
                if self._opcode >= 0 and self._length == 0:
                    self._payload(b"")
                continue
            chunk = view[: self._length - self._offset]
            view = view[len(chunk) :]
            turn = self._offset & 3
            mask = self._mask[turn:] + self._mask[:turn] if turn else self._mask
            self._payload(apply_mask(chunk, mask))

    def _read_header(self, view: memoryview) -> memoryview:
        header = self._header
        before = len(header)
        header += view[: 14 - before]  # the longest header
        if len(header) < 2:
            return view[len(header) - before :]
        size = header[1] & 0x7F
        extended = 2 if size == 126 else 8 if size == 127 else 0
        whole = 2 + extended + 4
        if not header[1] & 0x80:
            raise FramingError(1002, "a frame that is not masked")
        if header[0] & 0x70:
            raise FramingError(1002, "reserved bits are set")
        if len(header) < whole:
            return view[len(header) - before :]
        if extended:
            size = int.from_bytes(header[2 : 2 + extended], "big")
        self._begin(header[0], size)
        self._mask = bytes(header[whole - 4 : whole])
        header.clear()
        return view[whole - before :]

    def _begin(self, first: int, size: int) -> None:
        opcode, is_final = first & 0x0F, bool(first & 0x80)
        if opcode >= CLOSE:
            if opcode > PONG or not is_final or size > MAX_CONTROL_SIZE:
                raise FramingError(1002, "a malformed control frame")
        elif opcode == TEXT:
            raise FramingError(1003, "a text message")
        elif opcode > BINARY:
            raise FramingError(1002, "an unknown opcode")
        elif (opcode == CONTINUATION) != (self._fragments is not None):
            raise FramingError(1002, "fragments out of order")
        elif size + len(self._fragments or b"") > self._max_size:
            raise FramingError(1009, "a message above 1 MiB")
        if opcode == BINARY and not is_final:
            self._fragments = bytearray()
        self._opcode, self._length, self._offset = first, size, 0

    def _payload(self, part: bytes) -> None:
        opcode, is_final = self._opcode & 0x0F, bool(self._opcode & 0x80)
        offset, length = self._offset, self._length
        self._offset += len(part)
        is_whole = self._offset == length
        if is_whole:
            self._opcode = -1
        if opcode == BINARY and is_final:
            self._receiver.message_part(part, offset, length)
            return
        if opcode < CLOSE:
            assert self._fragments is not None
            self._fragments += part
            if is_whole and is_final:
                message, self._fragments = bytes(self._fragments), None
                self._receiver.message_part(message, 0, len(message))
            return
        self._small += part
        if is_whole:
            payload = bytes(self._small)
            self._small.clear()
            self._control(opcode, payload)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._receiver.ping_received(payload)
        elif opcode == PONG:
            self._receiver.pong_received()
        elif len(payload) == 1:
            raise FramingError(1002, "a malformed close")
        else:
            self._receiver.close_received(int.from_bytes(payload[:2], "big") if payload else 1005)
