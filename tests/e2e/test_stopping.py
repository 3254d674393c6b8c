"""Ctrl-C, SIGTERM and SIGKILL: what runs may finish, and no process is left behind, whatever ended it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import process
from tests.e2e.dev import Dev
from tests.e2e.patience import wait_for
from tests.e2e.stack import HANDLERS, Stack
from tests.e2e.wire import ConnectionCut

PROMPT = 5.0
"""Seconds in which a command ends that has nothing to wait for."""


def refuses(stack: Stack) -> bool:
    try:
        stack.connect().socket.close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_ends_with_everything_that_it_started(number: signal.Signals, tmp_path: Path) -> None:
    with Dev("paths.py:one", HANDLERS, E2E_NOTES=str(tmp_path)) as dev:
        dev.get("/hello")
        started = process.descendants(dev.command.pid)
        assert started, "no environment was started"
        dev.command.signal(number)
        assert dev.command.wait(PROMPT) == 0
        assert not [pid for pid in started if process.is_alive(pid)]
        assert "Traceback" not in dev.command.output


def test_dev_that_is_killed_takes_its_environments_with_it(tmp_path: Path) -> None:
    with Dev("paths.py:one", HANDLERS, E2E_NOTES=str(tmp_path)) as dev:
        dev.get("/hello")
        (environment,) = dev.command.environments()
        dev.expected = -signal.SIGKILL
        dev.command.signal(signal.SIGKILL)
        dev.command.wait()
        wait_for(lambda: not process.is_alive(environment))


def test_a_stream_gets_two_seconds_when_dev_ends(tmp_path: Path) -> None:
    with Dev("paths.py:one", HANDLERS, E2E_NOTES=str(tmp_path)) as dev, dev.connect() as short, dev.connect() as long:
        dev.get("/hello")
        short.request("GET", "/ticks?count=5&interval=0.2")
        long.request("GET", "/ticks?count=100&interval=0.2")
        answers = [connection.head() for connection in (short, long)]
        dev.command.signal(signal.SIGINT)
        asked = time.monotonic()
        assert len(list(short.pieces(answers[0]))) == 5
        with pytest.raises(ConnectionCut):
            list(long.pieces(answers[1]))
        assert 1.5 < time.monotonic() - asked < 4
        assert dev.command.wait(PROMPT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_and_lambda_end_and_leave_nothing(fresh_stack: Callable[..., Stack], number: signal.Signals) -> None:
    stack = fresh_stack("paths.py:one")
    stack.get("/hello")
    environments = stack.environments
    for command in (stack.gateway, stack.function):
        command.signal(number)
        assert command.wait(PROMPT) == 0
        assert "Traceback" not in command.output
    assert not [pid for pid in environments if process.is_alive(pid)]


def test_a_lambda_that_is_killed_takes_its_environments_with_it(tmp_path: Path) -> None:
    stack = Stack("paths.py:one", tmp_path)
    try:
        stack.get("/hello")
        environment = stack.environment
        stack.function.signal(signal.SIGKILL)
        stack.function.wait()
        wait_for(lambda: not process.is_alive(environment))
    finally:
        stack.gateway.stop()
        stack.function.stop()


def test_serve_lets_open_streams_finish_and_refuses_new_ones(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:many", environments=1)
    with stack.connect() as streaming, stack.connect() as kept:
        kept.request("GET", "/hello")
        kept.response()
        streaming.request("GET", "/ticks?count=10&interval=0.1")
        answer = streaming.head()
        stack.gateway.signal(signal.SIGTERM)
        stack.gateway.line("stopping")
        wait_for(lambda: refuses(stack))
        assert kept.is_closed_by_peer(), "an idle connection is closed"
        assert len(list(streaming.pieces(answer))) == 10
        assert stack.gateway.wait(PROMPT) == 0


def test_a_second_signal_cuts_what_is_open(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:one")
    with stack.connect() as streaming:
        streaming.request("GET", "/ticks?count=1000&interval=0.05")
        answer = streaming.head()
        stack.gateway.signal(signal.SIGINT)
        stack.gateway.line("stopping")
        stack.gateway.signal(signal.SIGINT)
        with pytest.raises(ConnectionCut):
            list(streaming.pieces(answer))
        assert stack.gateway.wait(PROMPT) == 0


def test_a_warm_environment_finds_the_gateway_after_a_restart(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:one", environments=1)
    stack.get("/hello")
    environment = stack.environment
    wait_for(lambda: process.state(environment) == "T")
    stack.gateway.stop()
    stack.start_gateway()
    assert stack.get("/once?key=restarted").startswith(b"restarted ")
    assert len(stack.executions("executions")) == 1 and stack.environment == environment


def test_a_gateway_that_is_killed_mid_stream_ends_the_functions_work(tmp_path: Path) -> None:
    """Nobody is there to come back to: the code is cancelled when the grace is over, and the bill ends."""
    stack = Stack("paths.py:one", tmp_path, environments=1, serve={"session-grace": 1})
    try:
        with stack.connect() as connection:
            connection.request("GET", "/abandoned?count=10000&note=killed")
            next(connection.pieces(connection.head()))
            stack.gateway.signal(signal.SIGKILL)
            stack.gateway.stop()
            with pytest.raises(ConnectionCut):
                connection.response()
        wait_for(lambda: "finally" in stack.executions("killed"))
        environment = stack.environment
        wait_for(lambda: process.state(environment) == "T")
        stack.start_gateway()
        assert stack.get("/hello").startswith(b"hello ") and stack.environment == environment
    finally:
        stack.stop()


def test_requests_that_wait_when_the_function_goes_are_answered(fresh_stack: Callable[..., Stack]) -> None:
    """Three wait behind one that runs; the local Lambda ends: each gets an answer that says so."""
    stack = fresh_stack("paths.py:one", environments=1, serve={"limits-max-invocations": 1})
    statuses: list[int] = []

    def ask() -> None:
        with stack.connect() as connection:
            connection.request("GET", "/ticks?count=1000&interval=0.05")
            statuses.append(connection.response().status)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    wait_for(lambda: stack.environments)
    time.sleep(0.5)
    stack.function.signal(signal.SIGTERM)
    stack.function.wait()
    for client in clients:
        client.join(15)
        assert not client.is_alive(), "a client hangs"
    assert sorted(statuses) == [200, 502, 502, 502], statuses
