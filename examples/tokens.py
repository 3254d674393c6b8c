"""Server-sent events, a token each 50 ms: curl -N 'http://127.0.0.1:8080/?prompt=hello'"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dialback import Request, Response, sse, stream_handler

ANSWER = "Your function dialled back, and every word of this left it the moment it was there."


@stream_handler(concurrency=20)  # it waits nearly all the time: one environment serves many readers
async def handler(request: Request) -> Response:
    prompt = request.query.get("prompt", "")

    async def events() -> AsyncIterator[dict[str, Any]]:
        for number, token in enumerate(f"{prompt}: {ANSWER}".lstrip(": ").split(" ")):
            yield {"id": number, "data": {"token": token + " "}}
            await asyncio.sleep(0.05)
        yield {"event": "done", "data": {}}

    return sse(events())
