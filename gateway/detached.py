"""Stands in for a client that has left, while its function goes on: what still comes of the response is dropped, and
credit is given for it, so that the function does not wait for anybody.

Knows the exchange and a clock; never a connection.
"""

from __future__ import annotations

import asyncio
import time

from gateway.errors import Problem
from gateway.exchange import Exchange
from gateway.response_head import ResponseHead
from gateway.terms import Terms
from protocol.frames import Headers


class Detached:
    """Implements `ClientSide`. Begins when the client has left, ends with the exchange, which it ends itself when its
    time is up."""

    is_paused = False

    def __init__(self, exchange: Exchange, terms: Terms, reason: str) -> None:
        """`reason`: why the client is taken for gone; for the log."""
        self._exchange = exchange
        self._reason = reason
        left = max(0.0, exchange.began + terms.exchange - time.monotonic())
        loop = asyncio.get_running_loop()
        if terms.on_disconnect == "grace" and terms.disconnect_grace < left:
            self._timer = loop.call_later(terms.disconnect_grace, self._grace_is_over)
        else:
            self._timer = loop.call_later(left, exchange.timed_out, "exchange-timeout")
        exchange.detach(self, f"{reason}; the function goes on")

    def _grace_is_over(self) -> None:
        self._exchange.client_gone(f"{self._reason}; its grace is over")

    def informational(self, status: int, headers: Headers) -> None: ...
    def continue_(self) -> None: ...
    def head(self, head: ResponseHead, end: bool) -> None: ...
    def data(self, payload: bytes | bytearray | memoryview, end: bool) -> None: ...
    def end(self, trailers: Headers) -> None: ...
    def problem(self, problem: Problem) -> None: ...
    def abort(self) -> None: ...
    def upload_writable(self) -> None: ...
    def upload_stopped(self) -> None: ...
    def returned(self) -> None: ...

    def ended(self) -> None:
        """The exchange is over."""
        self._timer.cancel()
