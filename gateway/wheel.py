"""Deadlines that mostly do not come: kept by the second, so that to begin one and to cancel it is a set's work and no
timer's.

Knows a loop's clock and callbacks.
"""

from __future__ import annotations

import asyncio
from typing import Final

COARSE: Final = 1.0  # seconds by which a call may be late
LEAST: Final = 4.0  # seconds from which on that does not matter; what is due sooner has a timer of its own


class Due:
    """What is called when its time has come, each time that a wheel was told to. Ends with `cancel`."""

    __slots__ = ("held_by",)
    held_by: set[Due] | asyncio.TimerHandle | None
    """Where a wheel has it; None: it has come, or was cancelled."""

    def due(self) -> None:
        """It is time."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Idempotent, and void when the call has come."""
        held_by, self.held_by = self.held_by, None
        if isinstance(held_by, set):
            held_by.discard(self)
        elif held_by is not None:
            held_by.cancel()

    def come(self) -> None:
        """The wheel's word that it is time."""
        self.held_by = None
        self.due()


class Wheel:
    """Of one event loop; begins and ends with who has it. Holds a timer for each second in which something is due."""

    def __init__(self) -> None:
        self._seconds: dict[int, set[Due]] = {}

    def call_later(self, delay: float, due: Due) -> None:
        """Call what waits for nothing else in `delay` seconds, late by `COARSE` at most where that is `LEAST` or
        more."""
        loop = asyncio.get_running_loop()
        if delay < LEAST:
            due.held_by = loop.call_later(delay, due.come)
            return
        second = int((loop.time() + delay) / COARSE) + 1
        together = self._seconds.get(second)
        if together is None:
            together = self._seconds[second] = set()
            loop.call_at(second * COARSE, self._come, second)
        together.add(due)
        due.held_by = together

    def _come(self, second: int) -> None:
        together = self._seconds.pop(second)
        while together:  # one that comes may cancel others
            together.pop().come()
