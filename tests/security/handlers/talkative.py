"""A function whose author logs everything that anybody says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from dialback import Request, stream_handler

logging.basicConfig(level=logging.DEBUG, force=True)
for name in ("dialback", "dialback.websocket", "websockets", "websockets.client", "asyncio"):
    logging.getLogger(name).setLevel(logging.DEBUG)


@stream_handler(concurrency=3)
async def handler(request: Request) -> AsyncIterator[str]:
    logging.debug("asked for %s with %s", request.url, request)
    for _ in range(10):
        yield "tick "
        await asyncio.sleep(0.05)
