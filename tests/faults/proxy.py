"""A TCP proxy that hurts what passes through it: one class per fault, each for one connection, drawn anew for the next.

It knows bytes and sockets only, so that it stands between any two parts of the stack.
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

READ = 64 << 10  # bytes a pump takes at once


@dataclass(eq=False, slots=True)
class Connection:
    """One client's connection and the one behind it. Begins when both are open, ends when both pumps have."""

    near: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: a black hole; nothing passes and nobody is told."""
    passed: int = 0
    """Bytes, both ways together."""

    def writers(self) -> tuple[asyncio.StreamWriter, asyncio.StreamWriter]:
        return self.near[1], self.far[1]

    def reset(self) -> None:
        """RST to both sides, with whatever was under way lost."""
        for writer in self.writers():
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        """FIN to both sides."""
        for writer in self.writers():
            writer.close()

    def half_open(self) -> None:
        """The far side is told nothing and hears nothing more; the near one sees a FIN."""
        self.flowing.clear()
        self.near[1].close()


class Fault:
    """None: everything passes. What a fault does is in `before` (each piece) and `run` (beside the pumps)."""

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        """What is passed on in place of `data`, after whatever wait."""
        return [data]

    async def run(self, connection: Connection) -> None:
        """Lives as long as the connection, and is cancelled with it."""
        await asyncio.Event().wait()


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
    """A reset after so many bytes, most likely inside a frame."""

    def __init__(self, size: int) -> None:
        self.left = size

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        if self.left >= len(data):
            self.left -= len(data)
            return [data]
        kept, self.left = data[: self.left], 0
        asyncio.get_running_loop().call_soon(connection.reset)
        return [kept]


class Stall(Fault):
    """After `seconds` nothing passes for `length` seconds (None: ever), and then everything that waited."""

    def __init__(self, seconds: float, length: float | None) -> None:
        self.seconds = seconds
        self.length = length

    async def run(self, connection: Connection) -> None:
        await asyncio.sleep(self.seconds)
        connection.flowing.clear()
        if self.length is not None:
            await asyncio.sleep(self.length)
            connection.flowing.set()
        await asyncio.Event().wait()


class HalfOpen(Cut):
    """After `seconds` one side has gone and the other does not know."""

    async def run(self, connection: Connection) -> None:
        await asyncio.sleep(self.seconds)
        connection.half_open()
        await asyncio.Event().wait()


class Delay(Fault):
    """Each piece waits `seconds` and up to `jitter` more, in order; the rate is not limited."""

    def __init__(self, seconds: float, jitter: float = 0.0) -> None:
        self.seconds = seconds
        self.jitter = jitter


class Slice(Fault):
    """Pieces of 1 to `size` bytes, each in a write of its own."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def before(self, connection: Connection, data: bytes) -> list[bytes]:
        return [data[at : at + self.size] for at in range(0, len(data), self.size)]


class FaultProxy:
    """Begins with `start`, ends with `stop`. `draw` makes the fault of each new connection."""

    def __init__(self, target: tuple[str, int], draw: Callable[[], Fault] = Fault) -> None:
        self.target = target
        self.draw = draw
        self.port = 0
        self.accepted = 0
        self.connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and reset what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Reset every connection now."""
        for connection in list(self.connections):
            connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection((reader, writer), far)
        connection.flowing.set()
        self.connections.add(connection)
        fault = self.draw()
        beside = asyncio.ensure_future(fault.run(connection))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(connection, fault, connection.near[0], connection.far[1]))
                group.create_task(self._pump(connection, fault, connection.far[0], connection.near[1]))
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
            self.connections.discard(connection)
            connection.reset()

    async def _pump(
        self, connection: Connection, fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        delayed: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)
        sender = asyncio.ensure_future(self._send_delayed(delayed, writer)) if isinstance(fault, Delay) else None
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(READ):
                await connection.flowing.wait()
                for piece in await fault.before(connection, data):
                    connection.passed += len(piece)
                    if isinstance(fault, Delay):
                        await delayed.put((loop.time() + fault.seconds + random.random() * fault.jitter, piece))
                    else:
                        writer.write(piece)
                        await writer.drain()
            await connection.flowing.wait()
            if sender is not None:
                await delayed.put((loop.time(), b""))
                await sender
            if writer.can_write_eof():
                writer.write_eof()
        except (ConnectionError, OSError):
            connection.reset()
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    async def _send_delayed(self, delayed: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await delayed.get()
            if not data:
                return
            await asyncio.sleep(due - loop.time())
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def fault_proxy(target: tuple[str, int], draw: Callable[[], Fault] = Fault) -> AsyncIterator[FaultProxy]:
    """A proxy for the length of a test."""
    proxy = FaultProxy(target, draw)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
