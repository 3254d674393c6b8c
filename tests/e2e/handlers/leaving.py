"""A stream of a piece each 10 ms for `length` seconds, from code on the loop and from code in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from paths import note

from dialback import Request, Response, SyncRequest, stream_handler

INTERVAL = 0.01
STREAM = {"content-type": "text/plain"}


@contextmanager
def ending(key: str) -> Iterator[None]:
    """Note how the code ended, and when, on the machine's monotonic clock."""
    how = "returned"
    try:
        yield
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        note(key, f"{how} {time.monotonic()!r}")


@stream_handler
async def asynchronous(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        with ending(request.query["key"]):
            until = time.monotonic() + float(request.query["length"])
            while time.monotonic() < until:
                yield "piece\n"
                await asyncio.sleep(INTERVAL)

    return Response(body(), headers=STREAM)


@stream_handler
def generator(request: SyncRequest) -> Response:
    def body() -> Iterator[str]:
        with ending(request.query["key"]):
            until = time.monotonic() + float(request.query["length"])
            while time.monotonic() < until:
                yield "piece\n"
                time.sleep(INTERVAL)

    return Response(body(), headers=STREAM)
