"""WebSockets in plain handlers: what is accepted, said, closed and refused, and what the code sees of each end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lambda_client import Request, Response, SyncRequest, WebSocket, WebSocketClosed, stream_handler
from lambda_client.stream import Closed
from lambda_client.testing import TestClient, TestWebSocket, WebSocketRefused

TIMEOUT = 10.0


@contextmanager
def talking(handler: Any, path: str = "/", *, timeout: float = 900.0, **options: Any) -> Iterator[TestWebSocket]:
    with TestClient(stream_handler(handler), timeout=timeout) as client, client.websocket(path, **options) as ws:
        yield ws


async def echo(request: Request) -> None:
    ws = await request.websocket()
    async for message in ws:
        await ws.send(message)


class Seen:
    """What a handler's code saw, handed to the test's thread."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.changed = threading.Condition()

    def __call__(self, what: object) -> None:
        with self.changed:
            self.told.append(what)
            self.changed.notify_all()

    def wait(self, count: int = 1) -> list[object]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.told) >= count, TIMEOUT), self.told
        return self.told


@pytest.mark.parametrize(
    "message", ["", "x", "grüße 🎉", b"", b"\0\xff", b"x" * 70_000, "ü" * (1 << 19), bytes(1 << 20)], ids=len
)
def test_messages_come_back_whole(message: str | bytes) -> None:
    with talking(echo) as ws:
        for _ in range(3):
            ws.send(message)
        assert [ws.receive() for _ in range(3)] == [message] * 3


def test_messages_that_are_sent_before_anybody_receives() -> None:
    with talking(echo) as ws:
        for number in range(2000):
            ws.send(str(number))
        assert [ws.receive() for _ in range(2000)] == [str(number) for number in range(2000)]


def test_subprotocol_and_headers() -> None:
    async def handler(request: Request) -> None:
        assert request.is_websocket
        ws = await request.websocket(request.subprotocols[1], headers=[("x-a", "1"), ("set-cookie", "b")])
        assert ws.subprotocol == "chat.v2"
        await ws.send(",".join(request.subprotocols))

    with talking(handler, subprotocols=["chat.v1", "chat.v2"]) as ws:
        assert (ws.subprotocol, ws.headers["x-a"], ws.headers["set-cookie"]) == ("chat.v2", "1", "b")
        assert ws.receive() == "chat.v1,chat.v2"


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_an_ordinary_response_refuses(status: int) -> None:
    async def handler(request: Request) -> Response:
        return Response("not you", status, {"x-why": "because"})

    with pytest.raises(WebSocketRefused) as refused, talking(handler):
        pass
    response = refused.value.response
    assert (response.status, response.text, response.headers["x-why"]) == (status, "not you", "because")


def test_a_client_that_asked_for_none_is_told() -> None:
    with TestClient(stream_handler(echo)) as client:
        response = client.request("GET", "/")
    assert (response.status, response.text) == (400, "This address takes WebSocket connections only.\n")


def test_code_can_look_first() -> None:
    async def handler(request: Request) -> Any:
        if not request.is_websocket:
            return "a page"
        await (await request.websocket()).send("a message")
        return None

    with TestClient(stream_handler(handler)) as client:
        assert client.request("GET", "/").text == "a page"
        with client.websocket("/") as ws:
            assert ws.receive() == "a message"


def ended(handler: Any, caplog: pytest.LogCaptureFixture, **options: Any) -> tuple[Closed | None, str]:
    """How the client's side ended, and what was logged."""
    with caplog.at_level(logging.ERROR), talking(handler, **options) as ws:
        list(ws)
        return ws.closed, caplog.text


def test_a_handler_that_returns_has_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> None:
        await request.websocket()

    assert ended(handler, caplog) == (Closed(1000, ""), "")


def test_a_handler_closes_with_its_own_words(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> None:
        ws = await request.websocket()
        await ws.send("last words")
        await ws.close(4321, "schön war’s")
        await ws.close(1000, "a second time")
        assert ws.closed == (4321, "schön war’s")
        with pytest.raises(WebSocketClosed):
            await ws.send("too late")
        with pytest.raises(WebSocketClosed):
            await ws.receive()

    assert ended(handler, caplog) == (Closed(4321, "schön war’s"), "")


def test_a_handler_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> None:
        ws = await request.websocket()
        await ws.send("first")
        await asyncio.sleep(0.05)
        raise ZeroDivisionError("secret")

    closed, text = ended(handler, caplog)
    assert closed is not None and closed.code == 1011 and "secret" not in closed.reason
    assert "ZeroDivisionError" in text


def test_what_a_handler_returns_after_it_has_accepted(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> str:
        await request.websocket()
        await asyncio.sleep(0.05)
        return "a response"

    closed, text = ended(handler, caplog)
    assert closed is not None and closed.code == 1011
    assert "a handler that has accepted a WebSocket returns None, not str" in text


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_a_proper_close_ends_the_loop(code: int) -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        async for message in ws:
            seen(message)
        seen(ws.closed)

    with talking(handler) as ws:
        ws.send("a")
        ws.close(code, "" if code == 1005 else "bye")
    assert seen.wait(2) == ["a", Closed(code, "" if code == 1005 else "bye")]


@pytest.mark.parametrize("code", [1006, 1009, 3000, 4999])
def test_any_other_close_is_raised_and_may_pass(code: int, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        try:
            async for message in ws:
                seen(message)
        except WebSocketClosed as closed:
            seen((closed.code, closed.reason))
            raise

    with caplog.at_level(logging.ERROR), talking(handler) as ws:
        ws.send(b"b")
        ws.close(code, "why")
    assert seen.wait(2) == [b"b", (code, "why")]
    assert caplog.text == ""


def test_what_came_before_the_close_is_received_first() -> None:
    seen, closed = Seen(), threading.Event()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        await asyncio.to_thread(closed.wait, TIMEOUT)
        for _ in iter(lambda: ws.closed is None, False):
            await asyncio.sleep(0.001)
        seen([message async for message in ws])

    with talking(handler) as ws:
        ws.send("a")
        ws.send("b")
        ws._exchange.close(1000, "")
        closed.set()
    assert seen.wait() == [["a", "b"]]


def test_sending_to_a_client_that_has_left() -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        try:
            while True:
                await ws.send("tick")
                await asyncio.sleep(0.001)
        except WebSocketClosed as closed:
            seen(closed.code)

    with talking(handler) as ws:
        assert ws.receive() == "tick"
        ws.close(1001)
    assert seen.wait() == [1001]


def test_a_client_that_takes_nothing_holds_the_handler_back() -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        for number in range(100):
            await ws.send(bytes(10_000))
            seen(number)

    with talking(handler) as ws:
        time.sleep(0.3)
        sent = len(seen.told)
        assert 1 <= sent < 20, "64 KiB of credit and 64 KiB of queue"
        assert len(list(ws)) == 100
        assert ws.closed == (1000, "")


def test_a_client_that_leaves_wakes_those_who_wait_for_it() -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()

        async def sender() -> None:
            try:
                while True:
                    await ws.send(bytes(50_000))
            except WebSocketClosed as closed:
                seen(closed.code)

        await asyncio.gather(*(sender() for _ in range(3)))

    with talking(handler) as ws:
        time.sleep(0.2)
        ws.close(1006)
        assert seen.wait(3) == [1006] * 3


def test_a_task_that_is_cancelled_while_it_waits_for_room_leaves_the_others_alone() -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()

        async def fill() -> None:
            while True:
                await ws.send(bytes(50_000))

        impatient, patient = asyncio.create_task(fill()), asyncio.create_task(fill())
        await asyncio.sleep(0.1)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        seen(patient.done())
        with pytest.raises(WebSocketClosed):
            await patient

    with talking(handler) as ws:
        assert seen.wait() == [False]
        for _ in range(20):
            ws.receive()
        ws.close()


def test_only_one_task_may_receive() -> None:
    async def handler(request: Request) -> None:
        ws = await request.websocket()
        first = asyncio.create_task(ws.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await ws.receive()
        await ws.send("ready")
        await ws.send(f"got {await first!r}")

    with talking(handler) as ws:
        assert ws.receive() == "ready"
        ws.send("x")
        assert ws.receive() == "got 'x'"


MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "no message": (lambda ws: ws.send(7), TypeError, "str or bytes, not int"),
    "JSON": (lambda ws: ws.send({"a": 1}), TypeError, "str or bytes, not dict"),
    "too large": (lambda ws: ws.send(bytes(1001)), ValueError, "1000 at most"),
    "half a character": (lambda ws: ws.send("\ud800"), UnicodeEncodeError, "surrogates"),
    "close code 999": (lambda ws: ws.close(999), ValueError, "no code to close with"),
    "close code 1005": (lambda ws: ws.close(1005), ValueError, "no code to close with"),
    "close code 1015": (lambda ws: ws.close(1015), ValueError, "no code to close with"),
    "close code 2000": (lambda ws: ws.close(2000), ValueError, "no code to close with"),
    "long reason": (lambda ws: ws.close(1000, "ü" * 62), ValueError, "123 bytes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_says_what_is_right_and_breaks_nothing(mistake: str) -> None:
    act, error, text = MISTAKES[mistake]

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        with pytest.raises(error, match=text):
            await act(ws)
        await ws.send("still open")

    with talking(handler, max_message=1000) as ws:
        assert ws.receive() == "still open"


def test_accepting_wrongly() -> None:
    async def handler(request: Request) -> None:
        with pytest.raises(ValueError, match="not offered 'b'"):
            await request.websocket("b")
        ws = await request.websocket("a")
        with pytest.raises(RuntimeError, match="already"):
            await request.websocket()
        await ws.send(repr(ws))

    with talking(handler, subprotocols=["a"]) as ws:
        assert ws.receive() == "<WebSocket open>"


def test_the_end_of_the_time_is_1012_and_the_handler_may_say_so_itself() -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        try:
            await ws.receive()
        except asyncio.CancelledError:
            seen(ws.closed and ws.closed.code)
            if request.path == "/polite":
                await ws.send("goodbye")
                await ws.close(4000, "time is up")
            raise

    with talking(handler, timeout=1.5) as ws:
        assert list(ws) == []
        assert ws.closed is not None and ws.closed.code == 1012
    with talking(handler, "/polite", timeout=1.5) as ws:
        assert list(ws) == ["goodbye"]
        assert ws.closed == (4000, "time is up")
    assert seen.wait(2) == [1012, 1012]


def test_a_gateway_that_gives_it_up_cancels_the_handler() -> None:
    seen = Seen()

    async def handler(request: Request) -> None:
        ws = await request.websocket()
        await ws.send("x")
        try:
            await asyncio.sleep(TIMEOUT)
        finally:
            seen(("cancelled", ws.closed and ws.closed.code))

    with TestClient(stream_handler(handler)) as client, client.websocket("/") as ws:
        assert ws.receive() == "x"
        client.disconnect()
        assert seen.wait() == [("cancelled", 1006)]


def test_a_thread_has_no_websocket(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: SyncRequest) -> str:
        request.websocket()
        return "unreachable"

    with pytest.raises(WebSocketRefused) as refused, talking(handler):
        pass
    assert refused.value.response.status == 502
    assert "a WebSocket needs an `async def` handler" in caplog.text


def test_existing_lambda_code_has_none() -> None:
    def handler(event: Any, context: Any) -> dict[str, Any]:
        return {"statusCode": 200}

    with pytest.raises(WebSocketRefused) as refused, talking(handler):
        pass
    assert refused.value.response.status == 501


def test_the_type_is_the_public_one() -> None:
    async def handler(request: Request) -> None:
        ws: WebSocket = await request.websocket()
        await ws.send(type(ws).__qualname__)

    with talking(handler) as ws:
        assert ws.receive() == "WebSocket"
