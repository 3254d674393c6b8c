"""The same as an ASGI application, for a server that needs no gateway (ASGI 3.0); its WebSockets echo."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from benchmarks.workload import bodies

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    wanted, path = bodies.numbers(scope["query_string"].decode()), scope["path"]
    if path in ("/bulk", "/ticks"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if path == "/bulk":
            for chunk in bodies.bulk(int(wanted["size"])):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        else:
            await ticks(int(wanted["count"]), wanted["interval"], wanted["wait"], receive, send)
        await send({"type": "http.response.body", "body": b""})
        return
    text = bodies.TINY
    if path == "/sink":
        received, more = 0, True
        while more:
            message = await receive()
            received += len(message.get("body", b""))
            more = message.get("more_body", False)
        text = f"{received}\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def left(receive: Receive) -> None:
    """Until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def ticks(count: int, interval: float, wait: float, receive: Receive, send: Send) -> None:
    """Ends with its client, as the function does: what ticks for nobody would be charged to the next round."""
    loop = asyncio.get_running_loop()
    leaving = loop.create_task(left(receive))
    due = loop.time() + wait
    await send({"type": "http.response.body", "body": bodies.tick(), "more_body": True})
    for _ in range(count):
        await asyncio.sleep(due - loop.time())
        if leaving.done():
            return
        await send({"type": "http.response.body", "body": bodies.tick(), "more_body": True})
        due += interval
    leaving.cancel()
