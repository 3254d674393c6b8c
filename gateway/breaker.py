"""A function's circuit breaker (M. Nygard, "Release It!"): what fails time after time is left alone for a while.

It stands before invocations alone: streams on environments that are awake never pass it. Knows only numbers and time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from enum import Enum
from typing import Final

import structlog

from gateway.config import BreakerConfig
from gateway.errors import Problem

log = structlog.get_logger("dialback.pool")

LONGEST_PAUSE: Final = 60.0  # seconds between two trials, reached by doubling while they fail


class Circuit(Enum):
    CLOSED = "closed"  # invocations are free
    OPEN = "open"  # none is started
    HALF_OPEN = "half-open"  # one is, on trial


class Input(Enum):
    SUCCEEDED = "succeeded"  # an invocation has led to a lease
    FAILED = "failed"
    TRIPPED = "tripped"  # so many have failed, one after the other
    ELAPSED = "elapsed"  # the pause is over


_C, _I = Circuit, Input
STEPS: Final[dict[tuple[Circuit, Input], Circuit]] = {
    (_C.CLOSED, _I.SUCCEEDED): _C.CLOSED,
    (_C.CLOSED, _I.FAILED): _C.CLOSED,
    (_C.CLOSED, _I.TRIPPED): _C.OPEN,
    (_C.OPEN, _I.SUCCEEDED): _C.CLOSED,  # one that had begun before
    (_C.OPEN, _I.FAILED): _C.OPEN,
    (_C.OPEN, _I.ELAPSED): _C.HALF_OPEN,
    (_C.HALF_OPEN, _I.SUCCEEDED): _C.CLOSED,
    (_C.HALF_OPEN, _I.FAILED): _C.OPEN,
}


class Breaker:
    """Of one pool; begins and ends with it."""

    def __init__(self, function: str, config: BreakerConfig, elapsed: Callable[[], None]) -> None:
        """`elapsed`: called when a trial may be made."""
        self.circuit = Circuit.CLOSED
        self.openings = 0
        """How often it has opened."""
        self._function = function
        self._config = config
        self._elapsed = elapsed
        self._failures = 0  # since the last success
        self._pause = config.pause
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        return self.circuit is Circuit.OPEN

    @property
    def retry_after(self) -> int:
        """Whole seconds until an invocation is tried again, at least one."""
        if self._timer is None:
            return 1
        return max(1, math.ceil(self._timer.when() - asyncio.get_running_loop().time()))

    @property
    def problem(self) -> Problem:
        """What is answered while it is open."""
        return Problem("circuit-open", retry_after=self.retry_after)

    def room(self, coming: int) -> float:
        """How many invocations may be started now, while so many have not led to a lease yet."""
        if self.circuit is Circuit.CLOSED:
            return math.inf
        return 0 if self.is_open else max(0, 1 - coming)

    def succeeded(self) -> None:
        """An invocation has led to a lease."""
        self._failures = 0
        self._step(Input.SUCCEEDED)

    def failed(self) -> None:
        """One has not, and throttling was not why."""
        self._failures += 1
        is_enough = 0 < self._config.failures <= self._failures
        self._step(Input.TRIPPED if self.circuit is Circuit.CLOSED and is_enough else Input.FAILED)

    def reset(self) -> None:
        """What failed is not there any more."""
        self.succeeded()

    def close(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self, event: Input) -> None:
        before, self.circuit = self.circuit, STEPS[self.circuit, event]
        if self.circuit is before:
            return
        self.close()
        if self.circuit is Circuit.OPEN:
            self.openings += 1
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if before is Circuit.HALF_OPEN else self._config.pause
            self._timer = asyncio.get_running_loop().call_later(self._pause, self._over)
            log.error("circuit.opened", function=self._function, failures=self._failures, seconds=self._pause)
        else:
            log.info(f"circuit.{self.circuit.value}", function=self._function)

    def _over(self) -> None:
        self._step(Input.ELAPSED)
        self._elapsed()
