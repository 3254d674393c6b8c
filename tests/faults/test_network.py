"""The soak's load over a network that loses, limits and delays, and with processes that stand still in mid-stream."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import process
from tests.e2e.stack import Stack
from tests.faults import network
from tests.faults.load import MIB, Load
from tests.faults.proxy import Cut, Delay, Fault, FaultProxy, Together, fault_proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PING = 0.3
"""Seconds."""
SECONDS = 8.0
"""Of load."""
SIZES = (MIB // 4, 4 * MIB)
Hurt = Callable[[FaultProxy], None]


@pytest.fixture
def own_network() -> Iterator[None]:
    with network.namespace():
        yield


def start(fresh_stack: Callable[..., Stack], proxy: FaultProxy) -> Stack:
    stack = fresh_stack(
        "bodies.py:eight",
        environments=4,
        serve={"dial-address": proxy.url, "session-ping-interval": PING},
        gateways=[proxy.url],
    )
    proxy.target = ("127.0.0.1", stack.port)
    return stack


def late() -> Fault:
    return Together(Delay(0.04, 0.06), Cut(random.uniform(1, 3)))


BAD: dict[str, Hurt] = {
    "2 % lost": lambda proxy: network.lose(proxy.port, 0.02),
    "10 % lost": lambda proxy: network.lose(proxy.port, 0.1),
    "200 Mbit/s": lambda proxy: network.limit(200),
    "40 to 100 ms late, and cut": lambda proxy: setattr(proxy, "draw", late),
    "2 % lost, 100 Mbit/s, late and cut": lambda proxy: (
        network.lose(proxy.port, 0.02),
        network.limit(100),
        setattr(proxy, "draw", late),
    )[0],
}


@pytest.mark.parametrize("kind", BAD)
async def test_every_byte_comes_once_through_a_bad_network(
    own_network: None, fresh_stack: Callable[..., Stack], kind: str
) -> None:
    seed = int(os.environ.get("FAULTS_SEED") or random.randrange(1 << 32))
    async with fault_proxy() as proxy:
        stack = start(fresh_stack, proxy)
        BAD[kind](proxy)
        load = Load(stack, seed, sizes=SIZES)
        await load.run(SECONDS)
        print(f"\nFAULTS_SEED={seed} {kind}: {load}; {proxy.accepted} sockets")
        load.check()
        assert not stack.mistakes()


async def test_every_byte_comes_once_from_processes_that_stand_still(fresh_stack: Callable[..., Stack]) -> None:
    """Each for 1 to 8 s in mid-stream: its socket is given up meanwhile, and its streams go on where they were."""
    seed = int(os.environ.get("FAULTS_SEED") or random.randrange(1 << 32))
    chance = random.Random(seed)
    stops: list[float] = []
    async with fault_proxy() as proxy:
        stack = start(fresh_stack, proxy)

        async def stop_one_after_the_other() -> None:
            while True:
                await asyncio.sleep(chance.uniform(0.2, 1))
                running = [pid for pid in stack.environments if process.state(pid) not in ("", "T")]
                if not running:
                    continue
                pid = chance.choice(running)
                os.kill(pid, signal.SIGSTOP)
                stops.append(chance.uniform(1, 8))
                try:
                    await asyncio.sleep(stops[-1])
                finally:
                    os.kill(pid, signal.SIGCONT)

        stopping = asyncio.ensure_future(stop_one_after_the_other())
        load = Load(stack, seed, sizes=SIZES)
        try:
            await load.run(20)
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
        seconds = ", ".join(f"{stop:.1f}" for stop in stops)
        print(f"\nFAULTS_SEED={seed}: {load}; {proxy.accepted} sockets; stopped for {seconds} s")
        load.check()
        assert len(stops) >= 3 and proxy.accepted > 4, "a socket was given up"
        assert not stack.mistakes()
