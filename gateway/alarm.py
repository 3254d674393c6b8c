"""One timer for whoever must look at something again: it goes off at the earliest of the times that were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

SHORTEST: Final = 0.001  # seconds between two looks that nothing but time is the reason for


class Alarm:
    """Begins and ends with its owner."""

    def __init__(self, went_off: Callable[[], None]) -> None:
        self._went_off = went_off
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> None:
        """Go off no later than that."""
        at = self._loop.time() + max(seconds, SHORTEST)
        if self._timer is None or self._timer.when() > at:
            self.cancel()
            self._timer = self._loop.call_at(at, self._fire)

    def cancel(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._went_off()
