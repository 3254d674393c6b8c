"""Whose environment a request's value is: that which answered it first, while it lives.

Knows links and exchanges; who waits for such an environment is in `rooms`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.affinity import Tie
from gateway.dialback import Link
from gateway.exchange import Exchange
from protocol.frames import Headers

MOST: Final = 10_000  # values of a function, of some 250 bytes; one more takes the place of the one longest unused
LONGEST: Final = 14_400.0  # seconds without a request, after which a value is forgotten
LATELY: Final = 60.0  # seconds without a stream, in which a value counts as in use: who has it may soon ask again
BINDS_NOT: Final = 400  # the least status that binds nothing, so that who makes values up takes nobody's place


@dataclass(slots=True)
class Bond:
    """A value's environment."""

    link: Link
    used_at: float
    """On the loop's clock."""
    streams: int = 0
    """Its own that are open there."""


@dataclass(slots=True)
class Counts:
    """Since the gateway began."""

    new: int = 0
    """Values that were bound."""
    kept: int = 0
    """Requests that went to the environment of their value."""
    lost: int = 0
    """Values whose environment has ended, or was not found again."""
    evicted: int = 0
    """Values that made room, or were not used for too long."""


class Bonds:
    """Of one pool; begins and ends with it."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._bonds: OrderedDict[bytes, Bond] = OrderedDict()  # the last used is the last
        self._lately: dict[bytes, float] = {}  # in use without a stream: since when, the latest last
        self._on: Counter[Link] = Counter()  # how many are in use on each

    def __len__(self) -> int:
        return len(self._bonds)

    def link(self, exchange: Exchange) -> Link | None:
        """Where its value is bound to; None: nowhere, or it has none."""
        if exchange.tie is None or exchange.tie.value is None:
            return None
        self._drop_old()
        bond = self._bonds.get(exchange.tie.value)
        return None if bond is None else bond.link

    def on(self, link: Link) -> int:
        """How many of the values that are bound there are in use: they have a stream, or had one `LATELY`."""
        before = asyncio.get_running_loop().time() - LATELY
        while self._lately and self._lately[value := next(iter(self._lately))] < before:
            self._rests(value, self._bonds[value].link)
        return self._on[link]

    def opened(self, exchange: Exchange, link: Link) -> None:
        """Its stream is open there: so that two that come at once are not parted, its value is bound before it is
        answered."""
        tie = exchange.tie
        if tie is None:
            return
        tie.listener = partial(self._answered, link)
        if tie.value is not None:
            tie.is_first = self._bind(tie.value, link)
            self._bonds[tie.value].streams += 1
            del self._lately[tie.value]

    def ended(self, exchange: Exchange, link: Link) -> None:
        """Its stream there is over."""
        value = exchange.tie.value if exchange.tie is not None else None
        bond = self._bonds.get(value) if value is not None else None
        if value is None or bond is None or bond.link is not link or not bond.streams:
            return  # it has lost its bond since
        bond.streams -= 1
        if not bond.streams:
            self._lately[value] = asyncio.get_running_loop().time()

    def untie(self, exchange: Exchange) -> None:
        """Its environment did not take it: any other may."""
        value = exchange.tie.value if exchange.tie is not None else None
        if value is not None and value in self._bonds:
            self._drop(value)

    def lose(self, link: Link) -> None:
        """Nothing can go there any more."""
        lost = [value for value, bond in self._bonds.items() if bond.link is link]
        for value in lost:
            self._drop(value)
        self.counts.lost += len(lost)

    def _answered(self, link: Link, tie: Tie, status: int, headers: Headers) -> None:
        if status < BINDS_NOT:
            value = tie.affinity.told(headers)
            if value is not None and value not in self._bonds and not link.is_outdated:
                self._bind(value, link)
        elif tie.is_first and tie.value is not None:
            bond = self._bonds.get(tie.value)
            if bond is not None and bond.link is link:
                self._drop(tie.value)

    def _bind(self, value: bytes, link: Link) -> bool:
        """Whether it was not bound there yet."""
        now = asyncio.get_running_loop().time()
        bond = self._bonds.get(value)
        if bond is not None and bond.link is link:
            bond.used_at = now
            self._bonds.move_to_end(value)
            self._uses(value, bond, now)
            self.counts.kept += 1
            return False
        if bond is not None:
            self._drop(value)
        self._bonds[value] = bond = Bond(link, now)
        self._uses(value, bond, now)
        self.counts.new += 1
        while len(self._bonds) > MOST:
            self._evict()
        return True

    def _drop_old(self) -> None:
        before = asyncio.get_running_loop().time() - LONGEST
        while self._bonds and next(iter(self._bonds.values())).used_at < before:
            self._evict()

    def _evict(self) -> None:
        self._drop(next(iter(self._bonds)))
        self.counts.evicted += 1

    def _drop(self, value: bytes) -> None:
        bond = self._bonds.pop(value)
        if bond.streams or value in self._lately:
            self._rests(value, bond.link)

    def _uses(self, value: bytes, bond: Bond, now: float) -> None:
        if self._lately.pop(value, None) is None and not bond.streams:
            self._on[bond.link] += 1
        self._lately[value] = now

    def _rests(self, value: bytes, link: Link) -> None:
        """It was in use."""
        self._lately.pop(value, None)
        self._on[link] -= 1
        if not self._on[link]:
            del self._on[link]
