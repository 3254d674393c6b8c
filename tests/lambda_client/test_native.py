"""`streamify_response`: AWS's documentation of the Node.js feature, turned into Python line by line, and what a binary
file must do beyond that."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gzip
import inspect
import io
import shutil
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lambda_client import ClientDisconnected, HttpResponseStream, pipeline, streamify_response
from lambda_client.testing import BrokenResponse, TestClient, TestContext, TestEnvironment, TestResponse

TIMEOUT = 10.0


def ask(handler: Any, method: str = "GET", path: str = "/", **options: Any) -> TestResponse:
    with TestClient(streamify_response(handler)) as client:
        return client.request(method, path, **options)


# The examples of AWS's "Writing response streaming-enabled Lambda functions" and "Tutorial: Creating a response
# streaming Lambda function with a function URL", line by line


async def tutorial(event: Any, response_stream: Any, context: Any) -> None:
    http_response_metadata = {
        "statusCode": 200,
        "headers": {"Content-Type": "text/html", "X-Custom-Header": "Example-Custom-Header"},
    }
    response_stream = HttpResponseStream.from_(response_stream, http_response_metadata)
    response_stream.write("<html>")
    response_stream.write("<p>First write!</p>")
    await asyncio.sleep(0.01)
    response_stream.write("<h1>Streaming h1</h1>")
    await asyncio.sleep(0.01)
    response_stream.write("</html>")
    response_stream.end()
    await response_stream.finished()


async def text(event: Any, response_stream: Any, context: Any) -> None:
    response_stream.set_content_type("text/plain")
    response_stream.write("Hello, world!")
    response_stream.end()


async def pipelined(event: Any, response_stream: Any, context: Any) -> None:
    # As in the example that uses pipeline: the request comes back compressed.
    request_stream = io.BytesIO(str(event["body"]).encode())
    gzip_stream = zlib.compressobj(wbits=31)
    await pipeline(request_stream, gzip_stream, response_stream)


def test_the_tutorials_handler() -> None:
    response = ask(tutorial)
    assert response.text == "<html><p>First write!</p><h1>Streaming h1</h1></html>"
    assert response.headers.raw == ((b"x-custom-header", b"Example-Custom-Header"), (b"content-type", b"text/html"))


def test_set_content_type() -> None:
    response = ask(text)
    assert (response.headers["content-type"], response.text) == ("text/plain", "Hello, world!")


def test_the_pipeline_of_the_documentation() -> None:
    response = ask(pipelined, "POST", content=b"sent " * 1000, headers={"content-type": "text/plain"})
    assert gzip.decompress(response.body) == b"sent " * 1000


def test_status_headers_and_cookies_of_the_metadata() -> None:
    def handler(event: Any, response_stream: Any, context: Any) -> None:
        metadata = {
            "statusCode": 201,
            "headers": {"x-a": "1", "x-b": "2"},
            "multiValueHeaders": {"X-B": ["3", "4"]},
            "cookies": ["a=1", "b=2"],
        }
        with HttpResponseStream.from_(response_stream, metadata) as stream:
            stream.write(b"made")

    response = ask(handler)
    assert response.status == 201 and response.headers.raw == (
        (b"x-a", b"1"),
        (b"x-b", b"3"),
        (b"x-b", b"4"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-type", b"application/octet-stream"),
    )


# A binary file, in a thread and on the loop


def zipped_in_thread(event: Any, response_stream: Any, context: Any) -> None:
    with gzip.GzipFile(fileobj=response_stream, mode="wb") as file:
        shutil.copyfileobj(io.BytesIO(b"x" * 300_000), file)


async def zipped_on_loop(event: Any, response_stream: Any, context: Any) -> None:
    with gzip.GzipFile(fileobj=response_stream, mode="wb") as file:
        shutil.copyfileobj(io.BytesIO(b"x" * 300_000), file)


@pytest.mark.parametrize("handler", [zipped_in_thread, zipped_on_loop])
def test_it_is_a_file_for_the_standard_library(handler: Any) -> None:
    assert gzip.decompress(ask(handler).body) == b"x" * 300_000


def copies(event: Any, response_stream: Any, context: Any) -> None:
    assert response_stream.writable() and not response_stream.readable()
    assert response_stream.write("ü") == 2 and response_stream.write(bytearray(b"a")) == 1
    response_stream.writelines([b"b", memoryview(b"c")])
    response_stream.flush()
    shutil.copyfileobj(io.BytesIO(b"d"), response_stream)
    with pytest.raises(RuntimeError, match="before the first write"):
        response_stream.set_content_type("text/plain")
    with pytest.raises(TypeError, match="str or bytes, not int"):
        response_stream.write(1)


def test_what_can_be_written() -> None:
    assert ask(copies).text == "üabcd"


def test_each_write_leaves_at_once() -> None:
    gate = threading.Event()

    def handler(event: Any, response_stream: Any, context: Any) -> None:
        response_stream.write(b"first")
        assert gate.wait(TIMEOUT)
        response_stream.write(b"second")

    with TestClient(streamify_response(handler)) as client, client.stream("GET", "/") as response:
        pieces = iter(response)
        assert next(pieces) == b"first"
        gate.set()
        assert list(pieces) == [b"second"], "a handler that returns has ended its response"


def test_end_ends_the_response_and_the_handler_goes_on() -> None:
    gate, ended = threading.Event(), threading.Event()

    def handler(event: Any, response_stream: Any, context: Any) -> None:
        response_stream.end(b"all")
        response_stream.close()
        with pytest.raises(ValueError, match="nothing can be written"):
            response_stream.write(b"more")
        assert gate.wait(TIMEOUT)
        ended.set()

    with TestClient(streamify_response(handler)) as client:
        assert client.request("GET", "/").body == b"all"
        gate.set()
        assert ended.wait(TIMEOUT)


def test_a_handler_that_writes_nothing_has_an_empty_response() -> None:
    response = ask(lambda event, response_stream, context: None)
    assert (response.status, response.body) == (200, b"")


async def waits_on_loop(event: Any, response_stream: Any, context: Any) -> None:
    response_stream.write(bytes(100_000))
    response_stream.end(b"last")
    await response_stream.finished()
    await response_stream.finished()


def waits_in_thread(event: Any, response_stream: Any, context: Any) -> None:
    response_stream.write(bytes(100_000))
    response_stream.end(b"last")
    response_stream.finished()
    asyncio.run(awaited(response_stream.finished()))


async def awaited(what: Any) -> None:
    await what


@pytest.mark.parametrize("handler", [waits_on_loop, waits_in_thread])
def test_finished_waits_until_all_has_left_also_again(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(handler).body == bytes(100_000) + b"last"
    assert not caplog.text


def test_finished_waits_for_the_end_by_another_task_and_for_the_reader() -> None:
    order: list[str] = []
    gate = threading.Event()

    async def handler(event: Any, response_stream: Any, context: Any) -> None:
        async def write() -> None:
            await asyncio.sleep(0.05)
            for _ in range(8):  # MiB: more than the window and all buffers between hold
                response_stream.write(bytes(1 << 20))
            order.append("ended")
            response_stream.end()

        writing = asyncio.create_task(write())
        response_stream.write(b"first")
        await response_stream.finished()
        order.append("finished")
        await writing

    with TestClient(streamify_response(handler)) as client, client.stream("GET", "/") as response:
        pieces = iter(response)
        next(pieces)
        gate.wait(0.3)
        order.append("read")
        assert len(b"".join(pieces)) == 8 << 20
    assert order == ["ended", "read", "finished"]


async def left_on_loop(event: Any, response_stream: Any, context: Any) -> None:
    response_stream.end(bytes(8 << 20))
    try:
        await response_stream.finished()
    except asyncio.CancelledError:
        await response_stream.finished()


def left_in_thread(event: Any, response_stream: Any, context: Any) -> None:
    response_stream.write(bytes(8 << 20))
    response_stream.end()
    response_stream.finished()


async def broken_on_loop(event: Any, response_stream: Any, context: Any) -> None:
    with contextlib.suppress(ValueError), response_stream:
        response_stream.write(b"a")
        raise ValueError
    await response_stream.finished()


def broken_in_thread(event: Any, response_stream: Any, context: Any) -> None:
    with contextlib.suppress(ValueError), response_stream:
        response_stream.write(b"a")
        raise ValueError
    response_stream.finished()


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (left_on_loop, "nobody reads"),
        (left_in_thread, "nobody reads"),
        (broken_on_loop, "broken off"),
        (broken_in_thread, "broken off"),
    ],
)
def test_finished_raises_what_keeps_the_response_from_its_end(handler: Any, why: str) -> None:
    raised: list[str] = []
    ended = threading.Event()

    def note(error: BaseException) -> None:
        raised.append(str(error))
        ended.set()

    async def on_loop(event: Any, response_stream: Any, context: Any) -> None:
        try:
            await handler(event, response_stream, context)
        except ClientDisconnected as error:
            note(error)

    def in_thread(event: Any, response_stream: Any, context: Any) -> None:
        try:
            handler(event, response_stream, context)
        except ClientDisconnected as error:
            note(error)

    outer = on_loop if inspect.iscoroutinefunction(handler) else in_thread
    with TestClient(streamify_response(outer)) as client:
        with contextlib.suppress(BrokenResponse), client.stream("GET", "/") as response:
            next(iter(response))
            if why == "broken off":
                assert ended.wait(TIMEOUT)
        assert ended.wait(TIMEOUT)
    assert why in raised[0]


def raises_in_thread(event: Any, response_stream: Any, context: Any) -> None:
    with response_stream:
        response_stream.write(b"a")
        raise ValueError("broken")


async def raises_on_loop(event: Any, response_stream: Any, context: Any) -> None:
    with response_stream:
        response_stream.write(b"a")
        await asyncio.sleep(0.05)
        raise ValueError("broken")


def raises_at_once(event: Any, response_stream: Any, context: Any) -> None:
    raise ValueError("broken")


async def raises_at_once_on_loop(event: Any, response_stream: Any, context: Any) -> None:
    raise ValueError("broken")


@pytest.mark.parametrize("handler", [raises_in_thread, raises_on_loop, raises_at_once, raises_at_once_on_loop])
def test_a_handler_that_raises_has_no_whole_response(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    try:
        assert ask(handler).status == 502
    except BrokenResponse:
        assert "at_once" not in handler.__name__
    assert "ValueError: broken" in caplog.text


def test_a_thread_waits_for_room_and_is_told_that_nobody_reads() -> None:
    seen: list[BaseException] = []
    ended = threading.Event()
    written = 0

    def handler(event: Any, response_stream: Any, context: Any) -> None:
        nonlocal written
        try:
            while True:
                written += response_stream.write(bytes(65_536))
        except OSError as error:
            seen.append(error)
            raise
        finally:
            ended.set()

    with TestClient(streamify_response(handler)) as client:
        with client.stream("GET", "/") as response:
            next(iter(response))
            time.sleep(0.2)
            assert written < 20 * 65_536
        assert ended.wait(TIMEOUT)
    assert isinstance(seen[0], ClientDisconnected)


def test_a_coroutine_drains_and_is_cancelled() -> None:
    seen: list[str] = []
    ended = threading.Event()
    written = 0

    async def handler(event: Any, response_stream: Any, context: Any) -> None:
        nonlocal written
        try:
            while True:
                written += response_stream.write(bytes(65_536))
                await response_stream.drain()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            ended.set()

    with TestClient(streamify_response(handler)) as client:
        with client.stream("GET", "/") as response:
            next(iter(response))
            time.sleep(0.2)
            assert written < 20 * 65_536
        assert ended.wait(TIMEOUT)
    assert seen == ["cancelled"]


def test_a_coroutine_that_never_drains_is_stopped_before_memory_is() -> None:
    async def handler(event: Any, response_stream: Any, context: Any) -> None:
        with pytest.raises(BufferError, match=r"await response_stream\.drain"):
            for _ in range(1000):
                response_stream.write(bytes(65_536))

    assert (16 << 20) <= len(ask(handler).body) < (17 << 20)


# Pipelines


def upper(pieces: Any) -> Iterator[str]:
    for piece in pieces:
        yield piece.upper()


async def upper_on_loop(pieces: Any) -> AsyncIterator[str]:
    async for piece in pieces:
        yield piece.upper()


async def words() -> AsyncIterator[str]:
    yield "a"
    await asyncio.sleep(0)
    yield "b"


@pytest.mark.parametrize(
    ("source", "transforms", "body"),
    [
        (b"bytes", (), b"bytes"),
        ("text", (), b"text"),
        (["a", b"b"], (), b"ab"),
        ((str(number) for number in range(3)), (), b"012"),
        (io.BytesIO(b"x" * 200_000), (), b"x" * 200_000),
        (io.StringIO("text"), (upper,), b"TEXT"),
        (bz2.compress(b"packed"), (bz2.BZ2Decompressor(),), b"packed"),
        (b"z" * 1000, (zlib.compressobj(), zlib.decompressobj()), b"z" * 1000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pipelines_in_a_thread(source: Any, transforms: Any, body: bytes) -> None:
    assert ask(lambda event, response_stream, context: pipeline(source, *transforms, response_stream)).body == body


@pytest.mark.parametrize(
    ("source", "transforms", "body"),
    [
        (words, (), b"ab"),
        (words, (upper_on_loop,), b"AB"),
        (lambda: io.BytesIO(b"x" * 200_000), (), b"x" * 200_000),
        (lambda: ["a", "b"], (upper_on_loop, zlib.compressobj(), zlib.decompressobj()), b"AB"),
    ],
    ids=str,
)
def test_pipelines_on_the_loop(source: Any, transforms: Any, body: bytes) -> None:
    async def handler(event: Any, response_stream: Any, context: Any) -> None:
        await pipeline(source(), *transforms, response_stream)
        assert response_stream.closed

    assert ask(handler).body == body


def test_a_pipeline_closes_its_source_also_when_it_breaks() -> None:
    sources = [io.BytesIO(b"x"), io.BytesIO(b"x")]

    def fails(pieces: Any) -> Iterator[bytes]:
        raise ValueError("transform")
        yield b""

    async def on_loop(event: Any, response_stream: Any, context: Any) -> None:
        await pipeline(sources[0], lambda pieces: pieces, response_stream)

    def in_thread(event: Any, response_stream: Any, context: Any) -> None:
        pipeline(sources[1], fails, response_stream)

    assert ask(on_loop).body == b"x"
    assert ask(in_thread).status == 502
    assert all(source.closed for source in sources)


def test_a_pipeline_that_breaks_closes_its_transforms_from_the_last_to_the_source() -> None:
    closed: list[str] = []

    def passes(name: str) -> Any:
        def transform(pieces: Any) -> Iterator[Any]:
            try:
                yield from (piece for piece in pieces)
            finally:
                closed.append(name)

        return transform

    def passes_on_loop(name: str) -> Any:
        async def transform(pieces: Any) -> AsyncIterator[Any]:
            try:
                async for piece in pieces:
                    yield piece
            finally:
                closed.append(name)

        return transform

    async def breaks_off(pieces: Any) -> AsyncIterator[Any]:
        async for _ in pieces:
            yield 1  # which is no piece

    kept: list[Any] = []  # so that only a call closes them

    def keeping(transform: Any) -> Any:
        def call(pieces: Any) -> Any:
            kept.append(transform(pieces))
            return kept[-1]

        return call

    def in_thread(event: Any, response_stream: Any, context: Any) -> None:
        source = keeping(passes("source"))([b"x"])
        first, second = (keeping(passes(name)) for name in ("first", "second"))
        pipeline(source, first, second, lambda pieces: (1 for _ in pieces), response_stream)

    async def on_loop(event: Any, response_stream: Any, context: Any) -> None:
        source = keeping(passes_on_loop("source"))(words())
        first, second = (keeping(passes_on_loop(name)) for name in ("first", "second"))
        await pipeline(source, first, second, breaks_off, response_stream)

    for handler in (in_thread, on_loop):
        assert ask(handler).status == 502
        assert closed == ["second", "first", "source"]
        closed.clear()


@pytest.mark.parametrize("arguments", [(b"x",), (b"x", zlib.compressobj()), (b"x", io.BytesIO())])
def test_a_pipeline_ends_in_a_response_stream(arguments: Any) -> None:
    with pytest.raises(TypeError, match="the last argument of pipeline is the response stream"):
        pipeline(*arguments)


@pytest.mark.parametrize(("source", "transform"), [({"a": 1}, upper), (1, upper), (b"x", 1)])
def test_what_a_pipeline_cannot_take(source: Any, transform: Any) -> None:
    raised: list[str] = []

    def handler(event: Any, response_stream: Any, context: Any) -> None:
        with pytest.raises(TypeError) as error:
            pipeline(source, transform, response_stream)
        raised.append(str(error.value))

    ask(handler)
    assert raised[0].startswith(("a pipeline begins with", "1 is no transform"))


# The rest


def test_the_event_is_a_function_urls() -> None:
    seen: list[Any] = []

    def handler(event: Any, response_stream: Any, context: Any) -> None:
        seen.extend([event, context])

    ask(handler, "POST", "/a?b=1", content=b"\xff")
    event, context = seen
    assert (event["version"], event["rawPath"], event["rawQueryString"]) == ("2.0", "/a", "b=1")
    assert (event["body"], event["isBase64Encoded"]) == ("/w==", True)
    assert context.get_remaining_time_in_millis() > 0


def test_a_body_that_fits_no_event_is_a_413() -> None:
    response = ask(text, "POST", content=(bytes(1 << 20) for _ in range(7)))
    assert response.status == 413 and "6291456" in response.text


def test_a_plain_event_is_answered_buffered() -> None:
    event = {"version": "2.0", "rawPath": "/", "requestContext": {"http": {"method": "GET"}}}
    for each in (text, lambda event, response_stream, context: response_stream.write("Hello, world!")):
        handler = streamify_response(each)
        environment = TestEnvironment(handler.runner(), handler.concurrency, handler.lifespan, {})
        try:
            assert environment.invoke(event, TestContext(3))["statusCode"] == 200
        finally:
            environment.close()


def test_it_decorates_and_keeps_the_function() -> None:
    @streamify_response(concurrency=3)
    def handler(event: Any, response_stream: Any, context: Any) -> None:
        """Streams."""

    assert handler.concurrency == 3 and handler.__doc__ == "Streams." and handler.fn.__name__ == "handler"


@pytest.mark.parametrize("fn", [lambda event, context: None, lambda: None, "handler"])
def test_another_shape_is_refused(fn: Any) -> None:
    with pytest.raises(TypeError, match=r"\(event, response_stream, context\)"):
        streamify_response(fn)
