"""The `websocket` scope in its rawest form: what an app is told, what it may send, how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lambda_client import asgi_handler
from lambda_client.testing import TestClient, TestWebSocket, WebSocketRefused

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ACCEPT = {"type": "websocket.accept"}


@contextmanager
def talking(app: Any, path: str = "/", *, timeout: float = 900.0, **options: Any) -> Iterator[TestWebSocket]:
    handler = asgi_handler(app, lifespan="off", root_path=options.pop("root_path", ""))
    with TestClient(handler, timeout=timeout) as client, client.websocket(path, **options) as ws:
        yield ws


class App:
    """Runs `steps` and keeps what it was told."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps
        self.told: list[Any] = []
        self.scope: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scope = scope
        for step in self.steps:
            if step is receive_one:
                self.told.append(await receive())
            elif isinstance(step, BaseException):
                raise step
            elif callable(step):
                await step(self, receive, send)
            else:
                await send(step)


def receive_one() -> None:
    """A step: receive, and keep it."""


def text(message: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": message}


def test_the_scope_is_whole() -> None:
    app = App(ACCEPT)
    headers = [("X-One", "1"), ("host", "h.example:81"), ("origin", "https://evil.example")]
    with talking(app, "/a%20b/%C3%BC?x=%20&y", headers=headers, subprotocols=["a", "b"]):
        pass
    assert app.scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/a b/ü",
        "raw_path": b"/a%20b/%C3%BC",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [
            *[(b"x-one", b"1"), (b"host", b"h.example:81"), (b"origin", b"https://evil.example")],
            *[(b"connection", b"Upgrade"), (b"upgrade", b"websocket")],
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("h.example", 81),
        "subprotocols": ["a", "b"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


def test_a_conversation() -> None:
    accept = {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"X-A", b"1")]}
    close = {"type": "websocket.close", "code": 4001, "reason": "bye"}
    app = App(
        receive_one, accept, receive_one, receive_one, text("c"), {"type": "websocket.send", "bytes": b"d"}, close
    )
    with talking(app, subprotocols=["a", "b"]) as ws:
        assert (ws.subprotocol, ws.headers["x-a"]) == ("b", "1")
        ws.send("a")
        ws.send(b"b")
        assert list(ws) == ["c", b"d"]
        assert ws.closed == (4001, "bye")
    assert app.told == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "a"},
        {"type": "websocket.receive", "bytes": b"b"},
    ]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (1005, ""), (1006, ""), (4999, "ü")])
def test_the_client_closes(code: int, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App(receive_one, ACCEPT, receive_one, receive_one)
    with talking(app) as ws:
        ws.close(code, reason)
    assert app.told[1:] == [{"type": "websocket.disconnect", "code": code, "reason": reason}] * 2
    assert caplog.text == ""


async def send_until_refused(app: App, receive: Receive, send: Send) -> None:
    while True:
        try:
            await send(text("tick"))
        except OSError as error:
            app.told.append(type(error).__name__)
            return
        await asyncio.sleep(0.001)


def test_sending_after_the_client_has_gone_is_an_oserror() -> None:
    app = App(ACCEPT, send_until_refused)
    with talking(app) as ws:
        ws.receive()
        ws.close(1006)
    assert app.told == ["WebSocketClosed"]


def test_what_the_app_is_told_of_its_own_close() -> None:
    app = App(receive_one, ACCEPT, {"type": "websocket.close"}, receive_one)
    with talking(app) as ws:
        assert list(ws) == [] and ws.closed == (1000, "")
    assert app.told[1:] == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]


START = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]}
BODY = {"type": "websocket.http.response.body", "body": b"not ", "more_body": True}
END = {"type": "websocket.http.response.body", "body": b"you"}


@pytest.mark.parametrize(
    ("steps", "status", "body"),
    [
        (({"type": "websocket.close", "code": 4000},), 403, ""),
        ((receive_one, START, BODY, END), 401, "not you"),
        ((), 500, "Internal Server Error"),
        ((ZeroDivisionError("secret"),), 500, "Internal Server Error"),
    ],
    ids=["close", "denial response", "nothing", "an exception"],
)
def test_refusals(steps: Any, status: int, body: str) -> None:
    with pytest.raises(WebSocketRefused) as refused, talking(App(*steps)):
        pass
    assert (refused.value.response.status, refused.value.response.text) == (status, body)


@pytest.mark.parametrize(
    ("steps", "code", "logged"),
    [
        ((), 1000, ""),
        ((ZeroDivisionError("secret"),), 1011, "ZeroDivisionError"),
        (({"type": "websocket.accept"},), 1011, "Expected ASGI message 'websocket.send' or 'websocket.close'"),
        (({"type": "http.response.start"},), 1011, "but got 'http.response.start'"),
        (({"type": "websocket.send"},), 1011, "KeyError"),
        (({"type": "websocket.close", "code": 1005},), 1011, "1005 is no code to close with"),
    ],
    ids=["returns", "raises", "accepts twice", "speaks HTTP", "sends nothing", "closes wrongly"],
)
def test_how_an_accepted_one_ends(steps: Any, code: int, logged: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), talking(App(ACCEPT, text("x"), _pause, *steps)) as ws:
        assert list(ws) == ["x"]
        assert ws.closed is not None and ws.closed.code == code and "secret" not in ws.closed.reason
    assert logged in caplog.text and bool(caplog.text) == bool(logged)


async def _pause(app: App, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "steps",
    [
        (ACCEPT, {"type": "websocket.close"}, text("x")),
        ({"type": "websocket.close"}, ACCEPT),
        (START, text("x")),
        (text("x"),),
    ],
)
def test_messages_out_of_order(steps: Any) -> None:
    told = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await App(*steps)(scope, receive, send)
        except RuntimeError as error:
            told.append(str(error))
            raise

    try:
        with talking(app) as ws:
            list(ws)
    except (WebSocketRefused, ConnectionError):
        pass
    assert len(told) == 1 and "ASGI message" in told[0]


def test_the_end_of_the_time() -> None:
    app = App(ACCEPT, receive_one, receive_one)
    with talking(app, timeout=1.5) as ws:
        began = time.monotonic()
        assert list(ws) == []
        assert time.monotonic() - began < 5
        assert ws.closed is not None and ws.closed.code == 1012
    assert app.told[1]["type"] == "websocket.disconnect" and app.told[1]["code"] == 1012


def test_an_app_is_not_cancelled_by_its_client() -> None:
    app = App(ACCEPT, receive_one, receive_one, _pause, lambda app, *_: _note(app))
    with talking(app) as ws:
        ws.close(1001)
    assert app.told[-1] == "went on"


async def _note(app: App) -> None:
    app.told.append("went on")


def test_starlette() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    ends: list[int] = []

    async def echo(ws: WebSocket) -> None:
        await ws.accept(subprotocol=ws.scope["subprotocols"][0])
        try:
            while True:
                await ws.send_text(await ws.receive_text() + "!")
        except WebSocketDisconnect as end:
            ends.append(end.code)

    async def deny(ws: WebSocket) -> None:
        await ws.send_denial_response(PlainTextResponse("members only", 402))

    app = Starlette(routes=[WebSocketRoute("/{room}/echo", echo), WebSocketRoute("/deny", deny)])
    with talking(app, "/a/echo", subprotocols=["x"]) as ws:
        for word in ("one", "zwölf"):
            ws.send(word)
            assert ws.receive() == f"{word}!"
        ws.close(4001)
    assert ends == [4001]
    for path, status, body in (("/deny", 402, "members only"), ("/nowhere", 403, "")):
        with pytest.raises(WebSocketRefused) as refused, talking(app, path):
            pass
        assert (refused.value.response.status, refused.value.response.text) == (status, body)


def test_the_root_path_is_in_front() -> None:
    app = App(ACCEPT)
    with talking(app, "/x", root_path="/api"):
        pass
    assert (app.scope["path"], app.scope["raw_path"], app.scope["root_path"]) == ("/api/x", b"/api/x", "/api")
