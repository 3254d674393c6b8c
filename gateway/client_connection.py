"""A client's connection: aiohttp's parser and request loop, with our errors, our limits and our end.

aiohttp's low-level server is meant to be extended here: a `Server` that makes its own `RequestHandler`. Knows
connections and parse errors; of a request only that it is current (`CurrentRequest`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web import BaseRequest, RequestHandler, Server, StreamResponse
from aiohttp.web_protocol import _ErrInfo

from gateway.current_request import CurrentRequest
from gateway.errors import Problem, RequestRefused
from gateway.leave_probe import LeaveProbe
from gateway.limits import HttpLimits
from gateway.open_websockets import OpenWebSockets
from gateway.parse_error import problem_of

LOG: Final = logging.getLogger("dialback.http")
#: aiohttp compares a name with what is left of the one before it, so its own bound on a field is not exact:
#: `request_head` keeps ours.
PARSER_FIELD_SLACK: Final = 2
CUT_SHORT: Final = Problem("bad-request", "The body ended before it was whole.")
TCP_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Done(StreamResponse):
    """What a handler returns when the response has been written already. Two of them serve for all requests."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: BaseRequest) -> None:
        """Nothing is left to send."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""


KEEP: Final = Done(keep_alive=True)
CLOSE: Final = Done(keep_alive=False)


class Refuser(Protocol):
    """Who answers a request that was not understood."""

    async def refuse(self, request: BaseRequest, problem: Problem) -> StreamResponse: ...
    def connections_full(self, most: int) -> None:
        """One more than `most` has come."""


class ClientConnection(RequestHandler):
    """Begins when a client connects; ends when its socket does, or when the socket is handed to another protocol."""

    __slots__ = (
        "_limits",
        "_refuser",
        "current",
        "failure",
        "is_half_closed",
        "_is_deaf",
        "_newest",
        "_seen",
        "_idle",
        "_end_timer",
        "_lost",
        "_free",
        "_probe",
        "_head_timer",
        "is_surplus",
    )

    def __init__(
        self, server: ClientServer, loop: asyncio.AbstractEventLoop, limits: HttpLimits, refuser: Refuser
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keep_alive,
            logger=LOG,
            access_log=cast(logging.Logger, None),  # documented as "none": the exchange has its own line
            max_line_size=limits.request_line,
            max_field_size=limits.header_field * PARSER_FIELD_SLACK,
            max_headers=limits.header_count,
            lingering_time=0,  # `linger` does it, in bounds
            read_bufsize=limits.read_buffer,
            auto_decompress=False,
        )
        self._limits = limits
        self._refuser = refuser
        self.current: CurrentRequest | None = None
        self.failure: Problem | None = None
        """Why nothing more is understood on this connection."""
        self.is_half_closed = False
        """The client has sent its last byte, within a request that nobody serves yet."""
        self._is_deaf = False
        self._newest: StreamReader = EMPTY_PAYLOAD  # the body of the request that was parsed last
        self._seen = 0  # bytes of that body, when last looked at
        self._idle = 0  # bytes since the parser last made something of them
        self._end_timer: asyncio.TimerHandle | None = None
        self._lost: asyncio.Future[None] | None = None
        self._free: asyncio.Future[None] | None = None
        self._probe: LeaveProbe | None = None
        self.is_surplus = False
        """There are too many: its requests are refused, unless they are for the gateway's own paths."""
        self._head_timer: asyncio.TimerHandle | None = None

    def serving(self, request: CurrentRequest) -> None:
        """`request` is told of what happens here, until `served`."""
        self.current = request

    @property
    def websockets(self) -> OpenWebSockets:
        """Those that connections of this listener have become."""
        return cast(ClientServer, self._manager).websockets

    def served(self) -> None:
        """It is over."""
        self.current = None
        if self._free is not None and not self._free.done():
            self._free.set_result(None)

    @property
    def is_blind(self) -> bool:
        """Reading is held back, because an upload or a queue of requests is: asyncio does not see the client's leaving
        meanwhile, so that `LeaveProbe` looks for it."""
        return self._reading_paused or self._buffer_paused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what a stalled client can make us hold: our buffer, and the kernel's."""
        super().connection_made(transport)
        number = cast(ClientServer, self._manager).count
        self.is_surplus = number > self._limits.max_connections
        stream = cast(asyncio.Transport, transport)
        if self.is_surplus:
            self._refuser.connections_full(self._limits.max_connections)
            if number > self._limits.max_connections + self._limits.max_refusals:
                return stream.abort()
        self._probe = LeaveProbe(self._loop, transport, looked=self._looked, left=self._left)
        self._head_timer = self._loop.call_later(self._limits.request_head, self._head_is_late)
        stream.set_write_buffer_limits(high=self._limits.write_buffer)
        connection = stream.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            if TCP_NOTSENT_LOWAT is not None:
                connection.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, self._limits.kernel_unsent)
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._limits.kernel_unsent)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is gone."""
        self._drop_timers()
        super().connection_lost(exc)
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        if self.current is not None:
            self.current.client_gone("client left")

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's says None; asyncio asks for either
        """A client that closes its half has gone: no browser or library does so and goes on reading. (Else asyncio
        would wait until it has taken all that was written.) Only a body that is cut short is answered, now or, if True,
        by its request's task, which has not begun."""
        if self.current is not None:
            self.current.half_closed()
        elif not (self._is_deaf or self._newest.is_eof()):
            self.is_half_closed = True
            self._fail(CUT_SHORT)
            return self.ssl_context is None  # TLS has no halves
        return False

    def _looked(self) -> None:
        if self.current is not None:
            self.current.held_back()

    def _left(self) -> None:
        if self.current is not None:
            self.current.client_gone("client left")
        if self.transport is not None:
            self.transport.abort()

    def _pause_transport_reading(self) -> None:
        super()._pause_transport_reading()
        if self._probe is not None:
            self._probe.begin()

    def _resume_transport_reading(self) -> None:
        if self._probe is not None:
            self._probe.end()
        super()._resume_transport_reading()

    def _drop_timers(self) -> None:
        if self._probe is not None:
            self._probe.close()
        for timer in (self._end_timer, self._head_timer):
            if timer is not None:
                timer.cancel()
        self._end_timer = self._head_timer = self._probe = None

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        super().pause_writing()
        if self.current is not None:
            self.current.client_paused()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self.current is not None:
            self.current.client_resumed()

    def data_received(self, data: bytes) -> None:
        """Parse; count what the parser makes nothing of, since it does not bound a whole head."""
        if self._is_deaf:
            return
        requests = self._request_count
        super().data_received(data)
        if self._request_count != requests:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
            newest, self._newest = self._messages[-1]
            if isinstance(newest, _ErrInfo):
                self._fail(problem_of(newest.exc, data, self._limits))
                return
        elif self._newest.total_bytes == self._seen and not self._upgraded:
            self._idle += len(data)
            if self._idle > self._limits.head:
                self._refuse(Problem("header-too-large"))
            elif self._head_timer is None and data and self._newest.is_eof():
                self._head_timer = self._loop.call_later(self._limits.request_head, self._head_is_late)
            return
        self._seen = self._newest.total_bytes
        self._idle = 0

    def _head_is_late(self) -> None:
        """Slow heads are answered; a connection on which nothing came has nobody to answer to."""
        self._head_timer = None
        if self._idle:
            self._refuse(Problem("request-head-timeout"))
        elif self.transport is not None:
            self.transport.abort()

    def _refuse(self, problem: Problem) -> None:
        """What has come so far is no request, and nothing more is read."""
        self._messages.append((_ErrInfo(problem.status, RequestRefused(problem), ""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._fail(problem)

    def _fail(self, problem: Problem) -> None:
        self.failure = problem
        self._is_deaf = True
        if self.current is not None:
            self.current.body_broken(problem)

    def _make_error_handler(self, err_info: _ErrInfo) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
        async def handler(request: BaseRequest) -> StreamResponse:
            return await self._refuser.refuse(request, self.failure or Problem("bad-request"))

        return handler

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """A handler raised what it should have answered: our mistake. The traceback goes to the log, and the
        connection goes."""
        LOG.error("a request's handler failed", exc_info=exc)
        if self.transport is not None:
            self.transport.abort()
        return CLOSE

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Let the current request end within `timeout` seconds, then end it. (aiohttp's own would drop a running
        upload.)"""
        if self.current is not None:
            self._free = self._loop.create_future()
            if not await _comes(self._free, timeout) and self.current is not None:
                self.current.stop()
                await _comes(self._free, self._limits.linger)
        await super().shutdown(self._limits.linger)

    async def settled(self) -> None:
        """Wait until a slow client has taken enough for the next response to begin; cut it off after the limit
        `flush`."""
        try:
            async with asyncio.timeout(self._limits.flush):
                await self._drain_helper()
        except ConnectionError:
            return
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()

    async def linger(self) -> None:
        """Say that nothing more comes, and read on for a while: closing with unread bytes would reset the
        connection, and the response with it (RFC 9112, section 9.6)."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._is_deaf = True
        if self.is_half_closed:
            return
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # the client has reset the connection, and asyncio has not read of it yet
            transport.abort()
            return
        self._resume_transport_reading()
        self._lost = self._loop.create_future()
        await _comes(self._lost, self._limits.linger)

    def close_in_time(self) -> None:
        """aiohttp closes next, which waits for the buffer; a client that does not take it is cut off after the limit
        `flush`."""
        if self.transport is not None:
            self._end_timer = self._loop.call_later(self._limits.flush, self.transport.abort)

    def hand_over(self, protocol: asyncio.BaseProtocol, head: bytes) -> StreamResponse:
        """Write `head`, which accepts an upgrade, and give the socket to `protocol`; return what the handler must
        return, at once.

        All in one step of the loop: bytes that come right after the 101 find the new protocol.
        `protocol.connection_made` is called, with the transport, after the head was written. Raises `RequestRefused`
        where the client sent something before it saw the 101, and ConnectionResetError where it has gone.
        """
        transport, manager = self.transport, self._manager
        if transport is None or manager is None or transport.is_closing():
            raise ConnectionResetError("client left")
        if self._message_tail:
            raise RequestRefused(Problem("bad-request", "Bytes came before the upgrade was accepted."))
        transport.write(head)
        self._drop_timers()
        transport.set_protocol(protocol)
        manager.connection_lost(self, None)
        self.keep_alive(False)
        self.close()
        self.transport = None
        try:
            cast(asyncio.Protocol, protocol).connection_made(transport)
        except BaseException:
            transport.abort()  # it has no other owner
            raise
        return CLOSE


class ClientServer(Server):
    """The protocol factory of the public listener; lives as long as the listener."""

    def __init__(
        self, handler: Callable[[BaseRequest], Awaitable[StreamResponse]], refuser: Refuser, limits: HttpLimits
    ) -> None:
        super().__init__(handler)
        self._limits = limits
        self._refuser = refuser
        self.websockets = OpenWebSockets()

    @property
    def count(self) -> int:
        """Open connections, without those that became links."""
        return len(self._connections) + len(self.websockets)

    def close_idle(self) -> None:
        """Close the connections that serve no request; those that do are left to finish, WebSockets to fall quiet."""
        self.websockets.go_away()
        for connection in self.connections:
            if isinstance(connection, ClientConnection) and connection.current is None:
                connection.force_close()

    async def shutdown(self, timeout: float | None = None) -> None:
        """End what is left within `timeout` seconds."""
        await asyncio.gather(super().shutdown(timeout), self.websockets.end(timeout))

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, self._loop, self._limits, self._refuser)


def connection_of(request: BaseRequest) -> ClientConnection:
    """The connection that a request came on; for handlers that take it over."""
    return cast(ClientConnection, cast(Any, request.protocol))


async def _comes(event: asyncio.Future[None], timeout: float | None) -> bool:
    """Wait at most `timeout` seconds for it."""
    return bool((await asyncio.wait((event,), timeout=timeout))[0])
