"""Socket.IO: its Python client before its ASGI server, over WebSocket and over long polling, in three environments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("socketio")

import socketio

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

FUNCTIONS = Path(__file__).parent / "functions"
ENVIRONMENTS = 3
AT_ONCE = 0.05
AFFINITY = 'affinity = "cookie:io"\n'
WEBSOCKET = ["websocket"]
POLLING = ["polling"]
SLOW_POLLING = pytest.param(POLLING, marks=pytest.mark.slow)
BOTH = ["polling", "websocket"]
"""The client's own way: it polls first, and changes to a WebSocket."""


def config(function_url: str) -> str:
    return f'[functions.chat]\nurl = "{function_url}"\n[[routes]]\npath = "/"\nfunction = "chat"\n'


@pytest.fixture(scope="module")
def stack(shared_stack: Callable[..., Stack]) -> Stack:
    name = "socketio_app.py:handler"
    return shared_stack(name, root=FUNCTIONS, environments=ENVIRONMENTS, config=lambda url: config(url) + AFFINITY)


class Clients:
    """All are closed at once: one that polls waits for its last poll, for as long as two pings."""

    def __init__(self) -> None:
        self._all: list[Any] = []

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(client.disconnect() for client in self._all))

    async def connect(self, stack: Stack, transports: list[str]) -> Any:
        """By name: aiohttp keeps no cookies of a host that is an address."""
        client = socketio.AsyncClient(reconnection=False)
        await client.connect(f"http://localhost:{stack.port}", transports=transports, wait_timeout=30)
        self._all.append(client)
        return client


@asynccontextmanager
async def one_in_each(stack: Stack, transports: list[str], number: int = ENVIRONMENTS) -> AsyncIterator[dict[int, Any]]:
    """Clients by their environments."""
    clients: dict[int, Any] = {}
    async with Clients() as opened:
        async with Clients() as others:
            while len(clients) < number:
                client = await opened.connect(stack, transports)
                clients[await client.call("environment", timeout=30)] = client
                while len(clients) < number:  # until its environment is full, and there is another one
                    other = await others.connect(stack, WEBSOCKET)
                    if await other.call("environment", timeout=30) not in clients:
                        break
        yield clients


@pytest.mark.parametrize("transports", [WEBSOCKET, SLOW_POLLING, BOTH], ids=["websocket", "polling", "both"])
async def test_events_both_ways(stack: Stack, transports: list[str], lag: Lag) -> None:
    late: list[float] = []
    done = asyncio.Event()
    async with Clients() as opened:
        client = await opened.connect(stack, transports)

        @client.event
        async def tick(number: int, made: float) -> None:
            late.append(time.time() - made)
            if number == 4:
                done.set()

        assert await client.call("echo", {"a": [1, "ü"], "b": b"\0\xff"}) == {"a": [1, "ü"], "b": b"\0\xff"}
        big = b"x" * 300_000
        assert await client.call("echo", big) == big
        await client.emit("ticks", 5)
        await asyncio.wait_for(done.wait(), 10)
        # A poll that is answered has to be made again: an event may miss one.
        assert sorted(late)[2] < lag.allow(AT_ONCE), late
        if transports == BOTH:
            assert client.transport() == "websocket"


@pytest.mark.parametrize("transports", [WEBSOCKET, SLOW_POLLING, BOTH], ids=["websocket", "polling", "both"])
async def test_each_client_stays_in_its_environment(stack: Stack, transports: list[str]) -> None:
    async with one_in_each(stack, transports) as clients:
        assert len(clients) == ENVIRONMENTS
        for _ in range(5):
            places = await asyncio.gather(*(client.call("environment") for client in clients.values()))
            assert places == list(clients)


async def test_a_websocket_alone_needs_no_affinity(shared_stack: Callable[..., Stack]) -> None:
    stack = shared_stack("socketio_app.py:handler", root=FUNCTIONS, environments=ENVIRONMENTS)
    async with one_in_each(stack, WEBSOCKET) as clients:
        for _ in range(5):
            places = await asyncio.gather(*(client.call("environment") for client in clients.values()))
            assert places == list(clients)


@pytest.mark.slow
async def test_long_polling_is_lost_without_affinity(fresh_stack: Callable[..., Stack]) -> None:
    """As soon as there is another environment: its next request goes there, where no such session is known."""
    stack = fresh_stack("socketio_app.py:handler", root=FUNCTIONS, environments=ENVIRONMENTS)
    async with Clients() as opened:
        client = await opened.connect(stack, POLLING)
        async with one_in_each(stack, WEBSOCKET, 2):
            with pytest.raises(socketio.exceptions.SocketIOError):
                for _ in range(10):
                    await client.call("environment", timeout=2)
        assert not client.connected


async def test_a_room_is_of_one_environment(stack: Stack) -> None:
    """Who shares it hears what is said there; others need a message queue between the environments."""
    heard: list[tuple[int, str]] = []
    async with one_in_each(stack, WEBSOCKET, 2) as clients:
        for number, client in enumerate(clients.values()):

            async def said(text: str, number: int = number) -> None:
                heard.append((number, text))

            client.on("said", said)
            await client.call("enter", "room")
        for number, client in enumerate(clients.values()):
            await client.call("say", ("room", f"from {number}"))
        await asyncio.sleep(0.5)
    assert sorted(heard) == [(0, "from 0"), (1, "from 1")]


@pytest.mark.parametrize("transports", [WEBSOCKET, SLOW_POLLING], ids=["websocket", "polling"])
async def test_the_server_hears_who_leaves(stack: Stack, transports: list[str]) -> None:
    async with Clients() as opened:
        client = await opened.connect(stack, transports)
        name = f"left-{client.get_sid()}"
    await asyncio.to_thread(wait_for, lambda: stack.executions(name))
