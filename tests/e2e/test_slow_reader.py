"""Promise 5, first half: a reader that takes 1 MB/s from a producer that could give a thousand holds nobody else up."""

from __future__ import annotations

import statistics
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import pytest

from tests.e2e import process
from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

MEGABYTE = 1_000_000
RATE = MEGABYTE
"""Bytes a second that the slow one takes."""
GIBIBYTE = 1 << 30
CREDIT = 512 << 10
"""Bytes: 64 KiB at first, doubled while the buffers on the way (half a megabyte) fill; never for a slow reader."""
AHEAD = MEGABYTE
"""Bytes beyond the credit: what the gateway's and the two kernels' buffers may hold."""
GROWTH = 8.0
"""MiB that a process may grow while nothing piles up: what an allocator does."""
RECEIVE_BUFFER = 64 << 10
TICK = 0.01
NOISE = 0.005
"""Seconds below which a percentile says more of the machine than of us."""
DURATIONS = [
    pytest.param(8.0, id="8s"),
    pytest.param(60.0, id="60s", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
]


class SlowReader:
    """Takes `RATE` bytes a second, inside a `with`; its end is the client's leaving."""

    def __init__(self, stack: Stack) -> None:
        self._connection = stack.connect(receive_buffer=RECEIVE_BUFFER)
        self._connection.request("GET", f"/produce?size={GIBIBYTE}&piece=65536&note=slow")
        self._counter = stack.notes / "slow.produced"
        self._is_leaving = False
        self.read = 0
        self.seconds = 0.0
        self.ahead: list[int] = []
        """How far the producer was ahead of us, in bytes, each time we looked."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        with self._connection as connection:
            while not self._is_leaving:
                self.seconds = time.monotonic() - began
                due = int(self.seconds * RATE) - self.read
                if due > 0:
                    self.read += len(connection.socket.recv(due))
                else:
                    time.sleep(0.005)
                self.ahead.append(produced(self._counter) - self.read)

    @property
    def is_reading(self) -> bool:
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_leaving = True
        self._thread.join()


def produced(counter: Path) -> int:
    """What the producer says of itself in the file that it keeps mapped."""
    try:
        return int(struct.unpack("q", counter.read_bytes())[0])
    except (FileNotFoundError, struct.error):
        return 0


def neighbour_delays(stack: Stack, seconds: float) -> list[float]:
    """From writing to arrival, in seconds, of a neighbour stream's chunks for a while."""
    delays = []
    until = time.monotonic() + seconds
    with stack.connect() as connection:
        connection.request("GET", f"/ticks?count=1000000&interval={TICK}")
        for chunk in connection.pieces(connection.head()):
            delays.append(chunk.time - float(chunk.data.split()[1]))
            if time.monotonic() > until:
                break
    return delays


def percentile(delays: list[float], rank: int) -> float:
    return statistics.quantiles(delays, n=100)[rank - 1]


@pytest.mark.parametrize("seconds", DURATIONS)
def test_a_slow_reader_holds_up_the_producer_and_nobody_else(fresh_stack: Callable[..., Stack], seconds: float) -> None:
    """Two stacks of their own; one has the slow reader. A neighbour stream on the same link is measured in both at the
    same time, so that what else the machine does is in both figures. In both alike it is in the p90; of the few chunks
    that are later, one process's pause makes a dozen, and it need not be in both."""
    stack, control = (fresh_stack("paths.py:many", environments=1) for _ in range(2))
    with ThreadPoolExecutor() as threads:
        list(threads.map(neighbour_delays, (stack, control), (0.5, 0.5)))
        with SlowReader(stack) as slow:
            time.sleep(1.0)  # the buffers on the way are full
            lag = Lag()
            before = [process.memory(pid).resident for pid in (stack.gateway.pid, stack.environment)]
            beside, alone = threads.map(neighbour_delays, (stack, control), (seconds - 1.5, seconds - 1.5))
            after = [process.memory(pid).resident for pid in (stack.gateway.pid, stack.environment)]
            lag.stop()
            assert slow.is_reading, "the two were not side by side"
    wait_for(lambda: not stack.gauge("open_streams"))
    p90, p99 = ((percentile(beside, rank), percentile(alone, rank)) for rank in (90, 99))
    last = produced(stack.notes / "slow.produced")
    assert neighbour_delays(stack, 0.5)
    print(
        f"\nslow reader: took {slow.read / MEGABYTE:.1f} MB in {slow.seconds:.1f} s; producer ahead by"
        f" {max(slow.ahead) / MEGABYTE:.3f} MB at most, {statistics.median(slow.ahead) / MEGABYTE:.3f} MB usually\n"
        f"neighbour: p90 {p90[1] * 1e3:.2f} ms, p99 {p99[1] * 1e3:.2f} ms alone;"
        f" p90 {p90[0] * 1e3:.2f} ms, p99 {p99[0] * 1e3:.2f} ms beside it; the machine {lag.worst * 1e3:.0f} ms late\n"
        f"memory: gateway {before[0]:.1f} -> {after[0]:.1f} MiB, function {before[1]:.1f} -> {after[1]:.1f} MiB"
    )
    assert slow.read > 0.9 * RATE * slow.seconds, "it could not read at its own rate"
    assert max(slow.ahead) <= CREDIT + AHEAD
    assert all(late - early < GROWTH for early, late in zip(before, after, strict=True))
    assert p90[0] <= max(2 * p90[1], NOISE)
    assert p99[0] <= max(2 * p99[1], lag.allow(NOISE))
    assert produced(stack.notes / "slow.produced") == last, "it went on for nobody"
    assert not stack.mistakes()
