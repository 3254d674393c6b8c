"""The client leaves in mid-stream: how soon the function's code is stopped, and what of the bill is saved."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.stack import Stack

FORMS = {"async handler": "asynchronous", "sync generator": "generator"}
"""What is measured, and its handler in `leaving.py`."""
LENGTH = 2.0
"""Seconds that the handler takes when nobody leaves."""
AFTER = 0.05
"""Seconds of the response that the client takes before it leaves."""
PATIENCE = 10.0
REPORT = re.compile(r"REPORT RequestId: (\S+) .*?Billed Duration: (\d+) ms")


@dataclass(frozen=True, slots=True)
class Cancels:
    """Of one form of handler; seconds from the client's leaving to the code's end, ms billed for each invocation."""

    form: str
    latencies: list[float]
    billed: list[int]
    billed_whole: list[int]
    """Of those whose client stayed."""

    def quantile(self, share: float) -> float:
        """In ms."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, round(share * len(ordered)))] * 1000

    @property
    def saved(self) -> int:
        """Billed ms of an invocation, by the medians."""
        return round(statistics.median(self.billed_whole) - statistics.median(self.billed))


async def measure(form: str, notes: Path, runs: int, whole: int) -> Cancels:
    """`runs` whose client leaves, and `whole` whose client stays; one after the other, each in its invocation."""
    stack = Stack(f"leaving.py:{FORMS[form]}", notes, environments=1, serve={"linger": 0})
    try:
        await _ask(stack, "warm", leaves=True)  # without the cold start
        await _billed(stack, 1)
        latencies = []
        for number in range(runs):
            left_at = await _ask(stack, f"left{number}", leaves=True)
            how, ended_at = await _ended(stack, f"left{number}")
            assert how in ("CancelledError", "GeneratorExit"), how
            latencies.append(ended_at - left_at)
            billed = await _billed(stack, number + 2)
        for number in range(whole):
            await _ask(stack, f"stayed{number}", leaves=False)
            assert (await _ended(stack, f"stayed{number}"))[0] == "returned"
            billed = await _billed(stack, runs + number + 2)
        return Cancels(form, latencies, billed[1 : runs + 1], billed[runs + 1 :])
    finally:
        stack.stop()


async def _ask(stack: Stack, key: str, *, leaves: bool) -> float:
    """When the client left, on the machine's monotonic clock."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    try:
        writer.write(f"GET /?key={key}&length={LENGTH} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"piece")
            if leaves:
                await asyncio.sleep(AFTER)
            else:
                assert (await reader.read()).endswith(b"0\r\n\r\n")
    finally:
        writer.close()
        left_at = time.monotonic()
        await writer.wait_closed()
    return left_at


async def _ended(stack: Stack, key: str) -> tuple[str, float]:
    async with asyncio.timeout(PATIENCE):
        for _ in iter(lambda: bool(stack.executions(key)), True):
            await asyncio.sleep(0.002)
    how, at = stack.executions(key)[0].split()
    return how, float(at)


async def _billed(stack: Stack, count: int) -> list[int]:
    """Of each invocation so far, `count` of them."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [int(match[2]) for line in list(stack.function.lines) if (match := REPORT.search(line))]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.002)
