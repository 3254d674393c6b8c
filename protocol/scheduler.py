"""What goes to the socket next: replay, control, heads, then streams in turn (docs/protocol.md §2.6).

Frames get their number here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from protocol.frames import (
    DATA_OVERHEAD,
    DATA_SIZE,
    Ack,
    Bytes,
    Close,
    Credit,
    Frame,
    Trailers,
    data_type,
    encode,
    encode_fixed,
    message_type,
)
from protocol.ledger import ReceiveLedger, SendLedger
from protocol.stream import QueuedClose, QueuedData, QueuedEnd, QueuedMessage, QueuedTrailers, Stream

QUANTUM: Final = 64 << 10  # bytes a stream may send in one turn

Late = Callable[[], Frame]  # a frame that states the received count, made when it is sent


class Scheduler:
    """Of one session; it outlives sockets, and is asked only while one is attached."""

    __slots__ = ("_control", "_credits", "_heads", "_receiver", "_ring", "_sender", "_sent_of", "data_size")

    def __init__(
        self, sender: SendLedger, receiver: ReceiveLedger, sent_of: Callable[[Stream], None], data_size: int = DATA_SIZE
    ) -> None:
        """`sent_of` is called after something of a stream was handed to the socket."""
        self._sender = sender
        self._receiver = receiver
        self._sent_of = sent_of
        self._control: deque[Late] = deque()
        self._credits: dict[int, int] = {}  # stream -> the latest unsent grant
        self._heads: deque[tuple[Stream | None, bytes]] = deque()  # a stream of None: LEASED, never held back
        self._ring: deque[Stream] = deque()
        self.data_size = data_size

    def control(self, late: Late) -> None:
        self._control.append(late)

    def credit(self, stream: int, offset: int) -> None:
        """Unsent grants of a stream merge."""
        self._credits[stream] = offset

    def head(self, stream: Stream | None, frame: bytes) -> None:
        self._heads.append((stream, frame))
        if stream is not None:
            stream.head_unsent += 1

    def schedule(self, stream: Stream) -> None:
        """The stream has something to send and is not blocked by credit or by its own head."""
        if not stream.is_scheduled and stream.queue and not stream.head_unsent:
            stream.is_scheduled = True
            self._ring.append(stream)

    def drop_heads(self, stream: Stream) -> None:
        if stream.head_unsent:
            self._heads = deque(entry for entry in self._heads if entry[0] is not stream)
            stream.head_unsent = 0

    def forget(self, stream: Stream) -> None:
        self._credits.pop(stream.id, None)

    @property
    def has_work(self) -> bool:
        return bool(self._control or self._credits or self._heads or self._ring or self._sender.has_replay)

    @property
    def has_unsent_request(self) -> bool:
        return any(stream is not None for stream, _ in self._heads)

    def take(self, budget: int, now: float, *, acknowledge: bool) -> list[bytes]:
        """The next frames, about `budget` bytes. Raises `ProtocolError` when the peer does not acknowledge."""
        sender = self._sender
        frames = sender.replay(budget)
        budget -= sum(map(len, frames))
        if sender.has_replay:
            return frames
        while self._control and budget > 0:
            budget -= self._keep(frames, encode(self._control.popleft()()), now)
        while self._credits and budget > 0:
            stream, offset = next(iter(self._credits.items()))
            del self._credits[stream]
            budget -= self._keep(frames, encode(Credit(stream, offset)), now)
        budget = self._take_heads(frames, budget, now)
        self._take_streams(frames, budget, now)
        if acknowledge and self._receiver.is_due(now):
            frames.append(encode(Ack(self._receiver.state())))
        return frames

    def _keep(self, frames: list[bytes], frame: bytes, now: float) -> int:
        self._sender.keep(frame, now)
        frames.append(frame)
        return len(frame)

    def _take_heads(self, frames: list[bytes], budget: int, now: float) -> int:
        held: list[tuple[Stream | None, bytes]] = []
        while self._heads and budget > 0:
            stream, frame = self._heads.popleft()
            if stream is None:
                budget -= self._keep(frames, frame, now)
            elif held or not self._sender.has_room(len(frame)):
                held.append((stream, frame))
            else:
                stream.head_unsent -= 1
                budget -= self._keep(frames, frame, now)
                self.schedule(stream)
                self._sent_of(stream)
        self._heads.extendleft(reversed(held))
        return budget

    def _take_streams(self, frames: list[bytes], budget: int, now: float) -> None:
        ring = self._ring
        while ring and budget > 0:
            stream = ring[0]
            used, is_held = self._turn(frames, stream, min(budget, QUANTUM), now)
            budget -= used
            if is_held:
                return  # no room in the ledger: the round goes on here when there is
            ring.popleft()
            stream.is_scheduled = False
            if used and stream.queue and self._is_sendable(stream):
                self.schedule(stream)
            self._sent_of(stream)

    @staticmethod
    def _is_sendable(stream: Stream) -> bool:
        """Whether the head of the queue needs no credit that is not there."""
        item = stream.queue[0]
        needs = type(item) is QueuedData or (type(item) is QueuedMessage)
        return not needs or stream.send_credit.available > 0

    def _turn(self, frames: list[bytes], stream: Stream, quantum: int, now: float) -> tuple[int, bool]:
        """One stream's turn: (bytes used, whether the ledger had no room)."""
        used = 0
        while stream.queue and used < quantum and self._is_sendable(stream):
            room = min(self.data_size, max(stream.send_credit.available, 0), max(stream.queued, 1))
            if not self._sender.has_room(DATA_OVERHEAD + room):
                return used, True
            frame = self._next_frame(stream)
            used += self._keep(frames, frame, now)
        return used, False

    def _next_frame(self, stream: Stream) -> bytes:
        item = stream.queue[0]
        if type(item) is QueuedMessage:
            return self._cut_message(stream, item)
        if type(item) is QueuedClose:
            stream.queue.popleft()
            return encode(Close(stream.id, item.code, item.reason))
        if type(item) is QueuedTrailers:
            stream.queue.popleft()
            return encode(Trailers(stream.id, item.headers))
        return self._join_data(stream)

    def _join_data(self, stream: Stream) -> bytes:
        """One DATA frame of what waits, up to the cut and the credit; END travels with the last piece."""
        queue, credit = stream.queue, stream.send_credit
        room = min(self.data_size, credit.available)
        pieces: list[Bytes] = []
        size = 0
        while queue and size < room:
            item = queue[0]
            if type(item) is not QueuedData:
                break
            left = room - size
            if len(item.data) <= left:
                pieces.append(item.data)
                size += len(item.data)
                queue.popleft()
            else:
                view = memoryview(item.data)
                pieces.append(view[:left])
                item.data = view[left:]
                size += left
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
