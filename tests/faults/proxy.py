"""A TCP proxy that hurts what passes through it: one class per fault, each for one connection, drawn anew for the next.

It knows bytes and sockets only, so that it stands between any two parts of the stack. The side that dialled is the near
one, what it dialled the far one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

READ = 64 << 10
"""Bytes that a pump takes at once."""
LATE = 64
"""Pieces that a delay holds back at most."""
Side = Literal["near", "far"]


@dataclass(eq=False, slots=True)
class Connection:
    """One client's connection and the one behind it. Begins when both are open, ends when both pumps have."""

    near: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    fault: Fault
    """May be changed for one that delays nothing."""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: a black hole; nothing passes and nobody is told."""
    passed: dict[Side, int] = field(default_factory=lambda: {"near": 0, "far": 0})
    """Bytes that were passed on to each side."""
    is_over: bool = False

    def reset(self) -> None:
        """RST to both sides, with whatever was under way lost."""
        self._end()
        for _, writer in (self.near, self.far):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        """FIN to both sides."""
        self._end()
        for _, writer in (self.near, self.far):
            writer.close()

    def half_open(self, gone: Side) -> None:
        """One side sees a FIN; the other is told nothing, and hears nothing more."""
        self.flowing.clear()
        (self.near if gone == "near" else self.far)[1].close()

    def _end(self) -> None:
        self.is_over = True
        self.flowing.set()  # who waits shall see it


class Fault:
    """None: everything passes. What a fault does is in `before` (each piece) and `run` (beside the pumps)."""

    delay: float = 0.0
    """Seconds that each piece is late; the rate is not limited."""
    jitter: float = 0.0
    """Seconds more, at random; pieces keep their order."""

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        """What is passed on in place of `data`, after whatever wait."""
        return [data]

    async def run(self, connection: Connection) -> None:
        """Lives as long as the connection, and is cancelled with it."""


class Cut(Fault):
    """A reset after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def run(self, connection: Connection) -> None:
        await asyncio.sleep(self.seconds)
        connection.reset()


class Close(Cut):
    """An orderly close of both sides after `seconds`."""

    async def run(self, connection: Connection) -> None:
        await asyncio.sleep(self.seconds)
        connection.close()


class Truncate(Fault):
    """A close after so many bytes, both ways together: most likely inside a frame, or inside the upgrade."""

    def __init__(self, size: int) -> None:
        self.left = size

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        kept = data[: self.left]
        if len(kept) < len(data):
            asyncio.get_running_loop().call_soon(connection.close)
        self.left -= len(kept)
        return [kept]


class Stall(Fault):
    """After `seconds` a black hole for `length` seconds; then everything that waited comes after all."""

    def __init__(self, seconds: float, length: float) -> None:
        self.seconds = seconds
        self.length = length

    async def run(self, connection: Connection) -> None:
        await asyncio.sleep(self.seconds)
        connection.flowing.clear()
        await asyncio.sleep(self.length)
        connection.flowing.set()


class HalfOpen(Fault):
    """After `seconds` one side has gone and the other does not know, until what it sends is reset after `length`."""

    def __init__(self, seconds: float, length: float, gone: Side) -> None:
        self.seconds = seconds
        self.length = length
        self.gone: Side = gone

    async def run(self, connection: Connection) -> None:
        await asyncio.sleep(self.seconds)
        connection.half_open(self.gone)
        await asyncio.sleep(self.length)
        connection.reset()


class Delay(Fault):
    """Each piece is late."""

    def __init__(self, delay: float, jitter: float = 0.0) -> None:
        self.delay = delay
        self.jitter = jitter


class Slice(Fault):
    """Pieces of `size` bytes, each in a write of its own."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        return [data[at : at + self.size] for at in range(0, len(data), self.size)]


class Together(Fault):
    """Several at once, one of them after the other on each piece."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        self.delay = sum(fault.delay for fault in faults)
        self.jitter = sum(fault.jitter for fault in faults)

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        pieces = [data]
        for fault in self.faults:
            pieces = [part for piece in pieces for part in await fault.before(connection, piece)]
        return pieces

    async def run(self, connection: Connection) -> None:
        await asyncio.gather(*(fault.run(connection) for fault in self.faults))


class FaultProxy:
    """Begins with `start`, ends with `stop`. `draw` makes the fault of each new connection."""

    def __init__(self, target: tuple[str, int] | None = None, draw: Callable[[], Fault] = Fault) -> None:
        """`target`: may be set later, before the first connection."""
        self.target = target
        self.draw = draw
        self.port = 0
        self.accepted = 0
        self.connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; after `refuse` on the same port as before."""
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Close the listener: who connects is refused. What is open stays."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut_all(self) -> None:
        """Reset every connection now."""
        for connection in list(self.connections):
            connection.reset()

    async def stop(self) -> None:
        """Close the listener and reset what is open."""
        self.refuse()
        await asyncio.sleep(0.01)  # what the kernel has accepted is told of in the next turns
        self.cut_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.ensure_future(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self.target is not None
        try:
            far = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection((reader, writer), far, self.draw())
        connection.flowing.set()
        self.connections.add(connection)
        beside = asyncio.ensure_future(connection.fault.run(connection))
        for _ in range(2):  # what a fault does after 0 s it does before the first byte
            await asyncio.sleep(0)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(connection, connection.near[0], "far"))
                pumps.create_task(self._pump(connection, connection.far[0], "near"))
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            self.connections.discard(connection)
            connection.reset()
            await asyncio.gather(writer.wait_closed(), far[1].wait_closed(), return_exceptions=True)

    async def _pump(self, connection: Connection, reader: asyncio.StreamReader, to: Side) -> None:
        """Pass on what comes, and at last the FIN. An error at either side is one at the other."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(LATE)
        fault = connection.fault
        late = asyncio.ensure_future(self._send_late(connection, line, to)) if fault.delay + fault.jitter else None
        loop = asyncio.get_running_loop()
        due = 0.0
        try:
            while data := await reader.read(READ):
                await connection.flowing.wait()
                for piece in await connection.fault.before(connection, data):
                    if connection.is_over:
                        return
                    if late is None:
                        await self._send(connection, piece, to)
                    else:
                        due = max(due, loop.time() + fault.delay + random.random() * fault.jitter)
                        await line.put((due, piece))
            await connection.flowing.wait()
            if late is not None:
                await line.put((due, b""))
                await late
            elif not connection.is_over:
                await self._send(connection, b"", to)
        except OSError:
            connection.reset()
        finally:
            if late is not None:
                late.cancel()
                await asyncio.gather(late, return_exceptions=True)

    async def _send_late(self, connection: Connection, line: asyncio.Queue[tuple[float, bytes]], to: Side) -> None:
        """What comes after the end is thrown away, so that nobody waits for room."""
        loop = asyncio.get_running_loop()
        piece = b"something"
        while piece:
            due, piece = await line.get()
            await asyncio.sleep(0 if connection.is_over else due - loop.time())
            await connection.flowing.wait()
            try:
                if not connection.is_over:
                    await self._send(connection, piece, to)
            except OSError:
                connection.reset()

    @staticmethod
    async def _send(connection: Connection, piece: bytes, to: Side) -> None:
        """`piece`: empty for the FIN."""
        writer = (connection.near if to == "near" else connection.far)[1]
        if piece:
            connection.passed[to] += len(piece)
            writer.write(piece)
            await writer.drain()
        elif writer.can_write_eof():
            writer.write_eof()


@asynccontextmanager
async def fault_proxy(
    target: tuple[str, int] | None = None, draw: Callable[[], Fault] = Fault
) -> AsyncIterator[FaultProxy]:
    """A proxy for the length of a test."""
    proxy = FaultProxy(target, draw)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
