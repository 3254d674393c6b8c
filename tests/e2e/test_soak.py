"""Promise 8: a minute of everything at once under `dialback dev`, and nothing has grown: tasks, descriptors, memory."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.e2e import process
from tests.e2e.command import Command
from tests.e2e.held import PROBED, Held, assert_flat, held
from tests.e2e.stack import HANDLERS, free_port

CLIENTS = 12
WARM_UP = 1.5
"""Seconds of the same load before the first look: what grows only once has then grown."""
QUIET = 0.5
"""Seconds without a request before each look, longer than `linger`."""
MINUTE = [pytest.mark.soak, pytest.mark.timeout(240)]
LOADS = [
    pytest.param("paths.py:many", 3.0, id="many-3s"),
    pytest.param("paths.py:many", 60.0, id="many-60s", marks=MINUTE),
    pytest.param("paths.py:one", 60.0, id="one-60s", marks=MINUTE),
]


class Watched:
    """A `dialback dev` that can be looked into."""

    def __init__(self, handler: str, folder: Path) -> None:
        self.port = free_port()
        self._file = folder / "probe"
        self.command = Command(
            *("dev", handler, "--port", str(self.port), "--environments", "1", "--no-reload"),
            cwd=HANDLERS,
            environment={"E2E_PROBE": str(self._file), "E2E_NOTES": str(folder)},
            program=PROBED,
        )
        self.url = self.command.ready()

    async def gateway(self) -> Held:
        """Gateway and local Lambda, which are one process here."""
        return await asyncio.to_thread(held, self.command, self._file)

    async def function(self, client: aiohttp.ClientSession) -> Held:
        """The only environment, as it sees itself."""
        async with client.get("/state") as response:
            seen = await response.json()
        return Held(seen["tasks"], seen["descriptors"], process.memory(seen["pid"]).resident, seen["objects"])


@contextmanager
def watched(handler: str, folder: Path) -> Iterator[Watched]:
    dev = Watched(handler, folder)
    try:
        yield dev
    finally:
        code = dev.command.stop()
    assert code == 0, dev.command.output[-3000:]


async def one_client(client: aiohttp.ClientSession, number: int, until: float, done: Counter[str]) -> None:
    """Everything that clients do, one after the other, good and bad."""
    chance = random.Random(number)
    while time.monotonic() < until:
        kind = chance.choice(("hello", "upload", "download", "stream", "broken", "cut", "leaves", "early"))
        done[kind] += 1
        if kind == "hello":
            async with client.get("/hello") as response:
                assert response.status == 200 and await response.read()
        elif kind == "upload":
            size = chance.randrange(200_000)
            async with client.post("/digest", data=bytes(size)) as response:
                assert (await response.json())["size"] == size
        elif kind == "download":
            async with client.get("/produce?size=300000") as response:
                assert len(await response.read()) == 300_000
        elif kind == "stream":
            async with client.get("/ticks?count=5&interval=0.002") as response:
                assert (await response.read()).count(b"\n") == 5
        elif kind == "broken":
            async with client.get("/broken") as response:
                assert response.status == 502
        elif kind == "cut":
            with pytest.raises(aiohttp.ClientPayloadError):
                async with client.get("/produce?size=200000&fail=1") as response:
                    await response.read()
        elif kind == "leaves":
            async with client.get("/produce?size=10000000") as response:
                await response.content.readany()
                response.close()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), client.get("/stuck"):
                    pass


async def load(dev: Watched, seconds: float) -> Counter[str]:
    done: Counter[str] = Counter()
    until = time.monotonic() + seconds
    async with aiohttp.ClientSession(dev.url, connector=aiohttp.TCPConnector(limit=0)) as client:
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(one_client(client, number, until, done))
    return done


@pytest.mark.parametrize(("handler", "seconds"), LOADS)
async def test_nothing_grows_under_load(tmp_path: Path, handler: str, seconds: float) -> None:
    with watched(handler, tmp_path) as dev:
        await load(dev, WARM_UP)
        looks = []
        for duration in (0.0, seconds):
            done = await load(dev, duration)
            async with aiohttp.ClientSession(dev.url) as client:
                function = await dev.function(client)
            await asyncio.sleep(QUIET)
            assert process.state(dev.command.environments()[0]) == "T", "the environment did not park: a stream is left"
            looks.append((await dev.gateway(), function))
        (gateway, function), (gateway_after, function_after) = looks
        print(f"\n{handler}: {done.total()} requests in {seconds} s: {dict(done)}")
        assert done.total() > 10 * seconds and len(done) == 8
        assert_flat("gateway ", gateway, gateway_after)
        assert_flat("function", function, function_after)


@pytest.mark.soak
@pytest.mark.timeout(240)
async def test_nothing_grows_under_wrk(tmp_path: Path) -> None:
    if not shutil.which("wrk"):
        pytest.skip("wrk is not installed; the load of the other tests is aiohttp's")
    with watched("paths.py:many", tmp_path) as dev:
        looks = []
        for duration in ("5s", "60s"):
            command = ["wrk", "-t1", "-c32", f"-d{duration}", f"{dev.url}/hello"]
            wrk = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
            await asyncio.sleep(QUIET)
            looks.append(await dev.gateway())
        print(wrk.stdout)
        assert "Non-2xx" not in wrk.stdout and "Socket errors" not in wrk.stdout
        assert_flat("gateway ", *looks)
