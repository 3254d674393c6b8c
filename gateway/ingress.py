"""The HTTP side: a client's request becomes an exchange, its body flows to a stream, its response comes back; all
errors are ours.

Knows HTTP and the exchange; of functions only that a route finds a pool with places. Never knows links or frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from gateway.admission import Admission
from gateway.client_connection import ClientConnection
from gateway.client_request import ClientRequest, Route
from gateway.client_server import ClientServer
from gateway.compressors import Compressors
from gateway.errors import GatewayError, Problem, RequestRefused
from gateway.exchange import Exchange
from gateway.forwarding import Forwarding
from gateway.limits import HttpLimits
from gateway.received_request import ReceivedRequest
from gateway.request_head import read_request_head
from gateway.request_id import IDS
from gateway.request_log import log_exchange
from gateway.response_writer import ResponseWriter
from gateway.routes import RESERVED_PATH
from gateway.telemetry import RateLimited
from gateway.upgrade import asks_websocket, read_offer
from gateway.wheel import Wheel

LOG: Final = logging.getLogger("dialback.http")
RESERVED: Final = RESERVED_PATH.encode("ascii")
InternalHandler = Callable[[ReceivedRequest], None]


class Ingress:
    """The front of one gateway; begins before its listener and outlives it."""

    def __init__(
        self,
        route: Route,
        *,
        internal: Mapping[bytes, InternalHandler] | None = None,
        limits: HttpLimits | None = None,
        forwarding: Forwarding | None = None,
        on_end: Callable[[Exchange], None] = log_exchange,
    ) -> None:
        """`internal`: the gateway's own paths, each with all that is below it; such a handler may raise `GatewayError`.
        `on_end` is called with each ended exchange."""
        self.route = route
        self.limits = limits or HttpLimits()
        self.on_end = on_end
        self.is_draining = False
        """New requests are refused with 503, and every response closes its connection."""
        self._forwarding = forwarding or Forwarding()
        self.admission = Admission(self.limits.max_exchanges)
        self.wheel = Wheel()
        self.compressors = Compressors(self.limits.compression_memory)
        self._internal = dict(internal or {})
        self._refusals = RateLimited(structlog.get_logger("dialback.http"), lines=1, period=1)
        self._has_been_full = False

    def server(self) -> ClientServer:
        """The protocol factory for a listener. To stop: close the listener, `is_draining`, `close_idle`,
        `shutdown(seconds)`."""
        return ClientServer(self, self.limits)

    def serve(self, request: ReceivedRequest) -> None:
        """Judge it, and begin its exchange; or answer it."""
        connection = request.connection
        if connection.transport is None or connection.transport.is_closing():
            return connection.finish(linger=False)
        try:
            head = read_request_head(request, self.limits, self._forwarding)
            if connection.failure is not None and not request.content.is_eof():
                raise RequestRefused(connection.failure)
            if head.target.startswith(RESERVED) and (head.path + b"/").startswith(RESERVED + b"/"):
                return self._serve_internal(request, head.path)
            if connection.is_surplus:
                raise RequestRefused(Problem("gateway-full"))
            if request.asks_upgrade and asks_websocket(request):
                head = replace(head, websocket=read_offer(request, self.limits.websocket_message))
        except GatewayError as error:
            self.refuse(connection, error.problem, request.message.method == "HEAD")
        else:
            ClientRequest(self, request, head).begin()

    def _serve_internal(self, request: ReceivedRequest, path: bytes) -> None:
        while path not in self._internal:
            path = path.rpartition(b"/")[0]
            if not path:
                raise RequestRefused(Problem("no-route"))
        try:
            self._internal[path](request)
        except GatewayError:
            raise
        except Exception:
            LOG.exception("the handler of %s failed", path.decode("ascii"))
            raise RequestRefused(Problem("internal")) from None

    def connections_full(self, most: int) -> None:
        """Said once: what happens every millisecond then need not be."""
        if not self._has_been_full:
            self._has_been_full = True
            LOG.warning("%d connections are open: those beyond are refused (client.max_connections)", most)

    def refuse(self, connection: ClientConnection, problem: Problem, is_head_request: bool = False) -> None:
        """Answer what never became an exchange, say so in the log at a bounded rate, and close."""
        if connection.transport is not None:
            request_id = IDS.next().hex()
            writer = ResponseWriter(connection.outgoing, request_id, is_http11=True, keep_alive=False)
            writer.problem(problem, is_head_request)
            self._refusals.warning("request.refused", problem=problem.name, peer=connection.peer[0], id=request_id)
        connection.finish(linger=True)
