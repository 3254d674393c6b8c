"""MCP with sessions, as its clients had them before 2026: each stays in the environment that began it.

Three environments are alive, with a session in each; `affinity` takes every request to its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("mcp")

import httpx2
from mcp import Client, MCPError
from mcp_types import ResourceUpdatedNotification

from tests.apps.test_mcp import AT_ONCE, ENVIRONMENTS, FUNCTIONS, Waiting, answers, noted, text
from tests.e2e.lag import Lag
from tests.e2e.stack import Stack

PLACES = 8
"""Streams of one environment."""
INVOCATION = 20.0
"""Seconds that the shortest may last."""
AFFINITY = 'affinity = "header:mcp-session-id"\n'


def config(function_url: str) -> str:
    return f'[functions.mcp]\nurl = "{function_url}"\n[[routes]]\npath = "/"\nfunction = "mcp"\n'


@pytest.fixture(scope="module")
def stack(shared_stack: Callable[..., Stack]) -> Stack:
    name = "mcp_app.py:stateful"
    return shared_stack(name, root=FUNCTIONS, environments=ENVIRONMENTS, config=lambda url: config(url) + AFFINITY)


class Session:
    """A client, and what its server has told it beside its calls."""

    def __init__(self, url: str) -> None:
        self.heard: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        """Resources that have changed, and when that was heard."""
        self.client = Client(url, mode="legacy", message_handler=self._hear, elicitation_callback=answers)
        self.environment = ""

    async def _hear(self, message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self.heard.put_nowait((str(message.params.uri), time.time()))

    async def call(self, tool: str, **arguments: Any) -> str:
        return text(await self.client.call_tool(tool, arguments))


@asynccontextmanager
async def a_session_each(stack: Stack, number: int = ENVIRONMENTS) -> AsyncIterator[list[Session]]:
    """As many sessions, each in an environment of its own."""
    url = f"{stack.url}/mcp"
    sessions: list[Session] = []
    async with AsyncExitStack() as opened:
        other = await opened.enter_async_context(Client(url))  # whose calls know no session, and take what is free
        calls: list[Waiting] = []
        while True:
            session = Session(url)
            await opened.enter_async_context(session.client)
            session.environment = await session.call("environment")
            sessions.append(session)
            taken, where = {session.environment for session in sessions}, ""
            assert len(taken) == len(sessions)
            if len(sessions) == number:
                break
            while where in {"", *taken}:  # until its environment is full, and the next one is there
                calls.append(Waiting(other, f"fills-{len(calls)}"))
                where = await asyncio.wait_for(asyncio.shield(calls[-1].where), 30)
        await asyncio.gather(*(call.cancel() for call in calls))
        yield sessions


async def test_each_call_goes_to_its_sessions_environment(stack: Stack) -> None:
    async with a_session_each(stack) as sessions:
        for _ in range(5):
            places = await asyncio.gather(*(session.call("environment") for session in sessions))
            assert places == [session.environment for session in sessions]


async def test_sessions_fill_environments_and_leave_their_calls_places(stack: Stack) -> None:
    """No more than half of the places are taken by their GETs: another environment gets the next session."""
    async with AsyncExitStack() as opened:
        sessions = [Session(f"{stack.url}/mcp") for _ in range((ENVIRONMENTS - 1) * PLACES // 2 + 2)]
        for session in sessions:
            await opened.enter_async_context(session.client)
            while session.heard.empty():  # its GET may still be on its way
                await session.call("announce", times=1)
                await asyncio.sleep(0.05)
            session.environment = await session.call("environment")
        places = await asyncio.gather(*(session.call("environment") for session in sessions))
        assert places == [session.environment for session in sessions]
        assert max(Counter(places).values()) <= PLACES // 2 and len(set(places)) == ENVIRONMENTS


async def test_what_is_announced_reaches_its_session_alone(stack: Stack, lag: Lag) -> None:
    """By the stream that each client holds open with a GET."""
    async with a_session_each(stack) as sessions:
        for session in sessions:
            while session.heard.empty():  # its GET may still be on its way
                await session.call("announce", times=1)
                await asyncio.sleep(0.1)
            while not session.heard.empty():
                session.heard.get_nowait()
        for session in sessions:
            await session.call("announce", times=3)
            heard = [await asyncio.wait_for(session.heard.get(), 10) for _ in range(3)]
            assert [uri.split("/")[2] for uri, _ in heard] == ["0", "1", "2"]
            assert all(0 <= at - float(uri.split("/")[3]) < lag.allow(AT_ONCE) for uri, at in heard)
        assert all(session.heard.empty() for session in sessions)


async def test_a_tool_is_cancelled_by_a_notification(stack: Stack, lag: Lag) -> None:
    """Which is a request of its own, and has to find the environment where the tool runs."""
    async with a_session_each(stack) as sessions:
        calls = [Waiting(session.client, f"notified-{session.environment}") for session in sessions]
        places = await asyncio.wait_for(asyncio.gather(*(call.where for call in calls)), 30)
        assert list(places) == [session.environment for session in sessions]
        cancelled = [await call.cancel() for call in calls]
        await noted(stack, *calls)
        ended = [float(stack.executions(call.name)[0]) for call in calls]
        delays = sorted(end - at for end, at in zip(ended, cancelled, strict=True))
        assert delays[1] < lag.allow(0.1), delays
        assert await asyncio.gather(*(session.call("add", a=1, b=2) for session in sessions)) == ["3"] * len(sessions)


async def test_progress_and_a_question_while_a_tool_runs(stack: Stack, lag: Lag) -> None:
    async def count(session: Session) -> None:
        late: list[float] = []

        async def see(progress: float, total: float | None, message: str | None) -> None:
            late.append(time.time() - float(message or 0))

        arguments = {"limit": 4, "interval": 0.2}
        assert text(await session.client.call_tool("count", arguments, progress_callback=see)) == "4"
        assert len(late) == 4 and max(late) < lag.allow(AT_ONCE)

    async with a_session_each(stack) as sessions:
        await asyncio.gather(*(count(session) for session in sessions))
        # The server asks on the call's own stream; the client's answer is another request.
        assert await asyncio.gather(*(session.call("greet") for session in sessions)) == ["Hello Ada"] * len(sessions)


async def test_a_stream_that_ends_early_is_resumed_where_it_was(stack: Stack) -> None:
    """By a GET with Last-Event-ID, answered out of the environment's memory."""
    async with a_session_each(stack) as sessions:
        for session in sessions:
            seen: list[float] = []

            async def see(progress: float, total: float | None, message: str | None, seen: list[float] = seen) -> None:
                seen.append(progress)

            result = await session.client.call_tool("hang_up", {"limit": 5}, progress_callback=see)
            assert (text(result), seen) == ("5", [1, 2, 3, 4, 5])


async def test_a_session_that_is_deleted_is_known_nowhere(stack: Stack) -> None:
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    async with a_session_each(stack), httpx2.AsyncClient(base_url=stack.url, headers=headers) as http:
        info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        initialize = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}
        http.headers["mcp-session-id"] = (await http.post("/mcp", json=initialize)).headers["mcp-session-id"]
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await http.post("/mcp", json=ping)).status_code == 200
        assert (await http.delete("/mcp")).status_code == 200
        for _ in range(3):
            gone = await http.post("/mcp", json=ping)
            assert (gone.status_code, gone.json()["error"]["message"]) == (404, "Session not found")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_session_outlives_its_invocations(fresh_stack: Callable[..., Stack]) -> None:
    """At the end of each the GET is cut; the client opens another, for which the frozen environment is found."""
    stack = fresh_stack(
        "mcp_app.py:stateful",
        root=FUNCTIONS,
        environments=ENVIRONMENTS,
        timeout=INVOCATION,
        config=lambda url: config(url) + AFFINITY,
    )
    async with a_session_each(stack, 2) as sessions:
        await asyncio.sleep(INVOCATION + 1)  # those that hold the GETs have begun before
        for session in sessions:
            assert await session.call("environment") == session.environment
            while session.heard.empty():
                await session.call("announce", times=1)
                await asyncio.sleep(0.5)


@pytest.mark.slow
async def test_without_affinity_a_session_is_lost(fresh_stack: Callable[..., Stack]) -> None:
    """As soon as there is another environment, to which new streams go."""
    stack = fresh_stack("mcp_app.py:stateful", root=FUNCTIONS, environments=ENVIRONMENTS, config=config)
    async with a_session_each(stack, 2) as (first, second):
        assert await second.call("environment") == second.environment
        with pytest.raises(MCPError, match="Session"):
            for _ in range(5):
                await first.call("environment")
