"""What the end-to-end tests ask of a function: one path for each behaviour, served one at a time or many at once."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import mmap
import os
import random
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from dialback import Request, Response, stream_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
BLOCK = random.Random(20260117).randbytes(1 << 20)
"""What endless bodies are made of."""

PATHS: dict[str, Callable[[Request], Awaitable[Any]]] = {}


def path(function: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
    PATHS["/" + function.__name__] = function
    return function


def number(request: Request, key: str, default: int) -> int:
    return int(request.query.get(key, str(default)))


def seconds(request: Request, key: str, default: float) -> float:
    return float(request.query.get(key, str(default)))


def note(name: str, text: str) -> None:
    """One line, in one write: whole even when several processes note at once."""
    descriptor = os.open(NOTES / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, text.encode() + b"\n")
    finally:
        os.close(descriptor)


async def answer(request: Request) -> Any:
    return await PATHS.get("/" + request.path.removeprefix("/").split("/")[0], head)(request)


@path
async def head(request: Request) -> Any:
    """Everything that was known before the body, and the body's digest."""
    body = await request.read()
    return {
        "method": request.method,
        "raw_path": request.raw_path.decode("latin-1"),
        "path": request.path,
        "query_string": request.query_string.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.raw],
        "cookies": request.cookies,
        "id": request.id,
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }


@path
async def hello(request: Request) -> str:
    return f"hello {request.id}\n"


@path
async def echo(request: Request) -> Response:
    """Each piece of the request before the next has come."""

    async def body() -> AsyncIterator[bytes]:
        async for piece in request.body:
            yield piece

    return Response(body(), headers={"content-type": "application/octet-stream", "x-id": request.id})


@path
async def whole(request: Request) -> bytes:
    """The request's body, read whole, as the response's."""
    return await request.read()


@path
async def digest(request: Request) -> dict[str, object]:
    """Hash an upload while it comes."""
    sha = hashlib.sha256()
    size = pieces = 0
    async for piece in request.body:
        sha.update(piece)
        size += len(piece)
        pieces += 1
    return {"size": size, "sha256": sha.hexdigest(), "pieces": pieces, "id": request.id}


@path
async def heard(request: Request) -> str:
    """Notes each piece of an upload, and how it ended."""
    name = request.query.get("note", "heard")
    try:
        async for piece in request.body:
            note(name, piece.decode())
    except (ConnectionResetError, asyncio.CancelledError):
        note(name, "gone")
        raise
    note(name, "whole")
    return "heard"


@path
async def produce(request: Request) -> Response:
    """`size` bytes in pieces of `piece`, as fast as they are taken; the digest and the count so far go to notes."""
    size, piece = number(request, "size", 1 << 20), number(request, "piece", 64 << 10)
    name = request.query.get("note", "")

    async def body() -> AsyncIterator[bytes]:
        sha = hashlib.sha256()
        produced = 0
        counter = open_counter(NOTES / f"{name}.produced") if name else None
        while produced < size:
            start = produced % (len(BLOCK) - min(piece, len(BLOCK)) + 1)
            data = (BLOCK[start : start + piece] if piece <= len(BLOCK) else BLOCK * (piece // len(BLOCK) + 1))[:piece]
            data = data[: size - produced]
            sha.update(data)
            produced += len(data)
            if counter is not None:
                struct.pack_into("q", counter, 0, produced)
            yield data
        if request.query.get("fail"):
            raise RuntimeError("produced, and then failed")
        if name:
            note(f"{name}.sha256", sha.hexdigest())

    return Response(body(), headers={"content-type": "application/octet-stream"})


def open_counter(file: Path) -> mmap.mmap:
    """Eight bytes of a file that the test reads while we write."""
    file.write_bytes(bytes(8))
    with file.open("r+b") as opened:
        return mmap.mmap(opened.fileno(), 8)


@path
async def ticks(request: Request) -> Response:
    """`count` lines, `interval` seconds apart, each with the Unix time at which it was written."""
    count, interval = number(request, "count", 5), seconds(request, "interval", 1.0)

    async def body() -> AsyncIterator[str]:
        for index in range(count):
            if index:
                await asyncio.sleep(interval)
            yield f"{index} {time.time()!r} {request.id}\n"

    return Response(body(), headers={"content-type": "text/plain", "x-id": request.id})


@path
async def slow_start(request: Request) -> Response:
    """A head at once, its first piece after `wait` seconds."""

    async def body() -> AsyncIterator[str]:
        await asyncio.sleep(seconds(request, "wait", 0.5))
        yield "at last"

    return Response(body(), headers={"content-type": "text/plain"})


@path
async def status(request: Request) -> Response:
    """Whatever status, with or without a body."""
    return Response(request.query.get("body") or None, status=number(request, "code", 200))


@path
async def fields(request: Request) -> Response:
    """`count` fields with values of `size` bytes."""
    count, size = number(request, "count", 200), number(request, "size", 20)
    return Response("fields", headers=[(f"x-{index}", f"{index}-".ljust(size, "v")) for index in range(count)])


@path
async def cookies(request: Request) -> Response:
    """Several Set-Cookie and a repeated field."""
    pairs = [("set-cookie", f"c{index}={index}; Path=/; HttpOnly") for index in range(3)]
    return Response("cookies", headers=[*pairs, ("x-twice", "a, b"), ("x-twice", "c"), ("vary", "accept")])


@path
async def trailers(request: Request) -> Response:
    """A digest that is known only at the end."""
    ends: dict[str, str] = {}

    async def body() -> AsyncIterator[bytes]:
        sha = hashlib.sha256()
        for index in range(3):
            piece = f"piece {index}\n".encode()
            sha.update(piece)
            yield piece
        ends["x-sha256"] = sha.hexdigest()
        ends["x-second"] = "2"

    return Response(body(), headers={"content-type": "text/plain", "trailer": "x-sha256"}, trailers=ends)


@path
async def hints(request: Request) -> Response:
    """103 Early Hints. There is no public name for it yet: the session's own is used."""
    stream: Any = request._stream
    stream._link.session.send_informational(stream.number, 103, [(b"link", b"</style.css>; rel=preload; as=style")])
    stream._link.wake()
    await asyncio.sleep(seconds(request, "wait", 0.1))
    return Response("after the hints")


@path
async def late(request: Request) -> Response:
    """Reads the body only after `wait` seconds, and says when that was."""
    await asyncio.sleep(seconds(request, "wait", 0.3))
    began = time.time()
    body = await request.read()
    return Response(f"{began!r} {len(body)}")


@path
async def unread(request: Request) -> Response:
    """Answers without a look at the body."""
    return Response("not read", status=number(request, "code", 200))


@path
async def broken(request: Request) -> Any:
    """Raises before the response, or `after` so many pieces of it."""
    after = number(request, "after", 0)
    if not after:
        raise RuntimeError(f"broken on purpose, secret-{request.id}")

    async def body() -> AsyncIterator[str]:
        for index in range(after):
            yield f"piece {index}\n"
            await asyncio.sleep(0.05)
        raise RuntimeError(f"broken on purpose, secret-{request.id}")

    return Response(body(), headers={"content-type": "text/plain"})


@path
async def leaves(request: Request) -> Any:
    """sys.exit, before the response or `after` so many pieces of it."""
    after = number(request, "after", 0)
    if not after:
        sys.exit(3)

    async def body() -> AsyncIterator[str]:
        for index in range(after):
            yield f"piece {index}\n"
            await asyncio.sleep(0.05)
        sys.exit(3)

    return Response(body(), headers={"content-type": "text/plain"})


@path
async def process(request: Request) -> Response:
    """A line at once with the process id, then one each 50 ms without an end."""

    async def body() -> AsyncIterator[str]:
        yield f"{os.getpid()}\n"
        while True:
            await asyncio.sleep(0.05)
            yield "still here\n"

    return Response(body(), headers={"content-type": "text/plain"})


@path
async def stuck(request: Request) -> None:
    """Notes its process and then waits for ever."""
    note(request.query.get("note", "stuck-somewhere"), str(os.getpid()))
    await asyncio.Event().wait()


@path
async def waits(request: Request) -> None:
    """Waits for ever, and notes that it was cancelled."""
    name = request.query.get("note", "waits")
    note(name, "begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(name, "cancelled")
        raise


@path
async def hoards(request: Request) -> None:
    """Takes memory until somebody objects."""
    hoard = []
    while True:
        hoard.append(bytes(range(256)) * 40_000)
        await asyncio.sleep(0.01)


@path
async def nonsense(request: Request) -> Any:
    """Returns what cannot be a response."""

    async def numbers() -> AsyncIterator[Any]:
        yield 1

    kinds: dict[str, Callable[[], Any]] = {
        "set": lambda: {1, 2},
        "coroutine": lambda: asyncio.sleep(0),
        "status": lambda: Response("x", status=1000),
        "generator": numbers,
    }
    return kinds[request.query["what"]]()


@path
async def abandoned(request: Request) -> Response:
    """Notes what becomes of it: how far it came, whether it was cancelled, whether `finally` ran."""
    name = request.query.get("note", "abandoned")

    async def body() -> AsyncIterator[bytes]:
        try:
            for index in range(number(request, "count", 100)):
                note(name, f"piece {index}")
                yield BLOCK[: number(request, "piece", 1000)]
                await asyncio.sleep(seconds(request, "interval", 0.05))
        except asyncio.CancelledError:
            note(name, "cancelled")
            raise
        except GeneratorExit:
            note(name, "closed")
            raise
        finally:
            note(name, "finally")

    return Response(body(), headers={"content-type": "application/octet-stream"})


@path
async def once(request: Request) -> str:
    """Notes each execution under the name that the client chose."""
    key = request.query.get("key", "")
    note("executions", f"{key} {request.id}")
    return f"{key} {request.id}"


@path
async def state(request: Request) -> dict[str, object]:
    """What the process holds: tasks, descriptors, objects."""
    gc.collect()
    return {
        "pid": os.getpid(),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "id": request.id,
    }


@path
async def environment(request: Request) -> str:
    """The variables of the process, to see what a function is told."""
    return json.dumps(dict(os.environ))


one = stream_handler(answer)
many = stream_handler(concurrency=100)(answer)
