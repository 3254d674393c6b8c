"""ASGI applications, unmodified: FastAPI, Starlette, Litestar, Django, Quart.

Source: the ASGI specification's "HTTP & WebSocket" (3.0, spec version 2.3) and its extensions. What it leaves open is
done as uvicorn does it; docs/conformance.md has each difference and its reason.
"""

from __future__ import annotations

import asyncio
import io
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lambda_client.buffered import BufferedStream
from lambda_client.fields import Pairs, encode_fields
from lambda_client.handler import Check, LambdaHandler, check_app
from lambda_client.lifespan import AppLifespan
from lambda_client.place import log_failure
from lambda_client.plain import StreamRunner, answer_error
from lambda_client.request import Request, set_current_request
from lambda_client.response import PIECE_SIZE, check_status
from lambda_client.stream import ClientDisconnected, Stream

if TYPE_CHECKING:
    from lambda_client.environment import Environment
    from lambda_client.plain import Handler

#: Streams of one environment: code on an event loop waits for most of its time (docs/apps.md).
CONCURRENCY = 10

Message = MutableMapping[str, Any]
Scope = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_STREAMED: dict[str, Any] = {"http.response.trailers": {}, "http.response.early_hint": {}, "http.response.pathsend": {}}
_BUFFERED: dict[str, Any] = {"http.response.pathsend": {}}


class AppError(RuntimeError):
    """The app broke the protocol's rules by what it returned; the text says which."""


class AsgiHandler(LambdaHandler):
    """What `asgi_handler` makes."""

    def __init__(self, app: App, concurrency: int, lifespan: str, root_path: str, healthy: Check | None) -> None:
        check_app(app, 3, "an ASGI app takes (scope, receive, send)")
        if lifespan not in ("auto", "on", "off"):
            raise ValueError(f'lifespan is "auto", "on" or "off", not {lifespan!r}')
        if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
            raise ValueError(f'root_path begins with a "/" and does not end in one, unlike {root_path!r}')
        self.app = app
        self.root_path = root_path
        enter = None if lifespan == "off" else partial(AppLifespan, app, is_needed=lifespan == "on")
        super().__init__(concurrency, enter, healthy)

    def runner(self) -> Handler:
        import lambda_client.environment  # noqa: F401

        return AsgiRunner(self.app, self.root_path)

    def __repr__(self) -> str:
        return f"<asgi_handler {self.app!r}>"


def asgi_handler(
    app: App,
    *,
    concurrency: int = CONCURRENCY,
    lifespan: Literal["auto", "on", "off"] = "auto",
    root_path: str = "",
    healthy: Check | None = None,
) -> AsgiHandler:
    """Make an ASGI application a Lambda handler whose requests and responses stream through a Dialback gateway.

    `concurrency`: how many requests one environment serves at once. `lifespan`: whether the app's startup runs, once
    for each environment, before its first request; `auto`: if the app knows how. `root_path`: where the app is mounted;
    put before a path that does not begin with it. `healthy`: as for `stream_handler`.

    Raises `TypeError` for what is no ASGI 3 application, `ValueError` for an argument out of range.
    """
    return AsgiHandler(app, concurrency, lifespan, root_path, healthy)


class AsgiRunner(StreamRunner):
    """Runs an app against streams. Begins and ends with the environment."""

    def __init__(self, app: App, root_path: str) -> None:
        self.fn = app
        self._root_path = root_path

    async def serve(self, stream: Stream, environment: Environment) -> None:
        request = Request(stream, environment.state)
        set_current_request(request)
        scope = build_scope(request, stream, self._root_path)
        call: AppCall
        if request.is_websocket:
            from lambda_client.asgi_websocket import WebSocketCycle  # most functions have none

            call = WebSocketCycle(stream, scope)
        else:
            call = Cycle(stream, environment, scope)
        await call.run(self.fn)


def build_scope(request: Request, stream: Stream, root_path: str) -> Scope:
    """The connection scope of a request. `path` and `raw_path` hold the root path, as the specification has it."""
    path, raw_path = request.path, request.raw_path
    if root_path and path != root_path and not path.startswith(f"{root_path}/"):
        path, raw_path = root_path + path, root_path.encode() + raw_path
    client = request.client
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": str(stream.opening.options.get("version", "1.1")),
        "method": request.method,
        "scheme": request.scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": request.query_string,
        "root_path": root_path,
        "headers": list(stream.opening.headers),
        "client": (client.host, client.port) if client.host else None,
        "server": request.server,
        "state": dict(request.state or {}),
        "extensions": dict(_BUFFERED if isinstance(stream, BufferedStream) else _STREAMED),
    }


class AppCall(ABC):
    """One call of an app. Begins with it, ends when it has returned."""

    def __init__(self, stream: Stream, scope: Scope) -> None:
        self.scope = scope
        self._stream = stream
        self._is_left = False  # nobody waits for anything any more
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, app: App) -> None:
        """Call the app, and end what it leaves open. Raises what it raised after it had begun to answer."""
        self._stream.on_left = self._leave
        error = await self._call(app)
        self._stream.on_left = None
        if self._timer is not None:
            self._timer.cancel()
        if self._is_left:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                log_failure(self._stream, f"the app failed after its client had left: {type(error).__name__}", error)
        elif error is not None:
            await self._fail(error)

    def _leave(self, cancel: Callable[[], object]) -> None:
        """The app is told, and not cancelled before the route's `cancel_after` is over."""
        self._is_left = True
        self._left()
        left = self._stream.remaining_time()
        after = self._stream.opening.options.get("cancel_after")  # milliseconds
        left = left if after is None else min(after / 1000, left)
        self._timer = asyncio.get_running_loop().call_later(left, cancel)

    async def _call(self, app: App) -> BaseException | None:
        """What was wrong, as data: an app's `SystemExit` is a failed request, no end of the environment."""
        try:
            result: object = await app(self.scope, self.receive, self.send)  # type: ignore[func-returns-value]
        except BaseException as error:
            return error
        if result is not None:
            return AppError(f"an ASGI app returns None, not {type(result).__name__}: what it has to say goes to `send`")
        return None if self._is_left else await self._returned()

    async def _fail(self, error: BaseException) -> None:
        if self._has_begun:
            await asyncio.sleep(0)  # what it has sent leaves: a RESET would take it back
            if isinstance(error, Exception):
                raise error  # with the cause that it has
            raise AppError(f"the app raised {error!r}") from error
        await answer_error(self._stream, error)

    @abstractmethod
    async def receive(self) -> Message: ...

    @abstractmethod
    async def send(self, message: Message) -> None: ...

    @property
    @abstractmethod
    def _has_begun(self) -> bool:
        """The client has been told something."""

    @abstractmethod
    def _left(self) -> None:
        """Who receives is to be told."""

    @abstractmethod
    async def _returned(self) -> BaseException | None:
        """The app has returned in good order: what it has left undone, if that is an error."""


class Cycle(AppCall):
    """A request and its response, as the app sees them."""

    def __init__(self, stream: Stream, environment: Environment, scope: Scope) -> None:
        super().__init__(stream, scope)
        self._environment = environment
        self._state = "waiting"  # then "begun", "trailers" where those were announced, "complete"
        self._has_trailers = False
        self._trailers: Pairs = []
        self._is_read = False  # all of the body is the app's
        self._over = asyncio.Event()  # left, or complete: nothing more is to be received
        self._reading = asyncio.Lock()
        self._sending = asyncio.Lock()

    @property
    def _has_begun(self) -> bool:
        return self._state != "waiting"

    def _left(self) -> None:
        self._over.set()

    async def _returned(self) -> BaseException | None:
        if self._state == "complete":
            return None
        if self._has_begun:
            return AppError("the app returned before the end of its response: its last message has no `more_body`")
        return AppError("the app returned without a response: `http.response.start` comes first, then the body")

    # For the app

    async def receive(self) -> Message:
        """`http.request` while there is more of the body; then `http.disconnect`, when that has come."""
        while not self._over.is_set():
            if self._is_read:
                await self._over.wait()
                break
            async with self._reading:
                if self._is_read or self._over.is_set():  # by then
                    continue
                try:
                    piece = await self._stream.read()
                except ClientDisconnected:  # which may be a body that was cut: the response can still be sent
                    break
                self._is_read = self._stream.is_read
            return {"type": "http.request", "body": piece or b"", "more_body": not self._is_read}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the response; returns when there is room for the next. Does nothing when the client is gone.

        Raises `RuntimeError` for a message out of order, `TypeError`, `ValueError` for one that is wrong in itself,
        `LengthMismatch` for a body that is not as long as its Content-Length says.
        """
        if self._is_left:
            await asyncio.sleep(0)  # code that goes on must not keep the loop to itself
            return
        kind = message["type"]
        step = _STEPS.get((self._state, kind))
        if step is None:
            if self._state == "complete":
                raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
            raise RuntimeError(f"Expected ASGI message '{_EXPECTED[self._state]}', but got '{kind}'.")
        await step(self, message)

    async def _begin(self, message: Message) -> None:
        self._stream.begin(check_status(message["status"]), header_fields(message.get("headers", ())))
        self._has_trailers = bool(message.get("trailers"))
        self._state = "begun"

    async def _hint(self, message: Message) -> None:
        self._stream.inform(103, header_fields((b"link", link) for link in message["links"]))

    async def _send_body(self, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"the body of a message is bytes, not {type(body).__name__}")
        await self._send(bytes(body), ends=not message.get("more_body", False))

    async def _send_path(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        executor = self._environment.executor()
        file = await loop.run_in_executor(executor, io.FileIO, message["path"])
        with file:
            while not (self._is_left or self._stream.has_finished) and (
                piece := await loop.run_in_executor(executor, file.read, PIECE_SIZE)
            ):
                await self._send(piece, ends=False)
        await self._send(b"", ends=True)

    async def _send(self, data: bytes, *, ends: bool) -> None:
        async with self._sending:  # an app may send from several tasks
            try:
                await self._stream.send(data, ends=ends and not self._has_trailers)
            except ClientDisconnected:
                await asyncio.sleep(0)
                return
        if ends:
            self._state = "trailers"
            if not self._has_trailers:
                self._complete()

    async def _send_trailers(self, message: Message) -> None:
        self._trailers += header_fields(message.get("headers", ()))
        if not message.get("more_trailers", False):
            self._stream.finish(self._trailers)
            self._complete()

    def _complete(self) -> None:
        self._state = "complete"
        self._over.set()
        self._stream.stop_reading()


def header_fields(headers: Iterable[Iterable[object]]) -> Pairs:
    pairs = [tuple(pair) for pair in headers]
    for pair in pairs:
        if not all(isinstance(part, bytes) for part in pair):
            raise TypeError(f"names and values of headers are bytes, not {pair!r}")
    return encode_fields(pairs)


#: What an app may send, by state and message.
_STEPS: dict[tuple[str, str], Callable[[Cycle, Message], Awaitable[None]]] = {
    ("waiting", "http.response.early_hint"): Cycle._hint,
    ("waiting", "http.response.start"): Cycle._begin,
    ("begun", "http.response.body"): Cycle._send_body,
    ("begun", "http.response.pathsend"): Cycle._send_path,
    ("trailers", "http.response.trailers"): Cycle._send_trailers,
}
_EXPECTED = {
    "waiting": "http.response.start",
    "begun": "http.response.body",
    "trailers": "http.response.trailers",
}
