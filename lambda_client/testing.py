"""`TestClient`: requests to a handler in a test, over a real session with both ends in memory. No gateway, no socket.

The handler runs as it does in Lambda: in its own thread, one invocation after another, on links that outlive them; only
the wire is a queue. What a client of the gateway would see, the test sees.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from lambda_client import wire
from lambda_client.dial import Listener
from lambda_client.environment import Environment
from lambda_client.fields import Headers, encode_fields
from lambda_client.handler import LambdaHandler
from lambda_client.place import frames_of, innermost
from lambda_client.response import encode_piece
from lambda_client.stream import Closed, WebSocketClosed
from lambda_client.testing_gateway import TIMEOUT, Exchange, GatewayEnd, MemorySocket
from lambda_client.trust import Endpoint

__all__ = ["BrokenResponse", "TestClient", "TestResponse", "TestWebSocket", "WebSocketRefused"]

URL = "ws://localhost/_dialback/v1/connect"
BOOT = "7e57"


class BrokenResponse(ConnectionError):
    """The response ended early: the handler raised, or its Content-Length was wrong."""


class WebSocketRefused(ConnectionError):
    """The handler has not accepted the WebSocket: `response` is what it has answered instead."""

    def __init__(self, response: TestResponse) -> None:
        super().__init__(f"the WebSocket was refused with {response.status}")
        self.response = response


class TestContext:
    """Stands in for AWS's context object."""

    __test__ = False
    aws_request_id = "00000000-0000-0000-0000-000000000000"
    function_name = "test"

    def __init__(self, timeout: float) -> None:
        self._ends = time.monotonic() + timeout

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - time.monotonic()) * 1000))


class TestEnvironment(Environment):
    """An environment that can end in good order, which those of Lambda never do."""

    __test__ = False

    def close(self) -> None:
        """`lifespan` is left, threads end. Idempotent."""
        if self.loop.is_closed():
            return
        for link in self._links.values():
            link.close("the environment ends")
        self._watchdog.stop()
        if self._entered is not None:
            self.run(self._entered.__aexit__(None, None, None))
        self.run(_cancel_others())
        self.run(self.loop.shutdown_asyncgens())
        if self._executor is not None:
            self._executor.shutdown()
        self.loop.close()

    def places(self) -> str:
        """Of the user's code, in tasks and threads."""
        threads = [frame for ident, frame in sys._current_frames().items() if ident != threading.get_ident()]
        stacks = [list(frames_of(task)) for task in asyncio.all_tasks(self.loop)]
        stacks += [list(traceback.walk_stack(frame))[::-1] for frame in threads]
        return "".join(innermost(stack, None) for stack in stacks)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)


class TestResponse:
    """A response as it comes: iterate it for its pieces, or take `body`. Ends with its body, or with `disconnect`."""

    __test__ = False

    def __init__(self, exchange: Exchange, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self.trailers = Headers([])
        """The trailers, once the body was read."""
        self.interim = [(status, Headers(fields)) for status, fields in exchange.interim]
        """The interim responses before it, 103 for example: status and fields."""
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


class TestWebSocket:
    """A WebSocket that the handler has accepted. Ends when either side has closed."""

    __test__ = False

    def __init__(self, exchange: Exchange, headers: Headers) -> None:
        self.headers = headers
        self.subprotocol = headers.get("sec-websocket-protocol")
        self.closed: Closed | None = None
        """Code and reason, once the end was received."""
        self._exchange = exchange

    def send(self, message: str | bytes) -> None:
        text = isinstance(message, str)
        self._exchange.send_message(encode_piece(message), text)

    def receive(self) -> str | bytes:
        """The next message. Raises `WebSocketClosed`: 1011 where the handler has raised, 1012 where its time is up."""
        while self.closed is None:
            kind, value = self._exchange.next_news()
            if kind == "message":
                return cast("str | bytes", value)
            if kind != "end":
                self.closed = value if kind == "close" else Closed(1012 if kind == "timeout" else 1011, value)
        raise WebSocketClosed(self.closed)

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages up to the end, whichever it is: see `closed`."""
        while True:
            try:
                yield self.receive()
            except WebSocketClosed:
                return

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it as the client, 1006: leave without a word. The handler is told, and its end waited for."""
        self._exchange.close(code, reason)
        for _ in self:
            pass

    def __repr__(self) -> str:
        return f"<TestWebSocket {'open' if self.closed is None else self.closed.code}>"


class TestClient:
    """Requests to one handler. Begins its environment with the first request; `close` it, or use it in a `with`."""

    __test__ = False  # no test of pytest's, whatever its name

    def __init__(self, handler: LambdaHandler, *, timeout: float = 900.0) -> None:
        """`timeout`: seconds that each invocation has, as a Lambda function's."""
        self._key = os.urandom(32)
        variables = {"DIALBACK_SECRET": self._key.hex(), "DIALBACK_GATEWAY": "ws://localhost"}
        variables["DIALBACK_BLOCKED_LOOP"] = os.environ.get("DIALBACK_BLOCKED_LOOP", "1")
        own = handler.runner(), handler.concurrency, handler.lifespan
        self._environment = TestEnvironment(*own, variables, handler.healthy, self._dial)
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
        """A request and its whole response: `client.request("POST", "/", content=b"an upload")`, or pieces of one.

        As at a gateway, a handler that raises before its first byte gives 502, and one whose time is up 504. Where its
        `healthy` says no there is no other environment to go to: it gives 503 from then on.
        """
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
        """A request whose response comes piece by piece, also while `content` is being sent. Leaving disconnects."""
        exchange = self._exchange(method, path, headers, {"end": True} if content is None else {})
        uploader = self._start_upload(exchange, content)
        try:
            with self._opened(exchange):
                yield self._head(exchange)
        finally:
            if uploader is not None:
                uploader.join(TIMEOUT)

    @contextmanager
    def websocket(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        subprotocols: Iterable[str] = (),
        max_message: int = 1 << 20,
    ) -> Iterator[TestWebSocket]:
        """A WebSocket, which is closed with 1000 at the end. Raises `WebSocketRefused`."""
        options = {"websocket": list(subprotocols), "max_message": max_message}
        exchange = self._exchange("GET", path, headers, options)
        with self._opened(exchange):
            response = self._head(exchange)
            if response.status != 101:
                response.body  # noqa: B018 - waits for it
                raise WebSocketRefused(response)
            websocket = TestWebSocket(exchange, response.headers)
            yield websocket
            websocket.close()

    def _exchange(self, method: str, path: str, headers: Any, options: dict[str, Any]) -> Exchange:
        fields = encode_fields(headers)
        if not any(name == b"host" for name, _ in fields):
            fields.insert(0, (b"host", b"testserver"))
        options |= {"scheme": "http", "client": ["127.0.0.1", 50000], "version": "1.1"}
        return Exchange(self._environment.loop, (method.encode(), path.encode(), fields, options))

    @contextmanager
    def _opened(self, exchange: Exchange) -> Iterator[None]:
        self._open.append(exchange)
        with self._wanted:
            self._waiting.append(exchange)
            self._wanted.notify()
        self._environment.loop.call_soon_threadsafe(self._open_waiting)
        try:
            yield
        finally:
            exchange.leave()
            self._open.remove(exchange)

    def disconnect(self) -> None:
        """Every client leaves: what `stream` has open is cancelled."""
        for exchange in list(self._open):
            exchange.leave()

    def close(self) -> None:
        """End the environment: `lifespan` is left, threads end. Idempotent. Raises TimeoutError, naming what
        runs, after 10 s."""
        with self._wanted:
            self._is_closed = True
            self._wanted.notify()
        self.disconnect()
        self._thread.join(TIMEOUT)
        if self._thread.is_alive():
            raise TimeoutError(f"the environment did not end in {TIMEOUT:g} s{self._environment.places()}")

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
        status = {"timeout": 504, "refused": 503}.get(kind, 502)
        return TestResponse(exchange, status, Headers([(b"content-type", b"text/plain; charset=utf-8")]))

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
                event = {wire.invitation.INVITATION_KEY: self._invite()}
                answer = self._environment.invoke(event, TestContext(self._timeout))
                if answer.get("dialback") != 1:
                    raise RuntimeError(f"the invitation was not accepted: {answer}")
                if self._environment.is_unhealthy:
                    self._end_waiting("refused", "the environment is unhealthy")
            except BaseException as error:
                self._fail(error)
        self._environment.close()

    def _fail(self, error: BaseException) -> None:
        """The invocation itself failed, in `lifespan` for example: every request that waits is told."""
        self._failure = error
        self._end_waiting("error", f"the invocation failed: {error!r}")

    def _end_waiting(self, kind: str, why: str) -> None:
        while self._waiting:
            exchange = self._waiting.popleft()
            exchange.stop_upload()
            exchange.opened.set()
            exchange.news.put((kind, why))

    def _invite(self) -> str:
        keyring = wire.invitation.Keyring.parse(self._key.hex())
        kid = wire.invitation.key_id(keyring.signing)
        invitation = wire.invitation.Invitation(kid, os.urandom(16), "test", BOOT, URL, int(time.time()) + 60)
        return wire.invitation.sign(invitation, keyring.signing)

    async def _dial(self, endpoint: Endpoint, headers: list[tuple[str, str]], listener: Listener) -> MemorySocket:
        dial = wire.read_dial({name.lower(): value for name, value in headers})
        end = self._ends.get(dial.session)
        if end is None:
            self._ends.clear()
            end = self._ends[dial.session] = GatewayEnd(dial.session, self._waiting)
        socket = MemorySocket(asyncio.get_running_loop(), end, listener)
        listener.opened(socket)
        end.attach(dial, socket.deliver)
        return socket
