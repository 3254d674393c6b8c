"""`TestClient`: requests to a handler in a test, over a real session whose both ends are in memory. No gateway, no socket.

The handler runs as it does in Lambda: in its own thread, one invocation after another, on links that outlive them; only the
wire is a queue. What a client of the gateway would see, the test sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lambda_client import wire
from lambda_client.dial import Listener
from lambda_client.environment import Environment
from lambda_client.fields import Headers, encode_fields
from lambda_client.handler import StreamHandler
from lambda_client.response import encode_piece
from lambda_client.trust import Endpoint
from lambda_client.wire import Code, gateway

__all__ = ["BrokenResponse", "TestClient", "TestResponse"]

URL = "ws://localhost/_dialback/v1/connect"
BOOT = "7e57"
TIMEOUT = 10.0  # seconds that a test waits for the next thing to come
SOCKET_ROOM = 256 << 10  # bytes handed over in one turn


class BrokenResponse(ConnectionError):
    """The response ended early: the handler raised, or its Content-Length was wrong."""


class TestContext:
    """Stands in for AWS's context object."""

    __test__ = False
    aws_request_id = "00000000-0000-0000-0000-000000000000"
    function_name = "test"

    def __init__(self, timeout: float) -> None:
        self._ends = time.monotonic() + timeout

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - time.monotonic()) * 1000))


class TestResponse:
    """A response as it comes: iterate it for its pieces, or `read` the rest. Ends with its body, or with `disconnect`."""

    __test__ = False

    def __init__(self, exchange: Exchange, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self.trailers = Headers([])
        """The trailers, once the body was read."""
        self._exchange = exchange
        self._body: bytes | None = None

    def __iter__(self) -> Iterator[bytes]:
        """The pieces as they come. Raises `BrokenResponse` where the response breaks off."""
        while True:
            kind, value = self._exchange.next_news()
            if kind == "data":
                yield value
            elif kind == "end":
                self.trailers = Headers(value)
                return
            else:
                raise BrokenResponse(value)

    @property
    def body(self) -> bytes:
        """The whole body, which is waited for."""
        if self._body is None:
            self._body = b"".join(self)
        return self._body

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)

    def disconnect(self) -> None:
        """Leave, as a client does that closes its connection."""
        self._exchange.leave()

    def __repr__(self) -> str:
        return f"<TestResponse {self.status}>"


class Exchange:
    """One request of a test: what goes to the function, and the news that come back. Shared by two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, head: tuple[bytes, bytes, wire.Headers, dict[str, Any]]) -> None:
        self.id = os.urandom(16)
        self.method, self.target, self.headers, self.options = head
        self.news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.number = 0
        self.end: GatewayEnd | None = None
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
        return kind, value

    def upload(self, content: Iterable[bytes]) -> None:
        """Send the request's body, a piece when there is room for it."""
        if not self.opened.wait(TIMEOUT):
            return
        for piece in content:
            self._writable.clear()
            self._call(lambda end, piece=piece: self._send(end, piece, False))
            self._writable.wait(TIMEOUT)
            if self._is_over:
                return
        self._call(lambda end: self._send(end, b"", True))

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

    def _send(self, end: GatewayEnd, piece: bytes, ends: bool) -> None:
        if self._is_over:
            return
        end.session.send_data(self.number, piece, end=ends)
        if end.session.is_writable(self.number):
            self._writable.set()

    def writable(self) -> None:
        self._writable.set()

    def stop_upload(self) -> None:
        self._is_over = True
        self._writable.set()


class GatewayEnd:
    """The gateway's end of one session. Begins with the first dial, ends with the session."""

    def __init__(self, session_id: bytes, waiting: deque[Exchange], linger: float = 0.0) -> None:
        self.session = gateway().GatewaySession(session_id)
        self._loop = asyncio.get_running_loop()
        self._waiting = waiting
        self._linger = linger
        self._exchanges: dict[int, Exchange] = {}
        self._send: Callable[[bytes], object] | None = None
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, dial: wire.Dial, send: Callable[[bytes], object]) -> None:
        """A dial whose proof was checked has opened a socket. Raises `DialRefused`."""
        self.session.accept(dial, self._loop.time())
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
        self.session.reset(exchange.number, Code.CANCELLED)
        self.session.stop(exchange.number, Code.CANCELLED)
        exchange.stop_upload()
        exchange.news.put(("error", "the test has disconnected"))

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

    def _handle(self, events: list[wire.Event]) -> None:
        for event in events:
            if isinstance(event, wire.LeaseOffered):
                if self._waiting:
                    self.open_waiting()
                    self.session.grant(event.lease, self._linger, self._loop.time())
                else:
                    self.session.decline(event.lease)
            elif isinstance(event, wire.SessionEnded):
                for exchange in self._exchanges.values():
                    exchange.stop_upload()
                    exchange.news.put(("error", event.reason))
            elif hasattr(event, "stream"):
                exchange = self._exchanges[event.stream]
                self._tell(exchange, event)
                if isinstance(event, wire.StreamClosed):
                    del self._exchanges[event.stream]
                    self.open_waiting()

    def _tell(self, exchange: Exchange, event: Any) -> None:
        if isinstance(event, wire.ResponseReceived):
            exchange.news.put(("head", (event.response.status, event.response.headers)))
            if event.end:
                exchange.news.put(("end", []))
            elif exchange.method == b"HEAD" or event.response.status in (204, 304):
                self.session.stop(exchange.number, Code.NO_ERROR)
                exchange.news.put(("end", []))
        elif isinstance(event, wire.DataReceived):
            if len(event.data):
                exchange.news.put(("data", bytes(event.data)))
            if event.end:
                exchange.news.put(("end", []))
        elif isinstance(event, wire.TrailersReceived):
            exchange.news.put(("end", event.headers))
        elif isinstance(event, wire.StreamReset):
            exchange.news.put(("error", f"the handler's side ended it: {Code(event.code).name}"))
        elif isinstance(event, wire.StreamStopped):
            exchange.stop_upload()
            self.session.reset(exchange.number, Code.NO_ERROR)
        elif isinstance(event, wire.StreamWritable):
            exchange.writable()


class MemorySocket:
    """The function's end of a wire in memory. Begins with a dial, ends with `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, end: GatewayEnd, listener: Listener) -> None:
        self._loop = loop
        self._end = end
        self._listener: Listener | None = listener
        self.room = SOCKET_ROOM

    def deliver(self, message: bytes) -> None:
        self._loop.call_soon(lambda: self._listener is not None and self._listener.received(message))

    def send(self, messages: list[bytes]) -> None:
        for message in messages:
            self._loop.call_soon(self._end.received, message)

    def close(self, code: int) -> None:
        if self._listener is not None:
            self._listener = None
            self._loop.call_soon(self._end.lost)


class TestClient:
    """Requests to one handler. Begins its environment with the first request; `close` it, or use it in a `with`."""

    __test__ = False  # no test of pytest's, whatever its name

    def __init__(self, handler: StreamHandler[Any], *, timeout: float = 900.0) -> None:
        """`timeout`: seconds that each invocation has, as a Lambda function's."""
        self._key = os.urandom(32)
        variables = {"DIALBACK_SECRET": self._key.hex(), "DIALBACK_GATEWAY": "ws://localhost"}
        self._environment = Environment(
            handler.handler, handler.concurrency, handler.lifespan, variables, self._dial
        )
        self._timeout = timeout
        self._waiting: deque[Exchange] = deque()
        self._ends: dict[bytes, GatewayEnd] = {}
        self._open: list[Exchange] = []
        self._wanted = threading.Condition()
        self._is_closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._invoke, name="lambda", daemon=True)
        self._thread.start()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content: bytes | str | Iterable[bytes | str] | None = None,
    ) -> TestResponse:
        """A request and its whole response. A handler that raises before its first byte gives a 502, as at the gateway."""
        with self.stream(method, path, headers=headers, content=content) as response:
            response.body  # noqa: B018 - waits for it
        return response

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content: bytes | str | Iterable[bytes | str] | None = None,
    ) -> Iterator[TestResponse]:
        """A request whose response comes piece by piece, while `content` (an iterable) is still being sent. Leaving disconnects."""
        fields = encode_fields(headers)
        if not any(name == b"host" for name, _ in fields):
            fields.insert(0, (b"host", b"testserver"))
        options: dict[str, Any] = {"scheme": "http", "client": ["127.0.0.1", 50000], "version": "1.1"}
        if content is None:
            options["end"] = True
        exchange = Exchange(self._environment.loop, (method.encode(), path.encode(), fields, options))
        uploader = self._start_upload(exchange, content)
        self._open.append(exchange)
        with self._wanted:
            self._waiting.append(exchange)
            self._wanted.notify()
        self._environment.loop.call_soon_threadsafe(self._open_waiting)
        try:
            yield self._head(exchange)
        finally:
            exchange.leave()
            self._open.remove(exchange)
            if uploader is not None:
                uploader.join(TIMEOUT)

    def disconnect(self) -> None:
        """Every client leaves: what `stream` has open is cancelled."""
        for exchange in list(self._open):
            exchange.leave()

    def close(self) -> None:
        """End the environment: `lifespan` is left, threads end. Idempotent."""
        with self._wanted:
            self._is_closed = True
            self._wanted.notify()
        self.disconnect()
        self._thread.join(TIMEOUT)

    def __enter__(self) -> TestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _head(self, exchange: Exchange) -> TestResponse:
        kind, value = exchange.next_news()
        if kind == "head":
            status, headers = value
            return TestResponse(exchange, status, Headers(headers))
        if self._failure is not None:
            raise self._failure
        exchange.news.put(("data", f"{value}\n".encode()))
        exchange.news.put(("end", []))
        return TestResponse(exchange, 502, Headers([(b"content-type", b"text/plain; charset=utf-8")]))

    @staticmethod
    def _start_upload(exchange: Exchange, content: Any) -> threading.Thread | None:
        if content is None:
            return None
        pieces = [content] if isinstance(content, (bytes, bytearray, str)) else content
        uploader = threading.Thread(target=exchange.upload, args=(map(encode_piece, pieces),), daemon=True)
        uploader.start()
        return uploader

    def _open_waiting(self) -> None:
        for end in self._ends.values():
            end.open_waiting()

    # In the thread of the environment

    def _invoke(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    break
            try:
                event = {wire.INVITATION_KEY: self._invite()}
                answer = self._environment.invoke(event, TestContext(self._timeout))
                if answer.get("dialback") != 1:
                    raise RuntimeError(f"the invitation was not accepted: {answer}")
            except BaseException as error:
                self._fail(error)
        self._environment.close()

    def _fail(self, error: BaseException) -> None:
        """The invocation itself failed, in `lifespan` for example: every request that waits is told."""
        self._failure = error
        while self._waiting:
            self._waiting.popleft().news.put(("error", f"the invocation failed: {error!r}"))

    def _invite(self) -> str:
        keyring = wire.Keyring.parse(self._key.hex())
        kid = gateway().key_id(keyring.signing)
        invitation = wire.Invitation(kid, os.urandom(16), "test", BOOT, URL, int(time.time()) + 60)
        return str(gateway().sign(invitation, keyring.signing))

    async def _dial(self, endpoint: Endpoint, headers: list[tuple[str, str]], listener: Listener) -> MemorySocket:
        dial = wire.Dial.from_headers({name.lower(): value for name, value in headers})
        end = self._ends.get(dial.session)
        if end is None:
            self._ends.clear()
            end = self._ends[dial.session] = GatewayEnd(dial.session, self._waiting)
        socket = MemorySocket(asyncio.get_running_loop(), end, listener)
        listener.opened(socket)
        end.attach(dial, socket.deliver)
        return socket
