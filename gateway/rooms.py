"""Requests that wait for one environment of many: until it has a free place, or, where it is frozen, until it is found.

Lambda cannot be told which environment to thaw. But it thaws those that it has before it makes a new one: so those that
are frozen are woken, in rounds that double, until the wanted one says by its session that it has come. Knows no values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.dialback import Link
from gateway.errors import Problem
from gateway.queue import Queue, Waiter

SEARCH_LINGER: Final = 10.0  # seconds at most that one stays awake which came in the place of another; two cold starts
SETTLED: Final = 1.0  # seconds after PARKED, when the platform surely knows an environment for free


@dataclass(slots=True)
class Search:
    """For one environment that is frozen."""

    began: float
    """On the loop's clock."""
    spared: int
    """New environments that may come although it is there: one, where it was not free for long."""
    others: set[Link] = field(default_factory=set)
    """Those that have come in its place."""
    new: int = 0
    """How many of them were dialled in for it."""

    def needed(self, frozen: Collection[Link]) -> int:
        """Invocations: as many as have come in vain, and one; not for those that did."""
        return min(1 + len(self.others), sum(1 for link in frozen if link not in self.others))


@dataclass(slots=True)
class Room:
    """Those who wait for one environment."""

    queue: Queue
    search: Search | None = None


class Rooms:
    """Of one pool; begins and ends with it."""

    def __init__(self, rested: Callable[[], None]) -> None:
        """`rested`: as for `Queue`."""
        self._rooms: dict[Link, Room] = {}
        self._held: set[Link] = set()  # that stay awake while others are looked for, and no longer
        self._rested = rested

    def __bool__(self) -> bool:
        """There is something to see to."""
        return bool(self._rooms or self._held)

    def __len__(self) -> int:
        """All who wait."""
        return sum(len(room.queue) for room in self._rooms.values())

    def queue(self, link: Link) -> Queue:
        """Of those who wait for this one."""
        room = self._rooms.get(link)
        if room is None:
            room = self._rooms[link] = Room(Queue(self._rested))
        return room.queue

    def is_wanted(self, link: Link) -> bool:
        """Somebody waits for it, or for one in whose place it has come."""
        return link in self._rooms or self._is_searching

    def linger(self, link: Link, seconds: float) -> float:
        """How long it stays awake, which would do so for `seconds`: one that was thawed in the place of another is held
        until that is found, lest it be thawed again."""
        if seconds >= SEARCH_LINGER or not self._is_searching:
            return seconds
        self._held.add(link)
        return SEARCH_LINGER

    def pop(self, link: Link) -> Waiter | None:
        """Who has waited for it longest, and waits no more."""
        room = self._rooms.get(link)
        return None if room is None else room.queue.pop()

    def empty(self, link: Link) -> list[Waiter]:
        """It is not waited for any more: those who did, in their order."""
        self._held.discard(link)
        room = self._rooms.pop(link, None)
        return [] if room is None else list(room.queue)

    def came(self, link: Link, began: float, is_new: bool) -> list[Link]:
        """An invocation that was begun then (on the loop's clock) has brought this one. Which are looked for no longer,
        since they are gone."""
        gone = []
        for wanted, room in self._rooms.items():
            search = room.search
            if wanted is link:
                room.search = None
            elif search is not None and began >= search.began:
                search.others.add(link)
                search.new += is_new
                if search.new > search.spared:
                    gone.append(wanted)
        return gone

    def needed(self, frozen: Mapping[Link, float]) -> int:
        """Invocations for those who wait for one of the `frozen`, each since when."""
        needed, now = 0, asyncio.get_running_loop().time()
        for link, room in list(self._rooms.items()):
            if not room.queue:
                del self._rooms[link]
            elif link in frozen and not room.queue.resting:
                if room.search is None:
                    room.search = Search(now, spared=int(now - frozen[link] < SETTLED))
                needed += room.search.needed(frozen)
        if self._held and not self._is_searching:
            for link in self._held:
                link.release()
            self._held.clear()
        return min(needed, len(frozen))

    @property
    def _is_searching(self) -> bool:
        return any(room.search is not None for room in self._rooms.values())

    def least_tried(self) -> Waiter | None:
        """As of a `Queue`, of those who wait for an invocation."""
        tried = (room.queue.least_tried() for room in self._rooms.values() if room.search is not None)
        waiters = (waiter for waiter in tried if waiter is not None)
        return min(waiters, key=lambda waiter: waiter.exchange.retries, default=None)

    def refuse(self, problem: Problem, *, sought: bool = False) -> None:
        """All; with `sought` those alone who wait for an invocation."""
        for room in self._rooms.values():
            if room.search is not None or not sought:
                room.queue.refuse_all(problem)
