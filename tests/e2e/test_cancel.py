"""The client leaves, through the real stack: the function's code is stopped at once, in each of its forms; its place is
free when it has really stopped, and then the invocation ends."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e import process
from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

SOON = 0.1
"""Seconds from the client's leaving to the end of the function's code: what issue B asks."""

FORMS = [
    ("loop", "waits", "CancelledError"),
    ("loop", "streams", "CancelledError|GeneratorExit"),
    ("loop", "floods", "CancelledError|GeneratorExit"),
    ("async_event", "waits", "CancelledError"),
    ("thread", "generates", "GeneratorExit"),
    ("thread", "floods_from_a_thread", "GeneratorExit"),
    ("thread", "reads", "ClientDisconnected"),
    ("thread", "reads_a_file", "ClientDisconnected"),
    ("thread", "looks", "returned"),
    ("event", "looks", "returned"),
]


@pytest.fixture
def only_one(shared_stack: Callable[..., Stack]) -> Callable[[str], Stack]:
    """`only_one("thread")`: a stack of one environment with one place, that serves that handler of stopped.py."""
    return lambda name: shared_stack(f"stopped.py:{name}", environments=1)


def leave(stack: Stack, target: str, note: str, how: str = "close") -> float:
    """Ask, wait until the code has begun, and leave; the Unix time of that."""
    with stack.connect() as connection:
        if target.startswith("/reads"):
            connection.request("POST", target, "Transfer-Encoding: chunked")
            connection.chunk(b"begun")
        else:
            connection.request("GET", target)
        wait_for(lambda: stack.executions(note))
        left_at = time.time()
        if how == "reset":
            connection.reset()
    return left_at


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("handler", "path", "ends"), FORMS)
def test_code_is_stopped_when_its_client_leaves(
    only_one: Callable[[str], Stack], lag: Lag, handler: str, path: str, ends: str, how: str
) -> None:
    stack, note = only_one(handler), f"{handler}-{path}-{how}"
    lines = len(stack.function.lines)
    left_at = leave(stack, f"/{path}?note={note}", note, how)
    wait_for(lambda: len(stack.executions(note)) == 2)
    ended_as, ended_at, was_cancelled = stack.executions(note)[1].split()
    assert re.fullmatch(ends, ended_as) and was_cancelled == "True"
    assert float(ended_at) - left_at < lag.allow(SOON)
    pid = stack.environment
    stack.function.line(" REPORT ", after=lines)
    wait_for(lambda: process.state(pid) == "T")
    assert str(pid) in stack.get("/hello").decode(), "and it takes the next request"


def test_a_thread_that_still_runs_keeps_its_place_and_its_invocation(only_one: Callable[[str], Stack]) -> None:
    stack = only_one("thread")
    leave(stack, "/blocks?note=blocked", "blocked")
    lines = len(stack.function.lines)
    answers: list[bytes] = []
    asker = threading.Thread(target=lambda: answers.append(stack.get("/hello")))
    asker.start()
    asker.join(1.0)
    assert not answers and len(stack.executions("blocked")) == 1
    assert not any(" REPORT " in line for line in stack.function.lines[lines:])
    (stack.notes / "release").touch()
    asker.join(10)
    (stack.notes / "release").unlink()
    assert answers and stack.executions("blocked")[1].startswith("returned")
    stack.function.line(" REPORT ", after=lines)


@pytest.mark.slow
@pytest.mark.parametrize(("handler", "path"), [("loop", "streams"), ("thread", "generates")])
def test_two_hundred_clients_that_leave_stop_their_code_at_once(
    only_one: Callable[[str], Stack], lag: Lag, handler: str, path: str
) -> None:
    stack, note = only_one(handler), f"{handler}-leaving"
    took = []
    for number in range(200):
        left_at = leave(stack, f"/{path}?note={note}-{number}", f"{note}-{number}")
        wait_for(lambda number=number: len(stack.executions(f"{note}-{number}")) == 2)
        took.append(float(stack.executions(f"{note}-{number}")[1].split()[1]) - left_at)
    took.sort()
    print(f"{handler}: p50 {took[100] * 1000:.1f} ms, p99 {took[198] * 1000:.1f} ms, most {took[-1] * 1000:.1f} ms")
    assert took[198] < lag.allow(SOON)
