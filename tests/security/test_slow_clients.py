"""Slow heads, slow bodies and slow readers, very many of each: honest clients keep their pace, and all of them end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from gateway import deadlines
from gateway.config import ClientConfig, TimeoutsConfig
from gateway.exchange import Exchange
from gateway.limits import HttpLimits
from gateway.terms import Terms
from protocol.frames import Code
from tests.gateway.environment_fake import Environment, Served
from tests.gateway.function_fake import FakePool, FakeStream, Front, eventually, listening
from tests.gateway.test_ingress_malformed import get
from tests.gateway.whole_gateway import url_of, whole
from tests.security.crowd import crowd as spawned
from tests.security.honest import honest_streams, paced

LIMITS = HttpLimits(request_head=3, body_rate=1000, linger=0.2, drain=0.2, flush=1, write_buffer=16 << 10)
TERMS = Terms(request_idle=3, response_idle=3, max_exchanges=10_000)
CLOSE = b"Connection: close\r\n"
PACE = 0.05  # seconds between two chunks of an honest stream
CHUNKS = 20
FACTOR = 10  # of the control's 99th percentile, which that among slow clients may be: all sides are in this process
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


def much_or_paced(stream: Served) -> None:
    """Through a whole gateway: more than anybody's buffers hold to who asks for much, a steady pace to the honest."""
    if stream.stopped is not None:
        stream.session.reset(stream.number, Code.CANCELLED)
        stream.environment.wake()
    elif stream.request.target == b"/much" and not stream.has_answered:
        stream.respond(bytes(320 << 10), end=False)
    elif stream.request.target == b"/":
        paced(stream)


async def through_a_whole_gateway(each: int, streams: int) -> None:
    """Beside a control in the same run: the gaps between chunks before they come, and among them."""
    kinds = (
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
        b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    url = url_of(Environment(much_or_paced, places=10_000))
    timeouts = TimeoutsConfig(request_idle=3, response_idle=3)
    async with whole(url, linger=5, timeouts=timeouts) as it, honest_streams(it, streams) as honest:
        port, before = int(it.gateway.url.rpartition(":")[2]), it.gateway._server.count
        control = await honest.p99(2)
        async with spawned(port, 3 * each, *kinds, dripping=2) as slow:
            coming = asyncio.ensure_future(slow.said("open"))
            storm = await honest.p99(2)
            assert await coming == 3 * each
            held = await honest.p99(2)
            async with asyncio.timeout(60):
                while it.gateway._server.count > before:  # noqa: ASYNC110 - nobody tells of connections that end
                    await asyncio.sleep(0.1)
            assert await slow.closed() == 3 * each
        async with asyncio.timeout(60):
            while it.link.open_streams > streams:  # noqa: ASYNC110 - the function has much to end
                await asyncio.sleep(0.1)
        measured = f"p99 of gaps: {control:.3f} s before, {storm:.3f} while they come, {held:.3f} among them"
    print(f"{each} of each: {measured}")
    assert max(storm, held) < FACTOR * control, measured


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A whole gateway with the limits of this file."""
    monkeypatch.setattr(ClientConfig, "limits", lambda self: LIMITS)
    yield


async def test_forty_of_each_through_a_whole_gateway(short: None) -> None:
    await through_a_whole_gateway(40, 20)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_thousand_of_each_through_a_whole_gateway(short: None) -> None:
    await through_a_whole_gateway(1000, 100)


@pytest.mark.slow
async def test_fifteen_hundred_of_each() -> None:
    await crowd(1500, 100)
