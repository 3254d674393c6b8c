"""Between function and gateway something cuts, stalls, delays and truncates at random, and no byte is lost or doubled,
no request is run twice, nothing is stuck, and nothing is left behind at either side."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import process
from tests.e2e.held import assert_flat, held
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.faults.load import MIB, Load, function_held
from tests.faults.proxy import Close, Cut, Delay, Fault, HalfOpen, Slice, Stall, Together, Truncate, fault_proxy

PING = 0.3
"""Seconds between the gateway's pings, so that a socket is given up after 0.9 s."""
ENVIRONMENTS, PLACES = 4, 8
GROWTH = 12.0
"""MiB that an environment may be larger after the load: its link may have held 8 MiB to send again."""


class Faults:
    """What each socket meets within 0.2 to 2 s. Counts what was drawn."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self.drawn: Counter[str] = Counter()
        self.is_on = False

    def draw(self) -> Fault:
        if not self.is_on:
            return Fault()
        chance = self._chance
        seconds = chance.uniform(0.2, 2.0)
        long = chance.uniform(3.5, 6) * PING
        faults = {
            "reset": lambda: Cut(seconds),
            "close": lambda: Close(seconds),
            "half-open, the function is gone": lambda: HalfOpen(seconds, long, "near"),
            "half-open, the gateway is gone": lambda: HalfOpen(seconds, long, "far"),
            "black hole": lambda: Together(Stall(seconds, long), Cut(seconds + long + 0.1)),
            "short stall": lambda: Together(Stall(seconds / 2, PING), Cut(seconds + PING)),
            "truncated": lambda: Together(Truncate(int(10 ** chance.uniform(2, 7))), Cut(seconds)),
            "late, and reset": lambda: Together(Delay(0.02, 0.03), Cut(seconds)),
            "sliced, and closed": lambda: Together(Slice(1400), Close(seconds)),
        }
        name = chance.choice(list(faults))
        self.drawn[name] += 1
        return faults[name]()


LOADS = [
    pytest.param((2.0, 10.0), (MIB // 4, 8 * MIB), id="10s"),
    pytest.param(
        (10.0,) + (60.0,) * 10, (MIB, 64 * MIB), id="600s", marks=[pytest.mark.soak, pytest.mark.timeout(1200)]
    ),
]
"""Seconds of load, with a look at what is held after each; the first is the warm-up. Bytes of a body."""


@pytest.mark.parametrize(("phases", "sizes"), LOADS)
async def test_every_byte_comes_once_through_a_network_that_breaks(
    tmp_path: Path, fresh_stack: Callable[..., Stack], phases: tuple[float, ...], sizes: tuple[int, int]
) -> None:
    seed = int(os.environ.get("FAULTS_SEED") or random.randrange(1 << 32))
    print(f"\nFAULTS_SEED={seed}")
    faults = Faults(seed)
    async with fault_proxy(draw=faults.draw) as proxy:
        probe = tmp_path / "probe"
        stack = fresh_stack(
            "bodies.py:eight",
            environments=ENVIRONMENTS,
            serve={"dial-address": proxy.url, "session-ping-interval": PING, "log-level": "debug"},
            gateways=[proxy.url],
            probe=probe,
        )
        proxy.target = ("127.0.0.1", stack.port)
        load = Load(stack, seed, sizes=sizes)
        looks = []
        began = time.monotonic()
        for seconds in phases:
            faults.is_on = True
            proxy.cut_all()  # what was dialled before meets no fault
            await load.run(seconds)
            faults.is_on = False
            proxy.cut_all()
            function = await function_held(stack, ENVIRONMENTS * PLACES)
            await asyncio.to_thread(wait_for, lambda: {process.state(pid) for pid in stack.environments} == {"T"})
            looks.append((await asyncio.to_thread(held, stack.gateway, probe), function))
        print(f"{load} in {time.monotonic() - began:.0f} s; {sum(faults.drawn.values())} sockets: {dict(faults.drawn)}")
        load.check()
        assert not stack.mistakes()
        print("gateway, MiB:", ", ".join(f"{look.resident:.0f}" for look, _ in looks))
        (gateway, function), (gateway_after, function_after) = looks[0], looks[-1]
        assert_flat("gateway", gateway, gateway_after)
        print(f"function: {function}\n          {function_after}")
        assert function_after.tasks == function.tasks
        for pid, resident in function_after.resident.items():
            assert function_after.descriptors[pid] <= function.descriptors[pid] + 1
            assert resident < function.resident[pid] + GROWTH
