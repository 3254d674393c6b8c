"""A session: every stream of a link, over one socket after another (docs/protocol.md §2, §5, §6).

What both sides share.

The driver's contract, the same on both sides:
- every byte that comes: `receive` (or `receive_part`, or `heard` for pings and pongs), then handle the events;
- then, and after every call that sends, `frames_to_send` until it gives nothing or the socket is full, then
  `pending_events`;
- one timer at `next_timeout()`, that calls `handle_timeout`;
- `socket_lost` once for each socket that was attached.
A `ProtocolError` out of any of these means: close the socket with 1002, and call `end`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol import events as ev
from protocol.dial import Limits
from protocol.errors import LocalError, ProtocolError
from protocol.events import Event
from protocol.flow import MAX_WINDOW, Budget, ReceiveCredit, SendCredit
from protocol.frames import (
    DATA_SIZE,
    UNCOUNTED,
    Ack,
    Bytes,
    Close,
    Code,
    Credit,
    Frame,
    Headers,
    Message,
    Request,
    Reset,
    Stop,
    Trailers,
    decode,
    encode,
)
from protocol.lease import LeaseState
from protocol.ledger import ReceiveLedger, SendLedger
from protocol.reader import Piece, Reader
from protocol.scheduler import Scheduler
from protocol.stream import (
    MAX_MESSAGE,
    TERMINAL,
    Input,
    Queued,
    QueuedClose,
    QueuedData,
    QueuedEnd,
    QueuedMessage,
    QueuedTrailers,
    State,
    Stream,
    step,
)

SILENCE_PINGS: Final = 3  # ping intervals without a byte after which a socket is given up
DEFAULT_ROUND_TRIP: Final = 0.05  # seconds, until one was measured
UNLIMITED: Final = (1 << 63) - 1


class Session:
    """Begins with the first dial, ends with `SessionEnded`. Use `FunctionSession` or `GatewaySession`."""

    def __init__(
        self, session_id: bytes, limits: Limits, *, data_size: int = DATA_SIZE, budget: Budget | None = None
    ) -> None:
        self.id = session_id
        self.limits = limits
        self.epoch = 0
        self.lease_state = LeaseState.PARKED
        self.lease = 0  # its number
        self.is_attached = False
        self.is_ended = False
        self.last_stream = 0  # the highest number that was opened
        self._streams: dict[int, Stream] = {}
        self._sender = SendLedger(limits.unacked, limits.frames)
        self._receiver = ReceiveLedger()
        self._reader = Reader()
        self._scheduler = Scheduler(self._sender, self._receiver, self._sent_of, data_size)
        self._budget = budget or Budget()
        self._peer_credit = 0  # the first credit of what we send
        self._ping = 0.0  # seconds between the gateway's pings
        self._heard_at = 0.0
        self._deadlines: dict[str, float] = {}  # name -> time; see _on_timeout
        self._events: list[Event] = []
        self._handlers: dict[type[Frame], Callable[..., None]] = {
            Ack: self._on_ack,
            Trailers: self._on_trailers,
            Message: self._on_message,
            Close: self._on_close,
            Credit: self._on_credit,
            Reset: self._on_reset,
            Stop: self._on_stop,
        }

    def __repr__(self) -> str:
        name, session = type(self).__name__, self.id.hex()[:8]
        return f"{name}({session}, epoch={self.epoch}, {self.lease_state.value}, streams={len(self._streams)})"

    # What a driver asks

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    @property
    def is_leased(self) -> bool:
        return self.lease_state is not LeaseState.PARKED

    @property
    def unacked_bytes(self) -> int:
        """The cost of what is kept for replay; never above the limit that this side stated."""
        return self._sender.bytes

    @property
    def unacked_frames(self) -> int:
        return self._sender.frames

    def is_open(self, stream: int) -> bool:
        return stream in self._streams

    def is_writable(self, stream: int) -> bool:
        """Whether less than 64 KiB are queued. When false, `StreamWritable` will come."""
        found = self._streams.get(stream)
        if found is None or found.is_writable:
            return True
        found.is_full = True
        return False

    def pending_events(self) -> list[Event]:
        """What sending, or a call of ours, caused."""
        events, self._events = self._events, []
        return events

    # The socket's side

    def receive(self, message: Bytes, now: float) -> list[Event]:
        """One whole message. Raises `ProtocolError`."""
        return self.receive_part(message, 0, len(message), now)

    def receive_part(self, part: Bytes, offset: int, length: int, now: float) -> list[Event]:
        """The next part of a message of `length` bytes; DATA is passed on before its frame is whole.

        Raises `ProtocolError`.
        """
        if self.is_ended or not self.is_attached:
            return []
        self._heard_at = now
        got = self._reader.feed(part, offset, length)
        if type(got) is Piece:
            self._on_piece(got, now)
        elif got is not None:
            frame = decode(got)  # type: ignore[arg-type]
            if frame.TYPE not in UNCOUNTED:
                self._expect_counted()
                self._reader.whole_counted()
                self._receiver.receive(len(got), now)  # type: ignore[arg-type]
            handler = self._handlers.get(type(frame))
            if handler is None:
                raise ProtocolError(f"{type(frame).__name__} is not for this side")
            handler(frame, now)
        return self.pending_events()

    def heard(self, now: float) -> None:
        """A ping or a pong came."""
        self._heard_at = now

    def frames_to_send(self, budget: int, now: float) -> list[bytes]:
        """The messages that are ready, in order, about `budget` bytes; at least one when any is ready.

        Raises `ProtocolError`.
        """
        if not self._may_send() or budget <= 0:
            return []
        return self._scheduler.take(budget, now, acknowledge=self.is_leased)

    @property
    def has_frames_to_send(self) -> bool:
        """Whether `frames_to_send` may have something (an acknowledgement that is due has its own timeout)."""
        return self._may_send() and self._scheduler.has_work

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called, if ever."""
        times = list(self._deadlines.values())
        if self.is_leased and self._may_send():
            if self._receiver.due_at is not None:
                times.append(self._receiver.due_at)
            if self._ping:
                times.append(self._heard_at + SILENCE_PINGS * self._ping)
        return min(times, default=None)

    def handle_timeout(self, now: float) -> list[Event]:
        """Do what is due. An acknowledgement that is due leaves with the next `frames_to_send`."""
        if self.is_ended:
            return []
        for name in [name for name, at in self._deadlines.items() if at <= now]:
            if name in self._deadlines:
                del self._deadlines[name]
                self._on_timeout(name, now)
        silent = (
            self._ping and self.is_leased and self._may_send() and now >= self._heard_at + SILENCE_PINGS * self._ping
        )
        if silent and not self.is_ended:
            self._events.append(ev.SocketDead("silent"))
            self._heard_at = now  # said once for each interval
        return self.pending_events()

    def end(self, reason: str) -> list[Event]:
        """End the session. Idempotent."""
        self._end(reason)
        return self.pending_events()

    # Sending on a stream. Each raises LocalError, with nothing changed, for a step that the table does not have.

    def send_data(self, stream: int, data: Bytes, *, end: bool = False) -> None:
        """Queue a piece of body, whole and by reference: the caller leaves it unchanged. See `is_writable`."""
        found = self._local(stream)
        state = step(found.send_state, Input.DATA, LocalError) if len(data) else found.send_state
        found.send_state = step(state, Input.END, LocalError) if end else state
        if len(data):
            found.enqueue(QueuedData(data), len(data))
        if end:
            found.enqueue(QueuedEnd())
        self._queue_grew(found)

    def send_trailers(self, stream: int, headers: Headers) -> None:
        """End our direction with trailers."""
        encode(Trailers(stream, headers))  # too large: said now, not later
        self._enqueue(stream, Input.TRAILERS, QueuedTrailers(headers))

    def send_message(self, stream: int, data: Bytes, *, text: bool) -> None:
        """Queue a WebSocket message, whole and by reference."""
        self._enqueue(stream, Input.MESSAGE, QueuedMessage(data, text), len(data))

    def send_close(self, stream: int, code: int, reason: bytes = b"") -> None:
        """Queue the WebSocket close code; `send_data(stream, b"", end=True)` follows."""
        self._enqueue(stream, Input.CLOSE, QueuedClose(code, reason))

    def reset(self, stream: int, code: int, reason: str = "") -> None:
        """End our direction at once; what was not sent is discarded.

        Nothing happens when it has ended, or the stream is over.
        """
        found = self._streams.get(stream)
        if found is None or (found.send_state in TERMINAL and not found.queue):
            return
        found.discard_queue()
        if not self._was_announced(found):
            self._scheduler.drop_heads(found)
            found.receive_state = State.RESET
            found.receive_credit.close()
        else:
            self._scheduler.drop_heads(found)
            options = {"reason": reason} if reason else {}
            self._scheduler.control(lambda: Reset(stream, code, options))
        found.send_state = State.RESET
        self._close_if_over(found)

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to end its direction; what it still sends is dropped. Nothing happens when it has ended."""
        found = self._streams.get(stream)
        if found is None or found.stop_sent or not found.is_receiving:
            return
        found.stop_sent = found.is_discarding = True
        self._scheduler.forget(found)
        if self._was_announced(found):
            self._scheduler.control(lambda: Stop(stream, code))

    def consume(self, stream: int, size: int, now: float) -> None:
        """The consumer took `size` bytes of body."""
        found = self._streams.get(stream)
        if found is not None and found.is_receiving and not found.is_discarding:
            self._granted(found, found.receive_credit.consume(size, now, self._sender.round_trip or DEFAULT_ROUND_TRIP))

    def consume_message(self, stream: int, now: float) -> None:
        """The consumer took the oldest message."""
        found = self._streams.get(stream)
        if found is None or not found.messages_waiting:
            return
        size = found.messages_waiting.popleft()
        if not found.messages_waiting:
            size, found.assembly_deferred = size + found.assembly_deferred, 0
        self.consume(stream, size, now)

    def start_reading(self, stream: int) -> None:
        """Grant the first credit of a body that was announced with `expect`; nothing happens when it was granted."""
        found = self._streams.get(stream)
        if found is not None and found.is_receiving and not found.is_discarding:
            self._granted(found, found.receive_credit.grant())

    # What the two sides do in their own way

    def _may_send(self) -> bool:
        return self.is_attached and not self.is_ended

    def _on_timeout(self, name: str, now: float) -> None:
        raise NotImplementedError

    def _was_announced(self, stream: Stream) -> bool:
        """Whether the peer knows the stream."""
        return True

    # Inside

    def _attach(self, peer_received: int, now: float) -> None:
        self._sender.rewind(peer_received)
        self.is_attached = True
        self._heard_at = now

    def _detach(self) -> None:
        self.is_attached = False
        self._reader.cut()

    def _end(self, reason: str) -> None:
        if self.is_ended:
            return
        self._detach()
        self.is_ended = True
        self._deadlines.clear()
        self._streams.clear()
        self._events.append(ev.SessionEnded(reason))

    def _disarm(self) -> None:
        """Parked: no timer of the link runs."""
        self._deadlines.clear()
        self._receiver.due_at = None

    def _add(self, number: int, request: Request, *, send: int, window: int, granted: int, now: float) -> Stream:
        limit = request.options.get("max_message", MAX_MESSAGE)
        stream = Stream(
            number,
            SendCredit(send),
            ReceiveCredit(window, granted, self._budget, now),
            is_websocket="websocket" in request.options,
            max_message=limit if type(limit) is int and limit > 0 else MAX_MESSAGE,
        )
        self._streams[number] = stream
        self.last_stream = number
        return stream

    def _local(self, stream: int) -> Stream:
        found = self._streams.get(stream)
        if found is None:
            raise LocalError(f"stream {stream} is over")
        return found

    def _enqueue(self, stream: int, event: Input, item: Queued, size: int = 0) -> None:
        found = self._local(stream)
        found.send_state = step(found.send_state, event, LocalError)
        found.enqueue(item, size)
        self._queue_grew(found)

    def _queue_grew(self, stream: Stream) -> None:
        self._scheduler.schedule(stream)

    def _sent_of(self, stream: Stream) -> None:
        if stream.is_full and stream.is_writable:
            stream.is_full = False
            self._events.append(ev.StreamWritable(stream.id))
        self._close_if_over(stream)

    def _close_if_over(self, stream: Stream) -> None:
        if stream.is_over and self._streams.get(stream.id) is stream:
            stream.receive_credit.close()
            self._scheduler.forget(stream)
            del self._streams[stream.id]
            self._events.append(ev.StreamClosed(stream.id))

    def _granted(self, stream: Stream, offset: int | None) -> None:
        if offset is not None:
            self._scheduler.credit(stream.id, offset)

    def _remote(self, number: int) -> Stream | None:
        """The stream of a peer's frame, None for one that is over. Raises `ProtocolError` for one that never was."""
        found = self._streams.get(number)
        if found is None and number > self.last_stream:
            raise ProtocolError("a frame for a stream that was never opened")
        return found

    def _expect_counted(self) -> None:
        """Raises `ProtocolError` when no counted frame may come now."""

    def _on_piece(self, piece: Piece, now: float) -> None:
        if piece.first:
            self._expect_counted()
        stream = self._remote(piece.stream)
        if stream is not None:
            if piece.first:
                stream.receive(Input.DATA)
                if stream.receive_credit.received + piece.fresh > stream.receive_credit.granted:
                    raise ProtocolError("more bytes than were granted")
            elif stream.receive_state is not State.BODY:
                stream = None  # it ended between two pieces
        ended = False
        if stream is not None:
            stream.receive_credit.receive(len(piece.data))
            if piece.last and piece.end:
                stream.receive(Input.END)
                ended = True
            if not stream.is_discarding and (len(piece.data) or ended):
                self._events.append(ev.DataReceived(stream.id, piece.data, ended))
        if piece.last:
            self._receiver.receive(piece.length, now)
        if ended and stream is not None:
            self._close_if_over(stream)

    def _on_ack(self, frame: Ack, now: float) -> None:
        self._sender.release(frame.received, now)

    def _on_trailers(self, frame: Trailers, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        stream.receive(Input.TRAILERS)
        if not stream.is_discarding:
            self._events.append(ev.TrailersReceived(stream.id, frame.headers))
        self._close_if_over(stream)

    def _on_message(self, frame: Message, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        stream.receive(Input.MESSAGE)
        size = max(len(frame.payload), 1)
        stream.receive_credit.receive(size)
        if stream.is_discarding:
            return
        assembly = stream.assembly if stream.assembly is not None else bytearray()
        assembly += frame.payload
        if len(assembly) > stream.max_message:
            stream.assembly = None
            self._events.append(ev.StreamReset(stream.id, Code.TOO_BIG, "a message above its limit"))
            self.stop(stream.id, Code.TOO_BIG)
        elif frame.last:
            stream.assembly = None
            stream.messages_waiting.append(size)
            self._events.append(ev.MessageReceived(stream.id, bytes(assembly), frame.text))
        else:
            stream.assembly = assembly
            if stream.messages_waiting:
                stream.assembly_deferred += size
            else:
                self.consume(stream.id, size, now)

    def _on_close(self, frame: Close, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        stream.receive(Input.CLOSE)
        if not stream.is_discarding:
            self._events.append(ev.CloseReceived(stream.id, frame.code, frame.reason))

    def _on_credit(self, frame: Credit, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        if frame.offset > stream.send_credit.offset + 2 * MAX_WINDOW:
            raise ProtocolError("a credit beyond every window")
        was_none = stream.send_credit.limit == 0
        if stream.send_credit.raise_to(frame.offset):
            self._scheduler.schedule(stream)
        if was_none and stream.send_state not in TERMINAL:
            self._events.append(ev.CreditGranted(stream.id))

    def _on_reset(self, frame: Reset, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        stream.receive(Input.RESET)
        reason = frame.options.get("reason", "")
        if not stream.is_discarding:
            self._events.append(ev.StreamReset(stream.id, frame.code, reason if isinstance(reason, str) else ""))
        self._close_if_over(stream)

    def _on_stop(self, frame: Stop, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is not None and not stream.stop_received:
            stream.stop_received = True
            if stream.send_state not in TERMINAL or stream.queue:
                self._events.append(ev.StreamStopped(stream.id, frame.code))
