"""A Socket.IO server that says in which environment it runs, and notes who has left."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import socketio

from dialback import asgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
# The session's id, which long polling has in its query alone, as a cookie too: what `affinity` can go by.
sio = socketio.AsyncServer(async_mode="asgi", cookie="io", ping_interval=2, ping_timeout=2)


@sio.event
async def environment(sid: str) -> int:
    """The answer is the acknowledgement of the client's event."""
    return os.getpid()


@sio.event
async def echo(sid: str, data: Any) -> Any:
    return data


@sio.event
async def ticks(sid: str, limit: int) -> None:
    for number in range(limit):
        await sio.emit("tick", (number, time.time()), to=sid)
        await asyncio.sleep(0.2)


@sio.event
async def enter(sid: str, room: str) -> None:
    await sio.enter_room(sid, room)


@sio.event
async def say(sid: str, room: str, text: str) -> None:
    await sio.emit("said", text, room=room)


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    (NOTES / f"left-{sid}").write_text(f"{reason} {time.time()!r}\n")


handler = asgi_handler(socketio.ASGIApp(sio), concurrency=8)
