"""A chat room for the 50 visitors of one environment: the next 50 get another environment, and a room of their own.

.venv/bin/python -m websockets "ws://127.0.0.1:8080/?name=you"

One room over all environments needs something that they share, such as Redis.
"""

import asyncio
import contextlib

from dialback import Request, WebSocket, WebSocketClosed, stream_handler

visitors: set[WebSocket] = set()


async def say(text: str) -> None:
    """To all; who has no room for it within a second misses it, so that nobody holds up the others."""

    async def send(visitor: WebSocket) -> None:
        with contextlib.suppress(WebSocketClosed, asyncio.TimeoutError):
            await asyncio.wait_for(visitor.send(text), 1)

    await asyncio.gather(*map(send, visitors))


@stream_handler(concurrency=50)
async def handler(request: Request) -> None:
    name = request.query.get("name", "somebody")
    ws = await request.websocket()
    visitors.add(ws)
    try:
        await say(f"{name} is here, with {len(visitors) - 1} others")
        async for message in ws:
            await say(f"{name}: {message}")
    finally:
        visitors.discard(ws)
        await say(f"{name} has left")
