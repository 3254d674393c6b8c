"""What a function's environments are expected to do, from what they did: how long a start takes, how long a stream, how
many streams one takes at once. From it follows how many invocations those who wait need.

Knows only numbers. Times in seconds.
"""

from __future__ import annotations

import math
from typing import Final

WEIGHT: Final = 0.2  # of the latest measurement in an average: a dozen of a new kind outweigh the past
FIRST_STARTS: Final = 10  # until it is known how many streams an environment takes: 20 each would serve 200 requests


class Average:
    """Exponentially weighted; nothing before the first measurement."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, measured: float) -> None:
        self.value = measured if self.value is None else self.value + WEIGHT * (measured - self.value)


class Forecast:
    """Of one function; begins and ends with its pool."""

    __slots__ = ("_came_at", "_cold", "_steady_since", "_stream", "_warm", "places")

    def __init__(self) -> None:
        self.places: int | None = None
        """Streams at once, of the last lease."""
        self._cold = Average()  # from an invocation to the lease of a link that was dialled for it
        self._warm = Average()  # … of a link that was there
        self._stream = Average()
        self._came_at = self._steady_since = -math.inf

    def leased(self, seconds: float, places: int, is_new: bool) -> None:
        """An invocation led to a lease after so long; `is_new`: on a link that was dialled for it."""
        self.places = places
        (self._cold if is_new else self._warm).add(seconds)

    def stream_ended(self, seconds: float) -> None:
        """A stream lasted so long."""
        self._stream.add(seconds)

    def stream_begun(self, now: float, linger: float) -> None:
        """At `now`, where environments stay awake for `linger` without one."""
        if now - self._came_at > linger:
            self._steady_since = now
        self._came_at = now

    def is_steady(self, now: float, linger: float) -> bool:
        """Whether one that came now would get a stream before it parks: for as long as a start takes, each has begun
        within `linger` of the one before."""
        start = self.start(is_warm=False)
        return start is not None and now - self._came_at <= linger and self._came_at - self._steady_since >= start

    def start(self, is_warm: bool) -> float | None:
        """How long the next start takes; `is_warm`: there is an environment that was used and is free."""
        expected, other = (self._warm, self._cold) if is_warm else (self._cold, self._warm)
        return other.value if expected.value is None else expected.value

    def freed(self, busy: int, seconds: float) -> int:
        """How many of the `busy` places become free within that time, each as often as it does."""
        lasts = self._stream.value
        return 0 if lasts is None or busy == 0 else int(busy * seconds / max(lasts, 1e-6))

    def environments(self, streams: int) -> int:
        """How many have room for so many."""
        return -(-streams // (self.places or 1))

    @property
    def may_wait(self) -> bool:
        """Whether a warm place may be waited for. An environment that takes one stream is not: the platform would not
        wait for it either, and the next request gets another one."""
        return self.places is not None and self.places > 1

    def newcomers(self, bound: int) -> int:
        """With so many streams an environment takes none whose value is not bound yet (`affinity`): for each that is
        `bound` to it and in use, up to half of its places, one is left for those who come back."""
        places = self.places or 1
        return max(1, places - min(bound, places // 2))

    def starts(
        self, waiting: int, overdue: int = 0, busy: int = 0, start: float | None = None, *, are_bound: bool = False
    ) -> int:
        """How many invocations those who wait need, those on their way among them.

        Who gets one of the `busy` places sooner than a `start` could bring a new one needs none, unless that has been
        promised for as long as a start takes (`overdue`). `are_bound`: each brings a value, and keeps a place beside
        its own.
        """
        if self.places is None:
            return min(waiting, FIRST_STARTS)
        soon = self.freed(busy, start) if start is not None and self.may_wait else 0
        taken = self.newcomers(self.places) if are_bound else self.places
        return -(-max(waiting - soon, overdue) // taken)
