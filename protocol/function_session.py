"""The function's side of a session: it dials, offers leases and parks (docs/protocol.md §3, §4)."""

from __future__ import annotations

from functools import partial
from typing import Final

from protocol import events as ev
from protocol.codec import encode
from protocol.dial import Dial, Limits
from protocol.errors import LocalError, ProtocolError
from protocol.events import Event
from protocol.flow import Budget
from protocol.frames import (
    DATA_SIZE,
    Frame,
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
)
from protocol.invitation import MAX_TOKEN_SIZE, resume_proof
from protocol.lease import FUNCTION_LEASE, PARK_TIMEOUT, RECYCLE_ROUND_TRIPS, RECYCLE_TIMEOUT, LeaseInput, LeaseState
from protocol.lease import step as lease_step
from protocol.session import Session
from protocol.stream import Input, step

#: Why a session ends at a deadline of this side.
_REASONS: Final = {
    "recycle": "the recycled socket is dead",
    "park": "PARK was not answered",
    "grace": "the grace is over",
}


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
        self._was_welcomed = False  # ever
        self._dialled_at = 0.0
        self._opening = b""  # the LEASE that travels with the dials until then
        self._grace: float | None = None  # seconds; None until the gateway said
        self._lease_ends = 0.0
        self._handlers |= {
            Leased: self._on_leased,
            Release: self._on_release,
            Parked: self._on_parked,
            Request: self._on_request,
        }

    def dial(self, now: float) -> Dial:
        """The next dial. The caller has stopped reading the old socket and dropped what it held; the new one is
        attached when this returns. `socket_lost` when it fails. A lease that was offered before the first dial travels
        with it."""
        if self.is_ended:
            raise LocalError("the session is over")
        self._detach()
        self.epoch += 1
        self.is_attached = True
        self._dialled_at = now
        dial = partial(Dial, self.id, self.epoch, received := self._receiver.state(), self.limits)
        if self.epoch == 1:
            # Nothing else can wait to be sent by now, and it is numbered: on a later dial it is this same frame.
            self._opening = b"".join(self._scheduler.take(1, now, acknowledge=False))
            return dial(invitation=self._invitation, lease=self._opening)
        proof = resume_proof(self._key, self.id, self.epoch, received)
        remaining = max(0.0, self._lease_ends - now)
        if self._was_welcomed:
            return dial(proof=proof, remaining=remaining)
        return dial(proof=proof, remaining=remaining, invitation=self._invitation, lease=self._opening)

    def socket_lost(self, now: float) -> list[Event]:
        """The socket is gone, or a dial has failed. Leased or parking: dial again, within the grace. Parked: the
        session ends."""
        if self.is_attached:
            self._detach()
            if not self.is_leased:
                self._end("a parked link lost its socket")
            elif "recycle" in self._deadlines:
                self._end(_REASONS["recycle"])  # nothing was heard of the offer: a new session takes the invitation
            elif "grace" not in self._deadlines:
                self._deadlines.pop("park", None)  # what was sent before PARK may still be on this side alone
                ends = self._lease_ends if self._grace is None else min(now + self._grace, self._lease_ends)
                self._deadlines["grace"] = max(now, ends)
        return self.pending_events()

    def offer_lease(self, invitation: str, places: int, remaining: float, now: float) -> int:
        """Offer `places` streams for `remaining` seconds; the offer leaves after WELCOME. The lease's number.

        Raises `LocalError` for an offer that no frame holds.
        """
        if self.is_ended or len(invitation) > MAX_TOKEN_SIZE or places < 0:
            raise LocalError("the session is over, or that is no offer")
        # An earlier lease used the socket, which may have died while it was parked.
        is_recycled = self._is_welcomed and self.lease > 0 and not self.is_leased
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.OFFER, LocalError)
        self.lease += 1
        self._deadlines.pop("park", None)
        if is_recycled:
            self._heard_at = now
            wait = max(RECYCLE_TIMEOUT, RECYCLE_ROUND_TRIPS * (self._sender.round_trip or 0.0))
            self._deadlines["recycle"] = now + wait
        lease, ends = self.lease, now + remaining
        self._lease_ends = ends
        self._scheduler.control(
            lambda now: Lease(lease, invitation, places, max(0, int((ends - now) * 1000)), self._receiver.state())
        )
        return lease

    @property
    def grace_ends(self) -> float | None:
        """When the session ends unless it is resumed; None where it has a socket, or never had one."""
        return self._deadlines.get("grace")

    @property
    def can_park(self) -> bool:
        return self.lease_state is LeaseState.LEASED and not self._streams

    def park(self, now: float) -> None:
        """Ask to park. `Parked`, a new stream or, after 1 s of silence, `SessionEnded` follows.

        Raises `LocalError` unless `can_park`.
        """
        if not self.can_park:
            raise LocalError("streams are open, or there is no lease")
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.PARK, LocalError)
        lease, last = self.lease, self.last_stream
        if self._is_welcomed:
            self._deadlines["park"] = now + PARK_TIMEOUT
        self._scheduler.control(lambda now: Park(lease, last, self._receiver.state()))

    def send_informational(self, stream: int, status: int, headers: Headers) -> None:
        """An informational response, 102–199, before the head."""
        found = self._local(stream)
        frame = encode(Informational(stream, status, headers))
        found.send_state = step(found.send_state, Input.INFORMATIONAL, LocalError)
        self._scheduler.head(found, frame)

    def send_response(self, stream: int, status: int, headers: Headers, *, end: bool = False) -> None:
        """The head of the response; `end`: no body follows. Status 101 accepts a WebSocket."""
        found = self._local(stream)
        if status == 101 and (end or not found.is_websocket):
            raise LocalError("101 without messages, or to a request that is no WebSocket")
        frame = encode(Response(stream, status, headers, {"end": True} if end else {}))
        state = step(found.send_state, Input.UPGRADE if status == 101 else Input.HEAD, LocalError)
        found.send_state = step(state, Input.END, LocalError) if end else state
        self._scheduler.head(found, frame)

    def _on_timeout(self, name: str, now: float) -> None:
        silent_at = self._heard_at + PARK_TIMEOUT
        if name == "park" and now < silent_at:
            self._deadlines[name] = silent_at  # PARK is behind what a slow socket still carries: acknowledgements come
        else:
            self._end(_REASONS[name])

    def _on_frame(self, frame: Frame, size: int, now: float) -> None:
        if isinstance(frame, Welcome):
            self._on_welcome(frame, now)
            return
        self._deadlines.pop("recycle", None)
        super()._on_frame(frame, size, now)

    def _on_welcome(self, frame: Welcome, now: float) -> None:
        if self._is_welcomed or frame.epoch != self.epoch:
            raise ProtocolError("a WELCOME that nobody asked for")
        limits = _limits_of(frame)
        self._attach(frame.received, now)
        self._sender.round_trip = now - self._dialled_at
        self._receiver.expect(limits.unacked, limits.frames)
        self._peer_credit = limits.credit
        self._grace = frame.options.get("grace", 0) / 1000
        self._ping = frame.options.get("ping", 0) / 1000
        self._deadlines.pop("grace", None)
        if self.lease_state is LeaseState.PARKING:
            self._deadlines["park"] = now + PARK_TIMEOUT
        resumed = self._was_welcomed
        self._is_welcomed = self._was_welcomed = True
        self._events.append(ev.Welcomed(resumed))

    def _on_leased(self, frame: Leased, now: float) -> None:
        if self._is_present(frame.lease):
            self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.GRANT, ProtocolError)
            self._events.append(ev.LeaseGranted(frame.lease, frame.options.get("linger", 0) / 1000))

    def _on_release(self, frame: Release, now: float) -> None:
        if self._is_present(frame.lease) and self.is_leased:
            self._events.append(ev.LeaseReleased(frame.lease))

    def _on_parked(self, frame: Parked, now: float) -> None:
        self._sender.release(frame.received, now, may_be_old=True)
        if not self._is_present(frame.lease):
            return
        if self._streams:
            raise ProtocolError("PARKED with open streams")
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.PARKED, ProtocolError)
        self._disarm()
        self._events.append(ev.Parked(frame.lease))

    def _on_request(self, frame: Request, now: float) -> None:
        if frame.stream <= self.last_stream:
            raise ProtocolError("a stream was opened twice")
        self.lease_state = lease_step(FUNCTION_LEASE, self.lease_state, LeaseInput.REQUEST, ProtocolError)
        self._deadlines.pop("park", None)
        options, window = frame.options, self.limits.credit
        stream = self._add(
            frame.stream,
            frame,
            send=options.get("window", self._peer_credit),
            window=window,
            granted=0 if options.get("expect") else window,
            is_announced=True,
            now=now,
        )
        stream.receive(Input.UPGRADE if stream.is_websocket else Input.HEAD)
        if options.get("end") and not stream.is_websocket:
            stream.receive(Input.END)
        self._events.append(ev.StreamOpened(frame.stream, frame))


def _limits_of(frame: Welcome) -> Limits:
    options = frame.options
    limits = Limits(options.get("credit", 0), options.get("unacked", 0), options.get("frames", 0))
    if not limits.is_valid():
        raise ProtocolError("a WELCOME without limits, or with such as are out of range")
    return limits
