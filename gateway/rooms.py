"""Requests that wait for one environment of many: until it has a free place, or, where it is frozen, until it is found.

Lambda cannot be told which environment to thaw. But it thaws those that it has before it makes a new one: so those that
are frozen are woken, in rounds that double, until the wanted one says by its session that it has come. Knows no values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from gateway.dialback import Link
from gateway.errors import Problem
from gateway.queue import Queue, Waiter

SEARCH_LINGER: Final = 0.3  # seconds that an environment at least stays awake which came while another is looked for
GONE_AFTER: Final = 2  # new environments: one may come because the wanted one was about to be free, and not yet


@dataclass(slots=True)
class Search:
    """For one environment that is frozen."""

    began: float
    """On the loop's clock."""
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
        self._rested = rested

    def __len__(self) -> int:
        """All who wait."""
        return sum(len(room.queue) for room in self._rooms.values())

    def queue(self, link: Link) -> Queue:
        """Of those who wait for this one."""
        room = self._rooms.get(link)
        if room is None:
            room = self._rooms[link] = Room(Queue(self._rested))
        return room.queue

    def want(self, link: Link) -> bool:
        """Somebody waits for it, or for one in whose place it has come."""
        return link in self._rooms or self._is_searching

    def linger(self, seconds: float) -> float:
        """How long one stays awake that would do so for `seconds`; lest it be thawed again in place of one that is
        looked for."""
        return max(seconds, SEARCH_LINGER) if self._is_searching else seconds

    def pop(self, link: Link) -> Waiter | None:
        """Who has waited for it longest, and waits no more."""
        room = self._rooms.get(link)
        return None if room is None else room.queue.pop()

    def empty(self, link: Link) -> list[Waiter]:
        """It is not waited for any more: those who did, in their order."""
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
                if search.new >= GONE_AFTER:
                    gone.append(wanted)
        return gone

    def needed(self, frozen: Collection[Link]) -> int:
        """Invocations for those who wait for one of the `frozen`."""
        needed = 0
        for link, room in list(self._rooms.items()):
            if not room.queue:
                del self._rooms[link]
            elif link in frozen and not room.queue.resting:
                if room.search is None:
                    room.search = Search(asyncio.get_running_loop().time())
                needed += room.search.needed(frozen)
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
