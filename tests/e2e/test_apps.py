"""Apps of every framework on the real stack, unmodified: what their documentation shows works, and streams."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import HANDLERS, Stack
from tests.e2e.wire import WireResponse

ASGI = ("fastapi", "starlette", "litestar", "quart", "django_asgi")
WSGI = ("flask", "django_wsgi", "bottle")
AT_ONCE = 0.05
"""Seconds from writing to arrival."""
COLD = 30.0
"""Seconds that loading a framework may take on a busy machine."""


@pytest.fixture(params=[*ASGI, *WSGI])
def framework(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param.partition("_")[0])
    return str(request.param)


@pytest.fixture
def site(framework: str, shared_stack: Callable[..., Stack]) -> Stack:
    return serve(shared_stack, framework)


@pytest.fixture
def fastapi(shared_stack: Callable[..., Stack]) -> Stack:
    return serve(shared_stack, "fastapi")


def serve(shared_stack: Callable[..., Stack], name: str) -> Stack:
    return shared_stack(f"apps.py:{name}", environments=1)


def ask(stack: Stack, method: str, target: str, *headers: str, body: bytes | None = None) -> WireResponse:
    with stack.connect() as connection:
        host = not any(header.startswith("Host:") for header in headers)
        connection.request(method, target, *headers, body=body, host=host)
        response = connection.response()
    assert response.failure is None
    return response


def test_a_request_is_understood(site: Stack) -> None:
    response = ask(site, "GET", "/hello/J%C3%BCrgen%20x?q=7", "Host: shop.example:8443")
    assert response.status == 200 and response.value(b"content-type") == b"application/json"
    said = json.loads(response.body)
    assert (said["hello"], said["q"]) == ("Jürgen x", 7)
    assert said["url"].startswith("http://shop.example:8443/hello/J")


def test_a_stream_comes_line_by_line(site: Stack, lag: Lag) -> None:
    ask(site, "GET", "/hello/x")
    response = ask(site, "GET", "/ticks/three")
    lines = [chunk.data.split() for chunk in response.chunks]
    assert [line[0] for line in lines] == [b"0", b"1", b"2"]
    assert all(0 <= chunk.time - float(chunk.data.split()[1]) < lag.allow(AT_ONCE) for chunk in response.chunks)


def test_a_client_that_leaves_ends_the_stream(site: Stack, framework: str, lag: Lag) -> None:
    name = f"endless-{framework}"
    with site.connect() as connection:
        connection.request("GET", f"/ticks/{name}")
        next(connection.pieces(connection.head()))
    left = time.time()
    wait_for(lambda: site.executions(name), COLD)
    # Code that waits in the loop is told while it waits; a thread is at its next line.
    assert float(site.executions(name)[0]) - left < lag.allow(0.1 if framework in ASGI else 0.3 + 0.1)


def test_a_body_is_counted(site: Stack, framework: str) -> None:
    body = random.Random(1).randbytes(3 << 20)
    response = ask(site, "POST", "/count", "Content-Type: application/octet-stream", body=body)
    assert json.loads(response.body) == {"size": len(body)}


def test_a_chunked_body_is_counted(site: Stack, framework: str) -> None:
    with site.connect() as connection:
        connection.request("POST", "/count", "Content-Type: application/octet-stream", "Transfer-Encoding: chunked")
        for _ in range(10):
            connection.chunk(bytes(1000))
        connection.chunk(b"")
        response = connection.response()
    # Django's WSGI handler goes by CONTENT_LENGTH alone, on every server.
    assert json.loads(response.body) == {"size": 0 if framework == "django_wsgi" else 10_000}


def test_a_file_is_sent_whole(site: Stack) -> None:
    content = (HANDLERS / "apps.py").read_bytes()
    response = ask(site, "GET", "/file")
    assert response.body == content and response.value(b"content-length") == str(len(content)).encode()
    head = ask(site, "HEAD", "/file")
    assert head.body == b"" and head.status in (
        200,
        405,
    )  # Litestar and FastAPI answer HEAD only where they are told to


def test_a_failure_is_the_frameworks_500_and_its_traceback_is_in_the_functions_log(site: Stack, framework: str) -> None:
    response = ask(site, "GET", "/fails")
    assert response.status == 500
    if framework == "litestar":  # which logs exceptions only where it is told to
        return
    wait_for(lambda: any("this handler fails" in line for line in site.function.lines), COLD)


def test_what_is_not_there_is_the_frameworks_404(site: Stack) -> None:
    assert ask(site, "GET", "/nothing").status == 404


def test_many_requests_share_one_environment(site: Stack) -> None:
    ask(site, "GET", "/hello/x")
    with ThreadPoolExecutor(4) as threads:
        began = time.monotonic()
        responses = list(threads.map(lambda _: ask(site, "GET", "/ticks/three"), range(4)))
        took = time.monotonic() - began
    assert all(len(response.chunks) == 3 for response in responses)
    assert took < 3 * 0.9, "they ran one after the other"


# FastAPI, further


def test_a_multipart_upload(fastapi: Stack) -> None:
    content = random.Random(2).randbytes(5 << 20)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--b--\r\n"
    )
    response = ask(fastapi, "POST", "/upload", "Content-Type: multipart/form-data; boundary=b", body=body)
    assert json.loads(response.body) == {"name": "big.bin", "size": len(content)}


def test_the_lifespan_runs_once_and_its_state_reaches_requests(fastapi: Stack) -> None:
    for _ in range(3):
        assert json.loads(ask(fastapi, "GET", "/hello/x").body)["greeting"] == "hello"
        time.sleep(0.3)  # longer than the linger: each request has an invocation of its own
    assert len(fastapi.executions("started")) == 1


def test_a_background_task_ends_before_the_environment_is_frozen(fastapi: Stack) -> None:
    began = time.monotonic()
    assert json.loads(ask(fastapi, "GET", "/background").body) == {"status": "accepted"}
    assert time.monotonic() - began < 0.5 or not fastapi.executions("background"), "the response waited for it"
    wait_for(lambda: fastapi.executions("background") == ["done"], 5)


def test_a_blocking_endpoint_runs_in_frameworks_threads(fastapi: Stack) -> None:
    assert json.loads(ask(fastapi, "GET", "/blocking").body) == {"ok": True}


def test_a_startup_that_fails_says_why_in_the_functions_log(shared_stack: Callable[..., Stack]) -> None:
    stack = serve(shared_stack, "no_database")
    response = ask(stack, "GET", "/")
    assert response.status == 502 and b"database" not in response.body
    wait_for(
        lambda: any("the app's startup failed: the database is not there" in line for line in stack.function.lines), 5
    )


def test_a_client_of_a_fastapi_stream_that_waits_is_missed_within_100_ms(fastapi: Stack, lag: Lag) -> None:
    """Its generator sleeps for 30 s, and is ended in it."""
    ask(fastapi, "GET", "/hello/x")
    delays = []
    for number in range(25):
        name = f"waits-{number}-{os.getpid()}-{threading.get_ident()}"
        with fastapi.connect() as connection:
            connection.request("GET", f"/ticks/{name}")
            next(connection.pieces(connection.head()))
            time.sleep(0.02)
        left = time.time()
        wait_for(lambda name=name: fastapi.executions(name), 10)  # type: ignore[misc]
        delays.append(float(Path(fastapi.notes / name).read_text()) - left)
    delays.sort()
    said = f"p50 {delays[12] * 1000:.1f} ms, p90 {delays[22] * 1000:.1f} ms, most {delays[-1] * 1000:.1f} ms"
    print(f"\na FastAPI stream ends after its client has left: {said}")
    assert delays[12] < 0.1 and delays[-1] < lag.allow(0.1), said
