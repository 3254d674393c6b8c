"""What the fault tests ask of a function: bodies of known bytes both ways, and a note of every run and its end."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import random
from collections.abc import AsyncIterator

from paths import note

from dialback import Request, Response, stream_handler

BLOCK = random.Random(3).randbytes(1 << 20)
PIECE = 64 << 10
running = 0


async def bodies(request: Request) -> object:
    global running
    running += 1
    try:
        return await state(request) if request.path == "/state" else await exchange(request)
    finally:
        running -= 1


async def exchange(request: Request) -> Response:
    """Hash the request's body and send `size` bytes, both at once; note the run, and the digests at its end."""
    size = int(request.query.get("size", "0"))
    note("runs", f"begun {request.id}")

    async def receive() -> tuple[int, str]:
        sha, received = hashlib.sha256(), 0
        async for piece in request.body:
            sha.update(piece)
            received += len(piece)
        return received, sha.hexdigest()

    async def body() -> AsyncIterator[bytes]:
        receiving = asyncio.ensure_future(receive())
        sha, sent = hashlib.sha256(), 0
        try:
            while sent < size:
                at = (sent * 31 + size) % (len(BLOCK) - PIECE)
                piece = BLOCK[at : at + min(PIECE, size - sent)]
                sha.update(piece)
                sent += len(piece)
                yield piece
            received, received_sha = await receiving
        finally:
            receiving.cancel()
        note("runs", f"ended {request.id} {received} {received_sha} {sent} {sha.hexdigest()}")

    return Response(body(), headers={"content-type": "application/octet-stream"})


async def state(request: Request) -> dict[str, int]:
    """After a while, in which all who ask at once have come: what this process holds besides these requests."""
    await asyncio.sleep(float(request.query.get("wait", "0.5")))
    gc.collect()
    return {"pid": os.getpid(), "tasks": len(asyncio.all_tasks()) - running, "objects": len(gc.get_objects())}


eight = stream_handler(concurrency=8)(bodies)
one = stream_handler(bodies)
