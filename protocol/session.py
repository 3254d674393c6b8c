"""A session (docs/protocol.md §2, §3.6): its streams over one socket after another. What both sides share.

The driver's contract, the same on both sides:
- every message that comes: `receive` (or `receive_part`), every ping and pong: `heard`; then handle the events;
- then, and after every call that sends, `frames_to_send` until it gives nothing or the socket is full, then
  `pending_events`;
- one timer at `next_timeout()`, that calls `handle_timeout`, then the same;
- a session knows one socket at a time. `socket_lost` when that one is gone, but not for one that a later dial has
  replaced; no byte of an earlier socket after `dial` or `accept`.
A `ProtocolError` out of any of these means: close the socket with 1002, and call `end`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from protocol import events as ev
from protocol.codec import UNCOUNTED, decode
from protocol.dial import Limits
from protocol.errors import ProtocolError
from protocol.events import Event
from protocol.flow import Budget
from protocol.frames import DATA_SIZE, Ack, Bytes, Close, Credit, Frame, Message, Reset, Stop, Trailers
from protocol.lease import LeaseState
from protocol.reader import Piece, Reader
from protocol.streams import Streams

SILENCE_PINGS: Final = 3  # ping intervals without a byte after which a socket is given up


class Session(Streams):
    """Begins with the first dial, ends with `SessionEnded`. Use `FunctionSession` or `GatewaySession`."""

    def __init__(
        self,
        session_id: bytes,
        limits: Limits,
        *,
        data_size: int = DATA_SIZE,
        budget: Budget | None = None,
        replay: Budget | None = None,
    ) -> None:
        super().__init__(limits, data_size, budget, replay)
        self.id = session_id
        self.epoch = 0
        self.lease_state = LeaseState.PARKED
        self.lease = 0  # its number
        self.is_attached = False
        self.is_ended = False
        self._is_welcomed = False  # WELCOME was said on the present socket: other frames may follow
        self._reader = Reader()
        self._ping = 0.0  # seconds between the gateway's pings
        self._heard_at = 0.0
        self._deadlines: dict[str, float] = {}  # name -> time; see _on_timeout
        self._handlers: dict[type[Frame], Callable[[Any, float], None]] = {
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

    @property
    def is_leased(self) -> bool:
        return self.lease_state is not LeaseState.PARKED

    # The socket's side

    def receive(self, message: Bytes, now: float) -> list[Event]:
        """One whole message. Raises `ProtocolError`."""
        return self.receive_part(message, 0, len(message), now)

    def receive_part(self, part: Bytes, offset: int, length: int, now: float) -> list[Event]:
        """The next part of a message of `length` bytes; DATA is passed on before its frame is whole.

        Raises `ProtocolError`.
        """
        if not self.is_attached:
            return []
        self._heard_at = now
        got = self._reader.feed(part, offset, length)
        if type(got) is Piece:
            self._check_welcomed()
            self._on_piece(got, now)
            if got.last:
                self._receiver.receive(got.length, now)
        elif got is not None:
            self._on_frame(decode(got), len(got), now)  # type: ignore[arg-type]
        return self.pending_events()

    def heard(self, now: float) -> None:
        """A ping or a pong came."""
        self._heard_at = now

    def frames_to_send(self, budget: int, now: float) -> list[bytes]:
        """The messages that are ready, in order, about `budget` bytes; at least one when any is ready."""
        if not self._is_welcomed or budget <= 0:
            return []
        return self._scheduler.take(budget, now, acknowledge=self.is_leased)

    @property
    def has_frames_to_send(self) -> bool:
        """Whether `frames_to_send` may have something."""
        return self._is_welcomed and (self._scheduler.has_work or (self._receiver.is_due and self.is_leased))

    def next_timeout(self) -> float | None:
        """When `handle_timeout` wants to be called, if ever."""
        at = min(self._deadlines.values()) if self._deadlines else None
        if self._is_welcomed and self.is_leased:
            due = self._receiver.due_at
            if due is not None and (at is None or due < at):
                at = due
            silent = self._heard_at + SILENCE_PINGS * self._ping
            if self._ping and (at is None or silent < at):
                at = silent
        return at

    def handle_timeout(self, now: float) -> list[Event]:
        """Do what is due. An acknowledgement that is due leaves with the next `frames_to_send`."""
        self._receiver.pass_time(now)
        for name in [name for name, at in self._deadlines.items() if at <= now]:
            if self._deadlines.pop(name, None) is not None:
                self._on_timeout(name, now)
        silent = self._ping and now >= self._heard_at + SILENCE_PINGS * self._ping
        if silent and self._is_welcomed and self.is_leased:
            self._events.append(ev.SocketDead("silent"))
            self._heard_at = now  # said once for each interval
        return self.pending_events()

    def end(self, reason: str) -> list[Event]:
        """End the session. Idempotent."""
        self._end(reason)
        return self.pending_events()

    # What the two sides do in their own way

    def socket_lost(self, now: float) -> list[Event]:
        """The present socket is gone, or has been given up. Idempotent."""
        raise NotImplementedError

    def _on_timeout(self, name: str, now: float) -> None:
        raise NotImplementedError

    # Inside

    def _attach(self, peer_received: int, now: float) -> None:
        self._sender.rewind(peer_received)
        self.is_attached = True
        self._heard_at = now

    def _detach(self) -> None:
        self.is_attached = self._is_welcomed = False
        self._reader.cut()

    def _end(self, reason: str) -> None:
        if self.is_ended:
            return
        self._detach()
        self.is_ended = True
        self._deadlines.clear()
        self._lose_all(reason)
        self._events.append(ev.SessionEnded(reason))

    def _disarm(self) -> None:
        """Parked: no timer of the link runs."""
        self._deadlines.clear()
        self._receiver.is_due, self._receiver.due_at = False, None

    def _is_present(self, lease: int) -> bool:
        """Whether a frame speaks of the present lease, not of an older one. Raises `ProtocolError` for one to come."""
        if lease > self.lease:
            raise ProtocolError("a lease that was never offered")
        return lease == self.lease

    def _check_welcomed(self) -> None:
        if not self._is_welcomed:
            raise ProtocolError("a frame before WELCOME")

    def _on_frame(self, frame: Frame, size: int, now: float) -> None:
        """A whole frame that is no DATA, of `size` bytes."""
        handler = self._handlers.get(type(frame))
        if handler is None:
            raise ProtocolError(f"{type(frame).__name__} is not for this side")
        self._check_welcomed()
        if frame.TYPE not in UNCOUNTED:
            self._reader.whole_counted()
            self._receiver.receive(size, now)
        handler(frame, now)

    def _on_ack(self, frame: Ack, now: float) -> None:
        self._sender.release(frame.received, now)
