"""Handlers for tests with WebSockets; what they do is in the path."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dialback import Request, Response, WebSocketClosed, stream_handler

NOTES = Path(os.environ["E2E_NOTES"])


def note(name: str, text: object) -> None:
    with (NOTES / name).open("a") as file:
        file.write(f"{text}\n")


@stream_handler(concurrency=2000)
async def handler(request: Request) -> Response | None:
    key = request.query.get("key", "")
    if request.path == "/refused":
        return Response("members only\n", 401, {"www-authenticate": "Basic"})
    ws = await request.websocket(next(iter(request.subprotocols), None), {"x-environment": str(os.getpid())})
    try:
        if request.path == "/flood":
            for number in range(1000):
                await ws.send(bytes(64 << 10))
                note(key, number)
        elif request.path == "/deaf":
            await asyncio.sleep(60)
        elif request.path == "/raises":
            raise ZeroDivisionError("secret")
        elif request.path == "/closes":
            await ws.receive()
            await ws.close(4321, "schön war’s")
        else:
            async for message in ws:
                await ws.send(message)
    except WebSocketClosed as closed:
        note(f"{key}-closed", closed.code)
    except asyncio.CancelledError:
        note(f"{key}-cancelled", ws.closed and ws.closed.code)
        raise
    else:
        note(f"{key}-closed", ws.closed and ws.closed.code)
    return None


@stream_handler
async def alone(request: Request) -> None:
    ws = await request.websocket()
    async for message in ws:
        await ws.send(message)
