"""The room does what its first line says: one for each environment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import aiohttp

from tests.e2e.stack import Stack
from tests.examples.test_examples import EXAMPLES

PLACES = 50
VISITORS = 2 * PLACES + 10


class Visitor:
    """One of them, and all that it has heard."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.heard: list[str] = []

    async def until(self, text: str) -> None:
        while not self.heard or text not in self.heard[-1]:
            self.heard.append(await self.socket.receive_str(timeout=20))


async def test_a_room_for_each_of_three_environments(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("websocket_room.py:handler", root=EXAMPLES, environments=3)
    async with AsyncExitStack() as opened:
        session = await opened.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        visitors: list[Visitor] = []
        for number in range(VISITORS):
            url = f"http://{stack.authority}/?name=v{number}"
            visitor = Visitor(await opened.enter_async_context(session.ws_connect(url)))
            await visitor.until(f"v{number} is here")
            visitors.append(visitor)
        assert len(stack.environments) == 3
        for number, visitor in enumerate(visitors):
            await visitor.socket.send_str(f"hello from {number}")
            await visitor.until(f"v{number}: hello from {number}")
        await visitors[0].socket.close()
        rooms = Counter[frozenset[str]]()
        await asyncio.sleep(1)
        left = 0
        for visitor in visitors[1:]:
            while True:
                try:
                    visitor.heard.append(await visitor.socket.receive_str(timeout=0.01))
                except TimeoutError:
                    break
            rooms[frozenset(line for line in visitor.heard if "hello" in line)] += 1
            left += "v0 has left" in visitor.heard
    assert sum(rooms.values()) == VISITORS - 1
    assert len(rooms) == 3, "who shares an environment has heard the same, and nothing of the others"
    assert not frozenset.intersection(*rooms)
    assert sorted(len(room) for room in rooms)[-1] == PLACES
    assert left == len(next(room for room in rooms if "v0: hello from 0" in room)) - 1
