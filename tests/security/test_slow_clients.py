"""Slow heads, slow bodies and slow readers, very many of each: honest clients keep their pace, and all of them end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from gateway import deadlines
from gateway.exchange import Exchange
from gateway.limits import HttpLimits
from gateway.terms import Terms
from tests.gateway.function_fake import FakePool, FakeStream, Front, eventually, listening
from tests.gateway.test_ingress_malformed import get

LIMITS = HttpLimits(request_head=3, body_rate=1000, linger=0.2, drain=0.2, flush=1, write_buffer=16 << 10)
TERMS = Terms(request_idle=3, response_idle=3, max_exchanges=10_000)
CLOSE = b"Connection: close\r\n"
PACE = 0.05  # seconds between two chunks of an honest stream
CHUNKS = 20
LATEST = 0.4  # seconds after its time that a chunk may come, on a busy machine


def function(exchange: Exchange, stream: FakeStream) -> None:
    """Sends much at once to who asks for much, at a steady pace to who asks for a stream."""
    if exchange.head.path == b"/much":
        exchange.response(200, ())
        exchange.data(bytes(320 << 10))
    elif exchange.head.path == b"/stream":
        exchange.response(200, ())
        _send(exchange, CHUNKS)


def _send(exchange: Exchange, left: int) -> None:
    exchange.data(b"x" * 10, end=left == 1)
    if left > 1:
        asyncio.get_running_loop().call_later(PACE, _send, exchange, left - 1)


@pytest.fixture(autouse=True)
def rate_over_two_seconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Else each run took ten."""
    monkeypatch.setattr(deadlines, "RATE_SPAN", 2.0)
    yield


async def slow_client(front: Front, kind: str) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    if kind == "reader":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", front.port))
    start = {
        "head": b"GET / HTTP/1.1\r\nHost: x\r\n",
        "body": get(b"POST /body HTTP/1.1", b"Content-Length: 100000\r\n"),
        "reader": get(b"GET /much HTTP/1.1"),
    }[kind]
    await loop.sock_sendall(connection, start)
    return connection


async def drip(connections: list[socket.socket]) -> None:
    """A byte from each now and then: enough to be alive, and no more."""
    while True:
        for connection in connections:
            try:
                connection.send(b"a")
            except OSError:
                pass  # it has been ended
        await asyncio.sleep(0.5)


async def lateness(front: Front) -> float:
    """Of the latest chunk of an honest stream, in seconds."""
    client = await front.connect()
    front.clients.remove(client)
    client.send(get(b"GET /stream HTTP/1.1", CLOSE))
    await client.head()
    began, worst = time.monotonic(), 0.0
    for number in range(CHUNKS):
        await client.reader.readexactly(len(b"a\r\nxxxxxxxxxx\r\n"))
        worst = max(worst, time.monotonic() - began - number * PACE)
    await client.close()
    return worst


async def crowd(each: int, honest: int) -> None:
    async with listening(FakePool(function, TERMS), limits=LIMITS) as front:
        slow: list[socket.socket] = []
        dripping: asyncio.Task[None] | None = None
        try:
            for kind in ("head", "body", "reader"):
                for start in range(0, each, 50):
                    batch = (slow_client(front, kind) for _ in range(min(50, each - start)))
                    slow += await asyncio.gather(*batch)
            dripping = asyncio.ensure_future(drip(slow[: 2 * each]))
            worst = max(await asyncio.gather(*(lateness(front) for _ in range(honest))))
            assert worst < LATEST
            dripping.cancel()
            async with asyncio.timeout(30):
                for _ in range(2 * each + honest):  # heads never became exchanges
                    exchange = await front.ended.get()
                    path = exchange.head.path.decode()
                    assert exchange.state == {"/stream": "complete", "/body": "timed_out", "/much": "cancelled"}[path]
            await eventually(lambda: not front.server.connections)
        finally:
            if dripping is not None:
                dripping.cancel()
                await asyncio.gather(dripping, return_exceptions=True)
            for connection in slow:
                connection.close()
    assert front.ingress.admission.total == 0


async def test_fifty_of_each() -> None:
    await crowd(50, 10)


@pytest.mark.slow
async def test_fifteen_hundred_of_each() -> None:
    await crowd(1500, 100)
