"""Credit: absolute offsets, so that a lost or repeated update is harmless (docs/protocol.md §6). Pure arithmetic."""

from __future__ import annotations

from typing import Final

from protocol.errors import LocalError, ProtocolError

INITIAL_WINDOW: Final = 64 << 10  # bytes
MAX_FIRST_CREDIT: Final = 4 << 20  # bytes that a side, or a REQUEST, may state
#: Bytes to which a window widens on any path: a client that stops reading leaves less than 1 MB with us.
SHORT_WINDOW: Final = 512 << 10
MAX_WINDOW: Final = 16 << 20  # bytes, where the path is long; 250 MB/s over 50 ms of round trip
#: Bytes by which a session's windows may be wider than their first credits.
SESSION_BUDGET: Final = 32 << 20
_GRANT_SHARE: Final = 4  # a grant is sent when it has grown by a quarter of the window
_FAST: Final = 2  # a window that is consumed within so many round trips slows the sender down
_SLOW: Final = 16  # one that takes longer than so many is of no use
_SHORT_PATH: Final = 0.05  # seconds: up to `SHORT_WINDOW` no round trip counts as shorter


class SendCredit:
    """How far one direction may send. Begins with the peer's first credit, ends with the direction."""

    __slots__ = ("limit", "offset")

    def __init__(self, limit: int) -> None:
        self.offset = 0  # bytes handed to the scheduler's frames
        self.limit = limit  # bytes granted

    @property
    def available(self) -> int:
        return self.limit - self.offset

    def raise_to(self, limit: int) -> bool:
        """Take a grant. True when it opened a closed window. A lower one than the last is old, and ignored."""
        if limit <= self.limit:
            return False
        was_closed = self.offset >= self.limit
        self.limit = limit
        return was_closed


class Budget:
    """Bytes that several may borrow, each beside its own. `within`: a larger one, whose they are."""

    __slots__ = ("lent", "total", "within")

    def __init__(self, total: int = SESSION_BUDGET, within: Budget | None = None) -> None:
        self.total = total
        self.within = within
        self.lent = 0

    @property
    def left(self) -> int:
        left = self.total - self.lent
        return left if self.within is None else min(left, self.within.left)

    def lend(self, size: int) -> None:
        """A negative size gives back."""
        self.lent += size
        if self.within is not None:
            self.within.lend(size)


class ReceiveCredit:
    """How far the peer may send in one direction.

    Begins with our first credit; `close` ends it and gives its share of the budget back.
    """

    __slots__ = (
        "_asked_at", "_budget", "_first", "_granted_before", "_lent", "_mark", "_mark_at", "consumed", "granted",
        "received", "window",
    )  # fmt: skip

    def __init__(self, window: int, granted: int, budget: Budget, now: float) -> None:
        """`window` bytes to keep granted ahead of the consumer; `granted` of them already (0 with `expect`)."""
        self.window = window
        self.granted = granted
        self.received = 0
        self.consumed = 0
        self._first = window
        self._budget = budget
        self._lent = 0  # bytes of it: those of the window beyond the first, or what was granted while it was wider
        self._mark = 0  # the consumed offset at which the present window began to be measured
        self._mark_at = now
        self._asked_at: float | None = None  # when a grant was made that no byte has answered
        self._granted_before = 0  # up to where the peer could send without it

    def receive(self, size: int, now: float) -> float | None:
        """Seconds from a grant to the first byte that needed it, where this is one: a round trip or more.

        Raises `ProtocolError` when the peer sent beyond its credit.
        """
        received = self.received + size
        if received > self.granted:
            raise ProtocolError("more bytes than were granted")
        self.received = received
        if self._asked_at is None or received <= self._granted_before:
            return None
        took, self._asked_at = now - self._asked_at, None
        return took

    def consume(self, size: int, now: float, round_trip: float) -> int | None:
        """The consumer took `size` bytes. A new absolute grant when one is due, else None. `round_trip` in seconds.

        Raises `LocalError` for more than was received: such a grant would bound nothing.
        """
        if size < 0 or self.consumed + size > self.received:
            raise LocalError("more bytes were consumed than came")
        self.consumed += size
        if self.consumed - self._mark >= self.window:
            self._resize(now - self._mark_at, round_trip)
            self._mark, self._mark_at = self.consumed, now
        if self._first + self._lent > self.window:  # it was narrowed
            self._borrow(min(self._lent, max(self.window, self.granted - self.consumed) - self._first))
        return self.grant(now)

    def _resize(self, took: float, round_trip: float) -> None:
        """A whole window took so long: double it, halve it, or leave it. No share of the budget grows beyond what it
        leaves to the others, or stays above twice that."""
        window, left = self.window, self._budget.left
        patient = max(round_trip, _SHORT_PATH)
        if took <= _FAST * (patient if window < SHORT_WINDOW else round_trip):
            wider = min(2 * window, MAX_WINDOW)
            share = wider - self._first
            if wider > window and share <= left + self._lent - share:
                self.window = wider
                self._borrow(max(share, self._lent))
                return
        if took > _SLOW * (patient if window <= SHORT_WINDOW else round_trip) or self._lent > 2 * max(left, 0):
            self.window = max(self._first, window // 2)

    def _borrow(self, share: int) -> None:
        if share != self._lent:
            self._budget.lend(share - self._lent)
            self._lent = share

    def grant(self, now: float | None = None) -> int | None:
        """The grant that is due, if any. With `now`, what answers it measures a round trip."""
        target = self.consumed + self.window
        if target - self.granted < max(1, self.window // _GRANT_SHARE):
            return None
        if self._asked_at is None and now is not None:
            self._asked_at, self._granted_before = now, self.granted
        self.granted = target
        return target

    def close(self) -> None:
        """Nothing more will be consumed. Idempotent; what still comes is checked against what was granted."""
        self._borrow(0)
        self.consumed = self.granted
