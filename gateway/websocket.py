"""The WebSocket framing of the server's side, sans-I/O (RFC 6455 §5): what is common, and what is a link's own.
Knows no socket and no session.

A link's payloads are handed on as they come, unmasked in C: a frame of 1 MiB need not be whole before its first byte
goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final, Protocol

from websockets.speedups import apply_mask

MAX_CONTROL_SIZE: Final = 125  # bytes, RFC 6455 §5.5

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
NO_STATUS: Final = 1005  # a close frame without a code, RFC 6455 §7.4.1
ABNORMAL: Final = 1006  # a connection that ended without a close frame

_NEVER_SENT: Final = frozenset((1004, NO_STATUS, ABNORMAL))
FINAL: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_NO_FRAME: Final = -1


class FramingError(Exception):
    """The peer broke RFC 6455, or sent what is not taken here; `code` is the close code that says so."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ControlReceiver(Protocol):
    """Whom a parser tells of control frames; of close frames in its own way."""

    def ping_received(self, payload: bytes) -> None: ...
    def pong_received(self) -> None: ...


class Receiver(ControlReceiver, Protocol):
    """Whom a link's parser tells."""

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        """The next bytes, from `offset` on, of a binary message of `length` bytes."""

    def close_received(self, code: int) -> None: ...


def frame_header(opcode: int, size: int) -> bytes:
    """The header of an unmasked, unfragmented frame."""
    if size < 126:
        return bytes((FINAL | opcode, size))
    if size < 1 << 16:
        return bytes((FINAL | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((FINAL | opcode, 127)) + size.to_bytes(8, "big")


def close_frame(code: int, reason: str = "") -> bytes:
    """A whole close frame, an empty one for `NO_STATUS`; a reason that is too long is cut."""
    payload = b""
    if code != NO_STATUS:
        payload = code.to_bytes(2, "big") + reason.encode()[: MAX_CONTROL_SIZE - 2]
        payload = payload[:2] + payload[2:].decode("utf-8", "ignore").encode()  # no half of a character
    return frame_header(CLOSE, len(payload)) + payload


class FrameParser(ABC):
    """Begins after the handshake; ends with its socket, or with the `FramingError` that it raised."""

    __slots__ = (
        "_control",
        "_controlled",
        "_cut",
        "_fragments",
        "_length",
        "_mask",
        "_max_size",
        "_offset",
        "_opcode",
        "is_paused",
    )
    takes_text: ClassVar[bool]

    def __init__(self, receiver: ControlReceiver, max_size: int) -> None:
        """`max_size`: bytes of a message, of all its fragments together."""
        self._controlled = receiver
        self._max_size = max_size
        self._cut = b""  # what was fed and not read: the beginning of a header, or all behind a pause
        self._opcode = _NO_FRAME  # the first byte of the frame that is being read
        self._length = 0  # of its payload
        self._offset = 0  # payload bytes read
        self._mask = b""
        self._control = bytearray()  # payload of a control frame
        self._fragments: bytearray | None = None  # of an unfinished fragmented message
        self.is_paused = False
        """Set by whom it tells: what is fed waits, from the next frame on, until something is fed without it."""

    def feed(self, data: bytes | memoryview) -> None:
        """Raises `FramingError`, after which nothing more may be fed; whatever the receiver raises passes through."""
        if self._cut:
            data, self._cut = self._cut + bytes(data), b""
        view = memoryview(data)
        at, end = 0, len(view)
        while at < end:
            if self._opcode == _NO_FRAME:
                begin = 0 if self.is_paused else self._read_header(view, at)
                if not begin:
                    self._cut = bytes(view[at:])
                    return
                at = begin
                if at == end and self._length:
                    return
            stop = min(at + self._length - self._offset, end)
            turn = self._offset & 3
            mask = self._mask[turn:] + self._mask[:turn] if turn else self._mask
            self._payload(apply_mask(view[at:stop], mask))
            at = stop

    def _read_header(self, view: memoryview, at: int) -> int:
        """Begin a frame; where its payload begins, or 0 when the header is not whole."""
        if len(view) - at < 2:
            return 0
        first, second = view[at], view[at + 1]
        self._check_kind(first, second)
        size = second & 0x7F
        extended = 0 if size < 126 else 2 if size == 126 else 8
        begin = at + 2 + extended + 4
        if begin - 4 > len(view):
            return 0
        if extended:
            size = int.from_bytes(view[at + 2 : begin - 4], "big")
        if first & 0x0F < CLOSE and size + len(self._fragments or b"") > self._max_size:
            raise FramingError(1009, f"a message above {self._max_size} bytes")
        if begin > len(view):
            return 0
        if first == BINARY or first == TEXT:  # and not final
            self._fragments = bytearray()
        self._opcode, self._length, self._offset = first, size, 0
        self._mask = bytes(view[begin - 4 : begin])
        return begin

    def _check_kind(self, first: int, second: int) -> None:
        """What the first two bytes of a frame say; looked at again when the header comes in pieces."""
        opcode = first & 0x0F
        if not second & _MASKED:
            raise FramingError(1002, "a frame that is not masked")
        if first & _RESERVED:
            raise FramingError(1002, "reserved bits are set")
        if opcode >= CLOSE:
            if opcode > PONG or not first & FINAL or second & 0x7F > MAX_CONTROL_SIZE:
                raise FramingError(1002, "a malformed control frame")
        elif opcode > BINARY:
            raise FramingError(1002, "an unknown opcode")
        elif opcode == TEXT and not self.takes_text:
            raise FramingError(1003, "a text message")
        elif (opcode == CONTINUATION) != (self._fragments is not None):
            raise FramingError(1002, "fragments out of order")

    @abstractmethod
    def _payload(self, part: bytes) -> None:
        """The next bytes of the frame's payload, unmasked; none for an empty frame."""

    def _advance(self, size: int) -> bool:
        """So much of the frame's payload has come. Whether it is whole, and the next frame begins."""
        self._offset += size
        if self._offset < self._length:
            return False
        self._opcode = _NO_FRAME
        return True

    def _control_part(self, opcode: int, part: bytes) -> None:
        self._control += part
        if not self._advance(len(part)):
            return
        payload = bytes(self._control)
        self._control.clear()
        if opcode == PING:
            self._controlled.ping_received(payload)
        elif opcode == PONG:
            self._controlled.pong_received()
        elif len(payload) == 1:
            raise FramingError(1002, "a malformed close frame")
        else:
            self._closed(payload)

    @abstractmethod
    def _closed(self, payload: bytes) -> None:
        """A close frame came: empty, or two bytes of code and a reason."""


class Parser(FrameParser):
    """A link's: binary messages alone, passed on in parts."""

    __slots__ = ("_receiver",)
    takes_text = False

    def __init__(self, receiver: Receiver, max_size: int) -> None:
        super().__init__(receiver, max_size)
        self._receiver = receiver

    def _payload(self, part: bytes) -> None:
        opcode, is_final = self._opcode & 0x0F, self._opcode & FINAL
        if opcode >= CLOSE:
            self._control_part(opcode, part)
            return
        offset = self._offset
        is_whole = self._advance(len(part))
        if opcode == BINARY and is_final:
            self._receiver.message_part(part, offset, self._length)
        else:
            assert self._fragments is not None, "checked with the header"
            self._fragments += part
            if is_whole and is_final:
                message, self._fragments = bytes(self._fragments), None
                self._receiver.message_part(message, 0, len(message))

    def _closed(self, payload: bytes) -> None:
        self._receiver.close_received(int.from_bytes(payload[:2], "big") if payload else NO_STATUS)


def is_close_code(code: int) -> bool:
    """Whether a close frame may say it (RFC 6455 §7.4 and IANA's registry of 2024)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in _NEVER_SENT)
