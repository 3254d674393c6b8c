"""Counting, keeping and replaying frames (docs/protocol.md §2). Knows frames only as bytes."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from protocol.errors import ProtocolError
from protocol.flow import Budget

FRAME_COST: Final = 64  # bytes added to each frame's length: what keeping it costs beside its bytes
MAX_UNACKED_BYTES: Final = 16 << 20  # 250 MB/s over 50 ms of round trip
MAX_UNACKED_FRAMES: Final = 8192
MIN_UNACKED_BYTES: Final = 256 << 10  # two heads and a cut of data fit beside the control reserve
MIN_UNACKED_FRAMES: Final = 64
CONTROL_SHARE: Final = 8  # an eighth of both limits is left for control frames
OWN_SHARE: Final = 8  # an eighth of the bytes needs no budget
ACK_DELAY: Final = 0.05  # seconds that a received frame may stay unacknowledged while leased
ACK_BYTES: Final = 1 << 20  # of cost, unacknowledged at most
_ACK_SHARE: Final = 4  # acknowledged at a quarter of the sender's limits


class SendLedger:
    """The frames of one direction that the peer has not acknowledged. Begins and ends with the session."""

    __slots__ = (
        "_budget", "_hold_bytes", "_hold_frames", "_kept", "_max_bytes", "_max_frames", "_own", "_position", "bytes",
        "released", "round_trip",
    )  # fmt: skip

    def __init__(
        self,
        max_bytes: int = MAX_UNACKED_BYTES,
        max_frames: int = MAX_UNACKED_FRAMES,
        budget: Budget | None = None,
    ) -> None:
        """`budget`: of the process, for what is kept beyond an eighth."""
        self._budget = budget
        self._own = max_bytes // OWN_SHARE
        self._kept: deque[tuple[bytes, float]] = deque()  # (frame, when it was first sent)
        self._max_bytes = max_bytes
        self._max_frames = max_frames
        self._hold_bytes = max_bytes - max_bytes // CONTROL_SHARE
        self._hold_frames = max_frames - max_frames // CONTROL_SHARE
        self._position = 0  # kept frames handed to the present socket
        self.bytes = 0  # cost of the kept frames
        self.released = 0  # frames acknowledged: the number of the oldest kept one
        # Seconds, the least seen on this socket; an upper bound, as an acknowledgement may be delayed.
        self.round_trip: float | None = None

    @property
    def sent(self) -> int:
        """Frames numbered so far."""
        return self.released + len(self._kept)

    @property
    def frames(self) -> int:
        return len(self._kept)

    def has_room(self, size: int) -> bool:
        """Whether a frame of `size` bytes that may be held back may go now. Where the budget has no room, and more than
        an eighth is kept, an acknowledgement is owed that asks again."""
        cost = size + FRAME_COST
        if self.bytes + cost > self._hold_bytes or len(self._kept) >= self._hold_frames:
            return False
        return self._budget is None or self.bytes < self._own or cost <= self._budget.left

    def has_control_room(self, size: int) -> bool:
        """Whether a control frame of `size` bytes may go now: only the whole bound stops it."""
        return self.bytes + size + FRAME_COST <= self._max_bytes and len(self._kept) < self._max_frames

    def keep(self, frame: bytes, now: float) -> None:
        """Give the frame the next number, as it is handed to the socket. There is room: the caller has asked."""
        self._add(len(frame) + FRAME_COST)
        self._kept.append((frame, now))
        self._position += 1

    def release(self, received: int, now: float | None = None, *, may_be_old: bool = False) -> None:
        """The peer has received so many frames. With `now`, measure the round trip.

        `may_be_old`: the count came in a frame that may be a replay, and is then ignored when a later one is known.
        Raises `ProtocolError` for an impossible count.
        """
        if may_be_old and received < self.released:
            return
        if not self.released <= received <= self.sent:
            raise ProtocolError(f"a count of {received}; between {self.released} and {self.sent} are possible")
        cost, newest = 0, 0.0
        for _ in range(received - self.released):
            frame, newest = self._kept.popleft()
            cost += len(frame) + FRAME_COST
        self._add(-cost)
        if now is not None and received > self.released:
            self.measured(now - newest)
        self._position = max(0, self._position - (received - self.released))
        self.released = received

    def measured(self, seconds: float) -> None:
        """A round trip took so long at most."""
        if self.round_trip is None or seconds < self.round_trip:
            self.round_trip = seconds

    def _add(self, cost: int) -> None:
        before, self.bytes = self.bytes, self.bytes + cost
        if self._budget is not None and (before > self._own or self.bytes > self._own):
            self._budget.lend(max(0, self.bytes - self._own) - max(0, before - self._own))

    def close(self) -> None:
        """The session is over: nothing is kept. Idempotent."""
        self._kept.clear()
        self._add(-self.bytes)

    def rewind(self, received: int) -> None:
        """A new socket, whose peer has received so many: everything after is to be replayed."""
        self.release(received)
        self._position = 0
        self.round_trip = None

    @property
    def has_replay(self) -> bool:
        return self._position < len(self._kept)

    def replay(self, budget: int) -> list[bytes]:
        """The next frames to replay, about `budget` bytes, at least one if there is one."""
        frames: list[bytes] = []
        for frame, _ in islice(self._kept, self._position, None):
            if budget <= 0:
                break
            frames.append(frame)
            budget -= len(frame)
        self._position += len(frames)
        return frames


class ReceiveLedger:
    """What was received in one direction, and when to say so. Begins and ends with the session."""

    __slots__ = ("_bytes", "_frames", "_max_bytes", "_max_frames", "count", "due_at", "is_due")

    def __init__(self) -> None:
        self.count = 0  # counted frames received into the session
        self.is_due = False  # an acknowledgement is to leave as soon as the socket takes it
        self.due_at: float | None = None  # when it will be; None when it is, or nothing is unacknowledged
        self._bytes = 0
        self._frames = 0
        self.expect(MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES)

    def expect(self, max_bytes: int, max_frames: int) -> None:
        """What the peer said that it keeps at most."""
        self._max_bytes = min(max_bytes // _ACK_SHARE, ACK_BYTES)
        self._max_frames = max_frames // _ACK_SHARE

    def receive(self, size: int, now: float) -> None:
        self.count += 1
        self._bytes += size + FRAME_COST
        self._frames += 1
        if self._bytes >= self._max_bytes or self._frames >= self._max_frames:
            self.is_due, self.due_at = True, None
        elif not self.is_due and self.due_at is None:
            self.due_at = now + ACK_DELAY

    def pass_time(self, now: float) -> None:
        """What has become due is due until it leaves: a full socket must not make a timer fire again and again."""
        if self.due_at is not None and self.due_at <= now:
            self.is_due, self.due_at = True, None

    def state(self) -> int:
        """The count, about to be told to the peer: nothing is due any more."""
        self._bytes = self._frames = 0
        self.is_due, self.due_at = False, None
        return self.count
