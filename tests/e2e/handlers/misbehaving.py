"""What apps do wrong, in each kind of handler: the path says what. `/ticks` is the well-behaved one beside it.

The names of the paths are those of the rows in `tests/e2e/bad_apps.py`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dialback import Request, Response, SyncRequest, asgi_handler, stream_handler, streamify_response, wsgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
PLACES = 8
BLOCKS = 2.0
"""Seconds, twice the limit from which a block is named."""
PRINTED = 2000
"""Lines of a kilobyte."""
TEXT = {"content-type": "text/plain"}


def note(text: str) -> None:
    with (NOTES / "noted").open("a") as file:
        file.write(f"{text}\n")


def recurses(depth: int = 0) -> int:
    return recurses(depth + 1) + 1


def breaks(what: str) -> None:
    """What any code can do, whatever it is called by."""
    if what in ("raises-first", "raises-between", "raises-last"):
        raise ValueError("in its own words")
    if what == "exits":
        sys.exit(3)
    if what == "exits-at-once":
        os._exit(3)
    if what == "memory":
        raise MemoryError
    if what == "recursion":
        recurses()
    if what == "prints":
        for number in range(PRINTED):
            print(f"{number:1000}")
    if what == "leaks-threads":
        for _ in range(20):
            threading.Thread(target=time.sleep, args=(1,)).start()


async def exits() -> None:
    sys.exit(3)


def leaks_tasks() -> None:
    for _ in range(100):
        asyncio.get_running_loop().create_task(asyncio.sleep(3600))


# ASGI


async def app(scope: Any, receive: Any, send: Any) -> Any:
    if scope["type"] == "lifespan":
        return
    what = scope["path"].strip("/")
    if scope["type"] == "websocket":
        return await converses(what, receive, send)

    async def start(status: Any = 200, *headers: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def body(data: Any, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    match what:
        case "ticks":
            await start()
            for number in range(1000):
                await body(b"%d\n" % number, True)
                await asyncio.sleep(0.02)
        case "raises-between":
            await start()
            await body(b"begun", True)
            await asyncio.sleep(0.1)
            breaks(what)
        case "raises-last":
            await start()
            await body(b"whole")
            breaks(what)
        case "wrong-type":
            await start()
            await asyncio.sleep(0.1)
            await body("text")
        case "wrong-head":
            await start("200")
        case "wrong-value":
            return {"hello": "world"}
        case "out-of-order":
            await body(b"early")
        case "unknown":
            await send({"type": "http.response.begin"})
        case "starts-twice":
            await start()
            await asyncio.sleep(0.1)
            await start()
        case "sends-after-the-end":
            await start()
            await body(b"whole")
            await body(b"more")
        case "too-much":
            await start(200, (b"content-length", b"3"))
            await asyncio.sleep(0.1)
            await body(b"four", True)
        case "too-little":
            await start(200, (b"content-length", b"5"))
            await asyncio.sleep(0.1)
            await body(b"four")
        case "silent":
            return None
        case "half":
            await start()
            await body(b"begun", True)
            await asyncio.sleep(0.1)
        case "ignores":
            await start()
            for _ in range(100):
                await body(b"begun", True)
                await asyncio.sleep(0.02)
            note("ignored")
        case "blocks":
            time.sleep(BLOCKS)  # noqa: ASYNC251
            await start()
            await body(b"whole")
        case _:
            if what == "leaks-tasks":
                leaks_tasks()
            if what == "exits-in-a-task":
                await asyncio.create_task(exits())
            breaks(what)
            await start()
            await body(b"whole")
    return None


async def converses(what: str, receive: Any, send: Any) -> Any:
    await receive()
    if what == "raises-first":
        breaks(what)
    if what == "silent":
        return None
    if what == "out-of-order":
        await send({"type": "websocket.send", "text": "early"})
    if what == "wrong-value":
        return {"hello": "world"}
    await send({"type": "websocket.accept"})
    match what:
        case "ticks":
            for number in range(1000):
                await send({"type": "websocket.send", "text": str(number)})
                await asyncio.sleep(0.02)
        case "wrong-type":
            await send({"type": "websocket.send", "text": 7})
        case "unknown":
            await send({"type": "websocket.begin"})
        case "starts-twice":
            await send({"type": "websocket.accept"})
        case "sends-after-the-end":
            await send({"type": "websocket.close"})
            await send({"type": "websocket.send", "text": "late"})
        case "blocks":
            time.sleep(BLOCKS)  # noqa: ASYNC251
        case "ignores":
            for _ in range(20):
                await asyncio.sleep(0.1)
            note("ignored")
        case _:
            await send({"type": "websocket.send", "text": "begun"})
            await asyncio.sleep(0.1)
            breaks(what)
    return None


asgi = asgi_handler(app, concurrency=PLACES)


# WSGI


def wsgi_app(environ: Any, start_response: Callable[..., Any]) -> Any:
    what = environ["PATH_INFO"].strip("/")
    if what == "starts-twice":
        start_response("200 OK", [])
        start_response("200 OK", [])
    if what == "out-of-order":
        return [b"early"]
    if what == "silent":
        return []
    if what == "wrong-head":
        start_response(200, [])
    if what == "wrong-value":
        start_response("200 OK", [])
        return None
    lengths = {"too-much": "3", "too-little": "5"}
    headers = [("Content-Length", lengths[what])] if what in lengths else []
    if what not in ("ticks", "raises-between", "wrong-type", "ignores", "raises-last", *lengths):
        breaks(what)
    start_response("200 OK", headers)
    return Closing() if what == "raises-last" else pieces(what)


class Closing:
    """An iterable whose end fails."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"whole"
        time.sleep(0.1)

    def close(self) -> None:
        breaks("raises-last")


def pieces(what: str) -> Iterable[Any]:
    """Shared by all code in threads."""
    if what == "ticks":
        for number in range(1000):
            yield b"%d\n" % number
            time.sleep(0.02)
    elif what == "raises-between":
        yield b"begun"
        time.sleep(0.1)
        breaks(what)
    elif what == "wrong-type":
        yield b"begun"
        time.sleep(0.1)
        yield 7
    elif what == "ignores":
        try:
            for _ in range(100):
                yield b"begun"
                time.sleep(0.02)
        finally:
            time.sleep(1)
            note("ignored")
    elif what in ("too-much", "too-little"):
        yield b"fo"
        time.sleep(0.1)
        yield b"ur"
    else:
        yield b"whole"


wsgi = wsgi_handler(wsgi_app, concurrency=PLACES)


# Plain handlers


async def async_pieces(what: str) -> AsyncIterator[Any]:
    if what == "ticks":
        for number in range(1000):
            yield b"%d\n" % number
            await asyncio.sleep(0.02)
    elif what == "raises-between":
        yield "begun"
        await asyncio.sleep(0.1)
        breaks(what)
    elif what == "wrong-type":
        yield "begun"
        await asyncio.sleep(0.1)
        yield 7
    elif what == "ignores":
        yield "begun"
        for _ in range(30):
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                note("ignored")
    elif what in ("too-much", "too-little"):
        yield "fo"
        await asyncio.sleep(0.1)
        yield "ur"


@stream_handler(concurrency=PLACES)
async def coroutine(request: Request) -> Any:
    what = request.path.strip("/")
    if what in ("too-much", "too-little"):
        return Response(async_pieces(what), headers={**TEXT, "content-length": "3" if what == "too-much" else "5"})
    if what in ("ticks", "raises-between", "wrong-type", "ignores"):
        return Response(async_pieces(what), headers=TEXT)
    if what == "wrong-value":
        return {1, 2}
    if what == "no-await":
        return coroutine.fn(request)
    if what == "silent":
        return None
    if what == "blocks":
        time.sleep(BLOCKS)  # noqa: ASYNC251
    if what == "leaks-tasks":
        leaks_tasks()
    if what == "exits-in-a-task":
        await asyncio.create_task(exits())
    breaks(what)
    return "whole"


@stream_handler(concurrency=PLACES)
def thread(request: SyncRequest) -> Any:
    what = request.path.strip("/")
    if what in ("too-much", "too-little"):
        return Response(pieces(what), headers={**TEXT, "content-length": "3" if what == "too-much" else "5"})
    if what in ("ticks", "raises-between", "wrong-type", "ignores"):
        return Response(pieces(what), headers=TEXT)
    if what == "wrong-value":
        return {1, 2}
    if what == "silent":
        return None
    breaks(what)
    return "whole"


# AWS's shape


@streamify_response(concurrency=PLACES)
async def native(event: Any, response_stream: Any, context: Any) -> Any:
    what = event["rawPath"].strip("/")
    if what == "ticks":
        for number in range(1000):
            response_stream.write(b"%d\n" % number)
            await asyncio.sleep(0.02)
    if what == "blocks":
        time.sleep(BLOCKS)  # noqa: ASYNC251
    if what == "wrong-type":
        response_stream.write(7)
    if what == "raises-between":
        response_stream.write("begun")
        await asyncio.sleep(0.1)
    if what in ("raises-last", "sends-after-the-end"):
        response_stream.end("whole")
    if what == "sends-after-the-end":
        response_stream.write("more")
    if what == "ignores":
        response_stream.write("begun")
        for _ in range(30):
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                note("ignored")
    if what == "leaks-tasks":
        leaks_tasks()
    if what == "exits-in-a-task":
        await asyncio.create_task(exits())
    breaks(what)
    if what == "silent":
        return None
    if not response_stream.closed:
        response_stream.write("whole")
    return {"statusCode": 200} if what == "wrong-value" else None


@streamify_response(concurrency=PLACES)
def native_thread(event: Any, response_stream: Any, context: Any) -> Any:
    what = event["rawPath"].strip("/")
    if what in ("ticks", "ignores"):
        for piece in pieces(what):
            response_stream.write(piece)
    if what == "wrong-type":
        response_stream.write(7)
    if what == "raises-between":
        response_stream.write("begun")
        time.sleep(0.1)
    if what in ("raises-last", "sends-after-the-end"):
        response_stream.end("whole")
    if what == "sends-after-the-end":
        response_stream.write("more")
    breaks(what)
    if what == "silent":
        return None
    if not response_stream.closed:
        response_stream.write("whole")
    return {"statusCode": 200} if what == "wrong-value" else None
