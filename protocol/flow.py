"""Credit: absolute offsets, so that a lost or repeated update is harmless (docs/protocol.md §6). Pure arithmetic."""

from __future__ import annotations

from typing import Final

from protocol.errors import LocalError, ProtocolError

INITIAL_WINDOW: Final = 64 << 10  # bytes
MAX_WINDOW: Final = 4 << 20  # bytes; 80 MB/s over 50 ms of round trip
#: Bytes granted and not consumed, over all streams of a session, above which no window widens.
RECEIVE_BUDGET: Final = 32 << 20
_GRANT_SHARE: Final = 4  # a grant is sent when it has grown by a quarter of the window
_WIDEN_ROUND_TRIPS: Final = 2  # a window that is consumed within so many is what slows the sender down


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
    """What receiving directions have granted and nobody consumed yet, in bytes.

    Of one session, or of several that share one memory; begins and ends with its owner.
    """

    __slots__ = ("outstanding", "total")

    def __init__(self, total: int = RECEIVE_BUDGET) -> None:
        self.total = total
        self.outstanding = 0


class ReceiveCredit:
    """How far the peer may send in one direction.

    Begins with our first credit; `close` ends it and gives its share of the budget back.
    """

    __slots__ = ("_budget", "_mark", "_mark_at", "consumed", "granted", "received", "window")

    def __init__(self, window: int, granted: int, budget: Budget, now: float) -> None:
        """`window` bytes to keep granted ahead of the consumer; `granted` of them already (0 with `expect`)."""
        self.window = window
        self.granted = granted
        self.received = 0
        self.consumed = 0
        self._budget = budget
        self._mark = 0  # the consumed offset at which the present window began to be measured
        self._mark_at = now
        budget.outstanding += granted

    def receive(self, size: int) -> None:
        """Raises `ProtocolError` when the peer sent beyond its credit."""
        if self.received + size > self.granted:
            raise ProtocolError("more bytes than were granted")
        self.received += size

    def consume(self, size: int, now: float, round_trip: float) -> int | None:
        """The consumer took `size` bytes. A new absolute grant when one is due, else None. `round_trip` in seconds.

        Raises `LocalError` for more than was received: a grant for bytes that are still to come would bound nothing.
        """
        if size < 0 or self.consumed + size > self.received:
            raise LocalError("more bytes were consumed than came")
        self.consumed += size
        self._budget.outstanding -= size
        if self.consumed - self._mark >= self.window:
            is_fast = now - self._mark_at <= _WIDEN_ROUND_TRIPS * round_trip
            fits = self._budget.outstanding + self.window <= self._budget.total
            if is_fast and fits and self.window < MAX_WINDOW:
                self.window = min(2 * self.window, MAX_WINDOW)
            self._mark, self._mark_at = self.consumed, now
        return self.grant()

    def grant(self) -> int | None:
        """The grant that is due, if any."""
        target = self.consumed + self.window
        if target - self.granted < max(1, self.window // _GRANT_SHARE):
            return None
        self._budget.outstanding += target - self.granted
        self.granted = target
        return target

    def close(self) -> None:
        """Nothing more will be consumed. Idempotent; what still comes is checked against what was granted."""
        self._budget.outstanding -= self.granted - self.consumed
        self.consumed = self.granted
