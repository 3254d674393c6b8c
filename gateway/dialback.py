"""The links: a WebSocket that a function dialled in, and the session on it (docs/protocol.md §3).

A chunk goes from here to its exchange, and from the exchange to its client, in the call that read it from the link's
socket. Never imports `ingress`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import structlog

from gateway.exchange import Exchange
from gateway.link_socket import LinkSocket
from protocol import events as ev
from protocol.dial import (
    CLOSE_GOING_AWAY,
    CLOSE_PROTOCOL_ERROR,
    CLOSE_SESSION_OVER,
    CLOSE_SUPERSEDED,
    Dial,
)
from protocol.errors import LocalError, ProtocolError
from protocol.events import Event
from protocol.frames import Code, Headers, Options
from protocol.gateway_session import GatewaySession

log = structlog.get_logger("dialback.link")


class LinkOwner(Protocol):
    """What a link tells the pool of its function. Each call may open streams on it at once."""

    def lease_offered(self, link: Link, offer: ev.LeaseOffered) -> None:
        """Answer with `link.grant` or `link.decline`, after opening what waits."""

    def place_freed(self, link: Link) -> None: ...
    def link_parked(self, link: Link) -> None: ...
    def link_ended(self, link: Link) -> None: ...


class LinkStream:
    """One stream as its exchange knows it (`StreamSide`). Begins with `Link.open`, ends with the stream or the session."""

    __slots__ = ("_link", "_session", "exchange", "id")

    def __init__(self, link: Link, session: GatewaySession, number: int, exchange: Exchange) -> None:
        self._link = link
        self._session = session
        self.id = number
        self.exchange = exchange

    @property
    def is_writable(self) -> bool:
        return self._session.is_writable(self.id)

    def send(self, data: bytes, end: bool) -> None:
        if self._session.is_open(self.id):
            self._session.send_data(self.id, data, end=end)
            self._link.flush_soon()

    def send_trailers(self, headers: Headers) -> None:
        if self._session.is_open(self.id):
            self._session.send_trailers(self.id, headers)
            self._link.flush_soon()

    def consumed(self, size: int) -> None:
        self._session.consume(self.id, size, time.monotonic())
        self._link.flush_soon()

    def cancel(self, code: Code) -> None:
        # STOP first: a RESET of a request that never left forgets the stream.
        self._session.stop(self.id, code)
        self._session.reset(self.id, code)
        self._link.flush_soon()

    def stop(self, code: Code) -> None:
        self._session.stop(self.id, code)
        self._link.flush_soon()

    def reset(self, code: Code) -> None:
        self._session.reset(self.id, code)
        self._link.flush_soon()


class Link:
    """Environment ⇄ this gateway. Begins with a first dial, ends with its session; its sockets come and go in between."""

    def __init__(self, session: GatewaySession, owner: LinkOwner, key: bytes, window: int) -> None:
        """`key`: the session's, for proofs of resumes. `window`: bytes of a response's first credit."""
        self.session = session
        self.key = key
        self._owner = owner
        self._window = window
        self._streams: dict[int, LinkStream] = {}
        self._socket: LinkSocket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Handle | None = None
        self._is_receiving = False
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
        """Go on over this socket, whose proof was checked. Raises `DialRefused`, `ProtocolError`."""
        self.session.accept(dial, time.monotonic())
        if self._socket is not None:
            self._socket.close(CLOSE_SUPERSEDED)
        self._socket = socket

    def go_away(self) -> None:
        """The gateway is stopping: end now."""
        self._close(CLOSE_GOING_AWAY)
        self._dispatch(self.session.end("the gateway is stopping"))

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
        if not head.has_body:
            options["end"] = True
        elif head.expects_continue:
            options["expect"] = True
        number = self.session.open(exchange.id, head.method, head.target, head.headers, options, time.monotonic())
        stream = self._streams[number] = LinkStream(self, self.session, number, exchange)
        exchange.stream_opened(stream)
        self.flush_soon()

    def grant(self, lease: int, linger: float) -> None:
        self.session.grant(lease, linger, time.monotonic())
        self.flush_soon()

    def decline(self, lease: int) -> None:
        self.session.decline(lease)
        self.flush_soon()

    def release(self) -> None:
        """Ask the function to park when its streams have ended."""
        self.session.release()
        self.flush_soon()

    def invocation_answered(self) -> None:
        self._dispatch(self.session.invocation_answered(time.monotonic()))
        self._arm()

    # the socket's side

    def message_part(self, part: bytes, offset: int, length: int) -> None:
        self._is_receiving = True
        try:
            events = self.session.receive_part(part, offset, length, time.monotonic())
        except ProtocolError as error:
            self._fail(error)
        else:
            self._dispatch(events)

    def heard(self) -> None:
        self.session.heard(time.monotonic())

    def received(self) -> None:
        self._is_receiving = False
        self.flush()

    def writable(self) -> None:
        self.flush()

    def socket_lost(self, reason: str) -> None:
        self._is_receiving = False
        self._socket = None
        log.debug("link.socket_lost", session=self.session.id.hex(), reason=reason)
        self._dispatch(self.session.socket_lost(time.monotonic()))
        self._arm()

    # sending

    def flush_soon(self) -> None:
        """Let what is ready leave at the end of this turn, with whatever else becomes ready in it."""
        if self._flush is None and not self._is_receiving:
            self._flush = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let what is ready leave now, as far as the socket takes it."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        session = self.session
        try:
            while self._socket is not None and (room := self._socket.room) > 0:
                messages = session.frames_to_send(room, time.monotonic())
                if not messages:
                    break
                self._socket.send(messages)
        except ProtocolError as error:
            self._fail(error)
        self._dispatch(session.pending_events())
        self._arm()

    def _arm(self) -> None:
        """One timer, at the session's next timeout. One that is armed earlier stays: it looks again when it fires."""
        at = self.session.next_timeout()
        if at is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        try:
            self._dispatch(self.session.handle_timeout(time.monotonic()))
        except ProtocolError as error:
            self._fail(error)
        self.flush()

    # what the session says

    def _fail(self, error: ProtocolError) -> None:
        log.warning("link.protocol_error", session=self.session.id.hex(), error=str(error))
        self._close(CLOSE_PROTOCOL_ERROR, str(error))
        self._dispatch(self.session.end("protocol error"))

    def _close(self, code: int, reason: str = "") -> None:
        if self._socket is not None:
            self._socket.close(code, reason)
            self._socket = None

    def _dispatch(self, events: list[Event]) -> None:
        while events:
            for event in events:
                _HANDLERS[type(event)](self, event)
            events = self.session.pending_events()

    def _on_data(self, event: ev.DataReceived) -> None:
        self._streams[event.stream].exchange.data(event.data, event.end)

    def _on_response(self, event: ev.ResponseReceived) -> None:
        response = event.response
        self._streams[event.stream].exchange.response(response.status, response.headers, event.end)

    def _on_informational(self, event: ev.InformationalReceived) -> None:
        self._streams[event.stream].exchange.informational(event.status, event.headers)

    def _on_trailers(self, event: ev.TrailersReceived) -> None:
        self._streams[event.stream].exchange.trailers(event.headers)

    def _on_reset(self, event: ev.StreamReset) -> None:
        self._streams[event.stream].exchange.reset(event.code, event.reason)

    def _on_stopped(self, event: ev.StreamStopped) -> None:
        self._streams[event.stream].exchange.stopped(event.code)

    def _on_credit(self, event: ev.CreditGranted) -> None:
        self._streams[event.stream].exchange.credit()

    def _on_writable(self, event: ev.StreamWritable) -> None:
        self._streams[event.stream].exchange.writable()

    def _on_closed(self, event: ev.StreamClosed) -> None:
        del self._streams[event.stream]
        self._owner.place_freed(self)

    def _on_offer(self, event: ev.LeaseOffered) -> None:
        self._owner.lease_offered(self, event)

    def _on_parked(self, event: ev.Parked) -> None:
        self._owner.link_parked(self)

    def _on_ping(self, event: ev.PingDue) -> None:
        if self._socket is not None:
            self._socket.ping()

    def _on_socket_dead(self, event: ev.SocketDead) -> None:
        if self._socket is not None:
            self._socket.abort()
            self.socket_lost(event.reason)

    def _on_ended(self, event: ev.SessionEnded) -> None:
        log.debug("link.ended", session=self.session.id.hex(), reason=event.reason)
        self._close(CLOSE_SESSION_OVER)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.exchange.lost(event.reason)
        self._owner.link_ended(self)


def _refuse(link: Link, event: Any) -> None:
    raise AssertionError(f"{type(event).__name__} is not for a gateway")


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
    ev.MessageReceived: _refuse,
    ev.CloseReceived: _refuse,
}

__all__ = ["Link", "LinkOwner", "LinkStream", "LocalError"]
