"""Promise 5, second half: requests that come while an environment parks and freezes, its network with it. None hangs,
none runs twice.

One environment, linger 0: it asks to park the moment its stream has ended, and what is sent around that moment must
find a way: the REQUEST that crosses a PARK, the lease that comes after PARKED, the 429 while the process freezes.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.stack import Stack

PATIENCE = 20.0
"""Seconds in which the slowest request must be answered."""
MOMENTS = (0.0, 0.0003, 0.001, 0.003, 0.008)
"""Seconds after a response within which the next request is sent: before PARK leaves, while it is answered, while the
process freezes, after that."""
RACES = [
    pytest.param(400, id="400"),
    pytest.param(10_000, id="10000", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
]


class Racer:
    """One client's thread: requests one after the other, each at a random moment around the park before it."""

    def __init__(self, stack: Stack, name: str, count: int) -> None:
        self.stack, self.name, self.count = stack, name, count
        self.failures: list[str] = []
        self.seconds: list[float] = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        chance = random.Random(self.name)
        with self.stack.connect() as connection:
            connection.socket.settimeout(PATIENCE)
            for number in range(self.count):
                key = f"{self.name}-{number}"
                began = time.monotonic()
                try:
                    connection.request("GET", f"/once?key={key}")
                    response = connection.response()
                except Exception as error:
                    self.failures.append(f"{key}: {error!r} after {time.monotonic() - began:.1f} s")
                    return
                self.seconds.append(time.monotonic() - began)
                request_id = response.values(b"x-request-id")[0]
                if response.failure or response.body != key.encode() + b" " + request_id:
                    self.failures.append(f"{key}: {response.status} {response.failure} {response.body[:200]!r}")
                time.sleep(chance.uniform(0, chance.choice(MOMENTS)))


@pytest.mark.parametrize("races", RACES)
@pytest.mark.parametrize(("handler", "clients"), [("paths.py:one", 3), ("paths.py:many", 2)])
def test_requests_around_a_park_neither_hang_nor_run_twice(
    fresh_stack: Callable[..., Stack], handler: str, clients: int, races: int
) -> None:
    stack = fresh_stack(handler, environments=1, serve={"linger": 0, "log-level": "warning"})
    if not stack.is_network_frozen:
        pytest.skip("the network of an idle environment can only be frozen by root, on Linux 5.7 with cgroup v2")
    stack.get("/hello")
    pid = stack.environment
    began = time.monotonic()
    racers = [Racer(stack, f"racer{index}", races // clients) for index in range(clients)]
    for racer in racers:
        racer.thread.join()
    passed = time.monotonic() - began
    seconds = sorted(second for racer in racers for second in racer.seconds)
    parks = sum("REPORT" in line for line in stack.function.lines)
    p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
    print(
        f"\n{handler}, {clients} clients: {len(seconds)} requests, {parks} parks in {passed:.1f} s;"
        f" seconds per request: p50 {p50:.4f}, p99 {p99:.4f}, max {seconds[-1]:.3f}"
    )
    assert not [failure for racer in racers for failure in racer.failures]
    executions = Counter(line.split()[0] for line in stack.executions("executions"))
    wanted = Counter(f"{racer.name}-{number}" for racer in racers for number in range(racer.count))
    assert executions == wanted, "lost, or run twice"
    assert stack.environment == pid, "the environment did not survive"
    assert parks > races / clients / 20, "it hardly ever parked: nothing was shown"
    assert not stack.mistakes()
