"""Honest streams beside an attack: a chunk each now and then through a whole gateway, and how evenly they come."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.gateway.environment_fake import LOOPBACK, Served
from tests.gateway.whole_gateway import Whole

PACE = 0.1  # seconds between two chunks of a stream
CHUNK = b"x" * 10


def paced(stream: Served) -> None:
    """A function's code: chunks at a steady pace, for as long as there is a stream."""
    if stream.has_answered:
        return
    stream.respond(end=False)
    loop = asyncio.get_running_loop()

    def send() -> None:
        if stream.stopped is None and not stream.session.is_ended:
            stream.send(CHUNK)
            loop.call_later(PACE, send)

    send()


class Honest:
    """Clients that read such streams; `gaps` has the seconds between two chunks, of all of them, as they come."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def p99(self, seconds: float) -> float:
        """Of the gaps of the coming `seconds`."""
        self.gaps.clear()
        await asyncio.sleep(seconds)
        for task in self._tasks:
            assert not task.done(), "a stream has ended"
        expected = len(self._tasks) * seconds / PACE
        assert len(self.gaps) > expected / 4, "the streams have lost their pace"
        return statistics.quantiles(self.gaps, n=100)[98]

    async def _read(self, port: int, begun: asyncio.Semaphore) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            begun.release()
            last = time.monotonic()
            while await reader.read(1 << 16):
                last, before = time.monotonic(), last
                self.gaps.append(last - before)
        finally:
            writer.transport.abort()


@asynccontextmanager
async def honest_streams(it: Whole, number: int) -> AsyncIterator[Honest]:
    """So many of them, for as long as the block lasts; all have begun."""
    honest, begun = Honest(), asyncio.Semaphore(0)
    port = int(it.gateway.url.rpartition(":")[2])
    gc.collect()
    gc.freeze()  # what pytest holds is no gateway's: a full collection of it stops everybody for 0.4 s
    try:
        for _ in range(number):  # one after the other, so that one environment serves them all
            honest._tasks.append(asyncio.create_task(honest._read(port, begun)))
            await asyncio.wait_for(begun.acquire(), 20)
        yield honest
    finally:
        for task in honest._tasks:
            task.cancel()
        await asyncio.gather(*honest._tasks, return_exceptions=True)
        gc.unfreeze()
