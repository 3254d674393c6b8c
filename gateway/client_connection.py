"""A client's connection: aiohttp's C parser (llhttp, strict), driven by a protocol of ours, without its server.

A request is served in the call that brings it; those behind it wait here, in order. Knows bytes, the parser, clocks and
the connection's end; of a request only that it is current (`CurrentRequest`). Somewhat long, because what may be read,
served and closed when is one state, which parts of it could only pass to each other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from typing import Final, Protocol, cast

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from gateway.current_request import CurrentRequest
from gateway.errors import Problem, RequestRefused
from gateway.leave_probe import LeaveProbe
from gateway.limits import HttpLimits
from gateway.open_websockets import OpenWebSockets
from gateway.outgoing import Outgoing, Turn
from gateway.parse_error import problem_of
from gateway.received_request import Front, ReceivedRequest
from gateway.sides import RequestHead

LOG: Final = logging.getLogger("dialback.http")
#: aiohttp compares a name with what is left of the one before it, so its own bound on a field is not exact:
#: `request_head` keeps ours.
PARSER_FIELD_SLACK: Final = 2
MAX_PIPELINED: Final = 32  # requests that wait behind the current one; then nothing more is read …
RESUME_PIPELINED: Final = 16  # … until so few are left
CUT_SHORT: Final = Problem("bad-request", "The body ended before it was whole.")


class Listener(Protocol):
    """Whose connection it is."""

    @property
    def connections(self) -> set[ClientConnection]:
        """Those whose socket is theirs."""

    @property
    def websockets(self) -> OpenWebSockets:
        """Those that connections have become."""

    @property
    def turn(self) -> Turn: ...
    @property
    def count(self) -> int: ...


class ClientConnection(asyncio.Protocol):
    """Begins when a client connects; ends when its socket does, or when the socket is handed to another protocol."""

    __slots__ = (
        "transport", "outgoing", "peer", "port", "scheme", "current", "failure", "is_surplus", "is_writing_paused",
        "known", "_server", "_front", "_limits", "_loop", "_parser", "_waiting", "_newest", "_seen", "_idle",
        "_is_deaf", "_is_over", "_is_upgrading", "_came_early", "_is_body_full", "_is_queue_full", "_probe",
        "_head_timer", "_idle_timer", "_idle_since", "_end_timer", "_free", "__weakref__",
    )  # fmt: skip

    def __init__(self, server: Listener, front: Front, limits: HttpLimits) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        """None: before and after."""
        self.outgoing: Outgoing
        """The way to the client, from `connection_made` on: nothing is written but through it."""
        self.peer = ("", 0)
        """The client's address and port, as the socket has them."""
        self.port = 0
        """Ours."""
        self.scheme = "http"
        self.current: CurrentRequest | None = None
        """The request that is served; it is told of what happens here, until `served` or `finish`."""
        self.failure: Problem | None = None
        """Why nothing more is understood on this connection."""
        self.is_surplus = False
        """There are too many: its requests are refused, unless they are for the gateway's own paths."""
        self.is_writing_paused = False
        """The client reads too slowly."""
        self.known: tuple[tuple[object, ...], RequestHead] | None = None
        """What the client said last, and its judgement: most say the same again."""
        self._server = server
        self._front = front
        self._limits = limits
        self._loop = loop
        self._parser = HttpRequestParser(
            self,  # type: ignore[arg-type]  # what it, and the body's reader, ask of a protocol is below
            loop,
            limits.read_buffer,
            max_line_size=limits.request_line,
            max_field_size=limits.header_field * PARSER_FIELD_SLACK,
            max_headers=limits.header_count,
            auto_decompress=False,
            max_msg_queue_size=MAX_PIPELINED,
        )
        self._waiting: deque[ReceivedRequest] = deque()
        self._newest: StreamReader = EMPTY_PAYLOAD  # the body of the request that was parsed last
        self._seen = 0  # bytes of that body, when last looked at
        self._idle = 0  # bytes since the parser last made something of them
        self._is_deaf = False  # what comes is dropped
        self._is_over = False  # no request is served any more
        self._is_upgrading = False  # the newest request is a WebSocket's handshake
        self._came_early = False  # bytes behind it
        self._is_body_full = False
        self._is_queue_full = False
        self._probe: LeaveProbe | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0
        self._end_timer: asyncio.TimerHandle | None = None  # of an end, or of who must take its response
        self._free: asyncio.Future[None] | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what a stalled client can make us hold: our buffer, and the kernel's."""
        stream = self.transport = cast(asyncio.Transport, transport)
        limits, server = self._limits, self._server
        self.outgoing = Outgoing(stream, server.turn)
        server.connections.add(self)
        self.is_surplus = server.count > limits.max_connections
        if self.is_surplus:
            self._front.connections_full(limits.max_connections)
            if server.count > limits.max_connections + limits.max_refusals:
                return stream.abort()
        self.peer, ours = _address(stream, "peername"), _address(stream, "sockname")
        self.port = ours[1]
        self.scheme = "https" if stream.get_extra_info("sslcontext") is not None else "http"
        self._probe = LeaveProbe(self._loop, transport, looked=self._looked, left=self._left)
        self._head_timer = self._loop.call_later(limits.request_head, self._head_is_late)
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(limits.keep_alive, self._idle_is_over)
        stream.set_write_buffer_limits(high=limits.write_buffer)
        connection = stream.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limits.kernel_unsent)
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.kernel_unsent)

    def data_received(self, data: bytes) -> None:
        """Parse, and serve what is there."""
        if self._is_deaf:
            return
        if self._is_upgrading:
            self._came_early = True
            self._hold_back()
            return
        if self._parse(data):
            self._serve_waiting()
        if self.current is not None:
            self.current.body_arrived()

    def eof_received(self) -> bool:
        """A client that closes its half has gone: no browser or library does so and goes on reading. (Else asyncio
        would wait until it has taken all that was written.) Only a body that is cut short is answered."""
        if self.current is not None:
            self.current.half_closed()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is gone."""
        self._forget()
        if self.current is not None:
            self.current.client_gone("client left")
        self._say_free()

    def pause_writing(self) -> None:
        self.is_writing_paused = True
        if self.current is not None:
            self.current.client_paused()

    def resume_writing(self) -> None:
        self.is_writing_paused = False
        if self.current is not None:
            self.current.client_resumed()
        elif not self._is_over and self._end_timer is not None:  # it has taken its response
            self._end_timer.cancel()
            self._end_timer = None
            self._rest()

    # What aiohttp's parser, and the reader that it makes of a body, ask of their protocol

    @property
    def connected(self) -> bool:
        return self.transport is not None

    def pause_reading(self) -> None:
        """The body's reader holds as much as it may."""
        self._is_body_full = True
        self._hold_back()

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._is_body_full:
            self._is_body_full = False
            self._read_on()

    # The current request's side

    @property
    def websockets(self) -> OpenWebSockets:
        """Those that connections of this listener have become."""
        return self._server.websockets

    @property
    def is_blind(self) -> bool:
        """Reading is held back, because an upload or a queue of requests is: asyncio does not see the client's leaving
        meanwhile, so that `LeaveProbe` looks for it."""
        return self._is_body_full or self._is_queue_full or self._came_early

    def served(self) -> None:
        """The current request's response is with the transport, and the connection is of further use: the next one,
        once a slow client has taken enough for that."""
        self.current = None
        if self.is_writing_paused and self.transport is not None:
            self._end_timer = self._loop.call_later(self._limits.flush, self.transport.abort)
        else:
            self._rest()

    def finish(self, *, linger: bool) -> None:
        """The current request's response is with the transport, and is the last one. `linger`: the client may still be
        sending."""
        self.current = None
        self._is_over = self._is_deaf = True
        self._waiting.clear()
        self.outgoing.flush()
        transport = self.transport
        if transport is None or transport.is_closing():
            self._close()
            return
        if not linger:
            self._close()
            return
        # Say that nothing more comes, and read on for a while: closing with unread bytes would reset the connection,
        # and the response with it (RFC 9112, section 9.6).
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # the client has reset the connection, and asyncio has not read of it yet
            transport.abort()
            return
        self._is_body_full = self._is_queue_full = self._came_early = False
        self._read_on()
        self._end_timer = self._loop.call_later(self._limits.linger, self._close)

    def hand_over(self, protocol: asyncio.BaseProtocol, head: bytes) -> None:
        """Write `head`, which accepts an upgrade, and give the socket to `protocol`.

        All in one step of the loop: bytes that come right after the 101 find the new protocol.
        `protocol.connection_made` is called, with the transport, after the head was written. Raises `RequestRefused`
        where the client sent something before it saw the 101, and ConnectionResetError where it has gone.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("client left")
        if self._came_early:
            raise RequestRefused(Problem("bad-request", "Bytes came before the upgrade was accepted."))
        self.outgoing.write(head)
        self._forget()
        self.current = None
        transport.set_protocol(protocol)
        self._say_free()
        try:
            cast(asyncio.Protocol, protocol).connection_made(transport)
        except BaseException:
            transport.abort()  # it has no other owner
            raise

    # The listener's side

    @property
    def is_idle(self) -> bool:
        """It could be closed, and nobody would miss an answer."""
        return self.current is None and self._end_timer is None

    def close(self) -> None:
        """What was written leaves, and nothing else happens here."""
        self._is_over = self._is_deaf = True
        if self.transport is not None:
            self.outgoing.flush()
            self.transport.close()

    async def shutdown(self, timeout: float | None) -> None:
        """Let the current request end within `timeout` seconds, then end it."""
        if not self.is_idle:
            self._free = self._loop.create_future()
            if not await _comes(self._free, timeout) and self.current is not None:
                self.current.stop()
                if not self._free.done():
                    await _comes(self._free, self._limits.linger)
        self.close()

    # Inside

    def _parse(self, data: bytes) -> bool:
        """Whether there is a request more, or nothing more is understood; count what the parser makes nothing of, since
        it does not bound a whole head."""
        try:
            messages, self._is_upgrading, tail = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._fail(problem_of(error, data, self._limits))
            return True
        if messages:
            for message, content in messages:
                self._waiting.append(ReceivedRequest(self, message, content))
            self._newest = content
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            if tail:
                self._came_early = True
                self._hold_back()
            if len(self._waiting) >= MAX_PIPELINED and not self._is_queue_full:
                self._is_queue_full = True
                self._hold_back()
        elif self._newest.total_bytes == self._seen:
            self._idle += len(data)
            if self._idle > self._limits.head:
                self._fail(Problem("header-too-large"))
                return True
            if self._head_timer is None and data and self._newest.is_eof():
                self._head_timer = self._loop.call_later(self._limits.request_head, self._head_is_late)
            return False
        self._seen = self._newest.total_bytes
        self._idle = 0
        return bool(messages)

    def _serve_waiting(self) -> None:
        """What has come, up to what takes time."""
        while self.current is None and self._end_timer is None and not self._is_over:
            if self._waiting:
                request = self._waiting.popleft()
                self._parser.message_consumed()
                if self._is_queue_full and len(self._waiting) <= RESUME_PIPELINED:
                    self._is_queue_full = False
                    if not (self._is_deaf or self._is_upgrading):
                        self._parse(b"")  # what was read already
                    self._read_on()
                self._front.serve(request)
            elif self.failure is not None:
                self._front.refuse(self, self.failure)
            else:
                return

    def _rest(self) -> None:
        """Ready for the next request."""
        if self._is_over:
            return
        if self._waiting or self.failure is not None:
            # Not in this call, which may be the link's, that tells of a response's end before its place is free.
            self._loop.call_soon(self._serve_waiting)
        self._idle_since = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._limits.keep_alive, self._idle_is_over)
        self._say_free()

    def _idle_is_over(self) -> None:
        """Or was not idle for so long: the timer is left to run meanwhile."""
        self._idle_timer = None
        if not self.is_idle:
            return
        left = self._idle_since + self._limits.keep_alive - self._loop.time()
        if left > 0:
            self._idle_timer = self._loop.call_later(left, self._idle_is_over)
        else:
            self.close()

    def _head_is_late(self) -> None:
        """Slow heads are answered; a connection on which nothing came has nobody to answer to."""
        self._head_timer = None
        if self._idle:
            self._fail(Problem("request-head-timeout"))
            self._serve_waiting()
        elif self.transport is not None:
            self.transport.abort()

    def _fail(self, problem: Problem) -> None:
        """What has come so far is no request, and nothing more is read."""
        self.failure = problem
        self._is_deaf = True
        if self.current is not None:
            self.current.body_broken(problem)

    def _hold_back(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        if self._probe is not None:
            self._probe.begin()

    def _read_on(self) -> None:
        if self.is_blind:
            return
        if self._probe is not None:
            self._probe.end()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _looked(self) -> None:
        if self.current is not None:
            self.current.held_back()

    def _left(self) -> None:
        if self.current is not None:
            self.current.client_gone("client left")
        if self.transport is not None:
            self.transport.abort()

    def _close(self) -> None:
        """asyncio waits for its buffer; a client that does not take it is cut off after the limit `flush`."""
        self._end_timer = None
        if self.transport is not None:
            self._end_timer = self._loop.call_later(self._limits.flush, self.transport.abort)
            self.transport.close()

    def _forget(self) -> None:
        """No more of the socket, the listener and the clocks."""
        self._server.connections.discard(self)
        self.transport = None
        self._is_over = self._is_deaf = True
        if self._probe is not None:
            self._probe.close()
        for timer in (self._end_timer, self._head_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._end_timer = self._head_timer = self._idle_timer = self._probe = None
        self._waiting.clear()
        del self._parser  # which knows us

    def _say_free(self) -> None:
        if self._free is not None and not self._free.done():
            self._free.set_result(None)


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int]:
    address = transport.get_extra_info(name)
    return (address[0], address[1]) if isinstance(address, tuple) else ("", 0)


async def _comes(event: asyncio.Future[None], timeout: float | None) -> bool:
    """Wait at most `timeout` seconds for it."""
    return bool((await asyncio.wait((event,), timeout=timeout))[0])
