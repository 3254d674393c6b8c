"""What a browser is tried with: pages, server-sent events that break off, a form; and every path of `paths`."""

from __future__ import annotations

import asyncio
import email.parser
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from conversations import handler as conversation
from paths import abandoned, answer, note, number, path

from dialback import Request, Response, sse, stream_handler

HTML = {"content-type": "text/html; charset=utf-8"}
FORM = """<!doctype html><title>Form</title><form method="post" enctype="multipart/form-data">
<input type="text" name="title"><input type="file" name="file"><button>Send</button></form>"""


@path
async def page(request: Request) -> Response:
    """A document of this origin, for scripts to run in."""
    return Response("<!doctype html><title>Page</title>", headers=HTML)


@path
async def document(request: Request) -> Response:
    """A page without an end."""
    endless = await abandoned(request)
    return Response(endless.body, headers=HTML)


@path
async def events(request: Request) -> Response:
    """Three at a time, from the last that the reader had; then an end or, as `how` says, a cut. After `last`, 204."""
    first = int(request.headers.get("last-event-id", "0")) + 1
    note(request.query["note"], f"from {first}")
    if first > number(request, "last", 9):
        return Response(status=204)

    async def three() -> AsyncIterator[dict[str, Any]]:
        yield {"retry": 300}
        for count in range(first, first + 3):
            yield {"id": count, "event": "count", "data": f"number\n{count}"}
            await asyncio.sleep(0.05)
        if request.query["how"] == "cut":
            raise RuntimeError("cut on purpose")

    return sse(three())


@path
async def form(request: Request) -> Any:
    """A page with a form; and what came of it, read slower than it is sent."""
    if request.method == "GET":
        return Response(FORM, headers=HTML)
    parser = email.parser.BytesFeedParser()
    parser.feed(f"content-type: {request.headers['content-type']}\r\n\r\n".encode())
    name = request.query.get("note", "form")
    note(name, "begun")
    seen = 0
    try:
        async for piece in request.body:
            parser.feed(piece)
            if (seen + len(piece)) >> 20 > seen >> 20:
                await asyncio.sleep(0.05)
            seen += len(piece)
    except (ConnectionResetError, asyncio.CancelledError):
        note(name, "gone")
        raise
    parts: dict[str, Any] = {}
    for part in parser.close().get_payload():
        content = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        parts[name] = [part.get_filename(), len(content), hashlib.sha256(content).hexdigest()]
    return parts


@stream_handler(concurrency=50)
async def handler(request: Request) -> Any:
    return await (conversation.fn if request.is_websocket else answer)(request)
