"""One ASGI app for both servers: a path for each behaviour. What it saw itself is told by `/seen`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dialback import asgi_handler
from tests.conformance import websocket_app

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Behaviour = Callable[[Scope, Receive, Send, list[Any]], Awaitable[Any]]

BEHAVIOURS: dict[str, Behaviour] = {}
SEEN: dict[str, list[Any]] = {}
INTERVAL = 0.3
"""Seconds between pieces that are to come apart."""
CONTENT = Path(__file__).read_bytes()
ENOUGH = 256
"""Pieces of 64 KiB, 16 MiB: more than any kernel holds for a client that does not read."""


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


async def app(scope: Scope, receive: Receive, send: Send) -> Any:
    if scope["type"] == "lifespan":
        await live(scope, receive, send)
        return None
    name, _, key = scope["path"].removeprefix("/").partition("/")
    if name == "seen":
        await whole(send, json.dumps(SEEN.get(key, [])).encode())
        return None
    seen = SEEN.setdefault(key.partition("/")[0], [])
    try:
        serve = websocket_app.serve if scope["type"] == "websocket" else BEHAVIOURS[name]
        return await serve(scope, receive, send, seen)
    except BaseException as error:
        seen.append(f"raised {'RuntimeError' if isinstance(error, RuntimeError) else type(error).__name__}")
        raise


handler = asgi_handler(app, lifespan="on")
STARTED: list[float] = []


async def live(scope: Scope, receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        if kind == "lifespan.startup":
            STARTED.append(time.time())
            scope["state"]["starts"] = len(STARTED)
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def start(send: Send, status: Any = 200, *headers: tuple[Any, Any], **more: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})


async def body(send: Send, data: Any = b"", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def whole(send: Send, data: bytes, *headers: tuple[bytes, bytes]) -> None:
    await start(send, 200, (b"content-length", str(len(data)).encode()), *headers)
    await body(send, data)


async def read(receive: Receive) -> bytes:
    data = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        data += message["body"]
        if not message["more_body"]:
            return data


async def note_error(seen: list[Any], call: Awaitable[None]) -> None:
    """What `send` or `receive` raises, as the app sees it."""
    try:
        await call
        seen.append("nothing raised")
    except Exception as error:
        seen.append("RuntimeError" if isinstance(error, RuntimeError) else type(error).__name__)


# Requests


@behaviour
async def scope(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    fields = {
        **scope,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
    }
    fields = {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in fields.items()}
    fields["client"] = [type(part).__name__ for part in scope["client"]]
    await whole(send, json.dumps(fields).encode())


@behaviour
async def echo(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, await read(receive))


@behaviour
async def duplex(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await body(send, message["body"], more)


@behaviour
async def unread(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"answered unread")


@behaviour
async def receives_on(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await read(receive)
    waiting = asyncio.ensure_future(receive())
    await asyncio.sleep(0.1)
    seen.append("waits" if not waiting.done() else "does not wait")
    await whole(send, b"")
    seen += [(await waiting)["type"], (await receive())["type"]]


# Responses


@behaviour
async def sized(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"a body", (b"content-type", b"text/plain"))


@behaviour
async def unsized(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-type", b"text/plain"))
    await body(send, b"one", True)
    await body(send, b"two")


@behaviour
async def empty(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await body(send)


@behaviour
async def timed(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    for number in range(3):
        await body(send, b"%d" % number, True)
        await body(send, b"", True)
        await asyncio.sleep(INTERVAL)
    await body(send)


@behaviour
async def timed_sized(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", b"3"))
    for number in range(3):
        await body(send, b"%d" % number, number < 2)
        await asyncio.sleep(INTERVAL)


@behaviour
async def head_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await asyncio.sleep(INTERVAL)
    await body(send, b"later")


@behaviour
async def large(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    for _ in range(16):
        await body(send, bytes(65_536), True)
    await body(send)


@behaviour
async def fields(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(
        send,
        b"",
        (b"set-cookie", b"a=1"),
        (b"X-Upper", b"Value"),
        (b"set-cookie", b"b=2"),
        (b"x-empty", b""),
        (b"x-latin", b"\xe9"),
        (b"x-odd-~!", b"a, b"),
    )


@behaviour
async def status(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    code = int(scope["path"].rpartition("/")[2])
    await start(send, code)
    await body(send, b"" if code in (204, 304) else b"body")


@behaviour
async def body_of_none(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    """A body with a status that has none."""
    await start(send, 204)
    await asyncio.sleep(0.1)
    await note_error(seen, body(send, b"body"))


@behaviour
async def many_fields(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"", *((b"x-%d" % number, b"v" * 100) for number in range(100)))


@behaviour
async def says_close(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"bye", (b"connection", b"close"))


@behaviour
async def chunked_itself(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"transfer-encoding", b"chunked"))
    await body(send, b"piece")


@behaviour
async def views(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await body(send, bytearray(b"array"), True)
    await body(send, memoryview(b"view"))


@behaviour
async def no_body_key(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


@behaviour
async def slow_reader(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    for number in range(ENOUGH):
        seen[:] = [number]
        await body(send, bytes(65_536), True)
    await body(send)


@behaviour
async def trailers(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    has = "http.response.trailers" in scope.get("extensions", {})
    await start(send, 200, (b"trailer", b"x-sum"), trailers=has)
    await body(send, b"body")
    if has:
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})


@behaviour
async def early_hint(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    if "http.response.early_hint" in scope.get("extensions", {}):
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    await whole(send, b"body")


@behaviour
async def pathsend(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", str(len(CONTENT)).encode()))
    if "http.response.pathsend" in scope.get("extensions", {}):
        await send({"type": "http.response.pathsend", "path": __file__})
    else:
        await body(send, CONTENT)


# Disconnects


@behaviour
async def waits(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await read(receive)
    await start(send)
    await body(send, b"begun", True)
    seen.append((await receive())["type"])
    await note_error(seen, body(send, b"to nobody", True))
    await asyncio.sleep(0.2)
    seen.append("was not cancelled")
    seen.append((await receive())["type"])
    await note_error(seen, body(send))
    await note_error(seen, body(send, b"after the end"))


@behaviour
async def waits_to_be_told(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await read(receive)
    await start(send)
    await body(send, b"begun", True)
    await receive()
    seen.append(time.time())


@behaviour
async def waits_unread(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    while (message := await receive())["type"] == "http.request":
        pass
    seen.append(message["type"])


@behaviour
async def goes_on(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"done")
    await asyncio.sleep(INTERVAL)
    seen.append("finished")


# What apps do wrong


@behaviour
async def raises_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    raise ValueError("first")


@behaviour
async def raises_unread(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await receive()
    raise ValueError("unread")


@behaviour
async def raises_after_head(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await asyncio.sleep(0.1)
    raise ValueError("after the head")


@behaviour
async def raises_between(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await body(send, b"half", True)
    await asyncio.sleep(0.1)
    raise ValueError("between")


@behaviour
async def raises_between_sized(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", b"8"))
    await body(send, b"half", True)
    await asyncio.sleep(0.1)
    raise ValueError("between")


@behaviour
async def raises_last(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"whole")
    raise ValueError("last")


@behaviour
async def exits(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    raise asyncio.CancelledError


@behaviour
async def returns_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    return


@behaviour
async def returns_between(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await body(send, b"half", True)
    await asyncio.sleep(0.1)


@behaviour
async def returns_a_value(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> Any:
    return "a value"


@behaviour
async def returns_a_value_last(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> Any:
    await whole(send, b"whole")
    return "a value"


@behaviour
async def body_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await note_error(seen, body(send, b"early"))
    await whole(send, b"then well")


@behaviour
async def starts_twice(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", b"4"))
    await note_error(seen, start(send))
    await body(send, b"well")


@behaviour
async def sends_after_the_end(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await whole(send, b"whole")
    await note_error(seen, body(send, b"more"))
    await note_error(seen, start(send))


@behaviour
async def unknown_message(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await note_error(seen, send({"type": "http.response.nothing"}))
    await whole(send, b"then well")


@behaviour
async def text_body(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send)
    await asyncio.sleep(0.1)
    await body(send, "text")


@behaviour
async def text_header(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, ("x-text", "value"))
    await body(send)


@behaviour
async def bad_header(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"x-split", b"a\r\nx-more: b"))
    await body(send)


@behaviour
async def bad_header_name(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"x split", b"a"))
    await body(send)


@behaviour
async def bad_status(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, "200")
    await body(send)


@behaviour
async def interim_status(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 600)
    await body(send)


@behaviour
async def too_much(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", b"4"))
    await body(send, b"too ", True)
    await asyncio.sleep(0.1)
    await note_error(seen, body(send, b"much"))


@behaviour
async def too_much_at_once(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", b"4"))
    await asyncio.sleep(0.1)
    await body(send, b"too much")


@behaviour
async def too_little(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await start(send, 200, (b"content-length", b"8"))
    await body(send, b"too ", True)
    await asyncio.sleep(0.1)
    await note_error(seen, body(send))
