"""One WebSocket of a link, on the transport that the HTTP server gave up. Knows frames as bytes, and no session.

It goes under aiohttp's own WebSocket classes: there a chunk would pass a queue, a task and five copies.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, Protocol, cast

from gateway.websocket import BINARY, PING, PONG, FramingError, Parser, close_frame, frame_header
from protocol.dial import CLOSE_NORMAL
from protocol.frames import MAX_FRAME_SIZE

# Together, with the frame of 64 KiB that may go beyond the first: less than 256 KiB below the scheduler
# (docs/protocol.md §2.6).
UNSENT_MOST: Final = 80 << 10  # bytes that are given to a transport that holds none; two frames, mostly, in one write
NOTSENT_LOWAT: Final = 96 << 10  # bytes that the kernel may hold unsent

CLOSE_TIMEOUT: Final = 2.0  # seconds for the peer to end its side after our close frame


class SocketOwner(Protocol):
    """Whom a socket tells: its link. After one of the last three it tells nothing more."""

    def message_part(self, part: bytes, offset: int, length: int) -> None: ...
    def heard(self) -> None:
        """A ping or a pong."""

    def received(self) -> None:
        """All that came in one turn was handed over."""

    def writable(self) -> None:
        """There is room again, or for the first time."""

    def socket_lost(self, reason: str) -> None:
        """The connection is gone, without a word."""

    def socket_closed(self, code: int) -> None:
        """The peer's close frame came, and was answered."""

    def socket_broken(self, error: FramingError) -> None:
        """The peer is no WebSocket client for a link: to be closed by the owner."""


class LinkSocket(asyncio.Protocol):
    """Begins with the 101, when it is given a transport; ends when that is gone, which `gone` says.

    From `close`, `abort` or the loss of the connection on, it `is_closed` and its owner hears nothing.
    """

    def __init__(self, owner: SocketOwner) -> None:
        self.is_closed = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner: SocketOwner | None = owner
        self._parser = Parser(self, MAX_FRAME_SIZE)
        self._transport: asyncio.Transport | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._farewell: tuple[int, str] | None = None

    @property
    def room(self) -> int:
        """Bytes that may be sent now, about. Where it is 0, `writable` follows."""
        transport = self._transport
        if transport is None or self._is_paused or self.is_closed or transport.is_closing():
            return 0
        return UNSENT_MOST

    def send(self, messages: list[bytes]) -> None:
        """Binary messages, in one write. Only where there is room."""
        assert self._transport is not None, "there is no room before there is a transport"
        parts: list[bytes] = []
        for message in messages:
            parts += (frame_header(BINARY, len(message)), message)
        self._transport.write(b"".join(parts))

    def ping(self) -> None:
        """Ask for a sign of life, unless what was sent before stands in the way: that asks already."""
        if self.room > 0:
            self._write(frame_header(PING, 0))

    def close(self, code: int, reason: str = "") -> None:
        """Say why, hear nothing more, and be gone in `CLOSE_TIMEOUT` at the latest. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self._owner = None
        if self._transport is None:
            self._farewell = code, reason  # said behind the 101
        elif not self._transport.is_closing():
            self._say_farewell(self._transport, code, reason)

    def _say_farewell(self, transport: asyncio.Transport, code: int, reason: str) -> None:
        transport.write(close_frame(code, reason))
        if transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer's reset is in the kernel, and asyncio has not read it yet
                transport.write_eof()
        self._close_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, transport.abort)

    def abort(self) -> None:
        """Be gone now. Idempotent."""
        self.is_closed = True
        self._owner = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = self._transport = cast(asyncio.Transport, transport)
        # What the kernel does not take at once pauses, and `resume_writing` comes when it has taken all. Not 0:
        # asyncio's TLS pauses at the mark, and would be paused by nothing.
        stream.set_write_buffer_limits(high=1, low=0)
        raw = stream.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):  # no TCP: the system's own bound is looser
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
        if self._farewell is not None:  # its owner ended meanwhile
            self._say_farewell(stream, *self._farewell)
            return
        if self.is_closed:
            stream.abort()
            return
        stream.resume_reading()
        if self._owner is not None:
            self._owner.writable()

    def data_received(self, data: bytes) -> None:
        if self._owner is None:
            return
        try:
            self._parser.feed(data)
        except FramingError as error:
            owner = self._let_go()
            if owner is not None:
                owner.socket_broken(error)
        if self._owner is not None:
            self._owner.received()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        # A write that fails within this call would have asyncio's transport end twice, and log a traceback.
        asyncio.get_running_loop().call_soon(self._say_writable)

    def eof_received(self) -> bool:
        self._lose("the function closed the connection")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._lose(type(error).__name__ if error else "the connection was closed")
        if not self.gone.done():
            self.gone.set_result(None)

    # the parser's side

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        if self._owner is not None:
            self._owner.message_part(part, offset, length)

    def ping_received(self, payload: bytes) -> None:
        if self._owner is not None:
            self._owner.heard()
            if self.room > 0:  # a peer that only pings and never reads gets no answer
                self._write(frame_header(PONG, len(payload)) + payload)

    def pong_received(self) -> None:
        if self._owner is not None:
            self._owner.heard()

    def close_received(self, code: int) -> None:
        owner = self._owner
        self.close(CLOSE_NORMAL)
        if owner is not None:
            owner.socket_closed(code)

    # inside

    def _say_writable(self) -> None:
        if self._owner is not None and not self._is_paused:
            self._owner.writable()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None, "there is no room before there is a transport"
        self._transport.write(data)

    def _let_go(self) -> SocketOwner | None:
        """The owner, which hears nothing more."""
        owner, self._owner = self._owner, None
        return owner

    def _lose(self, reason: str) -> None:
        owner = self._let_go()
        self.is_closed = True
        if owner is not None:
            owner.socket_lost(reason)
