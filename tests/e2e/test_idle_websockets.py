"""Thousands of idle WebSockets through one gateway: what each costs it, and that all of them still talk."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.stack import Stack

WARM = 200
"""Opened first, so that what is measured is a further socket, and no module, arena or table."""
FIELDS = (
    "Host: chat.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: https://chat.example\r\nCookie: session=0123456789abc\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36\r\n"
    "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCache-Control: no-cache\r\nPragma: no-cache\r\n"
)
KIB_EACH = 14
"""KiB of resident memory that the gateway may need for one: 8 were measured."""


def resident(pid: int) -> int:
    """KiB, without what is shared with files."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


class Idle:
    """A client that is open and says nothing, until it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def __aenter__(self) -> Idle:
        self.writer.write(f"GET / HTTP/1.1\r\n{FIELDS}\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def echo(self) -> bytes:
        self.writer.write(b"\x81\x85\0\0\0\0hello")
        return await self.reader.readexactly(7)


async def open_more(stack: Stack, opened: AsyncExitStack, count: int) -> list[Idle]:
    async def one() -> Idle:
        return await opened.enter_async_context(Idle(*await asyncio.open_connection("127.0.0.1", stack.port)))

    clients: list[Idle] = []
    while len(clients) < count:
        clients += await asyncio.gather(*(one() for _ in range(min(50, count - len(clients)))))
    return clients


async def measure(stack: Stack, count: int) -> float:
    """KiB for each of `count` idle WebSockets."""
    async with AsyncExitStack() as opened:
        clients = await open_more(stack, opened, WARM)
        await asyncio.sleep(1)
        before = resident(stack.gateway.pid)
        clients += await open_more(stack, opened, count)
        await asyncio.sleep(1)
        each = (resident(stack.gateway.pid) - before) / count
        assert stack.gauge("open_streams") == WARM + count
        for start in range(0, len(clients), 200):
            said = await asyncio.gather(*(client.echo() for client in clients[start : start + 200]))
            assert set(said) == {b"\x81\x05hello"}
    return each


@pytest.fixture
def files() -> None:
    """A descriptor for each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def test_hundreds(files: None, fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("conversations.py:handler", environments=1)
    each = await measure(stack, 500)
    print(f"{each:.1f} KiB each")
    assert each < KIB_EACH


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_thousands_on_three_environments(files: None, fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("conversations.py:handler", environments=3)
    each = await measure(stack, 4500)
    print(f"{each:.1f} KiB each")
    assert each < KIB_EACH
    assert len(stack.environments) == 3
