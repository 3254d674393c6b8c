"""Handlers of every form that wait for as long as they may, and note how and when they were stopped."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dialback import Request, Response, SyncRequest, current_request, stream_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
STREAM = {"content-type": "text/plain"}  # so that the head leaves before the first piece


def note(text: str) -> None:
    """One line under the name that the client chose."""
    name = current_request().query.get("note", "stopped")
    descriptor = os.open(NOTES / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


@contextmanager
def noted() -> Iterator[None]:
    """What ended the code, when, and what it could know of it."""
    note("begun")
    how = "returned"
    try:
        yield
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        note(f"{how} {time.time()!r} {current_request().cancelled}")


def block(seconds: float = 0.2) -> None:
    """Sit in the operating system, where nothing of Python's arrives."""
    time.sleep(seconds)


# On the loop


async def waits(request: Request) -> str:
    with noted():
        await asyncio.Event().wait()
    return ""


async def streams(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        with noted():
            while True:
                yield "piece\n"
                await asyncio.sleep(0.01)

    return Response(body(), headers=STREAM)


async def floods(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        with noted():
            while True:
                yield bytes(65_536)

    return Response(body(), headers=STREAM)


async def concludes(request: Request) -> Response:
    """Takes the end of its time for the end of its response."""

    async def body() -> AsyncIterator[str]:
        try:
            with noted():
                yield "begun\n"
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "time is up\n"

    return Response(body(), headers=STREAM)


async def plans(request: Request) -> Response:
    """Ends by itself, for as long as it was told that it has."""

    async def body() -> AsyncIterator[str]:
        with noted():
            while request.remaining_time() > 0.3:
                yield f"{request.remaining_time()}\n"
                await asyncio.sleep(0.1)

    return Response(body(), headers=STREAM)


async def ignores(request: Request) -> str:
    """Takes no notice."""
    with noted():
        while True:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                note("ignored")


# In a thread


def generates(request: SyncRequest) -> Response:
    def body() -> Iterator[str]:
        with noted():
            while True:
                yield "piece\n"
                block(0.01)

    return Response(body(), headers=STREAM)


def floods_from_a_thread(request: SyncRequest) -> Response:
    def body() -> Iterator[bytes]:
        with noted():
            while True:
                yield bytes(65_536)

    return Response(body(), headers=STREAM)


def reads(request: SyncRequest) -> str:
    with noted():
        request.read()
    return ""


def reads_a_file(request: SyncRequest) -> str:
    with noted():
        request.file.read()
    return ""


def looks(request: SyncRequest) -> str:
    with noted():
        while not request.cancelled:
            block(0.01)
    return ""


def blocks(request: SyncRequest) -> str:
    """Cannot notice anything before the file `release` is there."""
    with noted():
        while not (NOTES / "release").exists():
            block()
    return ""


def computes(request: SyncRequest) -> str:
    """Keeps the interpreter to itself, as far as it lets it."""
    with noted():
        while not (NOTES / "release").exists():
            sum(range(10_000))
    return ""


def hello(request: Request | SyncRequest) -> str:
    return f"hello {request.id} {os.getpid()}\n"


async def of_the_loop(request: Request) -> Any:
    found = {f"/{f.__name__}": f for f in (waits, streams, floods, concludes, plans, ignores)}.get(request.path)
    return hello(request) if found is None else await found(request)


def of_a_thread(request: SyncRequest) -> Any:
    forms = (generates, floods_from_a_thread, reads, reads_a_file, looks, blocks, computes)
    return {f"/{f.__name__}": f for f in forms}.get(request.path, hello)(request)


@stream_handler
def event(event: Any, context: Any) -> str:
    if event["rawPath"] == "/looks":
        return looks(current_request())  # type: ignore[arg-type]
    return f"hello {os.getpid()}\n"


@stream_handler
async def async_event(event: Any, context: Any) -> str:
    if event["rawPath"] == "/waits":
        return await waits(current_request())  # type: ignore[arg-type]
    return f"hello {os.getpid()}\n"


loop = stream_handler(of_the_loop)
thread = stream_handler(of_a_thread)
many_loop = stream_handler(concurrency=100)(of_the_loop)
many_thread = stream_handler(concurrency=100)(of_a_thread)
