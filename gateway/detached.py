"""Stands in for a client that has left, while its function goes on: what still comes of the response is dropped, and
credit is given for it, so that the function does not wait for anybody.

Knows the exchange and a clock; never a connection.
"""

from __future__ import annotations

import asyncio
import time

from gateway.exchange import Exchange
from gateway.silent_side import SilentSide
from gateway.terms import Terms


class Detached(SilentSide):
    """Implements `ClientSide`. Begins when the client has left, ends with the exchange, which it ends itself when its
    time is up."""

    __slots__ = ("_exchange", "_reason", "_timer")

    def __init__(self, exchange: Exchange, terms: Terms, reason: str, at_least: float = 0.0) -> None:
        """`reason`: why the client is taken for gone; for the log. `at_least`: seconds that the function is given in
        any case."""
        self._exchange = exchange
        self._reason = reason
        left = max(0.0, exchange.began + terms.exchange - time.monotonic())
        grace = max(at_least, {"cancel": 0.0, "grace": terms.disconnect_grace, "detach": left}[terms.on_disconnect])
        loop = asyncio.get_running_loop()
        if grace < left:
            self._timer = loop.call_later(grace, self._grace_is_over)
        else:
            self._timer = loop.call_later(left, exchange.timed_out, "exchange-timeout")

    def _grace_is_over(self) -> None:
        self._exchange.client_gone(f"{self._reason}; its grace is over")

    def ended(self) -> None:
        """The exchange is over."""
        self._timer.cancel()
