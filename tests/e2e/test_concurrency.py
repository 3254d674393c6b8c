"""Promise 4: 200 requests of different kinds at once against 4 environments; all right, none mixed up."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from tests.e2e.stack import Stack

REQUESTS = 200
ENVIRONMENTS = 4

Client = aiohttp.ClientSession


async def get(client: Client, key: str) -> None:
    async with client.get("/once", params={"key": key}) as response:
        request_id = response.headers["x-request-id"]
        assert response.status == 200 and await response.text() == f"{key} {request_id}"


async def upload(client: Client, key: str) -> None:
    chance = random.Random(key)
    sent = chance.randbytes(chance.randrange(300_000))
    async with client.put("/digest", data=sent) as response:
        seen = await response.json()
        assert seen["id"] == response.headers["x-request-id"]
        assert (seen["size"], seen["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())


async def echo(client: Client, key: str) -> None:
    chance = random.Random(key)
    pieces = [chance.randbytes(chance.randrange(1, 50_000)) for _ in range(10)]

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0.005)

    async with client.post("/echo", data=body()) as response:
        assert response.headers["x-id"] == response.headers["x-request-id"]
        assert await response.read() == b"".join(pieces)


async def slow_stream(client: Client, key: str) -> None:
    async with client.get("/ticks", params={"count": "8", "interval": "0.03"}) as response:
        lines = (await response.text()).splitlines()
        assert [line.split()[0] for line in lines] == [str(index) for index in range(8)]
        assert {line.split()[2] for line in lines} == {response.headers["x-request-id"]}


async def raises(client: Client, key: str) -> None:
    async with client.get("/broken") as response:
        document = await response.json()
        assert response.status == 502
        assert document["instance"] == f"urn:dialback:request:{response.headers['x-request-id']}"


async def breaks(client: Client, key: str) -> None:
    """The response begins with its own request's id, and then breaks."""
    async with client.get("/broken", params={"after": "2"}) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


KINDS: tuple[Callable[[Client, str], Awaitable[None]], ...] = (get, upload, echo, slow_stream, raises, breaks)


@pytest.mark.parametrize("handler", ["paths.py:one", "paths.py:many"])
async def test_200_requests_at_once_are_not_mixed_up(shared_stack: Callable[..., Stack], handler: str) -> None:
    stack = shared_stack(handler, environments=ENVIRONMENTS)
    noted = len(stack.executions("executions"))
    connector = aiohttp.TCPConnector(limit=0)
    began = time.monotonic()
    async with aiohttp.ClientSession(stack.url, connector=connector) as client:
        keys = [f"{handler}-{began}-{number}" for number in range(REQUESTS)]
        kinds = [KINDS[number % len(KINDS)] for number in range(REQUESTS)]
        results = await asyncio.gather(
            *(kind(client, key) for kind, key in zip(kinds, keys, strict=True)), return_exceptions=True
        )
    failures = Counter(f"{kind.__name__}: {result!r}" for kind, result in zip(kinds, results, strict=True) if result)
    assert not failures
    used = len(stack.environments)
    print(f"\n{handler}: {REQUESTS} requests in {time.monotonic() - began:.2f} s, {used} environments")
    executed = Counter(line.split()[0] for line in stack.executions("executions")[noted:])
    assert executed == Counter(key for key, kind in zip(keys, kinds, strict=True) if kind is get), "some ran twice"
    assert 1 <= used <= ENVIRONMENTS
    assert not stack.mistakes()
