"""An environment that says that it is unhealthy: what it is sent goes elsewhere whole, what it has ends well, and a
fresh one takes its place."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable

import pytest

from tests.e2e import process
from tests.e2e.patience import PATIENCE, wait_for
from tests.e2e.stack import Stack
from tests.e2e.test_bill import durations

UPLOADS = {
    "small": random.Random(1).randbytes(100),
    "above its first credit": random.Random(2).randbytes(5 << 20),
}


def fall_ill(stack: Stack, which: int | str) -> None:
    (stack.notes / f"unhealthy.{which}").touch()


def pid_of(stack: Stack, target: str = "/") -> int:
    """The environment that served this."""
    return int(stack.get(target).split()[0])


def upload(stack: Stack, body: bytes, *headers: str) -> int:
    """The environment that was given the whole body, and in whose name."""
    with stack.connect() as connection:
        connection.request("POST", "/upload", *headers, body=body)
        response = connection.response()
    assert (response.status, response.failure) == (200, None), response.body
    pid, size, digest = response.body.decode().split()
    assert (int(size), digest) == (len(body), hashlib.sha256(body).hexdigest())
    return int(pid)


def said(stack: Stack, text: str) -> int:
    return sum(text in line for line in stack.gateway.lines)


def inits(stack: Stack) -> int:
    """Environments that were started for an invocation which has ended."""
    return sum("Init Duration" in line for line in stack.function.lines)


def invocations(stack: Stack) -> int:
    return sum(bool(re.search(r"START RequestId", line)) for line in stack.function.lines)


@pytest.mark.parametrize("environments", [1, 2])
@pytest.mark.parametrize("body", UPLOADS)
def test_an_upload_goes_elsewhere_whole_and_its_neighbours_end_well(
    fresh_stack: Callable[..., Stack], body: str, environments: int
) -> None:
    """Where there may be no second environment beside it, a fresh one begins when the old one has ended."""
    stack = fresh_stack("unhealthy.py:handler", environments=environments, serve={"linger": 2})
    ill = pid_of(stack)
    neighbours = [stack.connect() for _ in range(3 if environments > 1 else 0)]
    heads = []
    for neighbour in neighbours:
        neighbour.request("GET", "/conversation")
        heads.append(neighbour.head())
    fall_ill(stack, ill)
    well = upload(stack, UPLOADS[body])
    assert well != ill
    if neighbours:
        assert process.is_alive(ill)
    (stack.notes / "go").touch()
    for neighbour, head in zip(neighbours, heads, strict=True):
        with neighbour:
            begins, *numbers, ends = b"".join(chunk.data for chunk in neighbour.pieces(head)).decode().splitlines()
        assert (begins, ends) == (f"{ill} begins", f"{ill} ends")
        assert numbers == [str(number) for number in range(len(numbers))]
    wait_for(lambda: not process.is_alive(ill))
    assert upload(stack, UPLOADS[body], "Expect: 100-continue") == well
    assert stack.environments == [well]
    wait_for(lambda: inits(stack) == 2)
    assert [line for line in stack.executions("served") if line == f"{ill} /upload"] == []
    assert (said(stack, "lease.unhealthy"), said(stack, "invocation.failed")) == (1, 0)
    assert stack.mistakes() == []


def test_one_that_falls_ill_while_it_is_frozen_is_replaced_without_a_dial(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("unhealthy.py:handler", environments=1, serve={"linger": 0, "log-level": "debug"})
    ill = pid_of(stack)
    wait_for(lambda: process.state(ill) == "T")
    fall_ill(stack, ill)
    well = pid_of(stack)
    assert well != ill
    wait_for(lambda: stack.environments == [well])
    wait_for(lambda: len(durations(stack)) == 3)
    assert (said(stack, "link.dialled"), said(stack, "outcome=unhealthy"), said(stack, "lease.unhealthy")) == (2, 1, 0)
    assert stack.mistakes() == []


def test_what_the_unhealthy_cost_is_billed_as_lambda_reports_it(fresh_stack: Callable[..., Stack]) -> None:
    """Its invocation was answered, and counts as no failure, although its process has ended."""
    stack = fresh_stack("unhealthy.py:handler", environments=1, serve={"linger": 0.5})
    for number in range(3):
        fall_ill(stack, pid_of(stack))
        pid_of(stack)
        wait_for(lambda number=number: stack.gauge("running_invocations") == 0)  # type: ignore[misc]
    wait_for(lambda: len(durations(stack)) == 6)
    reported, billed = sum(durations(stack)), stack.gauge("billed_seconds_total")
    # An end that the local Lambda is told of by the kernel comes a little after the answer.
    assert abs(billed - reported) <= 0.05 * reported + 6 * 0.02
    assert stack.gauge('invocations_total{function="function",outcome="error"}') == 0
    assert stack.gauge('invocations_total{function="function",outcome="unhealthy"}') == 3


def test_where_all_are_unhealthy_clients_are_told_so_and_few_environments_are_started(
    fresh_stack: Callable[..., Stack],
) -> None:
    failures = 5
    stack = fresh_stack("unhealthy.py:handler", serve={"breaker-failures": failures, "breaker-pause": 60})
    fall_ill(stack, "all")
    problems = []
    began = time.monotonic()
    for _ in range(10):
        with stack.connect() as connection:
            connection.request("POST", "/", body=b"to nobody")
            response = connection.response()
        assert (response.status, response.failure) == (503, None)
        assert int(response.value(b"retry-after") or b"0") >= 1
        problems.append(re.sub(rb'.*"urn:dialback:error:([a-z-]+)".*\n', rb"\1", response.body).decode())
    assert time.monotonic() - began < PATIENCE
    assert problems == ["unhealthy"] * 2 + ["circuit-open"] * 8
    assert invocations(stack) == failures
    assert stack.environments == [] and stack.executions("served") == []
    assert said(stack, "circuit.opened") == 1
