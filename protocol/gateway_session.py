"""The gateway's side of a session: it welcomes dials, answers leases, opens streams (docs/protocol.md §3, §4, §5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from protocol import events as ev
from protocol.codec import decode, encode
from protocol.dial import Dial, Limits
from protocol.errors import DialRefused, LocalError, ProtocolError
from protocol.events import Event
from protocol.flow import Budget
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
)
from protocol.lease import LeaseInput, LeaseState
from protocol.lease import step as lease_step
from protocol.session import Session
from protocol.stream import Input, Stream, step

ANSWER_SILENCE: Final = 1.0  # seconds without an answer to a ping after which an invocation's answer ends its lease

_S, _I = LeaseState, LeaseInput

#: At the gateway, where a PARK is answered in the same step or ignored.
GATEWAY_LEASE: Final[dict[tuple[LeaseState, LeaseInput], LeaseState]] = {
    (_S.PARKED, _I.OFFER): _S.OFFERED,
    (_S.OFFERED, _I.OFFER): _S.OFFERED,
    (_S.OFFERED, _I.GRANT): _S.LEASED,
    (_S.OFFERED, _I.REQUEST): _S.OFFERED,
    (_S.OFFERED, _I.PARKED): _S.PARKED,
    (_S.LEASED, _I.OFFER): _S.OFFERED,
    (_S.LEASED, _I.REQUEST): _S.LEASED,
    (_S.LEASED, _I.PARKED): _S.PARKED,
}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the gateway says in WELCOME.

    `grace`: seconds that a leased session outlives its socket, and that a new one waits for its first LEASE; `ping`:
    seconds between pings.
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
        replay: Budget | None = None,
    ) -> None:
        self.options = options or SessionOptions()
        super().__init__(session_id, self.options.limits, data_size=data_size, budget=budget, replay=replay)
        self.places = 0  # of the present lease
        self._lease_ends = 0.0
        self._is_released = False
        self._pinged_at = 0.0  # after the invocation's answer
        self._welcome: bytes | None = None  # until it was sent
        self._last_announced = 0  # the highest stream that the peer knows
        self._asked: Park | None = None  # a PARK that waits for a stream which nobody was told of
        self._ping = self.options.ping
        self._handlers |= {
            Lease: self._on_lease,
            Park: self._on_park,
            Informational: self._on_informational,
            Response: self._on_response,
        }

    def accept(self, dial: Dial, now: float) -> None:
        """Take a dial whose proof was checked: the old socket, if any, is detached, WELCOME is the next frame. An offer
        that came with it is among the `pending_events`.

        Raises `DialRefused("superseded")` for an old epoch and `DialRefused("unknown")` when the session is over, with
        nothing changed; `ProtocolError` for an impossible count.
        """
        if self.is_ended:
            raise DialRefused("unknown")
        if dial.epoch <= self.epoch:
            raise DialRefused("superseded")
        is_fresh = not self.lease
        self._detach()
        self.epoch = dial.epoch
        self._attach(dial.received, now)
        self._peer_credit = dial.limits.credit
        self._receiver.expect(dial.limits.unacked, dial.limits.frames)
        if self.is_leased and dial.remaining > 0:
            self._lease_ends = now + dial.remaining
        if is_fresh:
            self._deadlines.setdefault("grace", now + self.options.grace)
        else:
            self._deadlines.pop("grace", None)
        if self.is_leased:
            self._deadlines["ping"] = now + self._ping
        if dial.lease and not self._receiver.count:  # else it came before, and the function has not heard of it
            self._receiver.receive(len(dial.lease), now)
            self._handlers[Lease](decode(dial.lease), now)
        limits = self.limits
        options = {
            "grace": int(self.options.grace * 1000),
            "ping": int(self._ping * 1000),
            "credit": limits.credit,
            "unacked": limits.unacked,
            "frames": limits.frames,
            "features": [],
        }
        self._welcome = encode(Welcome(self._receiver.state(), dial.epoch, options))

    def socket_lost(self, now: float) -> list[Event]:
        """The socket is gone. Leased, or not yet: the session waits for its grace. Parked: it ends."""
        if self.is_attached:
            self._detach()
            self._deadlines.pop("ping", None)
            if "answer" in self._deadlines:
                self._end("its invocation has ended")
            elif self.is_leased:
                self._deadlines["grace"] = max(now, min(now + self.options.grace, self._lease_ends))
            elif self.lease:
                self._end("a parked link lost its socket")
        return self.pending_events()

    def invocation_answered(self, now: float) -> list[Event]:
        """The invocation of the present lease was answered: the lease is over when the link has no socket, or is silent
        for 1 s although it is pinged."""
        if self.is_leased and not self.is_ended:
            if not self.is_attached:
                self._end("its invocation has ended")
            else:
                self._ask_for_life(now)
        return self.pending_events()

    def grant(self, lease: int, linger: float, now: float) -> None:
        """Answer an offer, after the streams that waited for it were opened. `linger` in seconds."""
        frame = encode(Leased(lease, {"linger": max(0, int(linger * 1000))}))
        self._answer_offer(lease, LeaseInput.GRANT)
        self._scheduler.lease_head(frame)
        self._deadlines["ping"] = now + self._ping

    def decline(self, lease: int) -> None:
        """Answer an offer that nobody needs, or whose invitation is not good."""
        if self._streams:
            raise LocalError("streams are open")
        self._answer_offer(lease, LeaseInput.PARKED)
        self._say_parked(lease)

    def release(self) -> None:
        """Ask for an early end of the lease. Once for each lease; nothing happens without one."""
        if self.is_leased and not self._is_released:
            self._is_released = True
            self._scheduler.lease_head(encode(Release(self.lease)))

    @property
    def can_open(self) -> bool:
        """Whether a stream may be opened: leased, with a socket and a free place."""
        return (
            len(self._streams) < self.places
            and self.is_attached
            and self.lease_state is not LeaseState.PARKED
            and self.last_stream < MAX_STREAM
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
        window = options.get("window", self.limits.credit)
        send = 0 if options.get("expect") else self._peer_credit
        stream = self._add(number, request, send=send, window=window, granted=window, is_announced=False, now=now)
        stream.send_state = step(stream.send_state, Input.UPGRADE if stream.is_websocket else Input.HEAD, LocalError)
        if options.get("end") and not stream.is_websocket:
            stream.send_state = step(stream.send_state, Input.END, LocalError)
        self._scheduler.head(stream, frame)
        return number

    def frames_to_send(self, budget: int, now: float) -> list[bytes]:
        if self._welcome is None or not self.is_attached or budget <= 0:
            return super().frames_to_send(budget, now)
        welcome, self._welcome = self._welcome, None
        self._is_welcomed = True
        return [welcome, *super().frames_to_send(budget - len(welcome), now)]

    @property
    def has_frames_to_send(self) -> bool:
        return (self.is_attached and self._welcome is not None) or super().has_frames_to_send

    def _ask_for_life(self, now: float) -> None:
        """A stream may have nothing to say for more than a second; a live socket has a pong."""
        self._pinged_at = now
        self._deadlines["answer"] = now + ANSWER_SILENCE
        self._events.append(ev.PingDue())

    def _answer_offer(self, lease: int, answer: LeaseInput) -> None:
        if lease != self.lease or self.lease_state is not LeaseState.OFFERED:
            raise LocalError("no such offer")
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, answer, LocalError)

    def _say_parked(self, lease: int) -> None:
        self._disarm()
        self._scheduler.lease_head(lambda now: Parked(lease, self._receiver.state()))  # nothing may follow it

    def _sent_of(self, stream: Stream) -> None:
        if stream.id > self._last_announced:
            self._last_announced = stream.id
            self._asked = None  # the REQUEST voids it
        super()._sent_of(stream)

    def _emptied(self) -> None:
        if self._asked is not None:
            self._answer_park(self._asked)

    def _on_timeout(self, name: str, now: float) -> None:
        if name == "ping":
            if self.is_leased and self.is_attached:
                self._deadlines["ping"] = now + self._ping
                self._events.append(ev.PingDue())
        elif name == "answer":
            if self._heard_at < self._pinged_at:
                self._end("its invocation has ended")
            else:
                self._ask_for_life(now)
        else:
            self._end("the grace is over")

    def _on_lease(self, frame: Lease, now: float) -> None:
        if frame.lease <= self.lease:
            raise ProtocolError("a lease's number came twice")
        self._sender.release(frame.received, now, may_be_old=True)
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, LeaseInput.OFFER, ProtocolError)
        self.lease = frame.lease
        self.places = frame.places
        self._lease_ends = now + frame.remaining / 1000
        self._is_released, self._asked = False, None
        self._deadlines.pop("answer", None)
        self._deadlines.pop("grace", None)
        self._events.append(ev.LeaseOffered(frame.lease, frame.invitation, frame.places, frame.remaining / 1000))

    def _on_park(self, frame: Park, now: float) -> None:
        self._sender.release(frame.received, now, may_be_old=True)
        if not self._is_present(frame.lease):
            return
        if self.lease_state is not LeaseState.LEASED:
            raise ProtocolError(f"PARK while {self.lease_state.value}")
        if frame.last_stream > self._last_announced or any(number <= frame.last_stream for number in self._streams):
            raise ProtocolError("PARK with open streams, or after one that never was")
        if self._last_announced > frame.last_stream:
            return  # the REQUEST that is on its way voids it
        if self._streams:
            self._asked = frame
        else:
            self._answer_park(frame)

    def _answer_park(self, frame: Park) -> None:
        self._asked = None
        self.lease_state = lease_step(GATEWAY_LEASE, self.lease_state, LeaseInput.PARKED, ProtocolError)
        self._say_parked(frame.lease)
        self._events.append(ev.Parked(frame.lease))

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
        body = frame.options.get("body")
        end = body is not None or bool(frame.options.get("end"))
        if frame.status == 101 and (end or not stream.is_websocket):
            raise ProtocolError("101 without messages, or to a request that is no WebSocket")
        stream.receive(Input.UPGRADE if frame.status == 101 else Input.HEAD)
        if body:
            self._receive(stream, len(body), now)
        if end:
            stream.receive(Input.END)
        if not stream.is_discarding:
            self._events.append(ev.ResponseReceived(stream.id, frame, end, body or b""))
        if end:
            self._close_if_over(stream)
