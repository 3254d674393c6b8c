"""Sessions in an environment's memory, on the real stack with three environments and more: each finds its own again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable

import aiohttp
import pytest

from tests.e2e import process
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

HEADER = "mcp-session-id"
ENVIRONMENTS = 3


async def begin(client: aiohttp.ClientSession, wait: float) -> tuple[str, str]:
    """A session: its environment and its name."""
    async with client.get("/", params={"wait": str(wait)}) as response:
        assert response.status == 200
        environment, name = (await response.text()).split()
        return environment, name


async def go_on(client: aiohttp.ClientSession, name: str, wait: float = 0) -> tuple[str, int]:
    """One more request of it: where it was answered, and how many there were."""
    async with client.get("/", headers={HEADER: name}, params={"wait": str(wait)}) as response:
        assert response.status == 200, await response.text()
        environment, count = (await response.text()).split()
        return environment, int(count)


async def spread(client: aiohttp.ClientSession) -> dict[str, str]:
    """Sessions of three environments, by their names."""
    begun = await asyncio.gather(*(begin(client, 1.0) for _ in range(ENVIRONMENTS)))
    assert len({environment for environment, _ in begun}) == ENVIRONMENTS
    return {name: environment for environment, name in begun}


@pytest.fixture
def stateful(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("sessions.py:one", environments=5, serve={"affinity": f"header:{HEADER}"})


async def test_sessions_stay_with_their_environments_frozen_and_busy(stateful: Stack) -> None:
    """With the usual linger: an environment is frozen a tenth of a second after its last request, and thawed when it is
    one of its own that asks."""
    counted: Counter[str] = Counter()
    async with aiohttp.ClientSession(stateful.url, connector=aiohttp.TCPConnector(limit=0)) as client:
        sessions = await spread(client)
        for number in range(6):  # one after the other, each after all have been frozen
            await asyncio.to_thread(wait_for, lambda: stateful.gauge("leased_links") == 0)
            name = random.Random(number).choice(list(sessions))
            counted[name] += 1
            assert await go_on(client, name) == (sessions[name], counted[name])
        names = [name for name in sessions for _ in range(8)]
        answers = await asyncio.gather(*(go_on(client, name, 0.02) for name in names))
    for name, (environment, _) in zip(names, answers, strict=True):
        assert environment == sessions[name]
    for name in sessions:
        found = sorted(count for other, (_, count) in zip(names, answers, strict=True) if other == name)
        assert found == list(range(counted[name] + 1, counted[name] + 9)), "each of them was counted once"
    assert stateful.gauge("affinity_values") >= ENVIRONMENTS
    assert not stateful.mistakes()


async def test_without_affinity_sessions_live_by_luck(shared_stack: Callable[..., Stack]) -> None:
    """The control: what the test above would look like if nothing were done."""
    stack = shared_stack("sessions.py:one", environments=5)
    async with aiohttp.ClientSession(stack.url) as client:
        sessions = await spread(client)
        statuses = []
        for name in [*sessions] * 2:
            async with client.get("/", headers={HEADER: name}) as response:
                statuses.append(response.status)
    assert 404 in statuses


async def test_a_session_whose_environment_was_killed_is_answered_by_another(stateful: Stack) -> None:
    async with aiohttp.ClientSession(stateful.url) as client:
        environment, name = await begin(client, 0)
        await asyncio.to_thread(wait_for, lambda: process.state(int(environment)) == "T")
        os.kill(int(environment), signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: not process.state(int(environment)))
        async with client.get("/", headers={HEADER: name}) as response:
            assert response.status == 404, "the function's own answer, of an environment that does not know it"
        assert (await go_on(client, (await begin(client, 0))[1]))[1] == 1


async def test_a_cookie_takes_a_websocket_to_its_room(shared_stack: Callable[..., Stack]) -> None:
    """The cookie comes from a response; WebSockets and requests that bring it meet in one environment."""
    serve = {"affinity": "cookie:room", "linger": 5}
    stack = shared_stack("sessions.py:many", environments=5, serve=serve)
    async with aiohttp.ClientSession(stack.url, cookie_jar=aiohttp.DummyCookieJar()) as client:
        # Twelve at a time fill one environment of ten places, and begin another.
        rooms = {}
        for _ in range(3):
            asked = await asyncio.gather(*(client.get("/", params={"cookie": "1", "wait": "1"}) for _ in range(12)))
            for response in asked:
                environment, name = (await response.text()).split()
                assert response.cookies["room"].value == name
                rooms[name] = environment
        assert len(set(rooms.values())) >= 2
        for number, (name, environment) in enumerate(rooms.items()):
            cookie = {"cookie": f"theme=dark; room={name}"}
            async with (
                client.ws_connect("/", headers=cookie) as first,
                client.ws_connect("/", headers=cookie) as second,
            ):
                for count, ws in enumerate((first, second), start=1):
                    await ws.send_str("hello")
                    assert await ws.receive_str() == f"{environment} {count}", number
            async with client.get("/", headers=cookie) as response:
                assert (await response.text()).split() == [environment, "3"]
    assert not stack.mistakes()
