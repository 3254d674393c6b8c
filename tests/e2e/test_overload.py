"""At twice the capacity, those that are served are served at their usual speed, and the rest are told at once."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

ENVIRONMENTS = 4
"""A place each: so many requests run."""
OPEN = 8
"""Exchanges: the other half waits in the queue."""
SERVICE = 0.05
"""Seconds that the function takes for one."""
FACTOR = 1.5
"""How much slower than usual is still the usual speed."""
AT_ONCE = SERVICE / 2
"""Seconds, besides what the machine adds: whoever waited for a place would wait longer."""
WARM_UP = 2 * OPEN
"""Requests before anything is counted: environments start with them."""

#: What keeps so many from being open, as configuration, and what those beyond are told.
LIMITS = {
    "the function's exchanges": ("", f"limits.max_exchanges = {OPEN}\n", "overloaded"),
    "the function's queue": ("", f"limits.max_queue = {OPEN - ENVIRONMENTS}\n", "overloaded"),
    "the gateway's exchanges": (f"[client]\nmax_exchanges = {OPEN}\n", "", "gateway-full"),
}
CASES = [
    pytest.param("the function's exchanges", 2.0, id="quick"),
    *(pytest.param(limit, 10.0, id=limit, marks=[pytest.mark.slow, pytest.mark.timeout(300)]) for limit in LIMITS),
]


@dataclass
class Seen:
    """What clients saw; times in seconds, from asking to the last byte."""

    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    problems: set[tuple[int, str, str | None]] = field(default_factory=set)
    """Status, type and Retry-After of the refusals."""

    async def ask(self, client: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        async with client.get("/late", params={"wait": str(SERVICE)}) as response:
            body = await response.read()
            took = time.monotonic() - began
            if response.status == 200:
                self.served.append(took)
            else:
                self.refused.append(took)
                self.problems.add((response.status, json.loads(body)["type"], response.headers.get("retry-after")))


async def at_capacity(client: aiohttp.ClientSession, seconds: float) -> tuple[Seen, float]:
    """As many clients as may be open, each with one request after the other; and how many were served in a second."""
    seen = Seen()
    began = time.monotonic()

    async def one() -> None:
        while time.monotonic() - began < seconds:
            await seen.ask(client)

    await asyncio.gather(*(one() for _ in range(OPEN)))
    return seen, len(seen.served) / (time.monotonic() - began)


async def at_a_rate(client: aiohttp.ClientSession, rate: float, seconds: float) -> Seen:
    """So many requests in each second, whatever becomes of those before."""
    seen = Seen()
    began = time.monotonic()
    async with asyncio.TaskGroup() as asking:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            asking.create_task(seen.ask(client))
    return seen


def percentile(times: list[float], rank: int) -> float:
    return statistics.quantiles(times, n=100)[rank - 1]


@pytest.mark.parametrize(("limit", "seconds"), CASES)
async def test_twice_the_capacity(fresh_stack: Callable[..., Stack], limit: str, seconds: float) -> None:
    everywhere, of_the_function, problem = LIMITS[limit]

    def config(url: str) -> str:
        route = '[[routes]]\npath = "/"\nfunction = "usual"\n'
        return f'{everywhere}[functions.usual]\nurl = "{url}"\n{of_the_function}{route}'

    stack = fresh_stack("paths.py:one", environments=ENVIRONMENTS, config=config)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stack.url, connector=connector) as client:
        for _ in range(WARM_UP // OPEN):
            await asyncio.gather(*(Seen().ask(client) for _ in range(OPEN)))
        ended = stack.gauge("exchanges_total")
        lag = Lag()
        usual, capacity = await at_capacity(client, seconds)
        beyond = await at_a_rate(client, 2 * capacity, 2 * seconds)
        lag.stop()
        again, _ = await at_capacity(client, 0.5)

    assert not usual.refused and not again.refused, "there was room for all of them"
    assert beyond.problems == {(503, f"urn:dialback:error:{problem}", "1")}
    offered = len(beyond.served) + len(beyond.refused)
    print(
        f"\n{capacity:.0f} requests/s with {OPEN} open: p50 {percentile(usual.served, 50) * 1e3:.1f} ms,"
        f" p95 {percentile(usual.served, 95) * 1e3:.1f} ms\n"
        f"{2 * capacity:.0f} requests/s: {len(beyond.served)} of {offered} served,"
        f" p50 {percentile(beyond.served, 50) * 1e3:.1f} ms, p95 {percentile(beyond.served, 95) * 1e3:.1f} ms;"
        f" refused p50 {percentile(beyond.refused, 50) * 1e3:.1f} ms,"
        f" p95 {percentile(beyond.refused, 95) * 1e3:.1f} ms; the machine {lag.worst * 1e3:.0f} ms late"
    )
    assert len(beyond.served) > 0.8 * capacity * 2 * seconds, "less was served than there is room for"
    assert percentile(beyond.served, 50) < FACTOR * percentile(usual.served, 50)
    assert percentile(beyond.served, 95) < lag.allow(FACTOR * percentile(usual.served, 95))
    assert percentile(beyond.refused, 95) < lag.allow(AT_ONCE)
    wait_for(lambda: stack.gauge("exchanges_total") - ended == offered + len(usual.served) + len(again.served))
    wait_for(lambda: not stack.gauge("open_streams") and not stack.gauge("waiting_requests"))
    wait_for(lambda: not stack.gauge("running_invocations"))
    assert not stack.mistakes()
