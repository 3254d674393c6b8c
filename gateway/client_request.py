"""One client's request: what its exchange does towards the client, and the task that gets it a place and moves its
body.

Knows the exchange, its connection, and that a pool has places; of functions and links nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp.streams import StreamReader
from aiohttp.web import BaseRequest, StreamResponse

from gateway.admission import Admission
from gateway.client_connection import CLOSE, CUT_SHORT, KEEP, connection_of
from gateway.client_websocket import ClientWebSocket
from gateway.compressors import Compressors
from gateway.deadlines import Deadlines
from gateway.detached import Detached
from gateway.errors import PoolRefusal, Problem, RequestRefused
from gateway.exchange import Exchange, RequestHead
from gateway.limits import HttpLimits
from gateway.response_head import ResponseHead
from gateway.response_writer import ResponseWriter
from gateway.terms import Terms
from gateway.upgrade import upgrade_head
from gateway.websocket_exchange import WebSocketExchange
from protocol.frames import Headers

LOG: Final = logging.getLogger("dialback.http")


class FunctionPool(Protocol):
    """What ingress sees of a function: places for requests."""

    @property
    def name(self) -> str: ...
    async def open(self, exchange: Exchange) -> None:
        """Return when `exchange.stream_opened` was called; raises `PoolRefusal`. Cancelled when the client leaves
        meanwhile. Called again when the stream was given back."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a route leads, and on which terms; made once for each route, at start."""

    pool: FunctionPool
    terms: Terms


Route = Callable[[RequestHead], Destination | None]


class Front(Protocol):
    """What a request asks of the gateway's front."""

    @property
    def route(self) -> Route: ...
    @property
    def limits(self) -> HttpLimits: ...
    @property
    def admission(self) -> Admission: ...
    @property
    def compressors(self) -> Compressors: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def on_end(self) -> Callable[[Exchange], None]: ...


class ClientRequest(ResponseWriter):
    """One request on one connection: its exchange's hand towards the client, and the task that moves its body.

    Begins when its head was accepted; ends when the response is with the transport, and the connection is ready for
    the next request or done with.
    """

    __slots__ = (
        "exchange",
        "_front",
        "_connection",
        "_content",
        "_settled",
        "_writable",
        "_opening",
        "_was_interrupted",
        "_is_unwanted",
        "_is_reading",
        "_terms",
        "_asks_upgrade",
    )

    def __init__(self, front: Front, request: BaseRequest, head: RequestHead, transport: asyncio.Transport) -> None:
        self.exchange = Exchange(head, self) if head.websocket is None else WebSocketExchange(head, self)
        # After an upgrade that is ignored, or refused, nothing more is read: what was pipelined is lost in llhttp.
        self._asks_upgrade = "upgrade" in request.headers
        keep_alive = request.keep_alive and not self._asks_upgrade
        loop = asyncio.get_running_loop()
        super().__init__(transport, loop, self.exchange.id.hex(), head.version != "1.0", keep_alive)
        self.awaits_continue = head.expects_continue
        self.is_paused = connection_of(request).writing_paused
        self._front = front
        self._connection = connection_of(request)
        self._content: StreamReader = request.content
        self._settled: asyncio.Future[None] = loop.create_future()
        self._writable: asyncio.Future[None] | None = None
        self._opening: asyncio.Task[Any] | None = None
        self._was_interrupted = False
        self._is_unwanted = False
        self._is_reading = False
        self._terms = Terms()

    # The exchange's hand towards the client, beside what ResponseWriter does

    def head(self, head: ResponseHead, end: bool) -> None:
        """The final head; a gateway that stops says so by closing."""
        self.keep_alive = self.keep_alive and not self._front.is_draining
        if self._content.is_eof():
            self.awaits_continue = False  # it has not waited
        if self._terms.compression is not None:
            head, self.compressor = self._terms.compression.begin(self.exchange, head, end, self._front.compressors)
        super().head(head, end)

    def problem(self, problem: Problem, is_head_request: bool = False) -> None:
        """A whole response, in place of the function's. It closes the connection where the client still sends (RFC
        9110, section 15.5.9): whether the rest comes in time to be drained is not known when it must be said."""
        self.keep_alive = self.keep_alive and self._content.is_eof()
        super().problem(problem, self.exchange.head.method == b"HEAD")

    def accept(self, headers: Headers) -> ClientWebSocket:
        """The 101; the socket is the new protocol's from here on, and this task has nothing more to do."""
        exchange, connection = self.exchange, self._connection
        assert isinstance(exchange, WebSocketExchange), "only its response can be an upgrade"
        websocket = ClientWebSocket(exchange, self._terms, self._front.limits, connection.websockets)
        websocket.is_paused = self.is_paused
        fields = (*headers, (b"x-request-id", exchange.id.hex().encode()))
        connection.hand_over(websocket, upgrade_head(exchange.offer.key, fields))
        if self._front.is_draining:
            websocket.go_away()
        self._settle()
        return websocket

    def upload_writable(self) -> None:
        """The stream takes request data again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def upload_stopped(self) -> None:
        """The rest of the request is nobody's; while the response lasts it is read and dropped, lest the client
        block on it."""
        self._is_unwanted = True
        self.upload_writable()

    def returned(self) -> None:
        """The exchange needs another stream."""
        self._settle()

    def ended(self) -> None:
        """The exchange is over."""
        if self.compressor is not None:
            self.compressor.close()
        if self._opening is not None and self._opening is not asyncio.current_task():
            self._was_interrupted = True
            self._opening.cancel()
        self._settle()

    # What the connection tells

    def client_gone(self, reason: str) -> None:
        """Nobody will read the response; whether the function goes on is its route's business."""
        exchange = self.exchange
        if exchange.client is not self:
            return
        if self._outlives_client:
            self.keep_alive = False
            exchange.detach(Detached(exchange, self._terms, reason), f"{reason}; the function goes on")
        else:
            exchange.client_gone(reason)

    def half_closed(self) -> None:
        """Whoever sent a whole request has gone; who sent a part of one is told so, while there is still an answer to
        give."""
        if self._content.is_eof() or self.exchange.has_response_begun or self._outlives_client:
            self.client_gone("client left")
        else:
            self.body_broken(CUT_SHORT)

    def client_paused(self) -> None:
        """The transport is full."""
        self.is_paused = True

    def client_resumed(self) -> None:
        """The transport has room."""
        self.is_paused = False
        self.exchange.client_resumed()

    @property
    def _outlives_client(self) -> bool:
        return self._terms.on_disconnect != "cancel" and self.exchange.can_detach

    @property
    def is_body_awaited(self) -> bool:
        """It is the client's turn to send."""
        return self._is_reading and not self.awaits_continue

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken."""
        return self._transport.get_write_buffer_size()

    def held_back(self) -> None:
        """Only a write makes a client's kernel say that nobody is there any more, when what was not sent yet keeps its
        FIN back. Who waited for one 100 Continue takes another (RFC 9110, section 15.2)."""
        if self.exchange.has_continued and not self.exchange.has_response_begun:
            self.continue_()

    def body_broken(self, problem: Problem) -> None:
        """What follows the head is not a body; unless it was complete already, and the fault is in the next request."""
        if self._content.is_eof():
            return
        self.keep_alive = False
        if self._is_unwanted:
            return
        if self.exchange.has_response_begun:
            self.exchange.client_gone("the request's body is not valid HTTP")
        else:
            self.exchange.refused(problem)

    def stop(self) -> None:
        """The gateway stops, and has waited long enough."""
        self.keep_alive = False
        self._give_up(Problem("draining"))

    # The task

    async def serve(self) -> StreamResponse:
        """From the head to the connection's next request."""
        exchange = self.exchange
        exchange.on_end(self._front.on_end)
        self._connection.serving(self)
        try:
            destination = self._front.route(exchange.head)
            if destination is None:
                exchange.refused(Problem("no-route"))
            elif self._front.is_draining:
                exchange.refused(Problem("draining"))
            else:
                exchange.function = destination.pool.name
                await self._admitted(destination)
            return await self._finish()
        except Exception:
            LOG.exception("request %s: the gateway's own mistake", exchange.id.hex())
            self._give_up(Problem("internal"))
            return await self._finish()
        finally:
            self.stop()  # for a task that was cancelled from outside
            self._connection.served()

    async def _admitted(self, destination: Destination) -> None:
        exchange, admission = self.exchange, self._front.admission
        terms = self._terms = destination.terms
        problem = admission.open(exchange.function, terms.max_exchanges)
        if problem is not None:
            exchange.refused(problem)
            return
        exchange.on_end(lambda ended: admission.close(ended.function))
        exchange.cancel_after = terms.cancel_after
        if terms.affinity is not None:
            exchange.tie = terms.affinity.tie(exchange.head.headers)
        deadlines = Deadlines(exchange, self, terms, self._front.limits.body_rate)
        try:
            await self._exchange(destination.pool, deadlines)
        finally:
            deadlines.close()

    async def _exchange(self, pool: FunctionPool, deadlines: Deadlines) -> None:
        while True:
            await self._open(pool)
            if not self._settled.done():
                deadlines.opened()
                await self._relay()
            if self.exchange.is_ended or self.exchange.client is not self:
                return
            self._settled = self._loop.create_future()  # its stream was given back: how often is the pool's business

    async def _open(self, pool: FunctionPool) -> None:
        """Get a stream. A client that leaves meanwhile cancels the waiting, since a pool need not look at the
        exchange."""
        task = asyncio.current_task()
        assert task is not None
        self._opening = task
        try:
            await pool.open(self.exchange)
        except PoolRefusal as refusal:
            self.exchange.refused(refusal.problem)
        except asyncio.CancelledError:
            # Ours to swallow only if `ended` did it, and nobody else as well.
            if not self._was_interrupted or task.uncancel() > 0:
                raise
        finally:
            self._opening = None

    async def _relay(self) -> None:
        """Until the exchange has ended or was returned; the response flows without this task."""
        upload = self._loop.create_task(self._upload()) if self.exchange.head.has_body else None
        try:
            await self._settled
        finally:
            if upload is not None:
                upload.cancel()
                await asyncio.wait((upload,))

    async def _upload(self) -> None:
        exchange, content = self.exchange, self._content
        stream = exchange.stream
        assert stream is not None, "it runs on an open stream"
        try:
            while True:
                while not (stream.is_writable or self._is_unwanted):
                    self._writable = self._loop.create_future()
                    await self._writable
                self._is_reading = True
                data = await content.readany()
                self._is_reading = False
                end = content.at_eof()
                exchange.request_data(data, end)
                if end:
                    return
        except (ConnectionError, RuntimeError, RequestRefused):
            self.client_gone("client left during its upload")
        except Exception:
            LOG.exception("request %s: the gateway's own mistake", exchange.id.hex())
            self._give_up(Problem("internal"))

    async def _finish(self) -> StreamResponse:
        """Leave the connection ready for the next request, or say that it closes."""
        connection = self._connection
        if connection.transport is None or self._transport.is_closing():
            connection.close_in_time()
            return CLOSE
        self.flush()
        if not self._content.is_eof() and not (self.keep_alive and await self._drain()):
            self.keep_alive = False
            await connection.linger()
        elif self.keep_alive and not self._front.is_draining:
            if connection.writing_paused:
                await connection.settled()
            return KEEP
        elif self._asks_upgrade:
            await connection.linger()
        connection.close_in_time()
        return CLOSE

    async def _drain(self) -> bool:
        """Read what is left of an upload that nobody wants; False: it is more than the limits."""
        left = self._front.limits.drain_bytes
        try:
            async with asyncio.timeout(self._front.limits.drain):
                while not self._content.at_eof():
                    left -= len(await self._content.readany())
                    if left < 0:
                        return False
        except (TimeoutError, ConnectionError, RuntimeError, RequestRefused):
            return False
        return True

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    def _give_up(self, problem: Problem) -> None:
        """End what has not ended, from outside the exchange's own course."""
        if self.exchange.client is not self:
            return  # it goes on without its client
        if self.exchange.has_response_begun:
            self.exchange.client_gone(problem.name)
        else:
            self.exchange.refused(problem)
