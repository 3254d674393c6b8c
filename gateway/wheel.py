"""Deadlines that mostly do not come: kept by the second, so that to begin one and to cancel it is a set's work and no
timer's.

Knows a loop's clock and callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

COARSE: Final = 1.0  # seconds by which a call may be late
LEAST: Final = 4.0  # seconds from which on that does not matter; what is due sooner has a timer of its own


class Due:
    """A call that is to come, once. Ends with it, or with `cancel`."""

    __slots__ = ("_callback", "_held_by")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._held_by: set[Due] | asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Idempotent, and void when the call has come."""
        held_by, self._held_by = self._held_by, None
        if isinstance(held_by, set):
            held_by.discard(self)
        elif held_by is not None:
            held_by.cancel()

    def come(self) -> None:
        """It is time."""
        self._held_by = None
        self._callback()

    def hold(self, by: set[Due] | asyncio.TimerHandle) -> None:
        self._held_by = by


class Wheel:
    """Of one event loop; begins and ends with who has it. Holds a timer for each second in which something is due."""

    def __init__(self) -> None:
        self._seconds: dict[int, set[Due]] = {}

    def call_later(self, delay: float, callback: Callable[[], None]) -> Due:
        """Call in `delay` seconds, late by `COARSE` at most where that is `LEAST` or more."""
        loop = asyncio.get_running_loop()
        due = Due(callback)
        if delay < LEAST:
            due.hold(loop.call_later(delay, due.come))
            return due
        second = int((loop.time() + delay) / COARSE) + 1
        together = self._seconds.get(second)
        if together is None:
            together = self._seconds[second] = set()
            loop.call_at(second * COARSE, self._come, second)
        together.add(due)
        due.hold(together)
        return due

    def _come(self, second: int) -> None:
        together = self._seconds.pop(second)
        while together:  # one that comes may cancel others
            together.pop().come()
