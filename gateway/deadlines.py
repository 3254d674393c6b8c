"""The clocks of one exchange, behind a single timer that looks rather than being set back with each byte.

Knows how far an exchange has come, and whose turn it is; what a deadline means to the client is the exchange's.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

from gateway.exchange import Exchange
from gateway.terms import Terms
from gateway.wheel import Due, Wheel

RATE_SPAN = 10.0  # seconds over which an upload's rate is taken, and which it has at first
LOOKS: Final = 4  # in each idle time: an end is late by a quarter at most
SHORTEST: Final = 0.005  # seconds between two looks


class Watched(Protocol):
    """The request whose clocks these are."""

    @property
    def is_body_awaited(self) -> bool:
        """There is room for request body, and the client has been told to send it."""

    @property
    def unsent(self) -> int:
        """Bytes of response that the client has not taken."""

    def client_gone(self, reason: str) -> None: ...


class Deadlines(Due):
    """Begin with the exchange, end with `cancel`."""

    __slots__ = (
        "_exchange", "_first", "_watched", "_terms", "_rate", "_wheel", "_opened", "_request", "_request_at",
        "_response", "_response_at", "_rate_bytes", "_rate_at",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, watched: Watched, terms: Terms, rate: float, wheel: Wheel) -> None:
        """`rate`: bytes a second of request body, at the least, until the response begins; 0: any."""
        self._exchange = exchange
        self._watched = watched
        self._terms = terms
        self._rate = rate
        self._wheel = wheel
        self._opened: float | None = None
        self._request = self._rate_bytes = 0
        self._response = 0
        self._request_at = self._response_at = self._rate_at = exchange.began
        # As soon as anything could be late that began now: once the exchange has a stream, nothing need be set back.
        first = min(terms.exchange, terms.response_start, terms.response_idle / LOOKS)
        if exchange.head.has_body:
            first = min(first, terms.request_idle / LOOKS, RATE_SPAN / LOOKS)
        self._first = max(first, SHORTEST)
        wheel.call_later(self._first, self)

    def opened(self) -> None:
        """The exchange has a stream: the function's time begins, anew with each stream."""
        self._opened = self._request_at = self._rate_at = time.monotonic()

    def due(self) -> None:
        """Look whether anything is late, or when to look again."""
        exchange = self._exchange
        if exchange.is_ended:
            return
        now = time.monotonic()
        late = self._late(now)
        if late == "response-idle" and self._watched.unsent:
            self._watched.client_gone("client stopped reading")
        elif late:
            exchange.timed_out(late)
        else:
            self._arm(now)

    def _late(self, now: float) -> str:
        """Which deadline has passed, by its error's name."""
        exchange, terms = self._exchange, self._terms
        if now - exchange.began >= terms.exchange:
            return "exchange-timeout"
        if self._opened is None:
            return ""
        if exchange.is_request_open and (late := self._request_late(now)):
            return late
        if not exchange.has_response_begun:
            self._response_at = now
            return "response-timeout" if now - self._request_at >= terms.response_start else ""
        taken = exchange.bytes_out - self._watched.unsent
        if taken != self._response:
            self._response, self._response_at = taken, now
        is_late = exchange.is_response_open and now - self._response_at >= terms.response_idle
        return "response-idle" if is_late else ""

    def _request_late(self, now: float) -> str:
        exchange = self._exchange
        if exchange.bytes_in != self._request:
            self._request, self._request_at = exchange.bytes_in, now
        if not self._watched.is_body_awaited or exchange.has_response_begun:
            # The function's turn, or a conversation, whose pace is the function's business.
            self._rate_at, self._rate_bytes = now, exchange.bytes_in
        elif now - self._rate_at >= RATE_SPAN:
            if exchange.bytes_in - self._rate_bytes < self._rate * (now - self._rate_at):
                return "request-too-slow"
            self._rate_at, self._rate_bytes = now, exchange.bytes_in
        is_late = self._watched.is_body_awaited and now - self._request_at >= self._terms.request_idle
        return "request-idle" if is_late else ""

    def _arm(self, now: float) -> None:
        exchange, terms = self._exchange, self._terms
        due = exchange.began + terms.exchange - now
        if self._opened is None:
            self._wheel.call_later(max(min(due, self._first), SHORTEST), self)
            return
        if not exchange.has_response_begun:
            due = min(due, self._request_at + terms.response_start - now)
        if exchange.is_request_open:
            due = min(due, terms.request_idle / LOOKS)
            if self._rate and not exchange.has_response_begun:
                due = min(due, RATE_SPAN / LOOKS)
        due = min(due, terms.response_idle / LOOKS)
        self._wheel.call_later(max(due, SHORTEST), self)
