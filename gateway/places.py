"""Which leased links have a free place, and which of them the next stream goes to.

The latest lease first: it lasts longest, and that one link fills up before the next gets any lets the others park.
"""

from __future__ import annotations

import heapq

from gateway.dialback import Link
from gateway.starts import Start


class Places:
    """Of one pool; begins and ends with it. What it holds is looked at again when it is asked for."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, Start]] = []

    def add(self, start: Start) -> None:
        """Its link may have room. Idempotent."""
        if not start.is_listed:
            start.is_listed = True
            heapq.heappush(self._heap, (-start.number, start))

    def first(self) -> Link | None:
        """The link that the next stream goes to; it has room."""
        heap = self._heap
        while heap:
            start = heap[0][1]
            link = start.link
            if link is not None and start.is_leased and not start.is_retired and link.can_open:
                return link
            heapq.heappop(heap)
            start.is_listed = False
        return None
