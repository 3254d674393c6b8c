"""The function's side of a session: it dials, offers leases and parks (docs/protocol.md §3, §4)."""

from __future__ import annotations

from protocol import events as ev
from protocol.dial import Dial, Limits
from protocol.errors import LocalError, ProtocolError
from protocol.events import Event
from protocol.flow import MAX_WINDOW, Budget
from protocol.frames import (
    DATA_SIZE,
    Headers,
    Informational,
    Lease,
    Leased,
    Park,
    Parked,
    Release,
    Request,
    Response,
    Welcome,
    encode,
)
from protocol.invitation import resume_proof
from protocol.lease import FUNCTION_LEASE, PARK_TIMEOUT, RECYCLE_TIMEOUT, LeaseInput, LeaseState
from protocol.lease import step as lease_step
from protocol.ledger import MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES
from protocol.session import Session
from protocol.stream import Input, step


class FunctionSession(Session):
    """Begins when an environment has no link to the node of its invitation; ends with `SessionEnded`."""

    def __init__(
        self,
        session_id: bytes,
        key: bytes,
        invitation: str,
        limits: Limits | None = None,
        *,
        data_size: int = DATA_SIZE,
        budget: Budget | None = None,
    ) -> None:
        """`session_id`: 16 random bytes; `key`: `invitation.session_key(…)`.

        `invitation`: the token, which proves dials until one was welcomed.
        """
        super().__init__(session_id, limits or Limits(), data_size=data_size, budget=budget)
        self._key = key
        self._invitation = invitation
        self._is_welcomed = False  # on the present socket
        self._was_welcomed = False  # ever
        self._is_recycled = False  # an earlier lease used the present socket
        self._grace = 0.0  # seconds
        self._lease_ends = 0.0
        self._lease_parts: tuple[str, int] = ("", 0)
        self._handlers |= {
            Welcome: self._on_welcome,
            Leased: self._on_leased,
            Release: self._on_release,
            Parked: self._on_parked,
            Request: self._on_request,
        }

    def dial(self, now: float) -> Dial:
        """The next dial. The caller has stopped reading the old socket and dropped what it held; the new one is
        attached when this returns."""
        if self.is_ended:
            raise LocalError("the session is over")
        self._detach()
        self.epoch += 1
        self._is_welcomed = self._is_recycled = False
        self.is_attached = True
        self._heard_at = now
        received = self._receiver.state()
        remaining = max(0.0, self._lease_ends - now)
        if not self._was_welcomed:
            return Dial(self.id, self.epoch, received, self.limits, invitation=self._invitation)
        proof = resume_proof(self._key, self.id, self.epoch, received)
        return Dial(self.id, self.epoch, received, self.limits, proof=proof, remaining=remaining)

    def socket_lost(self, now: float) -> list[Event]:
        """The socket is gone. Leased: dial again within the gateway's grace. Parked: the session ends."""
        was_welcomed = self._is_welcomed
        self._is_welcomed = False
        if not self.is_ended:
            self._detach()
            self._deadlines.pop("recycle", None)
            if not self.is_leased or (self.lease_state is LeaseState.OFFERED and self._is_recycled):
                self._end("the socket was lost")  # an offer on a dead socket: a new session takes the invitation
            elif self.lease_state is LeaseState.PARKING:
                self._end("the socket was lost while parking")
            elif was_welcomed and "grace" not in self._deadlines:
                self._deadlines["grace"] = min(now + self._grace, max(now, self._lease_ends))
        return self.pending_events()

    def offer_lease(self, invitation: str, places: int, remaining: float, now: float) -> int:
        """Offer `places` streams for `remaining` seconds; the offer leaves after WELCOME. The lease's number."""
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.OFFER, LocalError)
        self.lease += 1
        lease = self.lease
        self._lease_ends = now + remaining
        self._heard_at = now
        if self._is_welcomed:
            self._is_recycled = True
            self._deadlines["recycle"] = now + RECYCLE_TIMEOUT
        left = int(remaining * 1000)
        self._scheduler.control(lambda: Lease(lease, invitation, places, left, self._receiver.state()))
        return lease

    @property
    def can_park(self) -> bool:
        return self.lease_state is LeaseState.LEASED and not self._streams

    def park(self, now: float) -> None:
        """Ask to park. `Parked`, a new stream or, after 1 s, `SessionEnded` follows.

        Raises `LocalError` unless `can_park`.
        """
        if not self.can_park:
            raise LocalError("streams are open, or there is no lease")
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.PARK, LocalError)
        lease, last = self.lease, self.last_stream
        self._deadlines["park"] = now + PARK_TIMEOUT
        self._scheduler.control(lambda: Park(lease, last, self._receiver.state()))

    def send_informational(self, stream: int, status: int, headers: Headers) -> None:
        """An informational response, 102–199 without 101, before the head."""
        found = self._local(stream)
        frame = encode(Informational(stream, status, headers))
        found.send_state = step(found.send_state, Input.INFORMATIONAL, LocalError)
        self._scheduler.head(found, frame)

    def send_response(self, stream: int, status: int, headers: Headers, *, end: bool = False) -> None:
        """The head of the response; `end`: no body follows. Status 101 accepts a WebSocket."""
        found = self._local(stream)
        if (status == 101) and not found.is_websocket:
            raise LocalError("101 to a request that is no WebSocket")
        frame = encode(Response(stream, status, headers, {"end": True} if end else {}))
        state = step(found.send_state, Input.UPGRADE if status == 101 else Input.HEAD, LocalError)
        found.send_state = step(state, Input.END, LocalError) if end else state
        self._scheduler.head(found, frame)

    def _may_send(self) -> bool:
        return self._is_welcomed and super()._may_send()

    def _expect_counted(self) -> None:
        if not self._is_welcomed:
            raise ProtocolError("a frame before WELCOME")
        self._deadlines.pop("recycle", None)

    def _on_timeout(self, name: str, now: float) -> None:
        reason = {
            "recycle": "the recycled socket is dead",
            "park": "PARK was not answered",
            "grace": "the grace is over",
        }[name]
        self._end(reason)

    def _on_welcome(self, frame: Welcome, now: float) -> None:
        if self._is_welcomed or frame.epoch != self.epoch:
            raise ProtocolError("a WELCOME that nobody asked for")
        limits = _limits_of(frame)
        resumed = self._was_welcomed
        self._is_welcomed = self._was_welcomed = True
        self._peer_credit = limits.credit
        self._receiver.expect(limits.unacked, limits.frames)
        self._grace = _milliseconds(frame, "grace")
        self._ping = _milliseconds(frame, "ping")
        self._deadlines.pop("grace", None)
        self._attach(frame.received, now)
        self._events.append(ev.Welcomed(resumed))

    def _on_leased(self, frame: Leased, now: float) -> None:
        if frame.lease != self.lease:
            return
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.GRANT, ProtocolError)
        linger = frame.options.get("linger", 0)
        self._events.append(ev.LeaseGranted(frame.lease, linger / 1000 if type(linger) is int and linger >= 0 else 0.0))

    def _on_release(self, frame: Release, now: float) -> None:
        if frame.lease == self.lease and self.is_leased:
            self._events.append(ev.LeaseReleased(frame.lease))

    def _on_parked(self, frame: Parked, now: float) -> None:
        if frame.lease != self.lease:
            return
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.PARKED, ProtocolError)
        self._sender.release(frame.received, now)
        self._disarm()
        self._events.append(ev.Parked(frame.lease))

    def _on_request(self, frame: Request, now: float) -> None:
        if frame.stream <= self.last_stream:
            raise ProtocolError("a stream was opened twice")
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.REQUEST, ProtocolError)
        self._deadlines.pop("park", None)
        options = frame.options
        window = options.get("window", self._peer_credit)
        if type(window) is not int or not 0 <= window <= MAX_WINDOW:
            raise ProtocolError("a malformed window")
        granted = 0 if options.get("expect") else self.limits.credit
        stream = self._add(frame.stream, frame, send=window, window=self.limits.credit, granted=granted, now=now)
        stream.receive(Input.UPGRADE if stream.is_websocket else Input.HEAD)
        if options.get("end") and not stream.is_websocket:
            stream.receive(Input.END)
        self._events.append(ev.StreamOpened(frame.stream, frame))


def _milliseconds(frame: Welcome, name: str) -> float:
    value = frame.options.get(name, 0)
    if type(value) is not int or value < 0:
        raise ProtocolError(f"a malformed {name} in WELCOME")
    return value / 1000


def _limits_of(frame: Welcome) -> Limits:
    numbers = [frame.options.get(name) for name in ("credit", "unacked", "frames")]
    if not all(type(number) is int for number in numbers):
        raise ProtocolError("a WELCOME without its limits")
    limits = Limits(*numbers)  # type: ignore[arg-type]
    if not limits.is_valid():
        raise ProtocolError(f"limits out of range; at least {MIN_UNACKED_BYTES} bytes and {MIN_UNACKED_FRAMES} frames")
    return limits
