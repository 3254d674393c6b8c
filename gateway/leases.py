"""A function's leases: the links whose environments are awake, since when and until when, and how they spend it.

Knows links and their starts. Who gets one, and what follows on its end, is the pool's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.bill import Bill
from gateway.dialback import Link
from gateway.starts import Start

LONGEST: Final = 900.0  # seconds; no platform lets an invocation run longer
RENEWAL_STARTS: Final = 3  # expected cold starts before its time is over, a lease is ageing: another takes over …
LONGEST_LEAD: Final = 0.25  # … but no earlier than in that part of it
LAST_CALL: Final = 5.0  # seconds before its end in which a lease takes no stream at all


class Leases(dict[Link, Start]):
    """Of one pool; begins and ends with it."""

    def __init__(self, bill: Bill, share: float, aged: Callable[[], None], over: Callable[[Link], None]) -> None:
        """`share`: of its time, in which a lease takes new streams. `aged`, `over`: called when one is ageing, and when
        it takes no more."""
        super().__init__()
        self._bill = bill
        self._share = share
        self._aged = aged
        self._over = over
        self._loop = asyncio.get_running_loop()

    def begin(self, link: Link, start: Start, remaining: float, cold: float) -> None:
        """For so many seconds; `cold`: those of a start. Streams may be open on it already."""
        remaining = min(remaining, LONGEST)
        self[link] = start
        start.is_leased = True
        start.counted_at = self._loop.time()
        start.ends_at = start.counted_at + remaining
        start.idle_since = None if link.open_streams else start.counted_at
        seconds = remaining * self._share
        lead = min(seconds * LONGEST_LEAD, RENEWAL_STARTS * cold)
        start.timer = self._loop.call_later(seconds - lead, self._age, link, lead)

    def end(self, link: Link) -> Start | None:
        """The link's, if it has one. Idempotent."""
        start = self.pop(link, None)
        if start is not None:
            start.is_leased = False
            self._count(start)
            self.busy(start)
            if start.timer is not None:
                start.timer.cancel()
        return start

    def busy(self, start: Start) -> None:
        """It is idle no longer."""
        if start.idle_since is not None:
            self._count(start)
            start.idle_since = None
            start.is_shared = False

    def settle(self) -> None:
        """Bring the bill up to now."""
        for start in self.values():
            self._count(start)

    def _count(self, start: Start) -> None:
        now = self._loop.time()
        self._bill.leased += now - start.counted_at
        start.counted_at = now
        if start.idle_since is not None:
            self._bill.idle += now - start.idle_since
            start.idle_since = now

    def takes(self, link: Link) -> bool:
        """Whether it takes a stream that can go nowhere else: not at the very end, when it would be cut at once."""
        start = self.get(link)
        if start is None or not link.can_open:
            return False
        return not start.is_retired or start.ends_at - self._loop.time() > LAST_CALL

    def first(self, has_room: Callable[[Link], bool]) -> Link | None:
        """The latest that takes new streams, and this one."""
        links = (link for link, start in reversed(self.items()) if not start.is_retired)
        return next((link for link in links if link.can_open and has_room(link)), None)

    @property
    def streams(self) -> int:
        """Open on all of them."""
        return sum(link.open_streams for link in self)

    def places_taken(self, takes_more: Callable[[Link], bool]) -> int:
        """Streams on those that take more when these have ended."""
        links = (link for link, start in self.items() if not start.is_retired)
        return sum(link.open_streams for link in links if takes_more(link))

    @property
    def are_all_retired(self) -> bool:
        """None takes a new stream."""
        return all(start.is_retired for start in self.values())

    @property
    def kept(self) -> int:
        """How many stay awake, used or not, for a while yet."""
        return sum(1 for start in self.values() if start.is_kept and not start.is_ageing and not start.is_retired)

    def to_renew(self, environments: int, warm: int, *, is_steady: bool) -> int:
        """How many are to take over from those that have little time, so that `environments` last: awake where they
        would get a stream at once (`is_steady`). Else `warm` is enough, and one whose streams come one by one is so
        itself before the next. Those that are kept are missed already."""
        ageing = [start for start in self.values() if start.is_ageing and not (start.is_retired or start.is_kept)]
        if not ageing:
            return 0
        fresh = sum(1 for start in self.values() if not (start.is_ageing or start.is_retired))
        missing = max(1, environments) - fresh
        if is_steady:
            return max(0, min(missing, len(ageing)))
        shared = sum(1 for start in ageing if start.is_shared and start.idle_since is None)
        return max(0, min(missing, shared) - warm)

    @property
    def oldest_ageing(self) -> Link | None:
        """That a fresh lease takes over from."""
        return next((link for link, start in self.items() if start.is_ageing and not start.is_retired), None)

    def _age(self, link: Link, lead: float) -> None:
        start = self[link]
        start.is_ageing = True
        start.timer = self._loop.call_later(lead, self._over, link)
        self._aged()
