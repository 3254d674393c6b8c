"""What a WebSocket client sends, as whole messages (RFC 6455 §5.4, §8.1). Sans-I/O; knows no exchange.

Text that is not UTF-8 is refused at the first byte that shows it, within a frame too.
"""

from __future__ import annotations

import codecs
from typing import Final, Protocol

from gateway.websocket import (
    CLOSE,
    CONTINUATION,
    FINAL,
    NO_STATUS,
    TEXT,
    ControlReceiver,
    FrameParser,
    FramingError,
    is_close_code,
)

_DECODER: Final = codecs.getincrementaldecoder("utf-8")
_NOT_UTF8: Final = "text that is not UTF-8"


class MessageReceiver(ControlReceiver, Protocol):
    """Whom the parser tells."""

    def message_received(self, data: bytes, text: bool) -> None: ...
    def close_received(self, code: int, reason: bytes) -> None:
        """`reason` is UTF-8; `NO_STATUS` for a close frame without a code."""


class MessageParser(FrameParser):
    """Keeps at most one message that is not whole."""

    __slots__ = ("_decoder", "_is_text", "_receiver")
    takes_text = True

    def __init__(self, receiver: MessageReceiver, max_size: int) -> None:
        super().__init__(receiver, max_size)
        self._receiver = receiver
        self._is_text = False  # the message that is being read
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text that comes in parts

    def _payload(self, part: bytes) -> None:
        opcode, is_final = self._opcode & 0x0F, bool(self._opcode & FINAL)
        if opcode >= CLOSE:
            self._control_part(opcode, part)
            return
        if opcode != CONTINUATION and not self._offset:
            self._is_text = opcode == TEXT
        is_end = self._advance(len(part)) and is_final
        if is_end and self._fragments is None:
            if self._is_text:
                _check_text(part)
            self._receiver.message_received(part, self._is_text)
            return
        if self._fragments is None:  # a frame that does not come at once is kept as the first of several
            self._fragments = bytearray()
        if self._is_text:
            self._check_part(part, is_end)
        self._fragments += part
        if is_end:
            message, self._fragments = bytes(self._fragments), None
            self._receiver.message_received(message, self._is_text)

    def _check_part(self, part: bytes, is_end: bool) -> None:
        decoder = self._decoder = self._decoder or _DECODER()
        try:
            decoder.decode(part, is_end)
        except UnicodeDecodeError:
            raise FramingError(1007, _NOT_UTF8) from None
        if is_end:
            self._decoder = None

    def _closed(self, payload: bytes) -> None:
        if not payload:
            self._receiver.close_received(NO_STATUS, b"")
            return
        code, reason = int.from_bytes(payload[:2], "big"), payload[2:]
        if not is_close_code(code):
            raise FramingError(1002, "a close code that is none")
        _check_text(reason)
        self._receiver.close_received(code, reason)


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        raise FramingError(1007, _NOT_UTF8) from None
