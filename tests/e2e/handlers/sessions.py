"""Functions with a memory: what belongs to a session is in the environment that made it, and nowhere else."""

from __future__ import annotations

import asyncio
import os
import secrets

from dialback import Request, Response, stream_handler

COUNTS: dict[str, int] = {}
"""Requests of each session that this environment has made."""


async def answer(request: Request) -> Response | None:
    """A request without a session makes one; `wait`: seconds until the answer."""
    if request.is_websocket:
        room = request.cookies.get("room", "")
        ws = await request.websocket(headers={"x-environment": str(os.getpid())})
        async for _ in ws:
            COUNTS[room] = COUNTS.get(room, 0) + 1
            await ws.send(f"{os.getpid()} {COUNTS[room]}")
        return None
    session = request.headers.get("mcp-session-id") or request.cookies.get("room")
    await asyncio.sleep(float(request.query.get("wait", "0")))
    if session is None:
        session = secrets.token_hex(8)
        COUNTS[session] = 0
        cookie = {"set-cookie": f"room={session}; Path=/; HttpOnly"} if request.query.get("cookie") else {}
        return Response(f"{os.getpid()} {session}", headers={"mcp-session-id": session, **cookie})
    if session not in COUNTS:
        return Response("no such session\n", 404)
    COUNTS[session] += 1
    return Response(f"{os.getpid()} {COUNTS[session]}")


one = stream_handler(answer)
many = stream_handler(concurrency=10)(answer)
