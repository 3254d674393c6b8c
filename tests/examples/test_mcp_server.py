"""The MCP server, as it is and with the one line changed that gives it sessions, in three environments each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import Client
from mcp_types import ResourceListChangedNotification

from tests.e2e.stack import Stack
from tests.examples.test_examples import EXAMPLES

ENVIRONMENTS = 3
PLACES = 10
"""Streams of one environment: `asgi_handler`'s own number."""
EXAMPLE = (EXAMPLES / "mcp_server.py").read_text()
AFFINITY = 'affinity = "header:mcp-session-id"\nlinger = 60'


@pytest.fixture(scope="module")
def stateless(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("mcp_server.py:handler", root=EXAMPLES, environments=ENVIRONMENTS)


@pytest.fixture(scope="module")
def stateful(shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Configured as the example says."""
    assert all(line in EXAMPLE for line in AFFINITY.splitlines())
    before, _, line = EXAMPLE.rpartition("\n\n\n")
    assert line.startswith("handler = ") and "stateless_http=True" in line
    root = tmp_path_factory.mktemp("stateful")
    line = line.replace("stateless_http=True", "stateless_http=False")
    (root / "mcp_server.py").write_text(f"{before}\n\n\n{line}")

    def config(url: str) -> str:
        return f'[functions.notes]\nurl = "{url}"\n{AFFINITY}\n[[routes]]\npath = "/"\nfunction = "notes"\n'

    return shared_stack("mcp_server.py:handler", root=root, environments=ENVIRONMENTS, config=config)


@asynccontextmanager
async def counting(client: Client, times: int) -> AsyncIterator[None]:
    """So many calls run, each in a place of its own."""

    async def call(began: asyncio.Event) -> None:
        async def see(progress: float, total: float | None, message: str | None) -> None:
            began.set()

        await client.call_tool("count", {"limit": 10_000}, progress_callback=see)

    events = [asyncio.Event() for _ in range(times)]
    calls = [asyncio.create_task(call(began)) for began in events]
    try:
        await asyncio.wait_for(asyncio.gather(*(began.wait() for began in events)), 60)
        yield
    finally:
        for one in calls:
            one.cancel()
        await asyncio.wait(calls)


def kept(result: Any) -> list[str]:
    assert not result.is_error, result
    return [str(content.text) for content in result.content]


async def test_any_environment_serves_any_client(stateless: Stack) -> None:
    async def talk(client: Client, text: str) -> None:
        seen: list[float] = []

        async def see(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        assert kept(await client.call_tool("count", {"limit": 3}, progress_callback=see)) == ["counted to 3"]
        assert seen == [1, 2, 3]
        assert kept(await client.call_tool("remember", {"text": text})) == [text]

    async with AsyncExitStack() as opened:
        url = f"{stateless.url}/mcp"
        modes = ("auto", "legacy", "auto", "legacy")
        clients = [await opened.enter_async_context(Client(url, mode=mode)) for mode in modes]
        # Two environments are full, and the third takes what comes.
        await opened.enter_async_context(counting(clients[0], (ENVIRONMENTS - 1) * PLACES + 1))
        assert len(stateless.environments) == ENVIRONMENTS
        await asyncio.gather(*(talk(client, str(number)) for number, client in enumerate(clients)))


async def test_a_session_remembers_in_its_environment(stateful: Stack) -> None:
    told = [asyncio.Event() for _ in range(ENVIRONMENTS)]

    def hear(number: int) -> Any:
        async def handler(message: Any) -> None:
            if isinstance(message, ResourceListChangedNotification):
                told[number].set()

        return handler

    async with AsyncExitStack() as opened:
        url = f"{stateful.url}/mcp"
        other = await opened.enter_async_context(Client(url))
        clients = []
        async with AsyncExitStack() as busy:
            for number in range(ENVIRONMENTS):
                if number:  # the last session's environment is filled, and another one is there
                    await busy.enter_async_context(counting(other, PLACES))
                client = Client(url, mode="legacy", message_handler=hear(number))
                clients.append(await opened.enter_async_context(client))
        for time in range(1, 4):
            texts = [f"{number} {time}" for number in range(ENVIRONMENTS)]
            calls = (client.call_tool("remember", {"text": text}) for client, text in zip(clients, texts, strict=True))
            for number, said in enumerate(await asyncio.gather(*calls)):
                assert kept(said) == [f"{number} {before}" for before in range(1, time + 1)]
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in told)), 10)
        assert len(stateful.environments) == ENVIRONMENTS
