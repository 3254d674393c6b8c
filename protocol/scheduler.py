"""What goes to the socket next: replay, control, heads, then streams in turn (docs/protocol.md §2.6).

Frames get their number here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from protocol.codec import data_type, encode, encode_fixed, message_type, with_body
from protocol.frames import DATA_OVERHEAD, DATA_SIZE, Ack, Bytes, Credit, Frame
from protocol.ledger import ReceiveLedger, SendLedger
from protocol.stream import QueuedEnd, QueuedFrame, QueuedMessage, Stream

QUANTUM: Final = 64 << 10  # bytes a stream may send in one turn
SMALL_BODY: Final = 16 << 10  # bytes of a whole body up to which it travels in its RESPONSE
CREDIT_SIZE: Final = 20  # bytes that CREDIT has at most
LATE_SIZE: Final = 8 << 10  # bytes that a late frame may have: LEASE with the longest invitation fits

#: A control frame that states a count or a remaining time, made when it is sent.
Late: TypeAlias = Callable[[float], Frame]


_Head: TypeAlias = tuple[Stream, bytes]
_LeaseHead: TypeAlias = tuple[None, bytes | Late]


class Scheduler:
    """Of one session; it outlives sockets, and is asked only while one is attached."""

    __slots__ = (
        "_control", "_credits", "_heads", "_lease_heads", "_receiver", "_ring", "_sender", "_sent_of", "data_size",
    )  # fmt: skip

    def __init__(
        self, sender: SendLedger, receiver: ReceiveLedger, sent_of: Callable[[Stream], None], data_size: int = DATA_SIZE
    ) -> None:
        """`sent_of` is called after something of a stream was handed to the socket. `data_size`: where bodies are cut,
        in bytes."""
        self._sender = sender
        self._receiver = receiver
        self._sent_of = sent_of
        self._control: deque[bytes | Late] = deque()
        self._credits: dict[int, int] = {}  # stream -> the latest unsent grant
        self._heads: deque[_Head | _LeaseHead] = deque()
        self._lease_heads = 0  # how many of them are of no stream: LEASED, RELEASE, PARKED
        self._ring: deque[Stream] = deque()
        self.data_size = data_size

    def control(self, frame: bytes | Late) -> None:
        self._control.append(frame)

    def credit(self, stream: int, offset: int) -> None:
        """Unsent grants of a stream merge."""
        self._credits[stream] = offset

    def head(self, stream: Stream, frame: bytes) -> None:
        self._heads.append((stream, frame))
        stream.head_unsent += 1

    def lease_head(self, frame: bytes | Late) -> None:
        """The gateway's frames of a lease: in order with its REQUESTs, but never held back."""
        self._heads.append((None, frame))
        self._lease_heads += 1

    def schedule(self, stream: Stream) -> None:
        """The stream may have something to send."""
        if not stream.is_scheduled and stream.queue and not stream.head_unsent:
            stream.is_scheduled = True
            self._ring.append(stream)

    def forget(self, stream: Stream) -> None:
        """No credit of ours matters to this stream any more."""
        self._credits.pop(stream.id, None)

    @property
    def has_work(self) -> bool:
        """Whether `take` may have something, beside an acknowledgement."""
        return bool(self._control or self._credits or self._heads or self._ring or self._sender.has_replay)

    def take(self, budget: int, now: float, *, acknowledge: bool) -> list[bytes]:
        """The next frames, about `budget` bytes, and an acknowledgement if one is due and wanted."""
        frames: list[bytes] = []
        is_replaying = self._sender.has_replay
        if is_replaying:
            frames = self._sender.replay(budget)
            budget -= sum(map(len, frames))
            is_replaying = self._sender.has_replay
        if not is_replaying:
            if self._control or self._credits:
                budget = self._take_control(frames, budget, now)
            if self._heads:
                budget = self._take_heads(frames, budget, now)
            if self._ring:
                self._take_streams(frames, budget, now)
        self._receiver.pass_time(now)
        if acknowledge and self._receiver.is_due:
            frames.append(encode(Ack(self._receiver.state())))
        return frames

    def _keep(self, frames: list[bytes], frame: bytes, now: float) -> int:
        self._sender.keep(frame, now)
        frames.append(frame)
        return len(frame)

    def _take_control(self, frames: list[bytes], budget: int, now: float) -> int:
        while self._control and budget > 0:
            if not self._has_room_for(self._control[0]):
                return 0
            budget -= self._keep_control(frames, self._control.popleft(), now)
        if budget > 0 and self._credits:
            for stream in list(self._credits):
                if budget <= 0 or not self._sender.has_control_room(CREDIT_SIZE):
                    return 0
                budget -= self._keep(frames, encode(Credit(stream, self._credits.pop(stream))), now)
        return budget

    def _has_room_for(self, frame: bytes | Late) -> bool:
        return self._sender.has_control_room(len(frame) if isinstance(frame, bytes) else LATE_SIZE)

    def _keep_control(self, frames: list[bytes], frame: bytes | Late, now: float) -> int:
        return self._keep(frames, frame if isinstance(frame, bytes) else encode(frame(now)), now)

    def _take_heads(self, frames: list[bytes], budget: int, now: float) -> int:
        held: list[_Head | _LeaseHead] = []
        while self._heads and budget > 0 and (self._lease_heads or not held):
            head = self._heads.popleft()
            if head[0] is None:
                if not self._has_room_for(head[1]):
                    held.append(head)
                    break
                self._lease_heads -= 1
                budget -= self._keep_control(frames, head[1], now)
                continue
            stream, frame = head
            if not stream.head_unsent:
                continue  # reset since: its head is not wanted any more
            whole = _whole_response(stream, frame)
            if held or not self._sender.has_room(len(whole or frame)):
                held.append(head)
            else:
                stream.head_unsent -= 1
                stream.is_announced = True
                if whole:
                    stream.send_credit.offset += stream.queued
                    stream.queued = 0
                    stream.queue.clear()
                budget -= self._keep(frames, whole or frame, now)
                self.schedule(stream)
                self._sent_of(stream)
        self._heads.extendleft(reversed(held))
        return 0 if held else budget

    def _take_streams(self, frames: list[bytes], budget: int, now: float) -> None:
        ring = self._ring
        while ring and budget > 0:
            stream = ring[0]
            used, is_held = self._turn(frames, stream, min(budget, QUANTUM), now)
            budget -= used
            if not is_held:
                ring.popleft()
                stream.is_scheduled = False
                if used and _is_sendable(stream):
                    self.schedule(stream)
            if used:
                self._sent_of(stream)
            if is_held:
                return  # no room in the ledger: the round goes on here when there is

    def _turn(self, frames: list[bytes], stream: Stream, quantum: int, now: float) -> tuple[int, bool]:
        """One stream's turn: (bytes used, whether the ledger had no room)."""
        used = 0
        while used < quantum and _is_sendable(stream):
            if not self._sender.has_room(self._next_size(stream)):
                return used, True
            used += self._keep(frames, self._next_frame(stream), now)
        return used, False

    def _next_size(self, stream: Stream) -> int:
        """At least the size of the stream's next frame."""
        item = stream.queue[0]
        if type(item) is QueuedFrame:
            return len(item.frame)
        return DATA_OVERHEAD + min(self.data_size, stream.send_credit.available, stream.queued)

    def _next_frame(self, stream: Stream) -> bytes:
        item = stream.queue[0]
        if type(item) is QueuedFrame:
            stream.queue.popleft()
            return item.frame
        if type(item) is QueuedMessage:
            return self._cut_message(stream, item)
        return self._join_data(stream)

    def _join_data(self, stream: Stream) -> bytes:
        """One DATA frame of what waits, up to the cut and the credit; END travels with the last piece."""
        queue, credit = stream.queue, stream.send_credit
        room = min(self.data_size, credit.available)
        pieces: list[Bytes] = []
        size = 0
        while queue and size < room:
            item = queue[0]
            if not isinstance(item, (bytes, bytearray, memoryview)):
                break
            left = room - size
            if len(item) <= left:
                pieces.append(item)
                size += len(item)
                queue.popleft()
            else:
                view = memoryview(item)
                pieces.append(view[:left])
                queue[0] = view[left:]
                size = room
        credit.offset += size
        stream.queued -= size
        end = bool(queue) and type(queue[0]) is QueuedEnd
        if end:
            queue.popleft()
        return encode_fixed(data_type(end), stream.id, pieces)

    def _cut_message(self, stream: Stream, item: QueuedMessage) -> bytes:
        """A message's next frame. It counts at least one byte of credit, so that empty ones are bounded too."""
        credit = stream.send_credit
        size = min(self.data_size, credit.available, len(item.data))
        view = memoryview(item.data)
        last = size == len(item.data)
        frame = encode_fixed(message_type(item.text, last), stream.id, (view[:size],))
        credit.offset += max(size, 1)
        stream.queued -= size
        if last:
            stream.queue.popleft()
        else:
            item.data = view[size:]
        return frame


def _whole_response(stream: Stream, head: bytes) -> bytes | None:
    """A RESPONSE with the body that waits behind it, where that is whole and small and there is credit for it."""
    queue = stream.queue
    if len(queue) != 2 or type(queue[1]) is not QueuedEnd:
        return None
    body = queue[0]
    if not isinstance(body, (bytes, bytearray, memoryview)) or len(body) > min(
        SMALL_BODY, stream.send_credit.available
    ):
        return None
    return with_body(head, body)


def _is_sendable(stream: Stream) -> bool:
    """Whether something is queued that needs no credit, or has some."""
    if not stream.queue:
        return False
    item = stream.queue[0]
    return type(item) is QueuedFrame or type(item) is QueuedEnd or stream.send_credit.available > 0
