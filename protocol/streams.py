"""The streams of a session (docs/protocol.md §5, §6): what is sent and what comes on each.

Knows no socket and no lease.
"""

from __future__ import annotations

from typing import Final

from protocol import events as ev
from protocol.codec import encode
from protocol.dial import Limits
from protocol.errors import LocalError, ProtocolError
from protocol.events import Event
from protocol.flow import Budget, ReceiveCredit, SendCredit
from protocol.frames import (
    DATA_OVERHEAD,
    DATA_SIZE,
    MAX_DATA_SIZE,
    Bytes,
    Close,
    Code,
    Credit,
    Headers,
    Message,
    Request,
    Reset,
    Stop,
    Trailers,
)
from protocol.ledger import ReceiveLedger, SendLedger
from protocol.reader import Piece
from protocol.scheduler import Scheduler
from protocol.stream import (
    MAX_MESSAGE,
    TERMINAL,
    Input,
    Queued,
    QueuedEnd,
    QueuedFrame,
    QueuedMessage,
    State,
    Stream,
    step,
)

DEFAULT_ROUND_TRIP: Final = 0.05  # seconds, until one was measured
MAX_REASON: Final = 256  # characters of a RESET's reason; it is for a log


class Streams:
    """What a session is built on. Begins and ends with it; each stream is forgotten when it is over.

    Calls for a stream that is over do nothing, or raise `LocalError` where something would be lost unseen.
    """

    def __init__(
        self, limits: Limits, data_size: int = DATA_SIZE, budget: Budget | None = None, replay: Budget | None = None
    ) -> None:
        """`data_size`: bytes at which bodies are cut. `budget`: for windows that widen; `replay`: see `SendLedger`.

        Raises `ValueError` for limits that the peer would refuse.
        """
        if not limits.is_valid() or not 0 < data_size <= min(MAX_DATA_SIZE, limits.unacked // 4):
            raise ValueError(f"{limits} with frames of {data_size} bytes")
        self.limits = limits
        self.last_stream = 0  # the highest number that was opened
        self._streams: dict[int, Stream] = {}
        self._sender = SendLedger(limits.unacked, limits.frames, replay)
        self._receiver = ReceiveLedger()
        self._scheduler = Scheduler(self._sender, self._receiver, self._sent_of, data_size)
        self._budget = budget or Budget()
        self._peer_credit = 0  # the first credit of what we send
        self._events: list[Event] = []

    # What a driver asks

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def is_open(self, stream: int) -> bool:
        return stream in self._streams

    def is_writable(self, stream: int) -> bool:
        """Whether little is queued (64 KiB, 1024 pieces). When false, `StreamWritable` will come."""
        found = self._streams.get(stream)
        if found is None or found.is_writable:
            return True
        found.is_full = True
        return False

    def pending_events(self) -> list[Event]:
        """What sending, or a call of ours, caused."""
        events, self._events = self._events, []
        return events

    # Sending on a stream. Each raises LocalError, with nothing changed, for a step that the table does not have.

    def send_data(self, stream: int, data: Bytes, *, end: bool = False) -> None:
        """Queue a piece of body, whole and by reference: the caller leaves it unchanged. See `is_writable`."""
        found = self._local(stream)
        state, size = found.send_state, len(data)
        if size and state is not State.BODY:  # DATA in BODY moves nothing
            state = step(state, Input.DATA, LocalError)
        if end:
            state = step(state, Input.END, LocalError)
        found.send_state = state
        if size:
            found.queue.append(data)
            found.queued += size
        if end:
            found.queue.append(QueuedEnd())
        self._scheduler.schedule(found)

    def send_trailers(self, stream: int, headers: Headers) -> None:
        """End our direction with trailers."""
        self._enqueue(stream, Input.TRAILERS, QueuedFrame(encode(Trailers(stream, headers))))

    def send_message(self, stream: int, data: Bytes, *, text: bool) -> None:
        """Queue a WebSocket message, whole and by reference."""
        self._enqueue(stream, Input.MESSAGE, QueuedMessage(data, text), len(data))

    def send_close(self, stream: int, code: int, reason: bytes = b"") -> None:
        """Queue the WebSocket close code; `send_data(stream, b"", end=True)` follows."""
        self._enqueue(stream, Input.CLOSE, QueuedFrame(encode(Close(stream, code, reason))))

    def reset(self, stream: int, code: int, reason: str = "") -> None:
        """End our direction at once; what was not sent is discarded.

        Nothing happens when it has ended, or the stream is over. A stream that the peer never heard of is over.
        """
        found = self._streams.get(stream)
        if found is None:
            return
        if not found.is_announced:
            self._withdraw(found)
        elif found.send_state not in TERMINAL or found.has_unsent:
            # What a user's code raised may hold anything, also what UTF-8 cannot.
            text = reason[:MAX_REASON].encode("utf-8", "replace").decode()
            self._scheduler.control(encode(Reset(stream, code, {"reason": text} if text else {})))
            found.discard_unsent()
            found.send_state = State.RESET
            self._close_if_over(found)

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to end its direction; what it still sends is dropped. Nothing happens when it has ended.

        A stream that the peer never heard of is over: nobody waits for its response.
        """
        found = self._streams.get(stream)
        if found is None or found.is_discarding or not found.is_receiving:
            return
        if not found.is_announced:
            self._withdraw(found)
            return
        self._scheduler.control(encode(Stop(stream, code)))
        self._scheduler.forget(found)
        found.is_discarding = True
        found.stop_consuming()

    def consume(self, stream: int, size: int, now: float) -> None:
        """The consumer took `size` bytes of body. Raises `LocalError` for more than came."""
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

    # Inside

    def _add(
        self, number: int, request: Request, *, send: int, window: int, granted: int, is_announced: bool, now: float
    ) -> Stream:
        stream = Stream(
            number,
            SendCredit(send),
            ReceiveCredit(window, granted, self._budget, now),
            is_websocket="websocket" in request.options,
            is_announced=is_announced,
            max_message=request.options.get("max_message", MAX_MESSAGE),
        )
        self._streams[number] = stream
        self.last_stream = number
        return stream

    def _withdraw(self, stream: Stream) -> None:
        """Nothing of the stream was handed to a socket: the peer will never hear of it."""
        stream.discard_unsent()
        stream.stop_consuming()
        stream.send_state = stream.receive_state = State.RESET
        self._close_if_over(stream)

    def _lose_all(self, reason: str) -> None:
        """The session is over. A request that was never sent may be sent elsewhere, and is said to be refused."""
        for stream in self._streams.values():
            stream.stop_consuming()
            if not stream.is_announced:
                self._events += (ev.StreamReset(stream.id, Code.REFUSED, reason), ev.StreamClosed(stream.id))
        self._streams.clear()
        self._sender.close()

    def _local(self, stream: int) -> Stream:
        found = self._streams.get(stream)
        if found is None:
            raise LocalError(f"stream {stream} is over")
        return found

    def _enqueue(self, stream: int, event: Input, item: Queued, size: int = 0) -> None:
        found = self._local(stream)
        found.send_state = step(found.send_state, event, LocalError)
        found.queue.append(item)
        found.queued += size
        self._scheduler.schedule(found)

    def _sent_of(self, stream: Stream) -> None:
        if stream.is_full and stream.is_writable:
            stream.is_full = False
            self._events.append(ev.StreamWritable(stream.id))
        self._close_if_over(stream)

    def _close_if_over(self, stream: Stream) -> None:
        if stream.is_over and self._streams.pop(stream.id, None) is not None:
            self._scheduler.forget(stream)
            self._events.append(ev.StreamClosed(stream.id))
            if not self._streams:
                self._emptied()

    def _emptied(self) -> None:
        """Of streams."""

    def _granted(self, stream: Stream, offset: int | None) -> None:
        if offset is not None:
            self._scheduler.credit(stream.id, offset)

    def _remote(self, number: int) -> Stream | None:
        """The stream of a peer's frame, None for one that is over. Raises `ProtocolError` for one that never was."""
        found = self._streams.get(number)
        if (found is None and number > self.last_stream) or (found is not None and not found.is_announced):
            raise ProtocolError("a frame for a stream that was never opened")
        return found

    def _on_piece(self, piece: Piece, now: float) -> None:
        stream = self._remote(piece.stream)
        if stream is None:
            return
        is_empty = piece.length == DATA_OVERHEAD
        if stream.receive_state is not State.BODY and not (is_empty and piece.end):  # DATA in BODY moves nothing
            stream.receive(Input.DATA)
        self._receive(stream, len(piece.data), now)
        ended = piece.last and piece.end
        if ended:
            stream.receive(Input.END)
        if not stream.is_discarding and (len(piece.data) or ended):
            self._events.append(ev.DataReceived(stream.id, piece.data, ended))
        if ended:
            self._close_if_over(stream)

    def _receive(self, stream: Stream, size: int, now: float) -> None:
        took = stream.receive_credit.receive(size, now)
        if took is not None:
            self._sender.measured(took)

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
        self._receive(stream, size, now)
        if stream.is_discarding:
            return
        if stream.assembly is None:
            stream.assembly, stream.assembly_is_text = bytearray(), frame.text
        elif stream.assembly_is_text != frame.text:
            raise ProtocolError("a message of two kinds")
        stream.assembly += frame.payload
        if len(stream.assembly) > stream.max_message:
            self._events.append(ev.StreamReset(stream.id, Code.TOO_BIG, "a message above its limit"))
            self.stop(stream.id, Code.TOO_BIG)
        elif frame.last:
            self._events.append(ev.MessageReceived(stream.id, bytes(stream.assembly), frame.text))
            stream.assembly = None
            stream.messages_waiting.append(size)
        elif stream.messages_waiting:
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
        was_none = stream.send_credit.limit == 0
        if stream.send_credit.raise_to(frame.offset):
            self._scheduler.schedule(stream)
        if was_none and stream.send_credit.limit and stream.send_state not in TERMINAL:
            self._events.append(ev.CreditGranted(stream.id))

    def _on_reset(self, frame: Reset, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        stream.receive(Input.RESET)
        if not stream.is_discarding:
            self._events.append(ev.StreamReset(stream.id, frame.code, frame.options.get("reason", "")))
        self._close_if_over(stream)

    def _on_stop(self, frame: Stop, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is not None and not stream.is_stopped:
            stream.is_stopped = True
            if stream.send_state not in TERMINAL or stream.has_unsent:
                self._events.append(ev.StreamStopped(stream.id, frame.code))
