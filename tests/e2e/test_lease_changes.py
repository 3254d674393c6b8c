"""Leases that follow each other under load, through the real stack: another environment takes over without a gap, and
none is awake for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

TIMEOUT = 6
"""Seconds of an invocation, of which (6 - 1) / 2 take new streams."""
TAKES = (TIMEOUT - 1) / 2
LINGER = 0.4
SECONDS = 4 * TAKES
"""So long lasts a load: three leases end in it."""
STREAM = "/ticks?count=5&interval=0.25"
SHORT = "/ticks?count=2&interval=0.01"

Ask = Callable[[str], Awaitable[None]]


async def one_by_one(ask: Ask, ends: float) -> None:
    """Each is asked for when the one before is over."""
    while time.monotonic() < ends:
        await ask(STREAM)


async def overlapping(ask: Ask, ends: float) -> None:
    """Further apart than an environment would wait for the next."""
    await _every(1.5 * LINGER, STREAM, ask, ends)


async def steady(ask: Ask, ends: float) -> None:
    await _every(0.05, SHORT, ask, ends)


async def _every(seconds: float, target: str, ask: Ask, ends: float) -> None:
    async with asyncio.TaskGroup() as asking:
        while time.monotonic() < ends:
            asking.create_task(ask(target))  # type: ignore[arg-type]
            await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    ("load", "environments", "unused"),
    [
        pytest.param(one_by_one, 1, LINGER, marks=pytest.mark.slow),
        (overlapping, 2, LINGER),
        pytest.param(steady, 2, SECONDS, marks=pytest.mark.slow),  # nearly all the time between its short streams
    ],
)
async def test_one_lease_follows_another_without_a_gap_and_without_waste(
    fresh_stack: Callable[..., Stack], load: Callable[[Ask, float], Awaitable[None]], environments: int, unused: float
) -> None:
    """`environments`: that are needed; `unused`: seconds that they are awake without a stream, at most."""
    stack = fresh_stack("paths.py:many", timeout=TIMEOUT, serve={"linger": LINGER})
    waits: list[float] = []
    async with aiohttp.ClientSession(stack.url, connector=aiohttp.TCPConnector(limit=0)) as client:

        async def ask(target: str) -> None:
            began = time.monotonic()
            async with client.get(target) as response:
                waits.append(time.monotonic() - began)
                assert response.status == 200
                await response.read()

        await ask(SHORT)
        cold, began = waits.pop(), time.monotonic()
        await load(ask, began + SECONDS)
    invocations = 1 + int(SECONDS / TAKES)
    wait_for(lambda: stack.gauge("running_invocations") == 0)
    assert max(waits) < cold, "somebody waited for a cold start"
    assert len(stack.environments) == environments
    # The first lease began before the load. Each change may take one that is only made ready, and parks at once.
    assert invocations - 1 <= stack.gauge("invocations_total") <= invocations + environments
    idle = stack.gauge("idle_seconds_total")
    print(f"\n{len(waits)} requests, worst {max(waits):.3f} s (cold {cold:.3f} s), {idle:.2f} s awake without a stream")
    assert idle < unused + LINGER / 2
