"""How many invocations of a function may run at once, and how fast they are started. Knows only numbers and time.

The configuration says how many; the platform may have room for fewer, and says so by refusing one (429). What it
refused is not asked for again at once, and more is asked for in small steps: a few refusals tell what a hundred would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

BATCH: Final = 10  # invocations that are started at once, at most: the concurrency of a new AWS account
FIRST_PAUSE: Final = 0.2  # seconds from a refusal until one more than the platform last had room for is tried
LONGEST_PAUSE: Final = 5.0  # seconds, reached by doubling while the platform goes on refusing


class Ceiling:
    """Of one pool; begins and ends with it."""

    def __init__(self, most: int, rate: int, raised: Callable[[], None]) -> None:
        """`most`, and `rate` a second: what the configuration allows. `raised`: called when there may be room where
        there was none."""
        self._most = most
        self._raised = raised
        self._learned = most
        self._whole_batch = min(BATCH, rate)
        self._batch_pause = self._whole_batch / rate
        self._batch = self._whole_batch  # what is left of it
        self._step = 1  # how far the next try goes: doubled while it goes well
        self._pause = FIRST_PAUSE
        self._is_trying = False
        self._batch_timer: asyncio.TimerHandle | None = None
        self._try_timer: asyncio.TimerHandle | None = None

    @property
    def is_lowered(self) -> bool:
        """The platform has refused what the configuration allows."""
        return self._learned < self._most

    def room(self, running: int) -> int:
        """How many may be started now, while so many run."""
        return max(0, min(self._learned - running, self._batch))

    def started(self) -> None:
        """One more was started."""
        self._batch -= 1
        if self._batch_timer is None:
            self._batch_timer = asyncio.get_running_loop().call_later(self._batch_pause, self._next_batch)

    def refused(self, running: int, retry_after: float = 0.0) -> None:
        """The platform had no room for one more than the `running` others, and none is asked for in `retry_after`
        seconds."""
        self._learned = min(self._learned, running)
        if self._is_trying:
            self._is_trying = False
            self._step = 1
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            if self._try_timer is not None:
                self._try_timer.cancel()
                self._try_timer = None
        self._arm(retry_after)

    def close(self) -> None:
        """Idempotent."""
        for timer in (self._batch_timer, self._try_timer):
            if timer is not None:
                timer.cancel()
        self._batch_timer = self._try_timer = None

    def _next_batch(self) -> None:
        self._batch_timer = None
        self._batch = self._whole_batch
        self._raised()

    def _arm(self, retry_after: float = 0.0) -> None:
        if not self.is_lowered:
            return
        loop = asyncio.get_running_loop()
        if self._try_timer is not None:
            if self._try_timer.when() >= loop.time() + retry_after:
                return
            self._try_timer.cancel()
        self._try_timer = loop.call_later(max(self._pause, retry_after), self._try_more)

    def _try_more(self) -> None:
        self._try_timer = None
        if self._is_trying:  # nothing was refused since the last try
            self._pause = FIRST_PAUSE
            self._step *= 2
        self._is_trying = True
        self._learned = min(self._learned + self._step, self._most)
        self._arm()
        self._raised()
