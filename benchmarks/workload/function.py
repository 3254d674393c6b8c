"""The function: what a user would write, on the real `stream_handler`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from benchmarks.workload import bodies
from dialback import Request, Response, stream_handler


async def bulk(size: int) -> AsyncIterator[bytes]:
    for chunk in bodies.bulk(size):
        yield chunk


async def ticks(count: int, interval: float, wait: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    due = loop.time() + wait
    yield bodies.tick()
    for _ in range(count):
        await asyncio.sleep(due - loop.time())
        yield bodies.tick()
        due += interval


async def tokens(count: int, interval: float, work: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(count):
        yield bodies.token(work)
        due += interval  # the model's pace, which ours does not change
        await asyncio.sleep(due - loop.time())


@stream_handler(concurrency=int(os.environ.get("BENCH_PLACES", "1")))
async def handler(request: Request) -> Response:
    wanted = bodies.numbers(request.query_string.decode())
    if request.path == "/bulk":
        return Response(bulk(int(wanted["size"])))
    if request.path == "/ticks":
        return Response(ticks(int(wanted["count"]), wanted["interval"], wanted["wait"]))
    if request.path == "/tokens":
        return Response(tokens(int(wanted["count"]), wanted["interval"], wanted["work"]))
    if request.path == "/sink":
        received = 0
        async for piece in request.body:
            received += len(piece)
        return Response(f"{received}\n")
    return Response(bodies.TINY)
