"""A long way between two processes: `python -m benchmarks.delay_line PORT TARGET_PORT ROUND_TRIP`.

Passes bytes on half a round trip (in seconds) after they came, each way, and lets a new connection's first bytes wait
a whole one more, as TCP's handshake makes them; of any rate, up to `IN_FLIGHT`. SIGUSR1 cuts every connection.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final, cast

import uvloop

IN_FLIGHT: Final = 32 << 20  # bytes, above which the sender is held back: no window of ours is as large


class End(asyncio.Protocol):
    """One side of a connection; what it reads goes to the other side, later."""

    def __init__(self, line: DelayLine, other: End | None = None) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.other = other
        self.early: list[bytes] = []  # what was due before the way beyond was open
        self._not_before = 0.0
        self._in_flight = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._line.ends.add(self)
        if self.other is None:  # it dials: the way beyond is dialled as well, and its handshake is waited for
            self._not_before = self._loop.time() + self._line.round_trip
            self._line.dial(End(self._line, self))
        else:
            self.other.other = self
            self.transport.writelines(self.other.early)
            self.other.early.clear()

    def data_received(self, data: bytes) -> None:
        self._in_flight += len(data)
        if self._in_flight > IN_FLIGHT and self.transport is not None:
            self.transport.pause_reading()
        due = max(self._loop.time(), self._not_before) + self._line.round_trip / 2
        self._loop.call_at(due, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if self._in_flight > IN_FLIGHT >= self._in_flight - len(data) and self.transport is not None:
            self.transport.resume_reading()
        self._in_flight -= len(data)
        if self.other is None:
            self.early.append(data)
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._line.ends.discard(self)
        self.transport = None
        if self.other is not None:
            self._loop.call_later(self._line.round_trip / 2, self.other.close)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class DelayLine:
    """All connections of one way."""

    def __init__(self, target: int, round_trip: float) -> None:
        self.round_trip = round_trip
        self.ends: set[End] = set()
        self._target = target
        self._dials: set[asyncio.Task[object]] = set()

    def dial(self, end: End) -> None:
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(loop.create_connection(lambda: end, "127.0.0.1", self._target))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def cut(self) -> None:
        for end in list(self.ends):
            if end.transport is not None:
                end.transport.abort()


async def serve(port: int, target: int, round_trip: float) -> None:
    line = DelayLine(target, round_trip)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: End(line), "127.0.0.1", port)
    loop.add_signal_handler(signal.SIGUSR1, line.cut)
    print("Ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
