"""An MCP server in a Lambda function (pip install mcp); for clients it is http://127.0.0.1:8080/mcp

Any environment serves any request. With `stateless_http=False` clients of before 2026-07-28 have sessions (later ones
know none), each in one environment's memory; then the gateway is told where their requests belong:

    [functions.notes]
    url = "https://YOUR-FUNCTION-URL/"
    affinity = "header:mcp-session-id"
    linger = 60  # seconds that an environment stays awake for what a session asks next
"""

import asyncio
from functools import lru_cache

from mcp.server.mcpserver import Context, MCPServer

from dialback import asgi_handler

server = MCPServer("notes")
notes = lru_cache(1000)(lambda session: list[str]())


@server.tool()
async def count(limit: int, ctx: Context) -> str:
    for number in range(1, limit + 1):
        await asyncio.sleep(0.2)  # a client that cancels ends it here
        await ctx.report_progress(number, limit)
    return f"counted to {limit}"


@server.tool()
async def remember(text: str, ctx: Context) -> list[str]:
    session = (ctx.headers or {}).get("mcp-session-id")
    kept = notes(session) if session else []  # a client without one is told what it has just said
    kept.append(text)
    await ctx.session.send_resource_list_changed()  # to the session's event stream
    return kept


handler = asgi_handler(server.streamable_http_app(stateless_http=True, host="0.0.0.0"))  # of any Host: the gateway's
