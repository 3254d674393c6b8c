"""The MCP SDK's client before its server, over Streamable HTTP: without sessions, in any environment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated
from mcp_types import ElicitResult

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

FUNCTIONS = Path(__file__).parent / "functions"
ENVIRONMENTS = 3
PLACES = 4
AT_ONCE = 0.05
"""Seconds that a notification may be on its way, besides what the machine adds."""

ERAS = {"legacy": "2025-11-25", "auto": "2026-07-28"}
"""What each mode of the client agrees on: "legacy" by a handshake; since 2026 every request stands alone."""


@pytest.fixture(scope="module")
def stack(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("mcp_app.py:stateless", root=FUNCTIONS, environments=ENVIRONMENTS)


@pytest.fixture(params=ERAS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def text(result: Any) -> str:
    """What a tool has returned."""
    assert not result.is_error, result
    return str(result.content[0].text)


async def test_tools(stack: Stack, mode: str) -> None:
    async with Client(f"{stack.url}/mcp", mode=mode) as client:
        assert client.protocol_version == ERAS[mode]
        assert "add" in [tool.name for tool in (await client.list_tools()).tools]
        assert text(await client.call_tool("add", {"a": 2, "b": 3})) == "5"
        missing = await client.call_tool("add", {"a": "x"})
        assert missing.is_error


class Waiting:
    """A call of the tool that waits until it is broken off; `where` it runs."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self.where: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.call = asyncio.create_task(client.call_tool("wait", {"name": name}, progress_callback=self._progress))

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.where.set_result(message or "")

    async def cancel(self) -> float:
        """When it was, on the clock that all processes share."""
        at = time.time()
        self.call.cancel()
        await asyncio.wait([self.call])
        return at


async def noted(stack: Stack, *calls: Waiting) -> None:
    """Until the function has noted that they were broken off."""
    await asyncio.to_thread(wait_for, lambda: all(stack.executions(call.name) for call in calls))


async def test_clients_spread_over_all_environments(stack: Stack, mode: str) -> None:
    async with AsyncExitStack() as opened:
        url = f"{stack.url}/mcp"
        clients = [await opened.enter_async_context(Client(url, mode=mode)) for _ in range(ENVIRONMENTS * PLACES)]
        calls = [Waiting(client, f"spread-{mode}-{number}") for number, client in enumerate(clients)]
        places = await asyncio.wait_for(asyncio.gather(*(call.where for call in calls)), 30)
        assert len(set(places)) == ENVIRONMENTS
        await asyncio.gather(*(call.cancel() for call in calls))
    await noted(stack, *calls)  # whoever left has ended what it ran


async def test_a_tool_is_cancelled(stack: Stack, lag: Lag) -> None:
    """In 2026's protocol by closing the response, which the function is told."""
    delays = []
    async with Client(f"{stack.url}/mcp") as client:
        for number in range(3):
            call = Waiting(client, f"cancelled-{number}")
            await asyncio.wait_for(call.where, 30)
            at = await call.cancel()
            await noted(stack, call)
            delays.append(float(stack.executions(call.name)[0]) - at)
        assert text(await client.call_tool("add", {"a": 1, "b": 1})) == "2"
    assert sorted(delays)[1] < lag.allow(0.1), delays


async def test_before_2026_a_cancel_finds_no_tool_without_sessions(stack: Stack) -> None:
    """It is a message of its own, which belongs to nothing; the tool ends with its client."""
    async with Client(f"{stack.url}/mcp", mode="legacy") as client:
        call = Waiting(client, "not-found")
        await asyncio.wait_for(call.where, 30)
        await call.cancel()
        await client.call_tool("add", {"a": 1, "b": 1})
        await asyncio.sleep(0.3)
        assert not stack.executions(call.name)
    await noted(stack, call)


def test_the_servers_default_host_is_its_own_machine_alone(stack: Stack) -> None:
    for host, status in (("localhost:80", 406), ("gateway.example.com", 421)):
        with stack.connect() as connection:
            headers = (f"Host: {host}", "Content-Type: application/json")
            connection.request("POST", "/mcp", *headers, body=b"{}", host=False)
            assert connection.response().status == status


async def test_progress_comes_while_the_tool_runs(stack: Stack, mode: str, lag: Lag) -> None:
    seen: list[tuple[float, float]] = []

    async def see(progress: float, total: float | None, message: str | None) -> None:
        assert total == 4
        seen.append((progress, time.time() - float(message or 0)))

    async with Client(f"{stack.url}/mcp", mode=mode) as client:
        arguments = {"limit": 4, "interval": 0.2}
        assert text(await client.call_tool("count", arguments, progress_callback=see)) == "4"
    assert [number for number, _ in seen] == [1, 2, 3, 4]
    assert max(late for _, late in seen) < lag.allow(AT_ONCE)


async def answers(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"name": "Ada"})


async def test_a_question_to_the_client_is_continued_in_any_environment(stack: Stack) -> None:
    url = f"{stack.url}/mcp"
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(Client(url, elicitation_callback=answers))
            for _ in range(ENVIRONMENTS * PLACES)
        ]
        for _ in range(3):
            greetings = await asyncio.gather(*(client.call_tool("greet") for client in clients))
            assert {text(greeting) for greeting in greetings} == {"Hello Ada"}


async def test_who_listens_hears_what_its_environment_publishes(shared_stack: Callable[..., Stack]) -> None:
    """Since 2026 a client's listening and its calls have nothing in common; here a header of its own has them meet."""

    def config(url: str) -> str:
        return f'[functions.mcp]\nurl = "{url}"\naffinity = "header:x-team"\n[[routes]]\npath = "/"\nfunction = "mcp"\n'

    stack = shared_stack("mcp_app.py:stateless", root=FUNCTIONS, environments=ENVIRONMENTS, config=config)
    url = f"{stack.url}/mcp"
    async with AsyncExitStack() as opened:
        subscriptions, callers, places = [], [], set()
        for team in ("one", "two"):
            http = await opened.enter_async_context(httpx2.AsyncClient(headers={"x-team": team}, timeout=60))
            client = await opened.enter_async_context(Client(streamable_http_client(url, http_client=http)))
            listening = client.listen(resource_subscriptions=["notes://one", "notes://two"])
            subscriptions.append(await opened.enter_async_context(listening))
            callers.append(client)
            if team == "one":  # its environment is filled, and the other team gets another
                other = await opened.enter_async_context(Client(url))
                calls = [Waiting(other, f"team-{number}") for number in range(PLACES)]
                await asyncio.wait_for(asyncio.gather(*(call.where for call in calls)), 30)
        await asyncio.gather(*(call.cancel() for call in calls))
        for uri, client, subscription in zip(("notes://one", "notes://two"), callers, subscriptions, strict=True):
            places.add(text(await client.call_tool("publish", {"uri": uri})))
            # The first that it hears: what the other team has published before reaches it not.
            assert await asyncio.wait_for(anext(subscription), 10) == ResourceUpdated(uri=uri)
        assert len(places) == 2
