"""How long a link is kept without a lease: no ping tells that its environment is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PARKED_TIMEOUT: Final = 900.0  # seconds


class Retention:
    """Of one link; begins with its first PARKED, ends with `cancel`."""

    __slots__ = ("_expired", "_is_leased", "_loop", "_since", "_timer")

    def __init__(self, is_leased: Callable[[], bool], expired: Callable[[], None]) -> None:
        self._is_leased = is_leased
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._since = 0.0  # on the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def parked(self) -> None:
        """Its time begins anew."""
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(PARKED_TIMEOUT, self._look)

    def cancel(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._is_leased():
            return
        left = self._since + PARKED_TIMEOUT - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._expired()
