"""ASGI apps in their rawest form: what they are told, what they may send, how they end. Frameworks: tests/e2e."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lambda_client import asgi_handler, current_request
from lambda_client.lifespan import StartupFailed
from lambda_client.testing import BrokenResponse, TestClient, TestContext, TestEnvironment, TestResponse

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
TIMEOUT = 10.0


def part(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Client(TestClient):
    """At a gateway that tells more of a request than a TestClient does."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.told: dict[str, int] = {}

    def _exchange(self, method: str, path: str, headers: Any, options: dict[str, Any]) -> Any:
        return super()._exchange(method, path, headers, options | self.told)


@contextlib.contextmanager
def serving(app: Any, *, timeout: float = 900.0, **options: Any) -> Iterator[Client]:
    options.setdefault("lifespan", "off")
    with Client(asgi_handler(app, **options), timeout=timeout) as client:
        yield client


def ask(app: Any, method: str = "GET", path: str = "/", **options: Any) -> TestResponse:
    with serving(app) as client:
        return client.request(method, path, **options)


# The scope


def scope_of(path: str = "/", *, headers: Any = None, **options: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        await send(START)
        await send(part())

    with serving(app, **options) as client:
        client.request("GET", path, headers=headers)
    return seen


def test_the_scope_is_whole() -> None:
    assert scope_of("/a%20b/%C3%BC?x=%20&y", headers=[("X-One", "1"), ("x-one", "2"), ("host", "h.example:81")]) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/ü",
        "raw_path": b"/a%20b/%C3%BC",
        "query_string": b"x=%20&y",
        "root_path": "",
        "headers": [(b"x-one", b"1"), (b"x-one", b"2"), (b"host", b"h.example:81")],
        "client": ("127.0.0.1", 50000),
        "server": ("h.example", 81),
        "state": {},
        "extensions": {"http.response.trailers": {}, "http.response.early_hint": {}, "http.response.pathsend": {}},
    }


@pytest.mark.parametrize(
    ("host", "server"), [("h", ("h", 80)), ("[::1]:8", ("::1", 8)), ("h:x", None), ("", None), ("h:99999", None)]
)
def test_the_server_is_what_the_client_asked_for(host: str, server: Any) -> None:
    assert scope_of(headers={"host": host})["server"] == server


@pytest.mark.parametrize(
    ("asked", "path"), [("/x%20", "/api/x "), ("/api/x", "/api/x"), ("/api", "/api"), ("/apis", "/api/apis")]
)
def test_the_root_path_is_put_before_a_path_that_lacks_it(asked: str, path: str) -> None:
    scope = scope_of(asked, root_path="/api")
    assert (scope["root_path"], scope["path"]) == ("/api", path)
    assert scope["raw_path"] == path.replace(" ", "%20").encode()


def test_every_request_has_a_state_of_its_own_and_the_lifespans_values() -> None:
    seen = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = ["shared"]
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        seen.append(dict(scope["state"]))
        scope["state"]["mine"] = True
        scope["state"]["pool"].append("seen")
        await send(START)
        await send(part())

    with serving(app, lifespan="on") as client:
        client.request("GET", "/")
        client.request("GET", "/")
    assert seen == [{"pool": ["shared", "seen", "seen"]}] * 2


# Receiving


async def echo(scope: Any, receive: Receive, send: Send) -> None:
    await send(START)
    while (message := await receive())["type"] == "http.request":
        await send(part(message["body"], more=message["more_body"]))
        if not message["more_body"]:
            return


def test_the_body_comes_and_goes_piece_by_piece() -> None:
    gate = threading.Semaphore(1)

    def content() -> Iterator[bytes]:
        for number in range(3):
            assert gate.acquire(timeout=TIMEOUT)
            yield b"%d" % number

    with serving(echo) as client, client.stream("POST", "/", content=content()) as response:
        for number, piece in enumerate(response):
            assert piece == b"%d" % number, "and the next has not been sent"
            gate.release()
    assert number == 2


def test_a_request_without_a_body_has_an_empty_one() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await send(START)
        await send(part(b"ok"))

    assert ask(app).text == "ok"


def test_a_body_that_nobody_reads_is_not_waited_for() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part(b"early"))
        assert (await receive())["type"] == "http.disconnect"

    assert ask(app, "POST", content=(bytes(65_536) for _ in range(100))).text == "early"


def test_several_tasks_may_receive() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        messages = await asyncio.gather(receive(), receive())
        await send(START)
        await send(part(b"".join(message["body"] for message in messages)))
        assert (await receive())["type"] == "http.disconnect"

    assert ask(app, "POST", content=[b"a", b"b"]).text == "ab"


def test_receive_waits_for_the_end_of_the_response_and_says_disconnect_from_then_on() -> None:
    seen: list[Any] = []
    ended = threading.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.create_task(receive())
        await send(START)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await send(part())
        seen.extend([await waiting, await receive()])
        ended.set()

    assert ask(app).status == 200
    assert ended.wait(TIMEOUT) and seen == [{"type": "http.disconnect"}] * 2


# The client leaves


class Leaving:
    """An app that its client leaves: what it sees then."""

    def __init__(self, then: Callable[[Leaving, Receive, Send], Awaitable[None]]) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self.seen: list[Any] = []
        self._then = then

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            await receive()
            await send(START)
            await send(part(b"a", more=True))
            self.begun.set()
            await self._then(self, receive, send)
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise
        finally:
            self.ended.set()

    def leave(self, *, told: dict[str, int] | None = None, **options: Any) -> float:
        """Seconds from the leaving to the app's end. `told`: what else the gateway says with the request."""
        with serving(self, **options) as client:
            client.told |= told or {}
            with client.stream("GET", "/") as response:
                assert next(iter(response)).startswith(b"a") and self.begun.wait(TIMEOUT)
            began = time.monotonic()
            assert self.ended.wait(TIMEOUT)
            return time.monotonic() - began


def test_a_client_that_leaves_is_a_disconnect_and_no_cancellation() -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        app.seen.append(await receive())
        await send(part(b"into the void", more=True))
        await asyncio.sleep(0.05)  # where a cancellation would come
        await send(part())
        app.seen.append(await receive())

    app = Leaving(then)
    app.leave()
    assert app.seen == [{"type": "http.disconnect"}] * 2


def test_an_app_that_waits_for_room_is_let_go() -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        for _ in range(1000):
            await send(part(bytes(65_536), more=True))
        app.seen.append(await receive())

    app = Leaving(then)
    app.leave()
    assert app.seen == [{"type": "http.disconnect"}]


def test_cancel_after_ends_an_app_that_ignores_it() -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        await asyncio.sleep(TIMEOUT)

    app = Leaving(then)
    assert 0.2 <= app.leave(told={"cancel_after": 250}) < TIMEOUT / 2
    assert app.seen == ["CancelledError"]


def test_cancel_after_is_no_longer_than_the_invocation() -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        await asyncio.sleep(TIMEOUT)

    app = Leaving(then)
    assert app.leave(told={"cancel_after": 60_000}, timeout=2.0) < TIMEOUT / 2
    assert app.seen == ["CancelledError"]


def test_the_end_of_the_invocation_ends_an_app_that_ignores_it() -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        await asyncio.sleep(TIMEOUT)

    app = Leaving(then)
    assert app.leave(timeout=2.0) < TIMEOUT / 2
    assert app.seen == ["CancelledError"]


def test_an_app_that_keeps_sending_leaves_the_loop_to_others() -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        other = asyncio.create_task(asyncio.sleep(0.05))
        while not other.done():
            await send(part(b"x", more=True))

    Leaving(then).leave()


def test_a_failure_after_the_client_has_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def then(app: Leaving, receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError("late")

    Leaving(then).leave()
    assert "failed after its client had left" in caplog.text and "ValueError: late" in caplog.text


# Sending


def test_what_runs_after_the_response_ends_before_the_lease_does() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part(b"done"))
        await asyncio.sleep(0.3)
        seen.append("background")

    with serving(app) as client:
        assert client.request("GET", "/").text == "done"
        assert not seen, "the response did not wait for it"
        deadline = time.monotonic() + TIMEOUT
        while client._environment.loop.is_running() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen == ["background"], "the invocation did"


def test_a_later_request_is_served_beside_what_still_runs() -> None:
    second = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part(b"ok"))
        if scope["path"] == "/second":
            second.set()
        await asyncio.wait_for(second.wait(), TIMEOUT)

    with serving(app, concurrency=1) as client:
        client.request("GET", "/first")
        assert client.request("GET", "/second").text == "ok"


def test_trailers_and_early_hints() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
        await send({**START, "trailers": True})
        await send(part(b"body"))
        await send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [(b"x-more", b"2")]})

    response = ask(app)
    assert response.body == b"body" and response.trailers.raw == ((b"x-sum", b"1"), (b"x-more", b"2"))
    ((status, fields),) = response.interim
    assert (status, fields.getlist("link")) == (103, ["</a.css>; rel=preload", "</b.js>; rel=preload"])


def test_a_path_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 1000)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(file)})

    assert ask(app).body == file.read_bytes()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_path_is_not_read_on_for_nobody(method: str, tmp_path: Path) -> None:
    over = threading.Event()
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)  # all holes: to read them would take minutes

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": str(file)})
        over.set()

    with serving(app) as client:
        with client.stream(method, "/") as response:
            if method == "GET":
                next(iter(response))
        assert over.wait(TIMEOUT)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_takes_one_and_drops_it(method: str, status: int) -> None:
    over: list[str] = []

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send(part(b"dropped", more=True))
        await send(part())
        with pytest.raises(RuntimeError):
            await send(part())
        over.append("over")

    assert ask(app, method).body == b"" and over == ["over"]


def test_each_piece_leaves_at_once_and_waits_for_room() -> None:
    sent = 0

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        for _ in range(100):
            await send(part(bytes(65_536), more=True))
            sent += 1
        await send(part())

    with serving(app) as client, client.stream("GET", "/") as response:
        pieces = iter(response)
        size = len(next(pieces))
        time.sleep(0.2)
        assert sent < 20, "what nobody takes is not produced"
        assert size + sum(map(len, pieces)) == 100 * 65_536


async def begins_with_a_body(send: Send) -> None:
    await send(part(b"x"))


async def begins_twice(send: Send) -> None:
    await send(START)
    await send(START)


async def sends_after_the_end(send: Send) -> None:
    await send(START)
    await send(part(b"whole"))
    await send(part(b"more"))


async def hints_too_late(send: Send) -> None:
    await send(START)
    await send({"type": "http.response.early_hint", "links": []})


async def sends_text(send: Send) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": "text"})


async def names_a_header_in_text(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [("x", "y")]})


async def splits_the_head(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\r\nz: 1")]})


async def has_no_status(send: Send) -> None:
    await send({"type": "http.response.start", "headers": []})


async def has_an_interim_status(send: Send) -> None:
    await send({"type": "http.response.start", "status": 101})


async def sends_too_much(send: Send) -> None:
    await send({**START, "headers": [(b"content-length", b"2")]})
    await send(part(b"abc"))


async def sends_too_little(send: Send) -> None:
    await send({**START, "headers": [(b"content-length", b"2")]})
    await send(part(b"a"))


@pytest.mark.parametrize(
    ("bad", "error", "becomes"),
    [
        (begins_with_a_body, "Expected ASGI message 'http.response.start', but got 'http.response.body'", 500),
        (begins_twice, "Expected ASGI message 'http.response.body', but got 'http.response.start'", "broken"),
        (hints_too_late, "Expected ASGI message 'http.response.body', but got 'http.response.early_hint'", "broken"),
        (sends_after_the_end, "Unexpected ASGI message 'http.response.body' sent, after response already", 200),
        (sends_text, "the body of a message is bytes, not str", "broken"),
        (names_a_header_in_text, "names and values of headers are bytes, not ('x', 'y')", 500),
        (splits_the_head, "CR, LF or NUL in the value", 500),
        (has_no_status, "KeyError: 'status'", 500),
        (has_an_interim_status, "a response's status is 200 to 599, not 101", 500),
        (sends_too_much, "the body is 1 bytes over its Content-Length", "broken"),
        (sends_too_little, "the body is 1 bytes short of its Content-Length", "broken"),
    ],
)
def test_a_wrong_message_is_an_error_of_the_app(
    bad: Callable[[Send], Awaitable[None]], error: str, becomes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await bad(send)

    outcome(app, becomes)
    assert error in caplog.text


def outcome(app: Any, becomes: Any) -> None:
    if becomes == "broken":
        with pytest.raises(BrokenResponse):
            ask(app)
        return
    response = ask(app)
    assert response.status == becomes
    if becomes == 500:
        assert (response.headers["content-type"], response.body) == (
            "text/plain; charset=utf-8",
            b"Internal Server Error",
        )


async def raises(scope: Any, receive: Receive, send: Send) -> None:
    raise ValueError("early")


async def raises_late(scope: Any, receive: Receive, send: Send) -> None:
    await send(START)
    await send(part(b"a", more=True))
    raise ValueError("late")


async def raises_after_the_end(scope: Any, receive: Receive, send: Send) -> None:
    await send(START)
    await send(part(b"a"))
    raise ValueError("after")


async def exits(scope: Any, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


async def exits_late(scope: Any, receive: Receive, send: Send) -> None:
    await send(START)
    raise SystemExit(3)


async def cancels_itself(scope: Any, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


async def does_nothing(scope: Any, receive: Receive, send: Send) -> None:
    return


async def does_half(scope: Any, receive: Receive, send: Send) -> None:
    await send(START)


async def returns_something(scope: Any, receive: Receive, send: Send) -> Any:
    return "text"


@pytest.mark.parametrize(
    ("app", "error", "becomes"),
    [
        (raises, "ValueError: early", 500),
        (raises_late, "ValueError: late", "broken"),
        (raises_after_the_end, "ValueError: after", 200),
        (exits, "SystemExit", 500),
        (exits_late, "SystemExit", "broken"),
        (cancels_itself, "CancelledError", 500),
        (does_nothing, "the app returned without a response", 500),
        (does_half, "the app returned before the end of its response", "broken"),
        (returns_something, "an ASGI app returns None, not str", 500),
    ],
)
def test_an_app_that_fails_is_named_and_its_response_ends(
    app: Any, error: str, becomes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcome(app, becomes)
    assert error in caplog.text


def test_a_failure_keeps_its_own_cause(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    outcome(app, "broken")
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert isinstance(error, ValueError) and isinstance(error.__cause__, KeyError)


def test_the_environment_outlives_an_app_that_fails() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await {"/exits": exits, "/raises": raises}.get(scope["path"], echo)(scope, receive, send)

    with serving(app) as client:
        assert [client.request("GET", path).status for path in ("/exits", "/raises", "/")] == [500, 500, 200]


def test_the_running_request_is_known_to_the_apps_code() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part(current_request().path.encode()))

    assert ask(app, path="/here").text == "/here"


def test_requests_run_side_by_side_by_default() -> None:
    meeting: list[str] = []
    both = asyncio.Event()

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        meeting.append(scope["path"])
        if len(meeting) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), TIMEOUT)
        await send(START)
        await send(part(scope["path"].encode()))

    with serving(app) as client, ThreadPoolExecutor() as threads:
        paths = ["/0", "/1"]
        assert [response.text for response in threads.map(lambda path: client.request("GET", path), paths)] == paths


# The lifespan


class Living:
    """An app with a lifespan; `startup` is sent as it is."""

    def __init__(self, startup: dict[str, Any]) -> None:
        self.startup = startup
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await echo(scope, receive, send)
            return
        while True:
            kind = (await receive())["type"]
            self.seen.append(kind)
            if kind == "lifespan.startup":
                await send(self.startup)
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return


def test_the_lifespan_runs_once_for_many_invocations_and_ends_with_the_environment() -> None:
    app = Living({"type": "lifespan.startup.complete"})
    with serving(app, lifespan="auto") as client:
        for _ in range(3):
            client.request("GET", "/")
        assert app.seen == ["lifespan.startup"]
    assert app.seen == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_startup_that_fails_fails_the_invocation_with_its_words(mode: str) -> None:
    app = Living({"type": "lifespan.startup.failed", "message": "no database"})
    with serving(app, lifespan=mode) as client:
        for _ in range(2):
            with pytest.raises(StartupFailed, match="the app's startup failed: no database"):
                client.request("GET", "/")
    assert app.seen == ["lifespan.startup"] * 2, "the next invocation tries again"


def test_an_app_without_a_lifespan_is_served_by_default_and_refused_when_it_must_have_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await echo(scope, receive, send)

    caplog.set_level(logging.INFO)
    with serving(app, lifespan="auto") as client:
        assert client.request("POST", "/", content=b"x").text == "x"
    assert "the app knows no lifespan" in caplog.text
    with serving(app, lifespan="on") as client, pytest.raises(StartupFailed, match="raised AssertionError") as raised:
        client.request("GET", "/")
    assert isinstance(raised.value.__cause__, AssertionError)


def test_a_lifespan_that_returns_at_once_is_none() -> None:
    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await echo(scope, receive, send)

    with serving(app, lifespan="on") as client:
        assert client.request("GET", "/").status == 200


@pytest.mark.parametrize("kind", ["lifespan.shutdown.complete", "lifespan.startup.half", "http.response.start"])
def test_a_wrong_message_in_a_lifespan_is_an_error_of_the_app(kind: str) -> None:
    with serving(Living({"type": kind}), lifespan="on") as client, pytest.raises(StartupFailed, match="Unexpected"):
        client.request("GET", "/")


def test_a_lifespan_that_is_off_does_not_run() -> None:
    app = Living({"type": "lifespan.startup.complete"})
    with serving(app, lifespan="off") as client:
        client.request("GET", "/")
    assert app.seen == []


# Without a gateway, and what is no app

EVENT = {
    "version": "2.0",
    "rawPath": "/a b",
    "rawQueryString": "x=1",
    "headers": {"host": "h.example", "content-type": "text/plain"},
    "requestContext": {"http": {"method": "POST", "path": "/a b", "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4"}},
    "body": "sent",
    "isBase64Encoded": False,
}


def answer(app: Any, event: dict[str, Any]) -> Any:
    handler = asgi_handler(app, lifespan="off")
    environment = TestEnvironment(handler.runner(), handler.concurrency, handler.lifespan, {})
    try:
        return environment.invoke(event, TestContext(3))
    finally:
        environment.close()


def test_a_plain_event_is_answered_buffered() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        seen.update(scope)
        await echo(scope, receive, send)

    answered = answer(app, EVENT)
    assert (answered["statusCode"], answered["body"]) == (200, "sent")
    assert seen["path"] == "/a b" and seen["client"] == ("1.2.3.4", 0) and seen["server"] == ("h.example", 443)
    assert seen["extensions"] == {"http.response.pathsend": {}}, "the others cannot be kept in a buffered answer"


def test_an_app_that_breaks_a_buffered_answer_fails_the_invocation() -> None:
    with pytest.raises(ValueError, match="late"):
        answer(raises_late, EVENT)
    assert answer(raises, EVENT)["statusCode"] == 500


def test_an_event_that_is_no_request_is_refused() -> None:
    with pytest.raises(ValueError, match=r"payload format 2\.0"):
        answer(echo, {"Records": []})


def wsgi(environ: Any, start_response: Any) -> Any: ...


class Old:
    def __init__(self, scope: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "said"), [(wsgi, "as what wsgi_handler serves"), (Old, "takes"), (None, "takes"), ("main:app", "takes")]
)
def test_what_is_no_asgi_app_is_refused_where_it_is_named(app: Any, said: str) -> None:
    with pytest.raises(
        TypeError, match=rf"an ASGI app takes \(scope, receive, send\).*{said if said[0] == 'a' else ''}"
    ):
        asgi_handler(app)


@pytest.mark.parametrize(
    "options", [{"lifespan": "maybe"}, {"concurrency": 0}, {"root_path": "api"}, {"root_path": "/api/"}]
)
def test_arguments_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ValueError):
        asgi_handler(echo, **options)
