"""What a link that is slow, dead or parked does to those beside it, and what is done to it: nothing."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.e2e import process
from tests.e2e.lag import Lag
from tests.e2e.patience import PATIENCE
from tests.e2e.stack import Stack
from tests.faults.proxy import Delay, Fault, FaultProxy, Slice, Together, fault_proxy

PING = 0.3
"""Seconds."""
TICKS, INTERVAL = 100, 0.02
LATER = 0.05
"""Seconds that a neighbour's chunk may be later beside a bad link than beside a good one."""


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    async with fault_proxy() as proxy:
        yield proxy


@pytest.fixture
def stack(proxy: FaultProxy, fresh_stack: Callable[..., Stack]) -> Stack:
    """One stream a link."""
    stack = fresh_stack(
        "paths.py:one",
        environments=2,
        serve={"dial-address": proxy.url, "session-ping-interval": PING, "session-grace": 60},
        gateways=[proxy.url],
    )
    proxy.target = ("127.0.0.1", stack.port)
    return stack


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        for _ in iter(condition, True):
            await asyncio.sleep(0.005)


async def latencies(client: aiohttp.ClientSession) -> list[float]:
    """Of each chunk of a stream, from being written to being here, in seconds."""
    found = []
    async with client.get(f"/ticks?count={TICKS}&interval={INTERVAL}") as response:
        async for line in response.content:
            found.append(time.time() - float(line.split()[1]))
    assert len(found) == TICKS
    return found


BAD: dict[str, Callable[[], Fault]] = {
    "black hole": Fault,
    "slow": lambda: Together(Delay(0.3, 0.3), Slice(500)),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_link_makes_no_neighbour_wait(stack: Stack, proxy: FaultProxy, lag: Lag, kind: str) -> None:
    faults = itertools.chain((Fault(), BAD[kind]()), iter(Fault, None))
    proxy.draw = lambda: next(faults)
    async with aiohttp.ClientSession(stack.url) as client:
        neighbour = asyncio.ensure_future(latencies(client))
        await until(lambda: proxy.accepted == 1)
        control = await neighbour
        neighbour = asyncio.ensure_future(latencies(client))
        await asyncio.sleep(0.1)  # it is on the first link: the next request makes a second

        async def both_ways() -> None:
            async def body() -> AsyncIterator[bytes]:
                while True:
                    yield bytes(1 << 20)

            async with client.post("/echo", data=body()) as response:
                async for _ in response.content.iter_any():
                    pass

        harmed = asyncio.ensure_future(both_ways())
        await until(lambda: proxy.accepted == 2)
        if kind == "black hole":
            await asyncio.sleep(0.2)
            for connection in proxy.connections:
                if connection.passed["far"] > 1 << 20:
                    connection.flowing.clear()
            assert sum(not connection.flowing.is_set() for connection in proxy.connections) == 1
        beside = await neighbour
        harmed.cancel()
        await asyncio.gather(harmed, return_exceptions=True)
        proxy.cut_all()
    print(f"\nbeside a good link: median {statistics.median(control) * 1000:.1f} ms, most {max(control) * 1000:.1f} ms")
    print(f"beside a bad one:   median {statistics.median(beside) * 1000:.1f} ms, most {max(beside) * 1000:.1f} ms")
    assert statistics.median(beside) < statistics.median(control) + lag.allow(LATER) / 2
    assert max(beside) < max(control) + lag.allow(LATER)


async def test_nobody_sends_a_byte_to_a_frozen_environment(stack: Stack, proxy: FaultProxy) -> None:
    """Watched on the wire, for longer than a socket may be silent."""
    async with aiohttp.ClientSession(stack.url) as client:
        async with client.get("/hello") as response:
            assert response.status == 200
        await until(lambda: [process.state(pid) for pid in stack.environments] == ["T"])
        (connection,) = proxy.connections
        before = dict(connection.passed)
        await asyncio.sleep(6 * PING)
        assert connection.passed == before
        async with client.get("/hello") as response:
            assert response.status == 200
        assert proxy.connections == {connection} and connection.passed != before, "and it was still good"
