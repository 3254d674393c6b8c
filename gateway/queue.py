"""A function's queue: requests that wait for a place, in the order in which they came.

Knows exchanges and time; nothing of links and invocations.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.errors import PoolRefusal, Problem
from gateway.exchange import Exchange


@dataclass(eq=False, slots=True)
class Waiter:
    """A request in the queue; `place` is set when it has its stream, or fails with its refusal."""

    exchange: Exchange
    queue: Queue
    """Where it waits now."""
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """On the loop's clock."""
    place: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def refuse(self, problem: Problem) -> None:
        """It waits no more. Idempotent, and void when it has its stream."""
        self.leave()
        if not self.place.done():
            self.place.set_exception(PoolRefusal(problem))
            self.place.exception()  # whoever waits may have left in this very turn: then nobody else looks

    def leave(self) -> None:
        """Wait no more. Idempotent."""
        self.queue.remove(self)


class Queue:
    """Of one pool; begins and ends with it."""

    def __init__(self, rested: Callable[[], None]) -> None:
        """`rested`: called when an invocation may be started for one that had to wait for it."""
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._resting: dict[Waiter, asyncio.TimerHandle] = {}
        self._rested = rested
        self._since = 0.0  # somebody or other has waited, on the loop's clock

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    @property
    def resting(self) -> int:
        """How many of them have an invocation to come, later."""
        return len(self._resting)

    def overdue(self, seconds: float) -> tuple[int, float | None]:
        """How many have waited so long, at least one when somebody or other has; and in how many seconds there may be
        more (None: never)."""
        before, count = asyncio.get_running_loop().time() - seconds, 0
        if self._since > before:
            return 0, self._since - before
        for waiter in self._waiters:
            if waiter.since > before:
                return max(count, 1), waiter.since - before
            count += 1
        return count, None

    def add(self, exchange: Exchange) -> Waiter:
        """At its end."""
        waiter = Waiter(exchange, self)
        if not self._waiters:
            self._since = waiter.since
        self._waiters[waiter] = None
        return waiter

    def enter(self, waiters: Iterable[Waiter], *, first: bool = False) -> None:
        """Those who waited in another queue, in their order: at the end, or `first` of all."""
        entering = list(waiters)
        for waiter in reversed(entering) if first else entering:
            waiter.leave()
            waiter.queue = self
            self._waiters[waiter] = None
            self._waiters.move_to_end(waiter, last=not first)

    def remove(self, waiter: Waiter) -> None:
        """Idempotent."""
        self._waiters.pop(waiter, None)
        timer = self._resting.pop(waiter, None)
        if timer is not None:
            timer.cancel()

    @property
    def head(self) -> Waiter | None:
        """Who has waited longest, and waits still."""
        while self._waiters:
            waiter = next(iter(self._waiters))
            if not waiter.place.done() and not waiter.exchange.is_ended:
                return waiter
            self.remove(waiter)
        return None

    def pop(self) -> Waiter | None:
        """The head of the queue, which is in it no more."""
        if (waiter := self.head) is not None:
            self.remove(waiter)
        return waiter

    def least_tried(self) -> Waiter | None:
        """The first of those that the fewest failed invocations were charged to."""
        alive = (waiter for waiter in self._waiters if not waiter.place.done() and not waiter.exchange.is_ended)
        return min(alive, key=lambda waiter: waiter.exchange.retries, default=None)

    def rest(self, waiter: Waiter, seconds: float) -> None:
        """It keeps its turn, but no invocation is started for it before that."""
        if waiter in self._resting:
            self._resting[waiter].cancel()
        self._resting[waiter] = asyncio.get_running_loop().call_later(seconds, self._wake, waiter)

    def refuse_all(self, problem: Problem) -> None:
        while (waiter := self.pop()) is not None:
            waiter.refuse(problem)

    def _wake(self, waiter: Waiter) -> None:
        del self._resting[waiter]
        self._rested()
