"""Very many connections from a process of their own, so that they take no descriptors and no time of the gateway's.

Run as a program: `crowd.py PORT NUMBER`, with what each of them sends on stdin, as hexadecimal lines by turns. It says
`open N` when they are, and at the end of stdin how many the gateway has closed by then: `closed N`.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
async def crowd(port: int, number: int, *sent: bytes) -> AsyncIterator[Crowd]:
    """`number` connections, which come while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, Path(__file__), str(port), str(number)),
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


def _main(port: int, number: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sent = [bytes.fromhex(line) for line in iter(sys.stdin.readline, "go\n")]
    connections: list[socket.socket] = []
    while len(connections) < number:
        batch = [socket.socket() for _ in range(min(BATCH, number - len(connections)))]
        for connection in batch:
            connection.connect(("127.0.0.1", port))  # waits for the kernel alone
        for index, connection in enumerate(batch):
            with contextlib.suppress(OSError):
                connection.send(sent[index % len(sent)])
        connections += batch
    print("open", len(connections), flush=True)
    sys.stdin.read()
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    print("closed", len(poll.poll(0)), flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
