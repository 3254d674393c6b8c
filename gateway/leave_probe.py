"""Sees that a client has left while nothing is read from it: asks the kernel, which keeps what it knows to itself until
somebody reads.

Knows one socket and a clock; nothing of what is spoken on it. Under TLS it looks at the socket below.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

INTERVAL: Final = 0.25  # seconds between two looks
#: POLLRDHUP (Linux, FreeBSD): the other side's FIN came, whatever lies unread before it. Elsewhere only the end of
#: both directions can be seen, and resets everywhere.
GONE: Final = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class LeaveProbe:
    """Of one connection. Looks from `begin` on until `end`; both may be called as often as reading is paused and
    resumed, and cost nothing then: the timer of the first look is left to run."""

    __slots__ = ("_loop", "_transport", "_looked", "_left", "_timer", "_is_blind")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.BaseTransport,
        *,
        looked: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        """`looked`: called each `INTERVAL` while blind, before the look. `left`: called once, when the client has."""
        self._loop = loop
        self._transport = transport
        self._looked = looked
        self._left = left
        self._timer: asyncio.TimerHandle | None = None
        self._is_blind = False

    def begin(self) -> None:
        """Nothing is read from now on."""
        self._is_blind = True
        if self._timer is None:
            self._timer = self._loop.call_later(INTERVAL, self._look)

    def end(self) -> None:
        """Reading goes on, and sees for itself."""
        self._is_blind = False

    def close(self) -> None:
        """For good."""
        self._is_blind = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._is_blind or self._transport.is_closing():
            return
        self._looked()
        if _has_left(self._transport):
            self._is_blind = False
            self._left()
        elif self._is_blind:
            self._timer = self._loop.call_later(INTERVAL, self._look)


def _has_left(transport: asyncio.BaseTransport) -> bool:
    connection = transport.get_extra_info("socket")
    if connection is None or connection.fileno() < 0 or not hasattr(select, "poll"):
        return False  # Windows: seen when reading goes on
    poll = select.poll()
    poll.register(connection.fileno(), GONE)
    return bool(poll.poll(0))
