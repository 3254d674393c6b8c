"""A function whose environments are healthy until the test says of one, or of all, that they are not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

from paths import NOTES, note

from dialback import Request, Response, stream_handler

PATIENCE = 30.0


def healthy() -> bool:
    return not any((NOTES / f"unhealthy.{which}").exists() for which in (os.getpid(), "all"))


@stream_handler(concurrency=10, healthy=healthy)
async def handler(request: Request) -> Response | str:
    note("served", f"{os.getpid()} {request.path}")
    if request.path != "/conversation":
        body = await request.read()
        return f"{os.getpid()} {len(body)} {hashlib.sha256(body).hexdigest()}"

    async def until_told() -> AsyncIterator[str]:
        yield f"{os.getpid()} begins\n"
        async with asyncio.timeout(PATIENCE):
            for number, _ in enumerate(iter((NOTES / "go").exists, True)):
                yield f"{number}\n"
                await asyncio.sleep(0.01)
        yield f"{os.getpid()} ends\n"

    return Response(until_told())
