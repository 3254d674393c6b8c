"""A download and an upload that wait at one moment until the test lets them go on, and note what became of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from paths import NOTES, note

from dialback import Request, Response, stream_handler

HALF = 512 << 10
"""Bytes: a body has two of them."""
PATIENCE = 30.0


async def moment(request: Request, name: str) -> None:
    """It is come; where the test asked for it, wait."""
    key = request.query["key"]
    note(key, f"{name} {time.monotonic()!r}")
    waits = request.query.get("wait") == name
    async with asyncio.timeout(PATIENCE):
        for _ in iter(lambda: waits and not (NOTES / f"{key}.go").exists(), False):
            await asyncio.sleep(0.005)


@contextmanager
def ending(request: Request, *, is_last: bool = True) -> Iterator[None]:
    """Note how the code ended; `is_last`: also where it ended well."""
    how = "returned" if is_last else ""
    try:
        yield
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        if how:
            note(request.query["key"], f"{how} {time.monotonic()!r}")


def healthy() -> bool:
    return not (NOTES / f"{os.getpid()}.unhealthy").exists()


@stream_handler(healthy=healthy)
async def handler(request: Request) -> Response | str:
    if request.path != "/download":
        with ending(request):
            return await upload(request)

    async def body() -> AsyncIterator[bytes]:
        with ending(request):
            yield bytes(HALF)
            await moment(request, "body")
            yield bytes(HALF)

    with ending(request, is_last=False):
        await moment(request, "head")
    return Response(body(), headers={"content-length": str(2 * HALF)})


async def upload(request: Request) -> str:
    await moment(request, "head")
    received = 0
    async for piece in request.body:
        is_half = received < HALF <= received + len(piece)
        received += len(piece)
        if is_half:
            await moment(request, "body")
    await moment(request, "end")
    return str(received)
