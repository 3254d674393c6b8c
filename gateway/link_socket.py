"""One WebSocket of a link, on the transport that the HTTP server gave up. Knows frames as bytes, and no session.

DATAPLANE: under aiohttp's own WebSocket classes, since a chunk would pass a queue, a task and five copies there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, Protocol

from gateway.websocket import BINARY, CLOSE, PING, PONG, FramingError, Parser, close_payload, frame_header
from protocol.errors import ProtocolError
from protocol.frames import MAX_FRAME_SIZE

UNSENT_HIGH: Final = 256 << 10  # bytes below the scheduler, above which it gives nothing more (docs/protocol.md §2.6)
UNSENT_LOW: Final = 64 << 10  # bytes
NOTSENT_LOWAT: Final = 128 << 10  # bytes that the kernel may hold unsent
CLOSE_TIMEOUT: Final = 2.0  # seconds for the peer to end its side after our close frame


class SocketOwner(Protocol):
    """Whom a socket tells: its link."""

    def message_part(self, part: bytes, offset: int, length: int) -> None: ...
    def heard(self) -> None: ...
    def received(self) -> None:
        """All that came in one turn was handed over."""

    def writable(self) -> None: ...
    def socket_lost(self, reason: str) -> None: ...


class LinkSocket(asyncio.Protocol):
    """Begins with the upgrade. From `close`, `abort` or the loss of the connection on, it `is_closed` and its owner hears nothing."""

    def __init__(self, release: Callable[[Exception | None], None]) -> None:
        """`release` is called once, when the connection is gone: the HTTP server still counts it."""
        self.is_closed = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._release = release
        self._owner: SocketOwner | None = None
        self._parser = Parser(self, MAX_FRAME_SIZE)
        self._transport: asyncio.Transport | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._is_paused = False

    def serve(self, transport: asyncio.Transport, owner: SocketOwner) -> None:
        """Take the transport over, in the same step as the 101: a frame sent right after that is not lost."""
        self._owner = owner
        self._transport = transport
        transport.set_write_buffer_limits(high=UNSENT_HIGH, low=UNSENT_LOW)
        raw = transport.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):  # the system's default bounds less tightly
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        transport.set_protocol(self)
        transport.resume_reading()

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        if self.is_closed or self._is_paused or self._transport is None:
            return 0
        return UNSENT_HIGH - self._transport.get_write_buffer_size()

    def send(self, messages: list[bytes]) -> None:
        """Binary messages, in one write."""
        assert self._transport is not None
        parts: list[bytes] = []
        for message in messages:
            parts += (frame_header(BINARY, len(message)), message)
        self._transport.write(b"".join(parts))

    def ping(self) -> None:
        if not self.is_closed and self._transport is not None:
            self._transport.write(frame_header(PING, 0))

    def close(self, code: int, reason: str = "") -> None:
        """Say why, hear nothing more, and be gone in 2 s at the latest. Idempotent."""
        if self.is_closed or self._transport is None:
            return
        self.is_closed = True
        self._owner = None
        payload = close_payload(code, reason)
        self._transport.write(frame_header(CLOSE, len(payload)) + payload)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._transport.abort)

    def abort(self) -> None:
        """Be gone now. Idempotent."""
        self.is_closed = True
        self._owner = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def data_received(self, data: bytes) -> None:
        owner = self._owner
        if owner is None:
            return
        try:
            self._parser.feed(data)
        except FramingError as error:
            self._lose(str(error), error.code)
        except ProtocolError:
            raise AssertionError("a link turns protocol errors into its end") from None
        if self._owner is not None:
            self._owner.received()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._owner is not None:
            self._owner.writable()

    def eof_received(self) -> bool:
        self._lose("the function closed the connection")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(type(error).__name__ if error else "closed")
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._transport = None
        if not self.gone.done():
            self.gone.set_result(None)
        self._release(error)

    # the parser's side

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        if self._owner is not None:
            self._owner.message_part(part, offset, length)

    def ping_received(self, payload: bytes) -> None:
        if self._owner is not None and self._transport is not None:
            self._owner.heard()
            if self.room > 0:  # a peer that only pings and never reads gets no answer
                self._transport.write(frame_header(PONG, len(payload)) + payload)

    def pong_received(self) -> None:
        if self._owner is not None:
            self._owner.heard()

    def close_received(self, code: int) -> None:
        self._lose(f"the function closed the socket ({code})", 1000)

    def _lose(self, reason: str, code: int = 0) -> None:
        owner = self._owner
        if code:
            self.close(code)
        self.is_closed = True
        self._owner = None
        if owner is not None:
            owner.socket_lost(reason)
