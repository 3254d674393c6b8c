"""The gateway's side of a session: it welcomes dials, answers leases, opens streams (docs/protocol.md §3, §4, §5)."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol import events as ev
from protocol.dial import Dial, Limits
from protocol.errors import DialRefused, LocalError, ProtocolError
from protocol.events import Event
from protocol.flow import MAX_WINDOW, Budget
from protocol.frames import (
    DATA_SIZE,
    MAX_STREAM,
    Headers,
    Informational,
    Lease,
    Leased,
    Options,
    Park,
    Parked,
    Release,
    Request,
    Response,
    Welcome,
    encode,
)
from protocol.lease import ANSWER_SILENCE, GATEWAY_LEASE, LeaseInput, LeaseState
from protocol.lease import step as lease_step
from protocol.session import Session
from protocol.stream import Input, State, Stream, step


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the gateway says in WELCOME.

    `grace`: seconds that a leased session outlives its socket; `ping`: seconds between pings.
    """

    grace: float = 30.0
    ping: float = 10.0
    limits: Limits = field(default_factory=Limits)


class GatewaySession(Session):
    """Begins with the first dial that is accepted, ends with `SessionEnded`."""

    def __init__(
        self,
        session_id: bytes,
        options: SessionOptions | None = None,
        *,
        data_size: int = DATA_SIZE,
        budget: Budget | None = None,
    ) -> None:
        self.options = options or SessionOptions()
        super().__init__(session_id, self.options.limits, data_size=data_size, budget=budget)
        self.places = 0  # of the present lease
        self._is_fresh = True  # no lease was ever offered
        self._lease_ends = 0.0
        self._answer: bytes | None = None  # WELCOME, until it was sent
        self._unannounced: set[int] = set()  # streams whose REQUEST waits
        self._handlers |= {
            Lease: self._on_lease,
            Park: self._on_park,
            Informational: self._on_informational,
            Response: self._on_response,
        }

    def accept(self, dial: Dial, now: float) -> None:
        """Take a dial whose proof was checked: the old socket, if any, is detached, WELCOME is the next frame.

        Raises `DialRefused("superseded")` for an old epoch and `DialRefused("unknown")` when the session is over, with
        nothing changed; `ProtocolError` for an impossible count.
        """
        if self.is_ended:
            raise DialRefused("unknown")
        if dial.epoch <= self.epoch:
            raise DialRefused("superseded")
        self._detach()
        self.epoch = dial.epoch
        self._peer_credit = dial.limits.credit
        self._receiver.expect(dial.limits.unacked, dial.limits.frames)
        self._attach(dial.received, now)
        if self.is_leased and dial.remaining > 0:
            self._lease_ends = now + dial.remaining
        self._deadlines.pop("grace", None)
        self._ping = self.options.ping
        limits = self.limits
        options = {
            "grace": int(self.options.grace * 1000),
            "ping": int(self.options.ping * 1000),
            "credit": limits.credit,
            "unacked": limits.unacked,
            "frames": limits.frames,
            "features": [],
        }
        self._answer = encode(Welcome(self._receiver.state(), dial.epoch, options))
        if self.is_leased:
            self._deadlines["ping"] = now + self._ping

    def socket_lost(self, now: float) -> list[Event]:
        """The socket is gone. Leased, or not yet: the session waits for its grace. Parked: it ends."""
        if not self.is_ended and self.is_attached:
            self._detach()
            self._deadlines.pop("ping", None)
            if self.is_leased:
                self._deadlines["grace"] = max(now, min(now + self.options.grace, self._lease_ends))
            elif self._is_fresh:
                self._deadlines["grace"] = now + self.options.grace
            else:
                self._end("a parked link lost its socket")
            if "answer" in self._deadlines:
                self._end("its invocation was answered")
        return self.pending_events()

    def invocation_answered(self, now: float) -> list[Event]:
        """The invocation of the present lease was answered: the lease is over when the link is silent for 1 s, or has
        no socket."""
        if self.is_leased and not self.is_ended:
            if not self.is_attached:
                self._end("its invocation was answered")
            else:
                self._deadlines["answer"] = now + ANSWER_SILENCE
        return self.pending_events()

    def grant(self, lease: int, linger: float, now: float) -> None:
        """Answer an offer, after the streams that waited for it were opened. `linger` in seconds."""
        self._answer_offer(lease, LeaseInput.GRANT)
        frame = encode(Leased(lease, {"linger": int(linger * 1000)}))
        self._scheduler.head(None, frame)
        self._deadlines["ping"] = now + self._ping

    def decline(self, lease: int) -> None:
        """Answer an offer that nobody needs, or whose invitation is not good."""
        if self._streams:
            raise LocalError("streams are open")
        self._answer_offer(lease, LeaseInput.PARKED)
        self._disarm()
        self._scheduler.control(lambda: Parked(lease, self._receiver.state()))

    def release(self) -> None:
        """Ask for an early end of the lease."""
        if self.is_leased:
            lease = self.lease
            self._scheduler.control(lambda: Release(lease))

    @property
    def can_open(self) -> bool:
        """Whether a stream may be opened: leased, with a socket and a free place."""
        return (
            self.is_attached and self.is_leased and len(self._streams) < self.places and self.last_stream < MAX_STREAM
        )

    def open(
        self, exchange: bytes, method: bytes, target: bytes, headers: Headers, options: Options, now: float
    ) -> int:
        """Open a stream; its number. Raises `LocalError` when it can not be opened, or its head is above 64 KiB."""
        if not self.can_open:
            raise LocalError("no lease, no socket or no place")
        number = self.last_stream + 1
        request = Request(number, exchange, method, target, headers, options)
        frame = encode(request)
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, LeaseInput.REQUEST, LocalError)
        window = min(int(options.get("window", self.limits.credit)), MAX_WINDOW)
        send = 0 if options.get("expect") else self._peer_credit
        stream = self._add(number, request, send=send, window=window, granted=window, now=now)
        stream.send_state = self._head_state(stream, bool(options.get("end")))
        self._unannounced.add(number)
        self._scheduler.head(stream, frame)
        return number

    @staticmethod
    def _head_state(stream: Stream, end: bool) -> State:
        state = step(stream.send_state, Input.UPGRADE if stream.is_websocket else Input.HEAD, LocalError)
        return step(state, Input.END, LocalError) if end and not stream.is_websocket else state

    def frames_to_send(self, budget: int, now: float) -> list[bytes]:
        if self._answer is not None and self._may_send():
            welcome, self._answer = self._answer, None
            return [welcome, *super().frames_to_send(budget - len(welcome), now)]
        return super().frames_to_send(budget, now)

    @property
    def has_frames_to_send(self) -> bool:
        return self._may_send() and (self._answer is not None or self._scheduler.has_work)

    def _answer_offer(self, lease: int, answer: LeaseInput) -> None:
        if lease != self.lease or self.lease_state is not LeaseState.OFFERED:
            raise LocalError("no such offer")
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, answer, LocalError)

    def _was_announced(self, stream: Stream) -> bool:
        return stream.id not in self._unannounced

    def _sent_of(self, stream: Stream) -> None:
        if not stream.head_unsent:
            self._unannounced.discard(stream.id)
        super()._sent_of(stream)

    def _close_if_over(self, stream: Stream) -> None:
        if stream.is_over:
            self._unannounced.discard(stream.id)
        super()._close_if_over(stream)

    def _on_timeout(self, name: str, now: float) -> None:
        if name == "ping":
            if self.is_leased and self.is_attached:
                self._deadlines["ping"] = now + self._ping
                self._events.append(ev.PingDue())
        elif name == "answer":
            if now - self._heard_at >= ANSWER_SILENCE:
                self._end("its invocation was answered")
            else:
                self._deadlines["answer"] = self._heard_at + ANSWER_SILENCE
        else:
            self._end("the grace is over")

    def _on_lease(self, frame: Lease, now: float) -> None:
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, LeaseInput.OFFER, ProtocolError)
        if frame.lease <= self.lease:
            raise ProtocolError("a lease's number came twice")
        self._is_fresh = False
        self.lease = frame.lease
        self.places = frame.places
        self._lease_ends = now + frame.remaining / 1000
        self._deadlines.pop("answer", None)
        self._sender.release(frame.received, now)
        self._events.append(ev.LeaseOffered(frame.lease, frame.invitation, frame.places, frame.remaining / 1000))

    def _on_park(self, frame: Park, now: float) -> None:
        self._sender.release(frame.received, now)
        if frame.lease != self.lease:
            return
        if self.lease_state is LeaseState.OFFERED:
            raise ProtocolError("PARK before LEASED")
        if any(number <= frame.last_stream for number in self._streams):
            raise ProtocolError("PARK with open streams")
        if self._streams:
            return  # what was opened since voids it
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, LeaseInput.PARKED, ProtocolError)
        lease = frame.lease
        self._disarm()
        self._scheduler.control(lambda: Parked(lease, self._receiver.state()))
        self._events.append(ev.Parked(lease))

    def _on_informational(self, frame: Informational, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        stream.receive(Input.INFORMATIONAL)
        if not stream.is_discarding:
            self._events.append(ev.InformationalReceived(stream.id, frame.status, frame.headers))

    def _on_response(self, frame: Response, now: float) -> None:
        stream = self._remote(frame.stream)
        if stream is None:
            return
        if frame.status == 101 and not stream.is_websocket:
            raise ProtocolError("101 to a request that is no WebSocket")
        stream.receive(Input.UPGRADE if frame.status == 101 else Input.HEAD)
        end = bool(frame.options.get("end"))
        if end:
            stream.receive(Input.END)
        if not stream.is_discarding:
            self._events.append(ev.ResponseReceived(stream.id, frame, end))
        self._close_if_over(stream)
