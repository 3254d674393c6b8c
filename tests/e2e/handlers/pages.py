"""What a gateway may compress, and what it must not."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator

from dialback import Request, Response, sse, stream_handler

PAGE = json.dumps([{"number": number, "name": f"name {number * 7919}"} for number in range(20_000)]).encode()
LINE = ("It was the best of times, it was the worst of times. " * 40 + "\n").encode()


async def stamps(request: Request) -> AsyncIterator[str]:
    """The Unix time, `count` times, `interval` seconds apart."""
    for number in range(int(request.query.get("count", "4"))):
        if number:
            await asyncio.sleep(float(request.query.get("interval", "0.5")))
        yield repr(time.time())


async def lines(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%d %b" % (number, LINE)


@stream_handler(concurrency=20)
async def handler(request: Request) -> Response | None:
    if request.is_websocket:
        ws = await request.websocket()
        async for message in ws:
            await ws.send(message)
        return None
    kind = request.path.removeprefix("/").removeprefix("plain/")
    if kind == "page":
        headers = {"content-type": "application/json", "etag": '"page"', "accept-ranges": "bytes"}
        return Response(PAGE, headers={**headers, "content-length": str(len(PAGE))})
    if kind == "stamps":
        return Response((f"{stamp}\n" async for stamp in stamps(request)), headers={"content-type": "text/plain"})
    if kind == "events":
        return sse(stamps(request))
    if kind == "lines":
        return Response(lines(int(request.query["count"])), headers={"content-type": "text/plain"})
    if kind == "stored":
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        return Response(gzip.compress(PAGE), headers=headers)
    if kind == "part":
        headers = {"content-type": "application/json", "content-range": f"bytes 0-99999/{len(PAGE)}"}
        return Response(PAGE[:100_000], 206, headers)
    return Response(bytes(100_000), headers={"content-type": "image/png"})
