"""The links: a WebSocket that a function dialled in, and the session on it (docs/protocol.md §3).

A chunk goes from here to its exchange, and from the exchange to its client, in the call that read it from the link's
socket. Never imports `ingress`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

import structlog

from gateway.exchange import Exchange
from gateway.link_socket import LinkSocket
from gateway.link_stream import LinkStream
from gateway.retention import Retention
from gateway.websocket import FramingError
from gateway.websocket_exchange import WebSocketExchange
from protocol import events as ev
from protocol.dial import (
    CLOSE_NORMAL,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_SESSION_OVER,
    CLOSE_SUPERSEDED,
    FINAL_CLOSES,
    Dial,
)
from protocol.errors import DialRefused, ProtocolError
from protocol.events import Event
from protocol.frames import Code, Options
from protocol.gateway_session import GatewaySession

log = structlog.get_logger("dialback.link")

TIMER_STEP: Final = 0.001  # seconds


class LinkOwner(Protocol):
    """What a link tells the pool of its function. Each call but the last may open streams on it at once."""

    def lease_offered(self, link: Link, offer: ev.LeaseOffered) -> None:
        """Answer with `link.grant` or `link.decline`, after opening what waits."""

    def place_freed(self, link: Link) -> None:
        """The link has a socket again."""

    def stream_ended(self, link: Link, exchange: Exchange, seconds: float) -> None:
        """A stream that lasted so long has ended; what it was for may go on elsewhere."""

    def stream_refused(self, link: Link) -> None:
        """The function refuses what it is given."""

    def link_parked(self, link: Link) -> None: ...
    def link_ended(self, link: Link, reason: str) -> None:
        """`reason` is for the log."""


class Link:
    """Environment ⇄ this gateway. Begins with a first dial, ends with its session; sockets come and go meanwhile."""

    def __init__(
        self, session: GatewaySession, owner: LinkOwner, key: bytes, window: int, forget: Callable[[Link], None]
    ) -> None:
        """`key`: the session's, for proofs of resumes. `window`: bytes of a response's first credit.
        `forget`: called at the end."""
        self.session = session
        self.key = key
        self._owner = owner
        self._window = window
        self._forget = forget
        self._streams: dict[int, LinkStream] = {}
        self._socket: LinkSocket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # on the session's clock
        self._retention = Retention(lambda: session.is_leased, lambda: self.end("it was parked for too long"))
        self._flush: asyncio.Handle | None = None
        self._is_receiving = False
        self.is_outdated = False
        """New code took its place: its environment ends soon, and what it still has may be cut."""
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Link {self.session!r}>"

    @property
    def can_open(self) -> bool:
        return self.session.can_open

    @property
    def open_streams(self) -> int:
        return self.session.open_streams

    # the endpoint's side

    def attach(self, dial: Dial, socket: LinkSocket) -> None:
        """Go on over this socket, whose proof was checked. Raises `DialRefused`: `superseded`, with nothing changed, or
        `unknown`, when the session is over."""
        try:
            self.session.accept(dial, time.monotonic())
        except ProtocolError as error:
            self._fail(CLOSE_PROTOCOL_ERROR, str(error))
            raise DialRefused("unknown") from None
        if self._socket is not None:
            self._socket.close(CLOSE_SUPERSEDED)
        self._socket = socket
        self._is_receiving = False
        self._dispatch(self.session.pending_events())
        self._owner.place_freed(self)

    def end(self, reason: str) -> None:
        """End it now: the streams are lost, and the function need not dial again. Idempotent."""
        self._end(CLOSE_SESSION_OVER, reason)

    # the pool's side

    def open(self, exchange: Exchange) -> None:
        """Open a stream. Raises `LocalError` unless `can_open`, or when the head is too large for a frame."""
        head = exchange.head
        options: Options = {
            "scheme": head.scheme,
            "client": list(head.client),
            "version": head.version,
            "window": self._window,
        }
        if exchange.cancel_after is not None:
            options["cancel_after"] = int(exchange.cancel_after * 1000)
        if head.websocket is not None:
            options["websocket"] = list(head.websocket.subprotocols)
            options["max_message"] = head.websocket.max_message
        elif not head.has_body:
            options["end"] = True
        elif head.expects_continue:
            options["expect"] = True
        number = self.session.open(exchange.id, head.method, head.target, head.headers, options, time.monotonic())
        stream = self._streams[number] = LinkStream(self.session, number, exchange, self.flush_soon)
        try:
            exchange.stream_opened(stream)
        except Exception:
            log.exception("link.mistake", session=self.session.id.hex(), at="open")
            stream.give_up()
        if head.has_body:  # which goes with it
            self.flush_soon()
        else:
            self._flush_first()

    def grant(self, lease: int, linger: float) -> None:
        """Take the offer; `linger`: seconds that the environment stays awake after its last stream."""
        self.session.grant(lease, linger, time.monotonic())
        self.flush_soon()

    def decline(self, lease: int) -> None:
        """Do not take it: the environment parks."""
        if self.open_streams:
            self._fail(CLOSE_PROTOCOL_ERROR, "a lease that is not good, over open streams")
            return
        self.session.decline(lease)
        self._retention.parked()
        self.flush_soon()

    def release(self) -> None:
        """Ask the function to park when its streams have ended."""
        self.session.release()
        self.flush_soon()

    def invocation_answered(self) -> None:
        """A hint that the lease is over; it is when the link stays silent, or has no socket."""
        self._dispatch(self.session.invocation_answered(time.monotonic()))
        self._arm()

    # the socket's side

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        self._is_receiving = True
        try:
            events = self.session.receive_part(part, offset, length, time.monotonic())
        except ProtocolError as error:
            self._fail(CLOSE_PROTOCOL_ERROR, str(error))
            return
        self._dispatch(events)

    def heard(self) -> None:
        self.session.heard(time.monotonic())

    def received(self) -> None:
        self.flush()

    def writable(self) -> None:
        self.flush()

    def socket_lost(self, reason: str) -> None:
        self._is_receiving = False
        self._socket = None
        log.debug("link.socket_lost", session=self.session.id.hex(), reason=reason)
        self._dispatch(self.session.socket_lost(time.monotonic()))
        self._arm()

    def socket_closed(self, code: int) -> None:
        if code in FINAL_CLOSES:
            self._end(CLOSE_NORMAL, f"the function closed it ({code})")
        else:
            self.socket_lost(f"the socket was closed ({code})")

    def socket_broken(self, error: FramingError) -> None:
        self._fail(error.code, str(error))

    # sending

    def flush_soon(self) -> None:
        """Let what is ready leave at the end of this turn, with whatever else becomes ready in it."""
        if self._flush is None and not self._is_receiving:
            self._flush = self._loop.call_soon(self.flush)

    def _flush_first(self) -> None:
        """Let the turn's first request leave now, and what becomes ready after it at the turn's end."""
        if self._flush is None and not self._is_receiving:
            self.flush()
            self._flush = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let what is ready leave now, as far as the socket takes it."""
        self._is_receiving = False
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        session = self.session
        # Mostly there are none, when all that happened is that a chunk came.
        while session.has_frames_to_send and self._socket is not None and (room := self._socket.room) > 0:
            messages = session.frames_to_send(room, time.monotonic())
            if not messages:
                break
            self._socket.send(messages)
        self._dispatch(session.pending_events())
        self._arm()

    def _arm(self) -> None:
        """One timer, at the session's next timeout. One that fires earlier stays: it looks again then."""
        at = self.session.next_timeout()
        if at is not None and (self._timer is None or at < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            # Not `call_at`: a loop's clock need not be the session's, and uvloop's is behind by up to a step: a timer
            # that has less to wait would fire in turn after turn.
            self._timer = self._loop.call_later(max(at - time.monotonic(), TIMER_STEP), self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        self._dispatch(self.session.handle_timeout(time.monotonic()))
        self.flush()

    # the end

    def _fail(self, code: int, text: str) -> None:
        """The peer broke the protocol. `text` is ours and holds nothing of what was received."""
        log.warning("link.protocol_error", session=self.session.id.hex(), code=code, error=text)
        self._end(code, f"protocol error ({text})", text)

    def _end(self, code: int, reason: str, text: str = "") -> None:
        socket, self._socket = self._socket, None
        if socket is not None and self.session.lease and not self.session.is_leased:
            socket.abort()  # parked: its environment is frozen, and a close frame would wait for it
        elif socket is not None:
            socket.close(code, text)
        self._dispatch(self.session.end(reason))

    # what the session says

    def _dispatch(self, events: list[Event]) -> None:
        while events:
            for event in events:
                try:
                    _HANDLERS[type(event)](self, event)
                except Exception:
                    self._confine(event)
            events = self.session.pending_events()

    def _confine(self, event: Event) -> None:
        """A mistake of ours ends the exchange that it was made with; where there is none, the link."""
        log.exception("link.mistake", session=self.session.id.hex(), at=type(event).__name__)
        stream = self._streams.get(getattr(event, "stream", 0))
        if stream is not None:
            stream.give_up()
        else:
            self.end("the gateway's own mistake")

    def _on_data(self, event: ev.DataReceived) -> None:
        self._streams[event.stream].exchange.data(event.data, event.end)

    def _on_response(self, event: ev.ResponseReceived) -> None:
        response = event.response
        self._streams[event.stream].exchange.response(response.status, response.headers, event.end, event.body)

    def _on_informational(self, event: ev.InformationalReceived) -> None:
        self._streams[event.stream].exchange.informational(event.status, event.headers)

    def _on_message(self, event: ev.MessageReceived) -> None:
        self._websocket(event.stream).message(event.data, event.text)

    def _on_close(self, event: ev.CloseReceived) -> None:
        self._websocket(event.stream).function_closes(event.code, event.reason)

    def _websocket(self, stream: int) -> WebSocketExchange:
        """Only its streams have messages: the session sees to it."""
        return cast(WebSocketExchange, self._streams[stream].exchange)

    def _on_trailers(self, event: ev.TrailersReceived) -> None:
        self._streams[event.stream].exchange.trailers(event.headers)

    def _on_reset(self, event: ev.StreamReset) -> None:
        exchange = self._streams[event.stream].exchange
        if event.code == Code.REFUSED and self.session.is_ended:  # the session says so of what it never sent
            exchange.lost(event.reason, was_sent=False)
            return
        if event.code == Code.REFUSED:
            self._owner.stream_refused(self)
        exchange.reset(event.code, event.reason)

    def _on_stopped(self, event: ev.StreamStopped) -> None:
        self._streams[event.stream].exchange.stopped(event.code)

    def _on_credit(self, event: ev.CreditGranted) -> None:
        self._streams[event.stream].exchange.credit()

    def _on_writable(self, event: ev.StreamWritable) -> None:
        self._streams[event.stream].exchange.writable()

    def _on_closed(self, event: ev.StreamClosed) -> None:
        stream = self._streams.pop(event.stream)
        self._owner.stream_ended(self, stream.exchange, time.monotonic() - stream.opened_at)

    def _on_offer(self, event: ev.LeaseOffered) -> None:
        self._owner.lease_offered(self, event)

    def _on_parked(self, event: ev.Parked) -> None:
        self._retention.parked()
        self._owner.link_parked(self)

    def _on_ping(self, event: ev.PingDue) -> None:
        if self._socket is not None:
            self._socket.ping()

    def _on_socket_dead(self, event: ev.SocketDead) -> None:
        if self._socket is not None:
            self._socket.abort()
            self.socket_lost(event.reason)

    def _on_ended(self, event: ev.SessionEnded) -> None:
        reason = f"new code took its place: {event.reason}" if self.is_outdated else event.reason
        log.debug("link.ended", session=self.session.id.hex(), reason=reason)
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(CLOSE_SESSION_OVER)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            try:
                stream.exchange.lost(reason)
            except Exception:
                log.exception("link.mistake", session=self.session.id.hex(), at="SessionEnded")
                stream.give_up()
        for timer in (self._timer, self._flush):
            if timer is not None:
                timer.cancel()
        self._timer = self._flush = None
        self._retention.cancel()
        self._forget(self)
        self._owner.link_ended(self, reason)


_HANDLERS: Final[Mapping[type[Any], Callable[[Link, Any], None]]] = {
    ev.DataReceived: Link._on_data,
    ev.ResponseReceived: Link._on_response,
    ev.InformationalReceived: Link._on_informational,
    ev.TrailersReceived: Link._on_trailers,
    ev.StreamReset: Link._on_reset,
    ev.StreamStopped: Link._on_stopped,
    ev.CreditGranted: Link._on_credit,
    ev.StreamWritable: Link._on_writable,
    ev.StreamClosed: Link._on_closed,
    ev.LeaseOffered: Link._on_offer,
    ev.Parked: Link._on_parked,
    ev.PingDue: Link._on_ping,
    ev.SocketDead: Link._on_socket_dead,
    ev.SessionEnded: Link._on_ended,
    ev.MessageReceived: Link._on_message,
    ev.CloseReceived: Link._on_close,
}
