"""`streamify_response`: Lambda's own streaming shape, which AWS offers for Node.js, in Python.

`fn(event, response_stream, context)` writes to a binary file. Source: AWS, "Writing response streaming-enabled Lambda
functions" (`streamifyResponse`, `setContentType`, `pipeline`) and "Using HTTP response streams" (`HttpResponseStream`).
"""

from __future__ import annotations

import asyncio
import inspect
import io
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from lambda_client.fields import Pairs, encode_fields
from lambda_client.handler import Check, LambdaHandler, is_async, takes
from lambda_client.plain import StreamRunner, read_event, run_in_thread
from lambda_client.request import Request, set_current_request
from lambda_client.response import Prepared, check_status, encode_piece, lambda_headers
from lambda_client.stream import ClientDisconnected, Stream
from lambda_client.thread import HELD_LIMIT, PIECE_COST, UNREAD

if TYPE_CHECKING:
    from lambda_client.environment import Environment, Lifespan
    from lambda_client.plain import Handler
    from lambda_client.thread import ThreadRun

WRITE_LIMIT = 16 << 20  # bytes that an `async def` handler may write without a `drain`

_F = TypeVar("_F", bound=Callable[[Any, Any, Any], Any])
_END: Any = None  # among the pieces: the handler has ended the response, and goes on


class Target(Protocol):
    """Where a response stream's head and pieces go."""

    def begin(self, prepared: Prepared) -> None: ...
    def put(self, piece: Any) -> None: ...
    def finished(self) -> Any: ...


class Done:
    """Awaitable, for code that awaits what is over."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class ResponseStream(io.RawIOBase):
    """The response as a binary file: what is written leaves at once, and the head before it.

    Begins with the handler's call; ends with `end`, `close`, or a handler that returns. A handler that raises, or
    leaves a `with` block by an error, breaks the response off instead.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._status = 200
        self._headers: Pairs = []
        self._has_begun = False
        self._is_broken = False

    def set_content_type(self, content_type: str) -> None:
        """Before the first write. Without one it is application/octet-stream."""
        self.set_head(self._status, [*self._headers, ("content-type", content_type)])

    def set_head(self, status: int, headers: Iterable[tuple[Any, Any]]) -> None:
        """Before the first write; `HttpResponseStream.from_` is the documented way. Of several types the last holds."""
        if self._has_begun:
            raise RuntimeError("the response has begun: its head goes before the first write")
        pairs = encode_fields(headers)
        types = [pair for pair in pairs if pair[0] == b"content-type"]
        self._status = check_status(status)
        self._headers = [pair for pair in pairs if pair[0] != b"content-type"] + types[-1:]

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        """Send bytes, or a str as UTF-8; returns their number. Waits for room, in a `def` handler.

        Raises `ClientDisconnected` there; `ValueError` after the end; in an `async def` handler `BufferError` when it
        has written 16 MiB that have not left.
        """
        if self.closed:
            raise ValueError("the response has ended: nothing can be written any more")
        piece = encode_piece(data)
        self._begin()
        if piece:
            self._target.put(piece)
        return len(piece)

    def end(self, data: Any = b"", /) -> None:
        """Write `data`, and end the response."""
        if data:
            self.write(data)
        self.close()

    def close(self) -> None:
        """End the response. Idempotent."""
        if not self.closed and not self._is_broken:
            self._begin()
            self._target.put(_END)
        super().close()

    def finished(self) -> Awaitable[None]:
        """Wait until all has left; in an `async def` handler with `await`, also for the end.

        Raises `ClientDisconnected` where it never will.
        """
        if self._is_broken:
            raise ClientDisconnected("the response was broken off")
        return self._target.finished() or Done()

    def break_off(self) -> None:
        """No more, and no end either: what has been sent must not look whole."""
        self._is_broken = True
        super().close()

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            self.break_off()
        self.close()

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        if not any(name == b"content-type" for name, _ in self._headers):
            self._headers.append((b"content-type", b"application/octet-stream"))
        self._target.begin(Prepared(self._status, self._headers, b""))


class AsyncResponseStream(ResponseStream):
    """The same for an `async def` handler, whose writes cannot wait: `await response_stream.drain()` does."""

    _target: LoopRun

    async def drain(self) -> None:
        """Wait until there is room for more."""
        await self._target.drain()


class HttpResponseStream:
    """Gives a response stream its status, headers and cookies."""

    @staticmethod
    def from_(response_stream: _R, metadata: Mapping[str, Any]) -> _R:
        """`metadata`: `statusCode`, `headers`, `multiValueHeaders`, `cookies` (list of str), each optional. Returns the
        stream. Before its first write."""
        response_stream.set_head(int(metadata.get("statusCode", 200)), lambda_headers(metadata))
        return response_stream


_R = TypeVar("_R", bound=ResponseStream)


class LoopRun:
    """What an `async def` handler writes, handed to the task that sends it. As `ThreadRun`, on the loop."""

    def __init__(self) -> None:
        self.prepared: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._pieces: deque[Any] = deque()
        self._held = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_over = False
        self._has_end = False
        self._left = asyncio.Event()  # all, or nothing more will
        self._is_cut = False

    def begin(self, prepared: Prepared) -> None:
        self.prepared.set_result(prepared)

    def put(self, piece: Any) -> None:
        if self._held > WRITE_LIMIT and piece is not _END:
            raise BufferError(f"{self._held} bytes have not left: `await response_stream.drain()` between writes")
        self._pieces.append(piece)
        self._has_end = piece is _END
        self._held += _cost(piece)
        if self._held >= HELD_LIMIT:
            self._room.clear()
        self._news.set()

    async def drain(self) -> None:
        await self._room.wait()

    async def finished(self) -> None:
        await self._left.wait()
        if self._is_cut:
            raise ClientDisconnected(UNREAD)

    def cut(self) -> None:
        """Nothing is taken any more."""
        self._is_cut = not self._left.is_set()
        self._left.set()

    def end(self) -> None:
        """The handler is over."""
        self._is_over = True
        self.prepared.cancel()
        self._news.set()

    def __aiter__(self) -> LoopRun:
        return self

    async def __anext__(self) -> Any:
        while not self._pieces:
            if self._has_end:
                self._left.set()
            if self._is_over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        self._held -= _cost(piece)
        if self._held < HELD_LIMIT:
            self._room.set()
        return piece


def _cost(piece: Any) -> int:
    return PIECE_COST + (0 if piece is _END else len(piece))


class StreamifiedHandler(LambdaHandler, Generic[_F]):
    """What `streamify_response` makes."""

    def __init__(self, fn: _F, concurrency: int, lifespan: Lifespan | None, healthy: Check | None) -> None:
        if not callable(fn) or not takes(inspect.signature(fn), 3):
            raise TypeError(f"{fn!r}: streamify_response takes a function of (event, response_stream, context)")
        update_wrapper(self, fn)
        self.fn = fn
        """The undecorated function."""
        super().__init__(concurrency, lifespan, healthy)

    def runner(self) -> Handler:
        import lambda_client.environment  # noqa: F401

        return NativeRunner(self.fn, is_async=is_async(self.fn))

    def __repr__(self) -> str:
        return f"<streamify_response {getattr(self.fn, '__qualname__', self.fn)!s}>"


class _Decorator(Protocol):
    def __call__(self, fn: _F, /) -> StreamifiedHandler[_F]: ...


@overload
def streamify_response(fn: _F, /) -> StreamifiedHandler[_F]: ...
@overload
def streamify_response(
    *, concurrency: int = 1, lifespan: Lifespan | None = None, healthy: Check | None = None
) -> _Decorator: ...
def streamify_response(
    fn: Any = None, /, *, concurrency: int = 1, lifespan: Lifespan | None = None, healthy: Check | None = None
) -> Any:
    """Make `fn(event, response_stream, context)`, `def` or `async def`, a Lambda handler whose response streams.

    The event is a Function URL's (payload format 2.0), with the whole body of at most 6 MiB. `concurrency`, `lifespan`,
    `healthy`: as for `stream_handler`.

    Raises `TypeError` for a function of another shape, `ValueError` for a concurrency below 1.
    """
    if fn is None:
        return lambda decorated: StreamifiedHandler(decorated, concurrency, lifespan, healthy)
    return StreamifiedHandler(fn, concurrency, lifespan, healthy)


class NativeRunner(StreamRunner):
    """Runs the function against streams. Begins and ends with the environment."""

    def __init__(self, fn: Callable[[Any, Any, Any], Any], *, is_async: bool) -> None:
        self.fn = fn
        self._is_async = is_async

    async def serve(self, stream: Stream, environment: Environment) -> None:
        set_current_request(Request(stream, environment.state))
        event = await read_event(stream, environment)
        if event is None:
            return
        if self._is_async:
            await self._on_loop(stream, event)
        else:
            call = partial(self._in_thread, event, stream.context)
            await run_in_thread(stream, environment, call, partial(_deliver, stream))

    def _in_thread(self, event: Any, context: Any, run: ThreadRun) -> Prepared:
        response_stream = ResponseStream(_ThreadTarget(run))
        try:
            self.fn(event, response_stream, context)
        except BaseException:
            response_stream.break_off()
            raise
        response_stream.close()
        return Prepared(200, [], b"")  # has been said by then

    async def _on_loop(self, stream: Stream, event: Any) -> None:
        run = LoopRun()
        task = asyncio.create_task(self._call(event, stream.context, run), name=stream.id)
        try:
            await _deliver(stream, run)
        except asyncio.CancelledError:
            if not task.done():
                raise
        finally:
            run.cut()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        task.result()

    async def _call(self, event: Any, context: Any, run: LoopRun) -> None:
        response_stream = AsyncResponseStream(run)
        try:
            await self.fn(event, response_stream, context)
            response_stream.close()
        except BaseException as error:
            response_stream.break_off()
            if isinstance(error, SystemExit):  # which a task of its own would not keep to itself
                raise RuntimeError(f"the handler raised {error!r}") from error
            raise
        finally:
            run.end()


class _ThreadTarget:
    """A thread's hand-over that says when nobody takes anything any more."""

    def __init__(self, run: ThreadRun) -> None:
        self._run = run
        self.begin, self.finished = run.begin, run.finished

    def put(self, piece: Any) -> None:
        self._run.put(piece)
        if piece is not _END:
            self._run.check()


async def _deliver(stream: Stream, run: ThreadRun | LoopRun) -> None:
    prepared = await run.prepared
    stream.begin(prepared.status, prepared.headers)
    async for piece in run:
        if piece is _END:
            stream.finish()
        else:
            await stream.send(piece)
