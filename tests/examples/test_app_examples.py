"""The examples that wrap an app, on the real stack, each in three environments at least where it matters."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.command import REPOSITORY
from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import WireResponse

EXAMPLES = REPOSITORY / "examples"
AT_ONCE = 0.05
"""Seconds that a chunk may come late, besides what the machine adds."""
INTERVAL = 0.2
"""Seconds between two lines of each example."""
ENVIRONMENTS = 3


@pytest.fixture
def serve(shared_stack: Callable[..., Stack]) -> Callable[[str], Stack]:
    return lambda name: shared_stack(f"{name}.py:handler", root=EXAMPLES, environments=ENVIRONMENTS)


@pytest.fixture(params=["fastapi", "flask", "django"])
def app(request: pytest.FixtureRequest, serve: Callable[[str], Stack]) -> Stack:
    pytest.importorskip(request.param)
    return serve(f"{request.param}_app")


def get(stack: Stack, target: str, *headers: str) -> WireResponse:
    with stack.connect() as connection:
        connection.request("GET", target, *headers)
        response = connection.response()
    assert (response.status, response.failure) == (200, None), response.body
    return response


def is_in_time(response: WireResponse, lag: Lag) -> bool:
    times = [chunk.time - response.chunks[0].time for chunk in response.chunks]
    return times == pytest.approx([INTERVAL * index for index in range(len(times))], abs=lag.allow(AT_ONCE))


def test_an_app_counts_line_by_line(app: Stack, lag: Lag) -> None:
    get(app, "/count/1")
    response = get(app, "/count/5")
    assert [chunk.data for chunk in response.chunks] == [b"%d\n" % number for number in range(1, 6)]
    assert is_in_time(response, lag)


@pytest.mark.parametrize(
    ("name", "target", "lines", "readers"),
    [
        ("fastapi_app", "/count/25", 25, 30),  # readers for all the places of three environments, for seconds
        ("flask_app", "/count/25", 25, 24),
        ("django_app", "/count/25", 25, 30),
        ("native_style", "/", 5, 12),
    ],
)
def test_many_readers_spread_over_the_environments(
    serve: Callable[[str], Stack], name: str, target: str, lines: int, readers: int
) -> None:
    if name.endswith("_app"):
        pytest.importorskip(name.removesuffix("_app"))
    stack = serve(name)
    with ThreadPoolExecutor(readers) as threads:
        responses = list(threads.map(lambda _: get(stack, target), range(readers)))
    assert all(len(response.body.splitlines()) == lines for response in responses)
    assert len(stack.environments) == ENVIRONMENTS


@pytest.mark.parametrize("name", ["fastapi", "flask"])
def test_an_upload_is_measured_while_it_comes(serve: Callable[[str], Stack], name: str) -> None:
    pytest.importorskip(name)
    with serve(f"{name}_app").connect() as connection:
        connection.request("POST", "/size", body=bytes(20 << 20))
        assert json.loads(connection.response().body)["bytes"] == 20 << 20


def test_fastapis_background_task_has_run_when_the_next_request_comes(serve: Callable[[str], Stack]) -> None:
    pytest.importorskip("fastapi")
    stack = serve("fastapi_app")

    def has_counted() -> bool:
        with stack.connect() as connection:
            connection.request("POST", "/size", body=b"x")
            return "counted to 2" in json.loads(connection.response().body)["seen"]

    get(stack, "/count/2")
    wait_for(has_counted)


def test_django_builds_what_it_says_from_the_request(serve: Callable[[str], Stack]) -> None:
    pytest.importorskip("django")
    said = json.loads(get(serve("django_app"), "/who?a=%20b", "User-Agent: me").body)
    assert said == {"agent": "me", "path": "/who?a=%20b"}


def test_the_native_shape_writes_line_by_line(serve: Callable[[str], Stack], lag: Lag) -> None:
    stack = serve("native_style")
    get(stack, "/gzip")
    response = get(stack, "/")
    assert [chunk.data for chunk in response.chunks] == [b"line %d\n" % number for number in range(1, 6)]
    assert is_in_time(response, lag)
    assert response.value(b"content-type") == b"text/plain" and response.value(b"set-cookie") == b"seen=1"


def test_the_native_shape_compresses_in_a_pipeline(serve: Callable[[str], Stack]) -> None:
    response = get(serve("native_style"), "/gzip")
    assert response.value(b"content-encoding") == b"gzip"
    assert re.findall(rb"line \d", gzip.decompress(response.body))[-1] == b"line 5"
