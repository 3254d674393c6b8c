"""A link: one session with a gateway node, over one socket after another. The driver of the sans-I/O session.

One coroutine, `lease`, is the policy (dial, offer, linger, park, redial, give up in time); the callbacks below it are
the mechanism (messages in, events; frames out, once per turn of the loop; one timer).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from lambda_client.change import Change
from lambda_client.link_stream import STREAM_EVENTS, LinkStream, open_stream
from lambda_client.stream import LambdaContext
from lambda_client.wire import FunctionSession, dial, errors, events, frames

if TYPE_CHECKING:
    from lambda_client.dial import Listener, Socket
    from lambda_client.trust import Admitted, Endpoint

LOG = logging.getLogger("dialback")

DIAL_TIMEOUT = 5.0  # seconds for one dial, from the first packet to WELCOME
FIRST_DIAL_PATIENCE = 8.0  # seconds for all dials before the first WELCOME; afterwards the gateway's grace bounds them
IDLE_PATIENCE = 2.0  # seconds for all redials of a link without a stream: at most a request on its way is lost with it
BACKOFF = (0.05, 2.0)  # seconds: before the second dial, doubled up to the last
BACKOFF_SHARE = 0.25  # of the grace that is left: no backoff takes more
SETTLED = 0.2  # seconds that a socket must live, or its dial counts as a failed one
STALL = 0.05  # seconds between two looks at the session's timeouts while the socket takes nothing
STOP_TIMEOUT = 0.3  # seconds that cancelled code gets before its stream is ended without it
PARK_PATIENCE = 0.25  # seconds for PARKED when the invocation's time is up
# Both for when the platform leaves a second or more (`environment.DEADLINE_MARGIN`), and less in proportion.

Dialler = Callable[["Endpoint", "list[tuple[str, str]]", "Listener"], Awaitable["Socket"]]


class Outcome(NamedTuple):
    """How a lease ended. `was_answered`: the gateway has heard the offer; no other session need make it."""

    lease: int | None
    text: str
    was_answered: bool


class Link:
    """Begins with an invitation to a node that has no link here yet, ends with its session."""

    def __init__(
        self, admitted: Admitted, session_id: bytes, dialler: Dialler, run: Callable[[LinkStream], Awaitable[None]]
    ) -> None:
        self.session = FunctionSession(session_id, admitted.session_key(session_id), admitted.token)
        self.run = run  # a stream's code
        self.ends_at = 0.0  # of the loop's clock: when the running lease does
        self._endpoint = admitted.endpoint
        self._dialler = dialler
        self.loop = asyncio.get_running_loop()
        self._socket: Socket | None = None
        self._streams: dict[int, LinkStream] = {}  # whose session knows them still
        self._running: dict[asyncio.Task[None], LinkStream] = {}  # whose code has not stopped
        self._context: LambdaContext | None = None
        self._is_granted = self._is_parked = self._was_answered = False
        self._linger = 0.0
        self._failure = ""  # why the session ended
        self._dials = 0  # since a socket lived for long enough
        self._lost_at = self._welcomed_at = 0.0  # the latter: 0 without a WELCOME on the present socket
        self._was_welcomed = False
        self._welcomed: asyncio.Future[None] | None = None
        self._transmit_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._change = Change()
        self._idle_since = 0.0

    # Policy: one invocation

    async def check(self) -> bool:
        """Whether a link of an earlier invocation may be trusted; what came while nothing ran here is read first."""
        for _ in range(3):  # a FIN is read in the second turn of the loop, one inside TLS in the third
            await asyncio.sleep(0)
        return not self.session.is_ended and self._socket is not None

    async def lease(self, admitted: Admitted, places: int, remaining: float, context: LambdaContext) -> Outcome:
        """Offer a lease of `places` streams for `remaining` seconds, serve it until it is over."""
        self._context = context
        self._is_granted = self._is_parked = self._was_answered = False
        self._linger = 0.0
        started = self.loop.time()
        self.ends_at = started + remaining
        lease = self.session.offer_lease(admitted.token, places, remaining, started)
        self.wake()
        try:
            text = await self._serve(started, self.ends_at)
        except errors.DialRefused as refusal:
            # An offer that a session made which is no more was not heard: a new session may make it.
            self._was_answered = self._was_answered or refusal.reason != "unknown"
            text = self.close(f"refused: {refusal.reason}")
        finally:
            await self._stop_streams(frames.Code.LOST)
        return Outcome(lease if self._is_granted else None, text, self._was_answered)

    async def _serve(self, started: float, deadline: float) -> str:
        while True:
            now = self.loop.time()
            if self._is_parked:
                return "parked" if self._is_granted else "unneeded"
            if self.session.is_ended:
                return f"{'lost' if self._was_welcomed else 'unreachable'}: {self._failure}"
            if now >= deadline:
                return await self._run_out()
            if self._socket is None:
                if not self._was_welcomed and now - started >= FIRST_DIAL_PATIENCE:
                    return self.close(f"unreachable: {self._failure}")
                if self._was_welcomed and not self.session.open_streams and now - self._lost_at >= IDLE_PATIENCE:
                    return self.close(f"lost: {self._failure}")
                await self._dial(deadline)
                continue
            until = deadline
            if self._is_idle:
                until = min(until, self._idle_since + self._linger)
                if now >= until:
                    self.session.park(now)
                    self.wake()
                    until = deadline
            await self._change.wait(until)

    async def _dial(self, deadline: float) -> None:
        """One dial, after its backoff. Raises `DialRefused`; any other failure leaves the link without a socket."""
        if self._dials:
            least, most = BACKOFF
            if (ends := self.session.grace_ends) is not None:
                most = min(most, max(least, BACKOFF_SHARE * (ends - self.loop.time())))
            until = self.loop.time() + min(most, least * (1 << min(self._dials, 9) - 1)) * random.uniform(0.5, 1.0)
            while self.loop.time() < min(until, deadline) and not self.session.is_ended:
                await self._change.wait(min(until, deadline))
        if self.session.is_ended or self.loop.time() >= deadline:
            return
        self._dials += 1
        self._welcomed = welcomed = self.loop.create_future()
        ends = self.session.grace_ends or deadline
        headers = self.session.dial(self.loop.time()).to_headers()
        try:
            await asyncio.wait_for(self._open(headers, welcomed), min(DIAL_TIMEOUT, ends - self.loop.time()))
        except (errors.DialRefused, asyncio.CancelledError):
            raise
        except Exception as error:  # what can go wrong on a network is not a closed list
            self._drop_socket(f"{error}" or type(error).__name__)
            # Once for each time that the socket is lost; the outcome says how it went on.
            level = logging.WARNING if self._dials == 1 else logging.DEBUG
            LOG.log(level, "dialling %s:%d failed: %s", self._endpoint.host, self._endpoint.port, self._failure)
            if getattr(error, "is_final", False):
                self.close(self._failure)
        finally:
            self._welcomed = None

    async def _open(self, headers: list[tuple[str, str]], welcomed: asyncio.Future[None]) -> None:
        await self._dialler(self._endpoint, headers, self)
        await welcomed

    async def _run_out(self) -> str:
        """The invocation's time is up: stop the code, say so, and be gone before the platform's axe."""
        assert self._context is not None
        self._linger = 0.0
        scale = min(1.0, max(0.0, self._context.get_remaining_time_in_millis() / 1000))
        await self._stop_streams(frames.Code.TIMEOUT, STOP_TIMEOUT * scale)
        limit = self.loop.time() + PARK_PATIENCE * scale
        while self._socket is not None and not self._is_parked and self.loop.time() < limit:
            if self.session.can_park:  # an upload is over only when the gateway has heard that nobody wants it
                self.session.park(self.loop.time())
                self.wake()
            await self._change.wait(limit)
        if not self._is_parked:
            self.close("the invocation's time is up")
        return "timed out"

    async def _stop_streams(self, code: frames.Code, patience: float = STOP_TIMEOUT) -> None:
        """Cancel what runs, wait `patience` seconds for it, and end without it what does not stop."""
        for stream in self._running.values():
            stream.cancel(code)
        if self._running:
            await asyncio.wait(self._running, timeout=patience)
        for stream in list(self._running.values()):
            stream.abandon()
        self._running.clear()
        self._flush()
        if self._socket is None:
            await asyncio.sleep(0)  # a transport closes its socket in the turn after

    def close(self, reason: str) -> str:
        """End the session; whoever waits on it is told by what follows. Idempotent."""
        self._handle(self.session.end(reason))
        return reason

    @property
    def _is_idle(self) -> bool:
        return self.session.can_park and not self._running

    def _rest(self) -> None:
        """A stream has ended, or a lease has begun without one."""
        self._idle_since = self.loop.time()
        if self._is_idle:
            self._change.tell_before(self._idle_since + self._linger)

    # For the streams

    def code_stopped(self, stream: LinkStream) -> None:
        """What it leaves to be sent waits for nobody where nobody else runs."""
        self._running.pop(stream.task, None)
        self._rest()
        if not self._running:
            self._flush()

    def consume(self, stream: int, size: int) -> None:
        self.session.consume(stream, size, self.loop.time())
        if self.session.has_frames_to_send:
            self.wake()

    def wake(self) -> None:
        """Send what is ready, once, before this turn of the loop is over."""
        if not self._transmit_due:
            self._transmit_due = True
            self.loop.call_soon(self._transmit)

    # From the socket

    def opened(self, socket: Socket) -> None:
        self._socket = socket

    def received(self, message: bytes) -> None:
        try:
            self._handle(self.session.receive(message, self.loop.time()))
        except errors.ProtocolError as error:
            self._break(error)

    def heard(self) -> None:
        """The code that it wakes has the next turn of the loop, and all that this says leaves at its end."""
        self.session.heard(self.loop.time())
        self.wake()

    writable = wake

    def lost(self, reason: str, *, is_final: bool) -> None:
        if is_final:
            self.close(reason)
        else:
            self._drop_socket(reason)

    # Mechanism

    def _transmit(self) -> None:
        if self._transmit_due:
            self._flush()

    def _flush(self) -> None:
        self._transmit_due = False
        try:
            while self.session.has_frames_to_send and self._socket is not None and (room := self._socket.room) > 0:
                messages = self.session.frames_to_send(room, self.loop.time())
                if not messages:
                    break
                self._socket.send(messages)
        except errors.ProtocolError as error:
            self._break(error)
            return
        self._handle(self.session.pending_events())
        self._arm()

    def _arm(self) -> None:
        """One timer, for the session's next time. Armed too early it finds nothing due; never too late."""
        at = self.session.next_timeout()
        if at is not None and self._socket is not None and self._socket.room <= 0:
            at = max(at, self.loop.time() + STALL)  # what is due cannot leave, and asking at once again would spin
        if self._timer is not None:
            if at is not None and self._timer.when() <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self.loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._handle(self.session.handle_timeout(self.loop.time()))
        self._flush()

    def _break(self, error: errors.ProtocolError) -> None:
        LOG.error("the gateway broke the protocol: %s", error)
        self._close_socket(dial.CLOSE_PROTOCOL_ERROR)
        self.close(f"protocol error: {error}")

    def _close_socket(self, code: int) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(code)

    def _drop_socket(self, reason: str) -> None:
        """Give the socket up, not the session."""
        if self._welcomed_at:
            self._lost_at, lived = self.loop.time(), self.loop.time() - self._welcomed_at
            self._dials, self._welcomed_at = 0 if lived >= SETTLED else self._dials, 0.0
        self._failure = self._failure if self.session.is_ended else reason
        self._close_socket(dial.CLOSE_GOING_AWAY)
        self._fail_dial(reason)
        self._handle(self.session.socket_lost(self.loop.time()))
        self._arm()
        self._change.tell()

    def _fail_dial(self, reason: str) -> None:
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_exception(ConnectionError(reason))
            self._welcomed.exception()  # a dial that fails by itself at this moment does not ask for it

    def _handle(self, happened: list[events.Event]) -> None:
        for event in happened:
            if (handler := _HANDLERS.get(type(event))) is not None:
                handler(self, event)
            elif (tell := STREAM_EVENTS.get(type(event))) is not None:
                stream = self._streams.get(event.stream)  # type: ignore[union-attr]
                if stream is not None:
                    tell(stream, event)

    def _on_welcomed(self, event: events.Welcomed) -> None:
        self._welcomed_at = self.loop.time()
        self._was_welcomed = True
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)
        self.wake()
        self._change.tell()

    def _on_granted(self, event: events.LeaseGranted) -> None:
        self._is_granted = self._was_answered = True
        self._linger = event.linger
        self._rest()

    def _on_released(self, event: events.LeaseReleased) -> None:
        self._linger = 0.0
        self._change.tell()

    def _on_parked(self, event: events.Parked) -> None:
        self._is_parked = self._was_answered = True
        self._change.tell()

    def _on_opened(self, event: events.StreamOpened) -> None:
        assert self._context is not None  # a stream is opened in a lease alone
        self._was_answered = True
        stream = open_stream(self, event.stream, event.request, self._context)
        self._streams[event.stream] = stream
        self._running[stream.task] = stream

    def _on_closed(self, event: events.StreamClosed) -> None:
        self._streams.pop(event.stream, None)
        self._rest()

    def _on_socket_dead(self, event: events.SocketDead) -> None:
        self._drop_socket(event.reason)

    def _on_ended(self, event: events.SessionEnded) -> None:
        self._failure = event.reason
        self._close_socket(dial.CLOSE_NORMAL)
        self._fail_dial(event.reason)
        for stream in self._running.values():
            stream.cancel(frames.Code.LOST)
        self._streams.clear()
        self._arm()
        self._change.tell()


#: What the link itself does; the events of one stream are in `STREAM_EVENTS`.
_HANDLERS: dict[type, Callable[..., None]] = {
    events.Welcomed: Link._on_welcomed,
    events.LeaseGranted: Link._on_granted,
    events.LeaseReleased: Link._on_released,
    events.Parked: Link._on_parked,
    events.StreamOpened: Link._on_opened,
    events.StreamClosed: Link._on_closed,
    events.SocketDead: Link._on_socket_dead,
    events.SessionEnded: Link._on_ended,
}
