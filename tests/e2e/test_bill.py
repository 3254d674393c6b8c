"""What the gateway says that invocations cost, beside the lines in which Lambda says it."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

REPORT = re.compile(r"REPORT RequestId: \S+\s+Duration: ([\d.]+) ms")
REQUESTS = 6


def durations(stack: Stack) -> list[float]:
    """Seconds of each invocation that has ended, without the init phase."""
    return [float(match[1]) / 1000 for line in stack.function.lines if (match := REPORT.search(line))]


def test_one_at_a_time_is_billed_for_its_streams_and_no_more(fresh_stack: Callable[..., Stack]) -> None:
    """As on Lambda: with `concurrency=1`, and no linger configured, each request is an invocation."""
    stack = fresh_stack("paths.py:one", environments=1)
    for number in range(REQUESTS):
        stack.get("/hello")
        wait_for(lambda number=number: len(durations(stack)) > number)  # type: ignore[misc]
    wait_for(lambda: stack.gauge("invocations_total") == REQUESTS)
    assert stack.gauge("idle_seconds_total") < 0.01 * REQUESTS
    assert min(durations(stack)) < 0.05  # a tenth of a second that nobody used is in none


def test_what_the_gateway_bills_agrees_with_lambdas_own_report(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:one", environments=1, serve={"linger": 0.2})
    for number in range(REQUESTS):
        stack.get("/hello")
        wait_for(lambda number=number: len(durations(stack)) > number)  # type: ignore[misc]
    wait_for(lambda: stack.gauge("invocations_total") == REQUESTS)
    reported, billed = sum(durations(stack)), stack.gauge("billed_seconds_total")
    # Where the function starts to count, the runtime has read the event already; each of ours is a whole number.
    assert abs(billed - reported) <= 0.05 * reported + REQUESTS * 0.002
    assert stack.gauge("streams_total") == REQUESTS
    assert 0.18 * REQUESTS < stack.gauge("idle_seconds_total") <= stack.gauge("leased_seconds_total") < reported
