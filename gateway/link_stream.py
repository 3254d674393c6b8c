"""One stream of a link, as its exchange knows it: the exchange's hand towards the function.

Knows the session and the exchange; not the socket, and nothing of the link but that it can be asked to send.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from gateway.errors import Problem
from gateway.exchange import Exchange
from protocol.frames import Code, Headers
from protocol.gateway_session import GatewaySession

log = structlog.get_logger("dialback.link")


class LinkStream:
    """Implements `StreamSide`. Begins when the link opens it, ends with the stream or its session; later calls are
    ignored."""

    __slots__ = ("_flush_soon", "_session", "exchange", "id", "opened_at")

    def __init__(
        self, session: GatewaySession, number: int, exchange: Exchange, flush_soon: Callable[[], None]
    ) -> None:
        """`flush_soon`: lets what is ready leave at the end of this turn of the loop."""
        self._session = session
        self._flush_soon = flush_soon
        self.id = number
        self.exchange = exchange
        self.opened_at = time.monotonic()

    @property
    def is_writable(self) -> bool:
        return self._session.is_writable(self.id)

    def send(self, data: bytes, end: bool) -> None:
        if self._session.is_open(self.id):
            self._session.send_data(self.id, data, end=end)
            self._flush_soon()

    def send_trailers(self, headers: Headers) -> None:
        if self._session.is_open(self.id):
            self._session.send_trailers(self.id, headers)
            self._flush_soon()

    def send_message(self, data: bytes, text: bool) -> None:
        if self._session.is_open(self.id):
            self._session.send_message(self.id, data, text=text)
            self._flush_soon()

    def send_close(self, code: int, reason: bytes) -> None:
        if self._session.is_open(self.id):
            self._session.send_close(self.id, code, reason)
            self._session.send_data(self.id, b"", end=True)
            self._flush_soon()

    def consumed_message(self) -> None:
        self._session.consume_message(self.id, time.monotonic())
        self._flush_soon()

    def consumed(self, size: int) -> None:
        self._session.consume(self.id, size, time.monotonic())
        self._flush_soon()

    def cancel(self, code: Code) -> None:
        # STOP first: a RESET of a request that never left forgets the stream.
        self._session.stop(self.id, code)
        self._session.reset(self.id, code)
        self._flush_soon()

    def stop(self, code: Code) -> None:
        self._session.stop(self.id, code)
        self._flush_soon()

    def reset(self, code: Code) -> None:
        self._session.reset(self.id, code)
        self._flush_soon()

    def give_up(self) -> None:
        """The gateway made a mistake with this exchange: end it, and leave the link's others alone."""
        self.cancel(Code.INTERNAL)
        try:
            if self.exchange.has_response_begun:
                self.exchange.client_gone("the gateway's own mistake")
            else:
                self.exchange.refused(Problem("internal"))
        except Exception:
            log.exception("request.not_ended", id=self.exchange.id.hex())
