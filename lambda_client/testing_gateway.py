"""The gateway's end of a session in a test, and a wire in memory. Knows nothing of handlers: see `testing`."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from lambda_client.dial import Listener
from lambda_client.stream import Closed
from lambda_client.wire import dial, events, frames, gateway_session

TIMEOUT = 10.0  # seconds that a test waits for the next thing to come
KINDS: dict[int, str] = {frames.Code.TIMEOUT: "timeout", frames.Code.REFUSED: "refused"}  # of news, by a RESET's code
SOCKET_ROOM = 256 << 10  # bytes handed over in one turn


class Exchange:
    """One request of a test: what goes to the function, and the news that come back. Shared by two threads."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, head: tuple[bytes, bytes, frames.Headers, dict[str, Any]]
    ) -> None:
        self.id = os.urandom(16)
        self.method, self.target, self.headers, self.options = head
        self.news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.interim: list[tuple[int, Any]] = []  # 1xx responses: status, fields
        self.number = 0
        self.end: GatewayEnd | None = None
        self.has_closed = False
        self.opened = threading.Event()
        self._writable = threading.Event()
        self._loop = loop
        self._is_over = False

    # For the test's thread

    def next_news(self) -> tuple[str, Any]:
        try:
            kind, value = self.news.get(timeout=TIMEOUT)
        except queue.Empty:
            raise TimeoutError(f"nothing came from the handler in {TIMEOUT:.0f} s") from None
        if kind == "data":
            self._call(lambda end: end.session.consume(self.number, len(value), self._loop.time()))
        elif kind == "message":
            self._call(lambda end: end.session.consume_message(self.number, self._loop.time()))
        return kind, value

    def send_message(self, data: bytes, text: bool) -> None:
        self._call(lambda end: end.session.send_message(self.number, data, text=text))

    def close(self, code: int, reason: str) -> None:
        """As a gateway tells the function that the client has closed."""
        self._call(lambda end: end.close(self, code, reason.encode()))

    def upload(self, content: Iterable[bytes]) -> None:
        """Send the request's body, a piece when there is room for it."""
        if not self.opened.wait(TIMEOUT):
            return
        for piece in content:
            self._writable.clear()
            if self._is_over:  # said before the flag was cleared, or it will be set again
                return
            self._call(partial(self._send, piece, False))
            self._writable.wait(TIMEOUT)
        self._call(partial(self._send, b"", True))

    def leave(self) -> None:
        self._call(lambda end: end.cancel(self))

    def _call(self, action: Callable[[GatewayEnd], object]) -> None:
        def run() -> None:
            if self.end is not None and self.end.session.is_open(self.number):
                action(self.end)
                self.end.wake()
            else:
                self.writable()

        self._loop.call_soon_threadsafe(run)

    # For the loop

    def _send(self, piece: bytes, ends: bool, end: GatewayEnd) -> None:
        if not self._is_over:
            end.session.send_data(self.number, piece, end=ends)
        if self._is_over or end.session.is_writable(self.number):
            self._writable.set()

    def writable(self) -> None:
        self._writable.set()

    def stop_upload(self) -> None:
        self._is_over = True
        self._writable.set()


class GatewayEnd:
    """The gateway's end of one session. Begins with the first dial, ends with the session."""

    def __init__(self, session_id: bytes, waiting: deque[Exchange], linger: float = 0.0, options: Any = None) -> None:
        """`linger`: seconds; `options`: `protocol`'s `SessionOptions`."""
        self.session = gateway_session()(session_id, options)
        self._loop = asyncio.get_running_loop()
        self._waiting = waiting
        self._linger = linger
        self._exchanges: dict[int, Exchange] = {}
        self._send: Callable[[bytes], object] | None = None
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, dialled: dial.Dial, send: Callable[[bytes], object]) -> None:
        """A dial whose proof was checked has opened a socket. Raises `DialRefused`."""
        self.session.accept(dialled, self._loop.time())
        self._send = send
        self.wake()

    def received(self, message: bytes) -> None:
        self._handle(self.session.receive(message, self._loop.time()))
        self.wake()

    def lost(self) -> None:
        self._send = None
        self._handle(self.session.socket_lost(self._loop.time()))

    def open_waiting(self) -> None:
        while self._waiting and self.session.can_open:
            exchange = self._waiting.popleft()
            exchange.end = self
            exchange.number = self.session.open(
                exchange.id, exchange.method, exchange.target, exchange.headers, exchange.options, self._loop.time()
            )
            self._exchanges[exchange.number] = exchange
            exchange.opened.set()
        self.wake()

    def cancel(self, exchange: Exchange) -> None:
        self.session.reset(exchange.number, frames.Code.CANCELLED)
        self.session.stop(exchange.number, frames.Code.CANCELLED)
        exchange.stop_upload()
        exchange.news.put(("error", "the test has disconnected"))

    def close(self, exchange: Exchange, code: int, reason: bytes) -> None:
        if not exchange.has_closed:
            exchange.has_closed = True
            self.session.send_close(exchange.number, code, reason)
            self.session.send_data(exchange.number, b"", end=True)

    def wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._transmit)

    def _transmit(self) -> None:
        self._is_due = False
        for frame in self.session.frames_to_send(SOCKET_ROOM, self._loop.time()):
            if self._send is not None:
                self._send(frame)
        self._handle(self.session.pending_events())
        if self.session.has_frames_to_send:
            self.wake()
        if self._timer is not None:
            self._timer.cancel()
        at = self.session.next_timeout()
        self._timer = None if at is None else self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._handle(self.session.handle_timeout(self._loop.time()))
        self._transmit()

    def _handle(self, happened: list[events.Event]) -> None:
        for event in happened:
            if isinstance(event, events.LeaseOffered):
                self.open_waiting()
                if self._exchanges:  # which may have been opened as soon as the dial was accepted
                    self.session.grant(event.lease, self._linger, self._loop.time())
                else:
                    self.session.decline(event.lease)
            elif isinstance(event, events.SessionEnded):
                for exchange in self._exchanges.values():
                    exchange.stop_upload()
                    exchange.news.put(("error", event.reason))
            elif hasattr(event, "stream"):
                exchange = self._exchanges[event.stream]
                self._tell(exchange, event)
                if isinstance(event, events.StreamClosed):
                    del self._exchanges[event.stream]
                    self.open_waiting()

    def _tell(self, exchange: Exchange, event: Any) -> None:
        if isinstance(event, events.ResponseReceived):
            exchange.news.put(("head", (event.response.status, event.response.headers)))
            if event.body:
                exchange.news.put(("data", event.body))
            if event.end:
                exchange.news.put(("end", []))
            elif exchange.method == b"HEAD" or event.response.status in (204, 205, 304):
                self.session.stop(exchange.number, frames.Code.NO_ERROR)
                exchange.news.put(("end", []))
        elif isinstance(event, events.InformationalReceived):
            exchange.interim.append((event.status, event.headers))
        elif isinstance(event, events.DataReceived):
            if len(event.data):
                exchange.news.put(("data", bytes(event.data)))
            if event.end:
                exchange.news.put(("end", []))
        elif isinstance(event, events.MessageReceived):
            exchange.news.put(("message", event.data.decode() if event.text else event.data))
        elif isinstance(event, events.CloseReceived):
            exchange.news.put(("close", Closed(event.code, event.reason.decode())))
        elif isinstance(event, events.TrailersReceived):
            exchange.news.put(("end", event.headers))
        elif isinstance(event, events.StreamReset):
            kind = KINDS.get(event.code, "error")
            exchange.news.put((kind, f"the handler's side ended it: {frames.Code(event.code).name}"))
        elif isinstance(event, events.StreamStopped):
            exchange.stop_upload()
            self.session.reset(exchange.number, frames.Code.NO_ERROR)
        elif isinstance(event, events.StreamWritable):
            exchange.writable()


class MemorySocket:
    """The function's end of a wire in memory. Begins with a dial, ends with `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end: GatewayEnd, listener: Listener) -> None:
        self._loop = loop
        self._end = end
        self._listener: Listener | None = listener
        self.room = SOCKET_ROOM

    def deliver(self, message: bytes) -> None:
        self._loop.call_soon(self._received, message)

    def _received(self, message: bytes) -> None:
        if self._listener is not None:
            self._listener.received(message)
            self._listener.heard()

    def send(self, messages: list[bytes]) -> None:
        for message in messages:
            self._loop.call_soon(self._end.received, message)

    def close(self, code: int) -> None:
        if self._listener is not None:
            self._listener = None
            self._loop.call_soon(self._end.lost)
