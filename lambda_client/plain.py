"""Handlers in plain Python, run against a stream: those that take a request, and existing `(event, context)` code.

What else can run a stream (ASGI, WSGI, `streamify_response`) is a class with the same `serve`.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from lambda_client.body import SyncBody
from lambda_client.buffered import BufferedStream
from lambda_client.event import EVENT_BODY_LIMIT, build_event, is_http
from lambda_client.fields import encode_fields
from lambda_client.place import log_failure
from lambda_client.request import Request, SyncRequest, set_current_request
from lambda_client.response import Prepared, Response, aclose, encode_piece, prepare, prepare_lambda, type_of_piece
from lambda_client.stream import BODYLESS_STATUSES, LambdaContext, NoWebSocket, Stream, WebSocketClosed
from lambda_client.thread import ThreadRun, wait_in_thread

if TYPE_CHECKING:
    from lambda_client.environment import Environment

_ERROR = b"Internal Server Error"
_TOO_LARGE = (
    f"The request's body is above the {EVENT_BODY_LIMIT} bytes that fit into an event. "
    "A handler that takes one parameter, the request, streams a body of any size.\n"
)


class Handler(Protocol):
    """What runs the user's code: one class for each kind of code."""

    fn: Callable[..., Any]

    async def serve(self, stream: Stream, environment: Environment) -> None:
        """Run the code for one request and send its response. Raises whatever the code raises."""

    def answer(self, event: Any, context: LambdaContext, environment: Environment) -> Any:
        """Run the code for a plain invocation, on the calling thread; what the invocation returns."""


class StreamRunner(ABC):
    """Runs code that knows streams alone: a plain invocation is given one too."""

    @abstractmethod
    async def serve(self, stream: Stream, environment: Environment) -> None: ...

    def answer(self, event: Any, context: LambdaContext, environment: Environment) -> Any:
        """Raises `ValueError` for an event that is no request, and what the code raises."""
        if not is_http(event):
            raise ValueError(
                "not a request of payload format 2.0 (Function URL, HTTP API): "
                "a handler of other events takes (event, context)"
            )
        stream = BufferedStream(event, context)
        environment.run(self.serve(stream, environment))
        return stream.answer()


class _Plain:
    def __init__(self, fn: Callable[..., Any], *, is_async: bool) -> None:
        self.fn = fn
        self.is_async = is_async


class RequestHandler(_Plain, StreamRunner):
    """`fn(request)`. Begins at decoration, ends with the process."""

    async def serve(self, stream: Stream, environment: Environment) -> None:
        if self.is_async:
            request = Request(stream, environment.state)
            set_current_request(request)
            if stream.subprotocols is not None:
                await _serve_websocket(stream, _result(self.fn(request)), environment)
            else:
                await _deliver(stream, prepare(await _respond(self.fn(request))), environment)
        else:
            await _in_thread(stream, environment, self._call(stream, environment))

    def _call(self, stream: Stream, environment: Environment) -> Callable[[ThreadRun], Prepared]:
        request = sync_request(stream, environment)
        return lambda _: prepare(self.fn(request))


class EventHandler(_Plain):
    """`fn(event, context)`: existing Lambda code, unchanged. Begins at decoration, ends with the process."""

    async def serve(self, stream: Stream, environment: Environment) -> None:
        if await refuse_websocket(stream):
            return
        set_current_request(Request(stream, environment.state))
        event = await read_event(stream, environment)
        if event is None:
            return
        if self.is_async:
            await _deliver(stream, prepare_lambda(await _result(self.fn(event, stream.context))), environment)
        else:
            await _in_thread(stream, environment, lambda _: prepare_lambda(self.fn(event, stream.context)))

    def answer(self, event: Any, context: LambdaContext, environment: Environment) -> Any:
        """As without Dialback: the code runs where it always ran; what only a stream can hold is gathered."""
        returned = self.fn(event, context)
        if self.is_async:
            returned = environment.run(_result(returned))
        if not isinstance(returned, (Response, bytes, bytearray, memoryview, Iterator, AsyncIterable)) and not hasattr(
            returned, "read"
        ):
            return returned
        if not is_http(event):
            raise TypeError(f"{type(returned).__name__} can only answer a request of payload format 2.0")
        stream = BufferedStream(event, context)
        environment.run(_deliver(stream, prepare_lambda(returned), environment))
        return stream.answer()


async def _respond(returned: Any) -> Any:
    """What a handler made; one that wanted a WebSocket tells its client so."""
    try:
        return await _result(returned)
    except NoWebSocket:
        return Response("This address takes WebSocket connections only.\n", 400)


async def _serve_websocket(stream: Stream, result: Awaitable[Any], environment: Environment) -> None:
    """Run a handler whose client asks for a WebSocket; one that does not accept it has refused it with what it
    returns."""
    from lambda_client.websocket import Messages

    returned = None
    try:
        returned = await result
    except WebSocketClosed:
        if not (isinstance(stream, Messages) and stream.closed):
            raise
    if not (isinstance(stream, Messages) and stream.is_accepted):
        await _deliver(stream, prepare(returned), environment)
    elif returned is None:
        await stream.settle()
    else:
        raise TypeError(f"a handler that has accepted a WebSocket returns None, not {type(returned).__name__}")


async def _result(returned: Any) -> Any:
    """What an `async def` handler made: an async generator as it is, a coroutine's result."""
    return await returned if inspect.isawaitable(returned) else returned


async def read_event(stream: Stream, environment: Environment) -> dict[str, Any] | None:
    """A request as an event, with its whole body; None where that is too large, which has been answered."""
    pieces = []
    size = 0
    while (piece := await stream.read()) is not None:
        pieces.append(piece)
        size += len(piece)
        if size > EVENT_BODY_LIMIT:
            await _deliver(stream, prepare(Response(_TOO_LARGE, 413)), environment)
            return None
    return build_event(stream.opening, stream.id, b"".join(pieces))


def sync_request(stream: Stream, environment: Environment) -> SyncRequest:
    """The request for code in a thread, which is the current one from here on."""
    body = SyncBody(partial(wait_in_thread, asyncio.get_running_loop(), stream.read))
    request = SyncRequest(stream, environment.state, body)
    set_current_request(request)
    return request


async def _in_thread(stream: Stream, environment: Environment, call: Callable[[ThreadRun], Prepared]) -> None:
    """Run blocking code in a thread, its iterator in the same one."""

    async def deliver(run: ThreadRun) -> None:
        prepared = await run.prepared
        if isinstance(prepared.body, Iterator):
            prepared = prepared._replace(body=run)
        await _deliver(stream, prepared, environment)

    await run_in_thread(stream, environment, call, deliver)


async def run_in_thread(
    stream: Stream,
    environment: Environment,
    call: Callable[[ThreadRun], Prepared],
    deliver: Callable[[ThreadRun], Awaitable[None]],
) -> None:
    """Run blocking code in a thread while `deliver` sends what it makes; over when both are."""
    run = ThreadRun(environment.executor(), call)
    try:
        await deliver(run)
    finally:
        try:
            await run.stop(lambda: stream.is_abandoned)
        finally:
            if stream.is_abandoned:
                environment.leave_thread(run.job)


async def refuse_websocket(stream: Stream) -> bool:
    """Whether the request is one for a WebSocket, which has been answered: code of this kind has no way to."""
    if stream.subprotocols is None:
        return False
    stream.begin(501, [(b"content-type", b"text/plain; charset=utf-8")])
    await stream.send(b"WebSocket requests are not served here.\n", ends=True)
    return True


async def answer_error(stream: Stream, error: BaseException) -> None:
    """Log what an app raised before its response, and send the response that servers send then."""
    log_failure(stream, f"the app raised {type(error).__name__}", error)
    stream.begin(500, [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(_ERROR))])
    await stream.send(_ERROR, ends=True)


async def _deliver(stream: Stream, prepared: Prepared, environment: Environment) -> None:
    """Send a response: each piece at once, the next when there is room."""
    body = prepared.body
    if isinstance(body, bytes):
        if body and not prepared.trailers:
            stream.begin(prepared.status, prepared.headers)
            await stream.send(body, ends=True)
        else:
            stream.begin(prepared.status, prepared.headers, ends=not prepared.trailers)
            await stream.send(body)
            stream.finish(encode_fields(prepared.trailers))
    elif isinstance(body, Iterator):
        await _in_thread(stream, environment, lambda _: prepared)
    else:
        try:
            await _deliver_pieces(stream, prepared, body)
        finally:
            await aclose(body)


async def _deliver_pieces(stream: Stream, prepared: Prepared, pieces: AsyncIterator[Any]) -> None:
    headers = prepared.headers
    first: Any = None
    if not prepared.has_type and prepared.status not in BODYLESS_STATUSES:
        # Typed by its first piece, so the head waits for it; with a content type of its own it leaves at once.
        first = await anext(pieces, None)
        headers = [*headers, (b"content-type", type_of_piece(first))]
    stream.begin(prepared.status, headers)
    if stream.is_bodyless:
        return
    if first is not None:
        await stream.send(encode_piece(first))
    async for piece in pieces:
        await stream.send(encode_piece(piece))
    stream.finish(encode_fields(prepared.trailers))
