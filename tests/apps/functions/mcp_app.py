"""An MCP server with a tool for each thing that the protocol does while a tool runs; once without sessions, once with.

Annotations are evaluated here, as the SDK wants them.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Elicit, RequestStateSecurity, Resolve
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage
from pydantic import BaseModel

from dialback import asgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
# What a call is continued with is sealed: all environments have to have the key.
security = RequestStateSecurity(keys=["a key of at least thirty-two bytes."])
server = MCPServer("tests", log_level="WARNING", request_state_security=security)


@server.tool()
async def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool()
async def environment() -> int:
    """The process that serves this."""
    return os.getpid()


@server.tool()
async def count(limit: int, interval: float, ctx: Context) -> int:
    """Count up, and say at each step when that was."""
    for number in range(1, limit + 1):
        await asyncio.sleep(interval)
        await ctx.report_progress(number, limit, f"{time.time()!r}")
    return limit


@server.tool()
async def wait(name: str, ctx: Context) -> None:
    """Say where it began; then wait, and note when somebody broke that off."""
    await ctx.report_progress(0, message=str(os.getpid()))
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        (NOTES / name).write_text(f"{time.time()!r}\n")
        raise


@server.tool()
async def announce(times: int, ctx: Context) -> str:
    """Tell the session, not this request, that resources have changed."""
    for number in range(times):
        await ctx.session.send_resource_updated(f"notes://{number}/{time.time()!r}")
    return "announced"


@server.tool()
async def publish(uri: str, ctx: Context) -> int:
    """Tell all who listen in this environment that a resource has changed."""
    await ctx.notify_resource_updated(uri)
    return os.getpid()


class Name(BaseModel):
    name: str


def who() -> Elicit[Name]:
    return Elicit("Who are you?", Name)


@server.tool()
async def greet(name: Annotated[Name, Resolve(who)]) -> str:
    """Ask the client for a name: in a session by a request to it, else by an answer that it repeats its call to."""
    return f"Hello {name.name}"


@server.tool()
async def hang_up(limit: int, ctx: Context) -> int:
    """Close the response's stream in the middle; the client is to come back for the rest."""
    for number in range(1, limit + 1):
        await ctx.report_progress(number, limit)
        if number == 2:
            await ctx.close_sse_stream()
        await asyncio.sleep(0.1)
    return limit


class Events(EventStore):
    """What was sent to each stream, in this environment's memory."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        index = int(last_event_id)
        stream = self._events[index][0]
        for number, (of, message) in enumerate(self._events[index + 1 :], index + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


stateless = asgi_handler(server.streamable_http_app(stateless_http=True), concurrency=4)
stateful = asgi_handler(server.streamable_http_app(event_store=Events(), retry_interval=100), concurrency=8)
