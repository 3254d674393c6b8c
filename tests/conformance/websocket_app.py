"""The WebSocket side of the app that both servers run: a path for each behaviour."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Behaviour = Callable[[Scope, Receive, Send, list[Any]], Awaitable[Any]]

BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


async def serve(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> Any:
    """Run the behaviour that the path names."""
    first = await receive()
    assert first == {"type": "websocket.connect"}, first
    return await BEHAVIOURS[scope["path"].split("/")[1]](scope, receive, send, seen)


async def accept(send: Send, **more: Any) -> None:
    await send({"type": "websocket.accept", **more})


async def say(send: Send, message: str) -> None:
    await send({"type": "websocket.send", "text": message})


async def hear(receive: Receive, seen: list[Any]) -> dict[str, Any]:
    """The next message, noted as the app sees it."""
    message = await receive()
    given = {name: value for name, value in message.items() if value is not None}
    if "bytes" in given:
        given["bytes"] = f"{len(given['bytes'])} bytes"
    if len(given.get("text", "")) > 100:
        given["text"] = f"{len(given['text'])} characters"
    if not given.get("reason", True):
        del given["reason"]
    seen.append(given)
    return message


async def until_left(receive: Receive) -> None:
    """What an app that returns does to its client is a behaviour of its own."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def tried(seen: list[Any], call: Awaitable[None]) -> None:
    try:
        await call
        seen.append("nothing raised")
    except OSError:
        seen.append("OSError")
    except Exception as error:
        seen.append("RuntimeError" if isinstance(error, RuntimeError) else type(error).__name__)


@behaviour
async def ws_scope(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    fields = {
        **scope,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
    }
    fields = {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in fields.items()}
    fields["client"] = [type(part).__name__ for part in scope["client"]]
    await say(send, json.dumps(fields))
    await until_left(receive)


@behaviour
async def ws_echo(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    while (message := await hear(receive, seen))["type"] == "websocket.receive":
        data = message.get("bytes")
        await send({"type": "websocket.send", **({"text": message["text"]} if data is None else {"bytes": data})})


@behaviour
async def ws_hears(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    """What follows the client's end."""
    await accept(send)
    while (await hear(receive, seen))["type"] == "websocket.receive":
        pass
    await tried(seen, say(send, "to nobody"))
    await tried(seen, send({"type": "websocket.close"}))


@behaviour
async def ws_hears_on(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    while (await hear(receive, seen))["type"] == "websocket.receive":
        pass
    await hear(receive, seen)


@behaviour
async def ws_offers(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send, subprotocol=scope["subprotocols"][1], headers=[(b"x-one", b"1"), (b"set-cookie", b"a=b")])
    await say(send, ",".join(scope["subprotocols"]))
    await until_left(receive)


@behaviour
async def ws_in_order(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    for number in range(100):
        await say(send, str(number))
    await until_left(receive)


@behaviour
async def ws_large(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await send({"type": "websocket.send", "bytes": bytes(1 << 20)})
    await until_left(receive)


@behaviour
async def ws_both(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await send({"type": "websocket.send", "bytes": None, "text": "text"})
    await send({"type": "websocket.send", "bytes": b"bytes", "text": None})
    await until_left(receive)


@behaviour
async def ws_closes(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await say(send, "last")
    await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    await tried(seen, say(send, "late"))
    await hear(receive, seen)


@behaviour
async def ws_closes_plainly(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await send({"type": "websocket.close"})
    await tried(seen, send({"type": "websocket.close"}))


@behaviour
async def ws_refuses(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await send({"type": "websocket.close", "code": 4003})
    await tried(seen, accept(send))
    await hear(receive, seen)


@behaviour
async def ws_answers(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    assert "websocket.http.response" in scope["extensions"]
    headers = [(b"x-why", b"members"), (b"content-length", b"12")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"members ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"only"})
    await tried(seen, accept(send))


@behaviour
async def ws_raises_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    raise ValueError("first")


@behaviour
async def ws_raises(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await say(send, "begun")
    await receive()
    raise ValueError("later")


@behaviour
async def ws_returns_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    return


@behaviour
async def ws_returns(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await say(send, "begun")
    await receive()


@behaviour
async def ws_says_first(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await tried(seen, say(send, "early"))
    await accept(send)
    await until_left(receive)


@behaviour
async def ws_accepts_twice(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await tried(seen, accept(send))
    await until_left(receive)


@behaviour
async def ws_unknown(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await tried(seen, send({"type": "websocket.nothing"}))
    await until_left(receive)


@behaviour
async def ws_says_a_number(scope: Scope, receive: Receive, send: Send, seen: list[Any]) -> None:
    await accept(send)
    await tried(seen, send({"type": "websocket.send", "text": 7}))
    await until_left(receive)
