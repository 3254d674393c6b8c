"""The table of docs/apps.md is true: apps that do wrong get a clear error, clients a proper end, and others go on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import process
from tests.e2e.bad_apps import ASGI, CASES, HTTP, WAITS, Bad, documented, observe, start
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import Connection, ConnectionCut

Start = Callable[[str], Stack]


@pytest.fixture(scope="module")
def stack_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`stack_of(kind)`: the stack whose function is of that kind."""
    started: dict[str, Stack] = {}

    def get(kind: str) -> Stack:
        if kind not in started:
            started[kind] = start(kind, tmp_path_factory.mktemp("notes"))
        return started[kind]

    yield get
    for stack in started.values():
        stack.interrupt()
    for stack in started.values():
        stack.stop()


def quick(number: int, bad: Bad, kind: str) -> object:
    """One kind of handler for each thing that is done wrong; the others are slow."""
    slow = kind != bad.kinds[number % len(bad.kinds)]
    return pytest.param(bad, kind, id=f"{bad.path}-{kind}", marks=[pytest.mark.slow] if slow else [])


NUMBERS = {bad: number for number, bad in enumerate(dict.fromkeys(bad for bad, _ in CASES))}


@pytest.mark.parametrize(("bad", "kind"), [quick(NUMBERS[bad], bad, kind) for bad, kind in CASES])
def test_what_apps_do_wrong_ends_as_the_table_says(stack_of: Start, bad: Bad, kind: str) -> None:
    assert observe(stack_of(kind), bad, kind) == documented()[bad.what, kind]


def test_the_table_has_no_row_too_many() -> None:
    assert set(documented()) == {(bad.what, kind) for bad, kind in CASES}
    assert {kind for _, kind in CASES} >= set(HTTP)


# Code that blocks the event loop. `misbehaving.BLOCKS` is 2 s.


def beside(stack: Stack) -> tuple[list[float], threading.Thread]:
    """The times of a stream's pieces, until it is cut or 3 s are over; a negative one: it was cut."""
    times: list[float] = []

    def read() -> None:
        with stack.connect() as connection:
            connection.request("GET", "/ticks")
            try:
                for number, piece in enumerate(connection.pieces(connection.head())):
                    assert piece.data == b"%d\n" % number, "a piece is missing, or came twice"
                    times.append(piece.time)
                    if piece.time - times[0] > 3:
                        return
            except ConnectionCut:
                times.append(-1)

    thread = threading.Thread(target=read)
    thread.start()
    wait_for(lambda: times)
    return times, thread


def dials(stack: Stack, outcome: str) -> float:
    with Connection(("127.0.0.1", stack.admin_port)) as connection:
        connection.request("GET", "/metrics")
        text = connection.response().body.decode()
    return sum(map(float, re.findall(rf'^dialback_dials_total{{outcome="{outcome}"}} (\S+)$', text, re.MULTILINE)))


def block(stack: Stack) -> str:
    """The request's id."""
    with stack.connect() as connection:
        connection.request("POST", "/blocks")
        return connection.response().values(b"x-request-id")[0].decode()


@pytest.mark.parametrize("ping_interval", [10, 0.4], ids=["the socket lives", "the socket is given up"])
def test_streams_beside_a_block_wait_and_go_on_whole(fresh_stack: Callable[..., Stack], ping_interval: float) -> None:
    """A socket is given up when it was silent for three intervals; the session is not."""
    flags = {"session-ping-interval": ping_interval, "session-grace": 30}
    stack = fresh_stack("misbehaving.py:asgi", environments=1, serve=flags)
    stack.get("/nothing-wrong")
    times, thread = beside(stack)
    blocker = block(stack)
    thread.join()
    assert times[-1] > 0 and max(b - a for a, b in zip(times, times[1:], strict=False)) > WAITS
    said = stack.function.line(
        r"request ([0-9a-f]{32}): the event loop is blocked, for 1\.\d s so far, at (\S+) in app"
    )
    assert said[1] == blocker and re.search(r"misbehaving\.py:\d+$", said[2])
    waits = stack.function.line("Requests that wait for it: (.*)")[1].split(", ")
    assert blocker in waits and len(waits) == 2
    stack.function.line(r"the event loop goes on, after \d")
    assert sum("is blocked" in line for line in stack.function.lines) == 1
    assert (dials(stack, "resumed") > 0) is (ping_interval < 1)
    assert not stack.mistakes()


def test_a_block_beyond_the_grace_loses_the_streams(fresh_stack: Callable[..., Stack]) -> None:
    flags = {"session-ping-interval": 0.2, "session-grace": 0.5}
    stack = fresh_stack("misbehaving.py:asgi", environments=1, serve=flags)
    stack.get("/nothing-wrong")
    times, thread = beside(stack)
    block(stack)
    thread.join()
    assert times[-1] == -1, "it was cut"
    assert stack.get("/nothing-wrong") == b"whole", "the environment goes on"


def test_a_frozen_environment_is_not_blocked(stack_of: Start) -> None:
    """Its loop gives no sign of life either, for longer than the limit of 1 s."""
    stack = stack_of(ASGI)
    lines = len(stack.function.lines)
    for _ in range(2):
        stack.get("/nothing-wrong")
        wait_for(lambda: process.state(stack.environment) == "T")
        time.sleep(1.5)
    stack.get("/nothing-wrong")
    assert not any("is blocked" in line for line in stack.function.lines[lines:])
