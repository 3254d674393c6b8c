"""Very many connections from a process of their own, so that they take no descriptors and no time of the gateway's.

Run as a program: `crowd.py PORT NUMBER DRIPPING`, with what each of them sends on stdin, as hexadecimal lines by turns.
It says `open N` when they are, and at the end of stdin how many the gateway has closed by then: `closed N`. Those of
the first DRIPPING lines send a byte now and then; nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

DRIP = 0.5  # seconds between two bytes of a slow client
PAUSE = 0.1  # seconds after each batch: two thousand connections a second, as far as the gateway takes them
BATCH = 200  # connections begun before the next ones: the kernel's queue of a listener is bounded


class Crowd:
    """The process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def said(self, word: str) -> int:
        """The number behind its next word."""
        assert self._process.stdout is not None
        line = (await asyncio.wait_for(self._process.stdout.readline(), 60)).decode().split()
        assert line and line[0] == word, line
        return int(line[1])

    async def closed(self) -> int:
        """How many of its connections the gateway has closed by now; the others end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self.said("closed")


@asynccontextmanager
async def crowd(port: int, number: int, *sent: bytes, dripping: int = 0) -> AsyncIterator[Crowd]:
    """`number` connections, which come while the block runs; `dripping`: of how many kinds of `sent`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__), str(port), str(number), str(dripping)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(piece.hex().encode() + b"\n" for piece in sent) + b"go\n")
    try:
        yield Crowd(process)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


def _drip(connections: list[socket.socket]) -> None:
    """Until stdin ends."""
    while not select.select([sys.stdin], [], [], DRIP)[0]:
        for connection in connections:
            with contextlib.suppress(OSError):  # it has been ended
                connection.send(b"a")


def _main(port: int, number: int, dripping: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sent = [bytes.fromhex(line) for line in iter(sys.stdin.readline, "go\n")]
    connections: list[socket.socket] = []
    while len(connections) < number:
        batch = [socket.socket() for _ in range(min(BATCH, number - len(connections)))]
        for connection in batch:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))  # waits for the kernel alone
        for index, connection in enumerate(batch):
            with contextlib.suppress(OSError):
                connection.send(sent[index % len(sent)])
        connections += batch
        time.sleep(PAUSE)
    print("open", len(connections), flush=True)
    _drip([connection for at, connection in enumerate(connections) if at % BATCH % len(sent) < dripping])
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    print("closed", len(poll.poll(0)), flush=True)


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
