"""The invocation's time is up, through the real stack: streams that still run are ended in order, before the platform's
deadline, and the environment serves the next request as if nothing had been."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import Connection, WireResponse

TIMEOUT = 2
"""Seconds of an invocation; its last quarter is the margin in which code is stopped (environment.DEADLINE_SHARE)."""
LEASE = 0.75 * TIMEOUT
SLOW = pytest.mark.slow


@pytest.fixture
def short(shared_stack: Callable[..., Stack]) -> Callable[[str], Stack]:
    """`short("thread")`: a stack of one environment whose invocations are short, that serves that handler."""
    return lambda name: shared_stack(f"stopped.py:{name}", environments=1, timeout=TIMEOUT)


def outlast(stack: Stack, target: str) -> WireResponse:
    """Ask for what takes longer than there is, in an invocation of its own. The environment must live on, in time."""
    stack.get("/hello")
    pid = stack.environment
    lines = len(stack.function.lines)
    began = time.monotonic()
    with stack.connect() as connection:
        if target.startswith("/reads"):
            connection.request("POST", target, "Transfer-Encoding: chunked")
            connection.chunk(b"begun")
        else:
            connection.request("GET", target)
        response = connection.response()
    assert LEASE - 0.2 < time.monotonic() - began < TIMEOUT
    assert_survived(stack, pid, lines)
    return response


def assert_survived(stack: Stack, pid: int, lines: int, timeout: float = TIMEOUT) -> None:
    assert str(pid) in stack.get("/hello").decode()
    stack.function.line(" REPORT ", after=lines)
    for line in stack.function.lines[lines:]:
        assert "timed out" not in line.lower() and "Status:" not in line, line
        if found := re.search(r" REPORT .*\tDuration: ([\d.]+) ms", line):
            assert float(found[1]) < timeout * 1000, line


def problem(response: WireResponse) -> tuple[int, bytes]:
    found = re.search(rb"urn:dialback:error:([\w-]+)", response.body)
    assert response.failure is None and found, response
    return response.status, found[1]


@pytest.mark.parametrize(
    ("handler", "path", "ends"),
    [
        ("loop", "waits", "CancelledError"),
        pytest.param("async_event", "waits", "CancelledError", marks=SLOW),
        ("thread", "reads", "ClientDisconnected"),
        pytest.param("thread", "looks", "returned", marks=SLOW),
    ],
)
def test_a_request_without_an_answer_is_a_504_of_its_own(
    short: Callable[[str], Stack], handler: str, path: str, ends: str
) -> None:
    stack, note = short(handler), f"{handler}-{path}"
    assert problem(outlast(stack, f"/{path}?note={note}")) == (504, b"function-timeout")
    assert stack.executions(note)[1].split()[0] == ends


@pytest.mark.parametrize(
    ("handler", "path", "ends"),
    [
        pytest.param("loop", "streams", "CancelledError|GeneratorExit", marks=SLOW),
        pytest.param("loop", "floods", "CancelledError|GeneratorExit", marks=SLOW),
        ("thread", "generates", "GeneratorExit"),
        pytest.param("thread", "floods_from_a_thread", "GeneratorExit", marks=SLOW),
    ],
)
def test_a_response_that_has_begun_is_cut(short: Callable[[str], Stack], handler: str, path: str, ends: str) -> None:
    stack, note = short(handler), f"{handler}-{path}"
    response = outlast(stack, f"/{path}?note={note}")
    assert response.status == 200 and response.body and response.failure
    assert re.fullmatch(ends, stack.executions(note)[1].split()[0])


def test_code_may_take_the_end_of_its_time_for_the_end_of_its_response(short: Callable[[str], Stack]) -> None:
    response = outlast(short("loop"), "/concludes")
    assert (response.status, response.body, response.failure) == (200, b"begun\ntime is up\n", None)


def test_code_that_plans_by_the_remaining_time_is_not_stopped(short: Callable[[str], Stack]) -> None:
    stack = short("loop")
    stack.get("/hello")
    with stack.connect() as connection:
        connection.request("GET", "/plans?note=plans")
        response = connection.response()
    assert (response.status, response.failure) == (200, None)
    told = [float(line) for line in response.body.split()]
    assert told[0] <= LEASE and told == sorted(told, reverse=True)
    assert stack.executions("plans")[1].startswith("returned")


@pytest.mark.parametrize(
    ("handler", "path"),
    [
        ("thread", "blocks"),
        pytest.param("thread", "computes", marks=SLOW),
        pytest.param("loop", "ignores", marks=SLOW),
    ],
)
def test_code_that_cannot_be_stopped_is_left_behind(short: Callable[[str], Stack], handler: str, path: str) -> None:
    stack, note = short(handler), f"left-{path}"
    (stack.notes / "release").unlink(missing_ok=True)
    try:
        assert problem(outlast(stack, f"/{path}?note={note}")) == (504, b"function-timeout")
        place = r"request [0-9a-f]{32}: the code did not stop, at \S+stopped\.py:\d+ in \w+: let `CancelledError` pass"
        assert any(re.search(place, line) for line in stack.function.lines)
    finally:
        (stack.notes / "release").touch()
    if handler == "thread":
        stack.get("/hello")  # it runs on while the environment does
        wait_for(lambda: stack.get("/hello") and len(stack.executions(note)) == 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "path", "count"),
    [
        ("many_loop", "streams", 100),
        ("many_loop", "floods", 50),
        ("many_thread", "generates", 50),
        ("many_thread", "blocks", 100),
        ("many_thread", "computes", 4),
    ],
)
def test_many_streams_are_ended_before_the_platforms_deadline(
    fresh_stack: Callable[..., Stack], handler: str, path: str, count: int
) -> None:
    stack = fresh_stack(f"stopped.py:{handler}", environments=1, timeout=2 * TIMEOUT)  # the whole margin of a second
    stack.get("/hello")
    pid, lines = stack.environment, len(stack.function.lines)
    with ExitStack() as clients:
        connections: list[Connection] = [clients.enter_context(stack.connect()) for _ in range(count)]
        for connection in connections:
            connection.request("GET", f"/{path}?note=many")
        for connection in connections:
            response = connection.response()
            assert response.failure if response.status == 200 else response.status == 504, response
    try:
        assert_survived(stack, pid, lines, 2 * TIMEOUT)
    finally:
        (stack.notes / "release").touch()
