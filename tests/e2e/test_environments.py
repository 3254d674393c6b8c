"""What happens to environments while nobody looks: frozen for long, stopped in the middle, killed while parked, used by
two gateways. The client notices nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.e2e import process
from tests.e2e.command import Command
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack, free_port
from tests.e2e.wire import Connection


def dials(stack: Stack) -> int:
    """How many sockets functions have opened; the gateway's log level must be debug."""
    return sum("link.dialled" in line for line in stack.gateway.lines)


def kill_parked(environment: int) -> None:
    """Kill an environment's process as soon as it is frozen."""
    wait_for(lambda: process.state(environment) == "T")
    os.kill(environment, signal.SIGKILL)
    wait_for(lambda: not process.state(environment))


@pytest.fixture(scope="module")
def pinging(shared_stack: Callable[..., Stack]) -> Stack:
    """A stack that pings ten times a second, and tells of every dial."""
    return shared_stack("paths.py:one", environments=1, serve={"log-level": "debug", "session-ping-interval": 0.1})


def test_a_parked_link_is_used_again_without_a_dial(pinging: Stack) -> None:
    """Longer than three ping intervals: nobody pings a frozen environment, nor gives it up."""
    stack = pinging
    stack.get("/hello")
    before = dials(stack)
    environment = stack.environment
    for _ in range(2):
        wait_for(lambda: process.state(environment) == "T")
        time.sleep(0.5)
        assert stack.get("/hello").startswith(b"hello ")
    assert (stack.environment, dials(stack)) == (environment, before)


def test_an_environment_that_is_killed_while_parked_is_replaced(only: Stack) -> None:
    """As the platform does when it wants the memory back: no request may pay for it."""
    stack = only
    noted = len(stack.executions("executions"))
    keys = [f"killed-{number}" for number in range(3)]
    for key in keys:
        assert stack.get(f"/once?key={key}").startswith(key.encode())
        kill_parked(stack.environment)
    assert [line.split()[0] for line in stack.executions("executions")[noted:]] == keys


def test_a_process_that_stops_for_a_while_goes_on_where_it_was(pinging: Stack) -> None:
    """Its socket is given up for dead meanwhile; the stream goes on over the next one, byte for byte."""
    stack = pinging
    before = dials(stack)
    size = 100 << 20
    with stack.connect() as connection:
        connection.request("GET", f"/produce?size={size}&note=stopped")
        sha = hashlib.sha256()
        received = 0
        stopped = False
        for chunk in connection.pieces(connection.head()):
            sha.update(chunk.data)
            received += len(chunk.data)
            if not stopped and received > size // 10:
                stopped = True
                environment = stack.environment
                os.kill(environment, signal.SIGSTOP)
                threading.Timer(0.6, os.kill, (environment, signal.SIGCONT)).start()
    assert received == size
    wait_for(lambda: stack.executions("stopped.sha256") == [sha.hexdigest()])
    assert dials(stack) > before, "it was not given up, so nothing was shown"


@pytest.mark.slow
def test_two_gateways_use_one_environment_in_turns(fresh_stack: Callable[..., Stack]) -> None:
    second_port = free_port()
    stack = fresh_stack("paths.py:one", environments=1, gateways=[f"ws://127.0.0.1:{second_port}"])
    second = Command(
        *("serve", "--listen", f"127.0.0.1:{second_port}", "--admin", "off", "--function-url", stack.function_url),
        environment={"DIALBACK_SECRET": stack.secret},
    )
    try:
        second.ready()
        stack.get("/hello")
        environment = stack.environment
        for number in range(5):
            assert stack.get(f"/once?key=first-{number}").startswith(b"first-%d " % number)
            with Connection(("127.0.0.1", second_port)) as connection:
                connection.request("GET", f"/once?key=second-{number}")
                assert connection.response().body.startswith(b"second-%d " % number)
        assert stack.environment == environment
        assert len(stack.executions("executions")) == 10
    finally:
        assert second.stop() == 0


def test_a_function_that_needs_more_memory_than_it_has_is_a_502(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:one", environments=1, memory=128)
    with stack.connect() as connection:
        connection.request("GET", "/hoards")
        assert connection.response().status == 502
    assert stack.get("/hello").startswith(b"hello ")
    stack.function.line("Runtime.OutOfMemory")


def test_lingering_environments_go_when_the_gateway_stops(fresh_stack: Callable[..., Stack]) -> None:
    """They have nothing to come back for: the invocation, and its bill, end at once and in peace."""
    stack = fresh_stack("paths.py:one", environments=1, serve={"linger": 60})
    stack.get("/hello")
    began = time.monotonic()
    assert stack.gateway.stop() == 0
    stack.function.line("^.*REPORT", seconds=2)
    assert time.monotonic() - began < 2
    assert not [line for line in stack.function.lines if "ERROR" in line or "WARNING" in line]


@pytest.mark.parametrize("number", [1, 3])
def test_a_request_costs_one_invocation_and_more_requests_no_more(
    fresh_stack: Callable[..., Stack], number: int
) -> None:
    """The bill: with linger 0 it ends with the stream; requests that come in time share one invocation."""
    stack = fresh_stack("paths.py:many", environments=1, serve={"linger": 0})
    connections = [stack.connect() for _ in range(number)]
    try:
        for connection in connections:
            connection.request("GET", "/ticks?count=3&interval=0.1")
        for connection in connections:
            assert len(connection.response().chunks) == 3
    finally:
        for connection in connections:
            connection.socket.close()
    report = stack.function.line(r"REPORT .*?Duration: ([\d.]+) ms")
    assert 200 <= float(report[1]) < 320
    assert sum("REPORT" in line for line in stack.function.lines) == 1
