"""Server-sent events, a token each 50 ms: curl -N http://127.0.0.1:8080/?prompt=hello"""

import asyncio
import json
from collections.abc import AsyncIterator

from dialback import Request, Response, stream_handler

ANSWER = "Your function dialled back, and every word of this left it the moment it was there."


@stream_handler(concurrency=20)  # it waits nearly all the time: one environment serves many readers
async def handler(request: Request) -> Response:
    prompt = request.query.get("prompt", "")

    async def events() -> AsyncIterator[str]:
        for number, token in enumerate(f"{prompt}: {ANSWER}".lstrip(": ").split(" ")):
            yield f"id: {number}\ndata: {json.dumps({'token': token + ' '})}\n\n"
            await asyncio.sleep(0.05)
        yield "event: done\ndata: {}\n\n"

    headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
    return Response(events(), headers=headers)
