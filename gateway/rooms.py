"""Requests that wait for one environment of many: until it has a free place, or, where it is frozen, until it is found.

Lambda cannot be told which environment to thaw. But it thaws those that it has before it makes a new one: so those that
are frozen are woken, in rounds that double, until the wanted one says by its session that it has come. Knows no values.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gateway.dialback import Link
from gateway.errors import Problem
from gateway.queue import Queue, Waiter


@dataclass(slots=True)
class Search:
    """For one environment that is frozen."""

    began: float
    """On the loop's clock."""
    frozen: int
    """Environments that were frozen then, itself among them."""
    others: int = 0
    """Those that have come in its place. More than were frozen must be before it counts as gone: an environment is not
    free yet in the moment that its invocation is answered."""


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

    def is_awaited(self, link: Link | None) -> bool:
        return link in self._rooms and len(self._rooms[link].queue) > 0

    def pop(self, link: Link) -> Waiter | None:
        """Who has waited for it longest, and waits no more."""
        room = self._rooms.get(link)
        return None if room is None else room.queue.pop()

    def empty(self, link: Link) -> list[Waiter]:
        """It is not waited for any more: those who did, in their order."""
        room = self._rooms.pop(link, None)
        return [] if room is None else list(room.queue)

    def came(self, link: Link, began: float) -> list[Link]:
        """An invocation that was begun then (on the loop's clock) has brought this one; which are looked for no longer,
        since they are gone."""
        gone = []
        for wanted, room in self._rooms.items():
            search = room.search
            if wanted is link:
                room.search = None
            elif search is not None and began >= search.began:
                search.others += 1
                if search.others > search.frozen:
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
                    room.search = Search(asyncio.get_running_loop().time(), len(frozen))
                needed += 1 + room.search.others
        return min(needed, len(frozen))

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
