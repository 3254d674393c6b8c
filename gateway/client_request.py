"""One client's request: what its exchange does towards the client, and what the client's connection does to it.

Everything happens in the call that brings it; only a request that waits for a place has a task.

Knows the exchange, its connection, and that a pool has places; of functions and links nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.admission import Admission
from gateway.client_connection import CUT_SHORT
from gateway.client_websocket import ClientWebSocket
from gateway.compressors import Compressors
from gateway.deadlines import Deadlines
from gateway.detached import Detached
from gateway.errors import PoolRefusal, Problem
from gateway.exchange import Exchange, RequestHead
from gateway.limits import HttpLimits
from gateway.received_request import ReceivedRequest
from gateway.response_head import ResponseHead
from gateway.response_writer import ResponseWriter
from gateway.terms import Terms
from gateway.upgrade import upgrade_head
from gateway.websocket_exchange import WebSocketExchange
from gateway.wheel import Wheel
from protocol.frames import Headers

LOG: Final = logging.getLogger("dialback.http")
NO_ROUTE: Final = Terms()  # of a request before it has one, and of one that gets none


class FunctionPool(Protocol):
    """What ingress sees of a function: places for requests."""

    @property
    def name(self) -> str: ...
    def open_now(self, exchange: Exchange) -> bool:
        """Give it a free place, if there is one; else `open` waits for it. Raises `PoolRefusal`."""

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
    def wheel(self) -> Wheel: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def on_end(self) -> Callable[[Exchange], None]: ...


class ClientRequest(ResponseWriter):
    """One request on one connection: its exchange's hand towards the client.

    Begins when its head was accepted; ends when the response is with the transport, and the connection is ready for
    the next request or done with.
    """

    __slots__ = (
        "exchange", "_front", "_connection", "_content", "_destination", "_deadlines", "_opening",
        "_is_unwanted", "_undrained", "_drain_timer", "_terms", "_asks_upgrade",
    )  # fmt: skip

    def __init__(self, front: Front, request: ReceivedRequest, head: RequestHead) -> None:
        self.exchange = Exchange(head, self) if head.websocket is None else WebSocketExchange(head, self)
        message = request.message
        # After an upgrade that is ignored, or refused, nothing more is read: what was pipelined is lost in llhttp.
        self._asks_upgrade = request.asks_upgrade
        keep_alive = not (message.should_close or self._asks_upgrade)
        super().__init__(request.connection.outgoing, self.exchange.id.hex(), head.version != "1.0", keep_alive)
        self.awaits_continue = head.expects_continue
        self._front = front
        self._connection = request.connection
        self.is_paused = request.connection.is_writing_paused
        self._content = request.content
        self._destination: Destination | None = None
        self._deadlines: Deadlines | None = None
        self._opening: asyncio.Task[None] | None = None  # while it waits for a place
        self._is_unwanted = False  # what still comes of the body is nobody's
        self._undrained = front.limits.drain_bytes
        self._drain_timer: asyncio.TimerHandle | None = None  # from the response's end to the body's
        self._terms = NO_ROUTE

    def begin(self) -> None:
        """To the stream, if a place is free."""
        exchange, front = self.exchange, self._front
        exchange.on_end(front.on_end)
        self._connection.current = self
        try:
            destination = self._destination = front.route(exchange.head)
            if destination is None:
                exchange.refused(Problem("no-route"))
            elif front.is_draining:
                exchange.refused(Problem("draining"))
            else:
                exchange.function = destination.pool.name
                self._admit(destination)
        except Exception:
            self._mistake()

    # The exchange's hand towards the client, beside what ResponseWriter does

    def head(self, head: ResponseHead, end: bool, body: bytes | bytearray | memoryview = b"") -> None:
        """The final head; a gateway that stops says so by closing."""
        self.keep_alive = self.keep_alive and not self._front.is_draining
        if self.awaits_continue and self._content.is_eof():
            self.awaits_continue = False  # it has not waited
        if self._terms.compression is not None:
            head, self.compressor = self._terms.compression.begin(
                self.exchange, head, end and not body, self._front.compressors
            )
        super().head(head, end, body)

    def problem(self, problem: Problem, is_head_request: bool = False) -> None:
        """A whole response, in place of the function's. It closes the connection where the client still sends (RFC
        9110, section 15.5.9): whether the rest comes in time to be drained is not known when it must be said."""
        self.keep_alive = self.keep_alive and self._content.is_eof()
        super().problem(problem, self.exchange.head.method == b"HEAD")

    def accept(self, headers: Headers) -> ClientWebSocket:
        """The 101; the socket is the new protocol's from here on."""
        exchange, connection = self.exchange, self._connection
        assert isinstance(exchange, WebSocketExchange), "only its response can be an upgrade"
        websocket = ClientWebSocket(exchange, self._terms, self._front.limits, connection.websockets)
        websocket.is_paused = self.is_paused
        fields = (*headers, (b"x-request-id", exchange.id.hex().encode()))
        connection.hand_over(websocket, upgrade_head(exchange.offer.key, fields))
        if self._front.is_draining:
            websocket.go_away()
        self._let_go()
        return websocket

    def upload_writable(self) -> None:
        """The stream takes request data again."""
        self._pass_on()

    def upload_stopped(self) -> None:
        """The rest of the request is nobody's; while the response lasts it is read and dropped, lest the client
        block on it."""
        self._is_unwanted = True
        self._content.read_nowait()

    def returned(self) -> None:
        """The exchange needs another stream: how often is the pool's business."""
        asyncio.get_running_loop().call_soon(self._open_again)

    def ended(self) -> None:
        """The exchange is over, or goes on without this side: leave the connection ready for the next request, or say
        that it closes."""
        if self.compressor is not None:
            self.compressor.close()
        self._let_go()
        connection = self._connection
        if connection.transport is None or connection.transport.is_closing():
            connection.finish(linger=False)
        elif not self._content.is_eof():
            if self.keep_alive:
                loop = asyncio.get_running_loop()
                self._drain_timer = loop.call_later(self._front.limits.drain, self._drained_too_long)
                self._is_unwanted = True
                self._drain()
            else:
                connection.finish(linger=True)
        elif self.keep_alive and not self._front.is_draining:
            connection.served()
        else:
            connection.finish(linger=self._asks_upgrade)

    # What the connection tells

    def client_gone(self, reason: str) -> None:
        """Nobody will read the response; whether the function goes on is its route's business."""
        exchange = self.exchange
        if self._drain_timer is not None:
            self._end_drain(is_done=False)
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
        stream = self.exchange.stream
        return not (self.awaits_continue or self._content.is_eof()) and stream is not None and stream.is_writable

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken."""
        return self._outgoing.unsent

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
        if self._drain_timer is not None:
            self._end_drain(is_done=False)
        elif self._is_unwanted:
            return
        elif self.exchange.has_response_begun:
            self.exchange.client_gone("the request's body is not valid HTTP")
        else:
            self.exchange.refused(problem)

    def stop(self) -> None:
        """The gateway stops, and has waited long enough."""
        self.keep_alive = False
        if self._drain_timer is not None:
            self._end_drain(is_done=False)
        self._give_up(Problem("draining"))

    def body_arrived(self) -> None:
        """Of the request, or what is behind it."""
        if self._drain_timer is not None:
            self._drain()
        elif self._is_unwanted:
            self._content.read_nowait()
        elif self.exchange.head.has_body:
            self._pass_on()

    # Inside

    def _admit(self, destination: Destination) -> None:
        exchange, admission = self.exchange, self._front.admission
        terms = self._terms = destination.terms
        problem = admission.open(exchange.function, terms.max_exchanges)
        if problem is not None:
            exchange.refused(problem)
            return
        exchange.on_end(admission.ended)
        exchange.cancel_after = terms.cancel_after
        if terms.affinity is not None:
            exchange.tie = terms.affinity.tie(exchange.head.headers)
        self._deadlines = Deadlines(exchange, self, terms, self._front.limits.body_rate, self._front.wheel)
        try:
            is_open = destination.pool.open_now(exchange)
        except PoolRefusal as refusal:
            exchange.refused(refusal.problem)
            return
        if is_open:
            self._opened()
        else:
            self._wait_for_place()

    def _wait_for_place(self) -> None:
        assert self._destination is not None, "it had one when it was admitted"
        self._opening = asyncio.create_task(self._wait(self._destination.pool))
        self._opening.add_done_callback(self._stopped_waiting)

    def _stopped_waiting(self, opening: asyncio.Task[None]) -> None:
        if opening.cancelled():
            self._give_up(Problem("draining"))  # if it was not `ended` that did it

    async def _wait(self, pool: FunctionPool) -> None:
        """For a place. `ended` cancels it, since a pool need not look at the exchange."""
        try:
            await pool.open(self.exchange)
        except PoolRefusal as refusal:
            self.exchange.refused(refusal.problem)
        except Exception:
            self._mistake()
        else:
            self._opened()
        finally:
            self._opening = None

    def _opened(self) -> None:
        """It had a stream, and may have none any more."""
        exchange = self.exchange
        if exchange.stream is None or exchange.is_ended or exchange.client is not self:
            return
        assert self._deadlines is not None, "made before a place was asked for"
        self._deadlines.opened()
        if exchange.head.has_body:
            self.body_arrived()

    def _open_again(self) -> None:
        if self.exchange.client is self and not self.exchange.is_ended:
            self._wait_for_place()

    def _pass_on(self) -> None:
        """What has come of the body, as far as the stream takes it. The reader holds the rest, and holds back the
        client."""
        exchange, content = self.exchange, self._content
        stream = exchange.stream
        try:
            while stream is not None and exchange.is_request_open and stream.is_writable:
                data = content.read_nowait()
                end = content.is_eof()
                if not (data or end):
                    return
                exchange.request_data(data, end)
        except Exception:
            self._mistake()

    def _drain(self) -> None:
        """Read what comes of an upload that nobody wants any more, up to the limits."""
        self._undrained -= len(self._content.read_nowait())
        if self._undrained < 0:
            self._end_drain(is_done=False)
        elif self._content.is_eof():
            self._end_drain(is_done=True)

    def _drained_too_long(self) -> None:
        self._end_drain(is_done=False)

    def _end_drain(self, *, is_done: bool) -> None:
        assert self._drain_timer is not None
        self._drain_timer.cancel()
        self._drain_timer = None
        if is_done and self.keep_alive and not self._front.is_draining:
            self._connection.served()
        else:
            self._connection.finish(linger=not is_done)

    def _let_go(self) -> None:
        """Of the pool and the clocks."""
        if self._opening is not None and self._opening is not asyncio.current_task():
            self._opening.cancel()
        if self._deadlines is not None:
            self._deadlines.cancel()
            self._deadlines = None

    def _mistake(self) -> None:
        LOG.exception("request %s: the gateway's own mistake", self.exchange.id.hex())
        self._give_up(Problem("internal"))

    def _give_up(self, problem: Problem) -> None:
        """End what has not ended, from outside the exchange's own course."""
        if self.exchange.client is not self:
            return  # it goes on without its client
        if self.exchange.has_response_begun:
            self.exchange.client_gone(problem.name)
        else:
            self.exchange.refused(problem)
