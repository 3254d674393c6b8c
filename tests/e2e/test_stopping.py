"""Ctrl-C, SIGTERM and SIGKILL: what runs may finish, and no process is left behind, whatever ended it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e import process
from tests.e2e.command import DIALBACK, Command
from tests.e2e.dev import Dev
from tests.e2e.patience import wait_for
from tests.e2e.stack import HANDLERS, Stack, free_port
from tests.e2e.wire import Connection, ConnectionCut

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


ORDERLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEATHS = (*ORDERLY, signal.SIGKILL, signal.SIGSEGV)


@pytest.mark.parametrize("command", ["dev", "lambda"])
def test_whatever_ends_a_command_no_process_is_left(command: str, tmp_path: Path) -> None:
    """Of a busy environment, of a frozen one, and of what both have started in sessions of their own."""
    marks = {number: f"E2E_MARK={secrets.token_hex(8)}" for number in DEATHS}
    with contextlib.ExitStack() as ends:
        servings = {}
        for number, mark in marks.items():
            servings[number] = Command(
                program=command_line(command, tmp_path), cwd=tmp_path, environment=dict([mark.split("=")])
            )
            ends.callback(servings[number].stop)
        for number, serving in servings.items():
            port = urlsplit(serving.ready()).port or 0
            busy, idle = (ends.enter_context(Connection(("127.0.0.1", port))) for _ in range(2))
            busy.request("GET", "/busy")
            wait_for(lambda mark=marks[number]: len(sleepers(mark)) == 1)
            idle.request("GET", "/")
            assert idle.response().status == 200
            wait_for(lambda serving=serving: sorted(map(process.state, serving.environments())) == ["S", "T"])
            assert len(sleepers(marks[number])) == 2
        for number, serving in servings.items():
            serving.signal(number)
        for number, serving in servings.items():
            assert serving.wait(PROMPT) == (0 if number in ORDERLY else -number)
            wait_for(lambda mark=marks[number]: not process.marked(mark), PROMPT)
            assert not list(Path(tempfile.gettempdir()).glob(f"local-lambda.{serving.pid}.*"))


@pytest.mark.parametrize("command", ["dev", "lambda"])
def test_a_terminal_that_is_closed_ends_everything(command: str, tmp_path: Path) -> None:
    mark = f"E2E_MARK={secrets.token_hex(8)}"
    terminal, inner = pty.openpty()
    with open(terminal, "rb", buffering=0) as screen, open(inner, "rb+", buffering=0) as end:
        serving = subprocess.Popen(
            command_line(command, tmp_path),
            cwd=tmp_path,
            env={**os.environ, **dict([mark.split("=")])},
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
            preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),
        )
        end.close()
        try:
            seen = b""
            while not (found := re.search(rb"Ready: http://127.0.0.1:(\d+)", seen)):
                assert (piece := screen.read(4096)), seen
                seen += piece
            with Connection(("127.0.0.1", int(found[1]))) as connection:
                connection.request("GET", "/")
                assert connection.response().status == 200
            assert len(sleepers(mark)) == 1
            screen.close()
            serving.wait(PROMPT)
            wait_for(lambda: not process.marked(mark), PROMPT)
        finally:
            serving.kill()
            serving.wait()


LEAVES_CHILDREN = """
import subprocess, time
from dialback import stream_handler

@stream_handler
def handler(request):
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if request.path == "/busy":
        time.sleep(1000)
    return "started"
"""


def command_line(command: str, root: Path) -> tuple[str, ...]:
    """A command that serves `LEAVES_CHILDREN`."""
    (root / "leaves.py").write_text(LEAVES_CHILDREN)
    return (sys.executable, "-u", str(DIALBACK), command, "leaves.py:handler", "--port", str(free_port()))


def sleepers(mark: str) -> list[int]:
    """What the functions under `mark` have started."""
    return [pid for pid in process.marked(mark) if process.command_line(pid)[:1] == ["sleep"]]


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
