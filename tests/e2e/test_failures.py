"""Promise 7: code that raises, exits, is killed or runs out of time. Before the response's head the client gets a clear
502 or 504 with its request's id; after it a broken message, never a clean end. Tracebacks stay in the function's log.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e import process
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack, free_port
from tests.e2e.wire import ConnectionCut, WireResponse

BROKEN_TRANSFER = (18, 56)
"""curl: "transfer closed with outstanding read data remaining", "failure in receiving network data"."""
SOON = 3.0
"""Seconds in which a client learns that its function is gone."""


@pytest.fixture(scope="module")
def failing(shared_stack: Callable[..., Stack]) -> Stack:
    """A stack whose environments may be killed: nobody else uses it."""
    return shared_stack("paths.py:one", environments=4)


def curl(stack: Stack, target: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sSN", *options, stack.url + target], capture_output=True, timeout=30, check=False)


def answered(stack: Stack, target: str) -> WireResponse:
    with stack.connect() as connection:
        connection.request("GET", target)
        return connection.response()


def assert_problem(response: WireResponse, status: int, name: str) -> str:
    """The request's id, from a problem document that has all that it must have and nothing more."""
    assert (response.status, response.failure) == (status, None)
    assert response.value(b"content-type") == b"application/problem+json"
    document: dict[str, Any] = json.loads(response.body)
    assert document["type"] == f"urn:dialback:error:{name}" and document["status"] == status
    request_id = response.values(b"x-request-id")[0].decode()
    assert document["instance"] == f"urn:dialback:request:{request_id}"
    assert not re.search(rb"on purpose|secret|Traceback|\.py", response.body)
    return request_id


def test_code_that_raises_before_its_first_byte_is_a_502_with_the_requests_id(failing: Stack) -> None:
    lines = len(failing.function.lines)
    request_id = assert_problem(answered(failing, "/broken"), 502, "function-error")
    failing.function.line(f"RuntimeError: broken on purpose, secret-{request_id}", after=lines)
    log = "\n".join(failing.function.lines[lines:])
    assert request_id in log and "Traceback (most recent call last)" in log and 'paths.py", line' in log
    failing.gateway.line(f"GET /broken 502 failed .*id={request_id}")
    assert "on purpose" not in failing.gateway.output and "Traceback" not in failing.gateway.output


@pytest.mark.parametrize("http", ["--http1.1", "--http1.0"])
def test_code_that_raises_after_its_first_chunk_breaks_the_message(failing: Stack, http: str) -> None:
    result = curl(failing, "/broken?after=3", http)
    assert result.returncode in BROKEN_TRANSFER, result
    assert result.stdout == b"piece 0\npiece 1\npiece 2\n"
    failing.function.line("RuntimeError: broken on purpose")
    assert "on purpose" not in failing.gateway.output


def test_the_environment_of_code_that_raised_goes_on(failing: Stack) -> None:
    failing.get("/hello")
    before = failing.environments
    for target in ("/broken", "/broken?after=1") * 5:
        answered(failing, target)
    failing.get("/hello")
    assert failing.environments == before


def test_a_process_that_is_killed_mid_stream_breaks_the_message(failing: Stack) -> None:
    with failing.connect() as connection:
        connection.request("GET", "/process")
        response = connection.head()
        pieces = connection.pieces(response)
        pid = int(next(pieces).data)
        next(pieces)
        os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        with pytest.raises(ConnectionCut):
            list(pieces)
        assert time.monotonic() - killed_at < SOON
    assert failing.get("/hello").startswith(b"hello ")
    assert pid not in failing.environments


def test_curl_sees_that_a_killed_process_did_not_finish(failing: Stack) -> None:
    with subprocess.Popen(["curl", "-sSN", failing.url + "/process"], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        os.kill(int(client.stdout.readline()), signal.SIGKILL)
        client.stdout.read()
    assert client.returncode in BROKEN_TRANSFER


def test_a_process_that_is_killed_before_its_first_byte_is_a_502(failing: Stack) -> None:
    with failing.connect() as connection:
        connection.request("POST", "/stuck?note=stuck")
        wait_for(lambda: failing.executions("stuck"))
        os.kill(int(failing.executions("stuck")[0]), signal.SIGKILL)
        killed_at = time.monotonic()
        assert_problem(connection.response(), 502, "function-lost")
        assert time.monotonic() - killed_at < SOON


def test_a_request_that_may_be_repeated_goes_to_another_process_three_times_in_all(failing: Stack) -> None:
    with failing.connect() as connection:
        connection.request("GET", "/stuck?note=repeated")
        for number in range(3):
            wait_for(lambda number=number: len(failing.executions("repeated")) > number)  # type: ignore[misc]
            os.kill(int(failing.executions("repeated")[number]), signal.SIGKILL)
        assert_problem(connection.response(), 502, "function-lost")
        assert len(set(failing.executions("repeated"))) == 3


def test_code_that_exits_before_its_first_byte_is_a_502(failing: Stack) -> None:
    began = time.monotonic()
    response = answered(failing, "/leaves")
    name = json.loads(response.body)["type"].rpartition(":")[2]
    assert name in ("function-error", "function-lost")
    assert_problem(response, 502, name)
    assert time.monotonic() - began < SOON
    assert failing.get("/hello").startswith(b"hello ")


def test_code_that_exits_after_its_first_chunk_breaks_the_message(failing: Stack) -> None:
    began = time.monotonic()
    result = curl(failing, "/leaves?after=2")
    assert result.returncode in BROKEN_TRANSFER and result.stdout == b"piece 0\npiece 1\n"
    assert time.monotonic() - began < SOON
    assert failing.get("/hello").startswith(b"hello ")


@pytest.mark.parametrize("what", ["set", "coroutine", "status", "generator"])
def test_what_is_no_response_is_a_502(failing: Stack, what: str) -> None:
    assert_problem(answered(failing, f"/nonsense?what={what}"), 502, "function-error")


def test_other_streams_of_an_environment_outlive_one_that_raises(busy_stack: Stack) -> None:
    busy_stack.get("/hello")
    with busy_stack.connect() as connection:
        connection.request("GET", "/ticks?count=10&interval=0.05")
        for _ in range(5):
            assert_problem(answered(busy_stack, "/broken"), 502, "function-error")
        response = connection.response()
    assert response.failure is None and len(response.chunks) == 10


@pytest.fixture(scope="module")
def hurried(shared_stack: Callable[..., Stack]) -> Stack:
    """A stack with `--timeout 1`."""
    stack = shared_stack("paths.py:one", environments=2, timeout=1)
    stack.get("/hello")
    return stack


class TestTime:
    """A function's code is stopped before the platform's axe falls."""

    def test_a_response_that_does_not_come_in_time_is_a_504(self, hurried: Stack) -> None:
        began = time.monotonic()
        assert_problem(answered(hurried, "/stuck"), 504, "function-timeout")
        assert 0.5 < time.monotonic() - began < 1.5

    def test_a_stream_that_does_not_end_in_time_is_broken(self, hurried: Stack) -> None:
        result = curl(hurried, "/process")
        assert result.returncode in BROKEN_TRANSFER and b"still here" in result.stdout

    def test_the_environment_was_not_killed_for_it(self, hurried: Stack) -> None:
        """It has parked, and takes the next request."""
        before = hurried.environments
        assert_problem(answered(hurried, "/stuck"), 504, "function-timeout")
        wait_for(lambda: all(process.state(environment) == "T" for environment in before))
        hurried.get("/hello")
        assert hurried.environments == before
        assert not any("Task timed out" in line for line in hurried.function.lines)


def test_a_gateways_timeout_cancels_the_code_and_costs_no_environment(fresh_stack: Callable[..., Stack]) -> None:
    """Its invocation goes on: what comes when the code has stopped needs no other, cold one."""
    stack = fresh_stack("paths.py:one", environments=3, serve={"timeouts-response-start": 0.5, "linger": 30})
    stack.get("/hello")
    before = stack.environments
    for number in range(1, 4):
        assert_problem(answered(stack, "/waits?note=late"), 504, "response-timeout")
        wait_for(lambda number=number: stack.executions("late") == ["begun", "cancelled"] * number)
        wait_for(lambda: stack.gauge("open_streams") == 0)
        stack.get("/hello")
    assert stack.environments == before
    assert sum("START RequestId" in line for line in stack.function.lines) == 1


def test_code_that_cannot_be_imported_is_a_502(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("unimportable.py:handler", environments=1)
    assert_problem(answered(stack, "/"), 502, "function-error")
    stack.function.line("broken on import, on purpose")
    assert "on purpose" not in stack.gateway.output


def test_a_function_that_cannot_be_reached_is_a_502(fresh_stack: Callable[..., Stack]) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    stack = fresh_stack("paths.py:one", config=lambda _: f'function_url = "{nobody}"\n')
    assert_problem(answered(stack, "/"), 502, "invoke-failed")


def test_a_handler_without_stream_handler_is_a_502(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("plain_lambda.py:handler")
    response = answered(stack, "/")
    assert_problem(response, 502, "invoke-failed")
    assert "stream_handler" in json.loads(response.body)["detail"]


def test_a_function_with_another_secret_is_a_502(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:one", gateway_secret="x" * 40)
    assert_problem(answered(stack, "/"), 502, "invoke-failed")
    stack.gateway.line("invocation.failed .*DIALBACK_SECRET")
