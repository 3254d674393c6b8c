"""How many exchanges may be open, of each function and in all: what is beyond gets its answer at once.

Knows exchanges by their function's name.
"""

from __future__ import annotations

from gateway.errors import Problem
from gateway.exchange import Exchange


class Admission:
    """One gateway's; begins and ends with it."""

    def __init__(self, most: int) -> None:
        """`most`: of all functions together."""
        self._most = most
        self._open: dict[str, int] = {}
        self.total = 0
        """Open exchanges of all functions."""

    def open(self, function: str, most: int) -> Problem | None:
        """Count one more, of at most so many of this function, until it has `ended`; or say why it is one too many."""
        here = self._open.get(function, 0)
        if here >= most:
            return Problem("overloaded")
        if self.total >= self._most:
            return Problem("gateway-full")
        self._open[function] = here + 1
        self.total += 1
        return None

    def ended(self, exchange: Exchange) -> None:
        """One that was counted."""
        self._open[exchange.function] -= 1
        self.total -= 1
