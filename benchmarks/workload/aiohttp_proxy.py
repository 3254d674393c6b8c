"""A reverse proxy as one writes it with aiohttp: `python -m benchmarks.workload.aiohttp_proxy PORT ORIGIN_PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiohttp import web

HOP_BY_HOP: Final = ("connection", "keep-alive", "transfer-encoding", "host")
SESSION: Final = web.AppKey("session", aiohttp.ClientSession)
ORIGIN: Final = web.AppKey("origin", str)


async def relay(request: web.Request) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    body = request.content if request.body_exists else None
    url = request.app[ORIGIN] + request.raw_path
    async with request.app[SESSION].request(request.method, url, headers=headers, data=body) as answer:
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                response.headers[name] = value
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            await response.write(piece)
        await response.write_eof()
    return response


async def client_session(app: web.Application) -> AsyncIterator[None]:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        app[SESSION] = session
        yield


def main(port: int, origin_port: int) -> None:
    app = web.Application(client_max_size=0)
    app[ORIGIN] = f"http://127.0.0.1:{origin_port}"
    app.cleanup_ctx.append(client_session)
    app.router.add_route("*", "/{path:.*}", relay)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
