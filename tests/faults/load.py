"""Bodies of random sizes, both ways, through a gateway that is being hurt; and that all of them came whole, once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp

from tests.e2e import process
from tests.e2e.stack import Stack

MIB = 1 << 20
PIECE = 64 << 10
BLOCK = random.Random(5).randbytes(MIB)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One request whose response ended well: bytes and SHA-256 as the client has seen them."""

    id: str
    sent: int
    sent_sha: str
    received: int
    received_sha: str
    seconds: float


@dataclass(slots=True)
class Load:
    """`streams` clients, each with one request after the other. Begins with `run`, ends with it."""

    stack: Stack
    seed: int
    streams: int = 32
    sizes: tuple[int, int] = (MIB, 64 * MIB)
    """Bytes of a body, the least and the most; small ones are as likely as large ones."""
    patience: float = 120.0
    """Seconds in which a request must end: a stream that takes longer is stuck."""
    done: list[Transfer] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Begin no request after `seconds`, and wait for the last. Raises whatever a client meets."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(self.patience)) as client:
            async with asyncio.TaskGroup() as clients:
                for number in range(self.streams):
                    clients.create_task(self._one_client(client, random.Random(self.seed + number), until))

    async def _one_client(self, client: aiohttp.ClientSession, chance: random.Random, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            kind = chance.choice(("download", "upload", "both"))
            sizes = [int(math.exp(chance.uniform(*map(math.log, self.sizes)))) for _ in range(2)]
            up, down = sizes[0] * (kind != "download"), sizes[1] * (kind != "upload")
            self.done.append(await self._transfer(client, up, down))

    async def _transfer(self, client: aiohttp.ClientSession, up: int, down: int) -> Transfer:
        loop = asyncio.get_running_loop()
        began = loop.time()
        sent, received = hashlib.sha256(), hashlib.sha256()
        size = 0

        async def body() -> AsyncIterator[bytes]:
            for at in range(0, up, PIECE):
                begin = (at * 31 + up) % (MIB - PIECE)
                piece = BLOCK[begin : begin + min(PIECE, up - at)]
                sent.update(piece)
                yield piece

        async with client.post(f"{self.stack.url}/?size={down}", data=body() if up else None) as response:
            assert response.status == 200, (response.status, await response.text())
            async for piece in response.content.iter_any():
                received.update(piece)
                size += len(piece)
            identity = response.headers["x-request-id"]
        return Transfer(identity, up, sent.hexdigest(), size, received.hexdigest(), loop.time() - began)

    def check(self) -> None:
        """Both ends agree on every byte, and no request was run twice, or for nobody."""
        runs = [line.split() for line in self.stack.executions("runs")]
        begun = Counter(words[1] for words in runs if words[0] == "begun")
        assert set(begun.values()) <= {1}, [found for found in begun.items() if found[1] > 1]
        ended = {words[1]: tuple(words[2:]) for words in runs if words[0] == "ended"}
        assert len(ended) == sum(words[0] == "ended" for words in runs)
        for transfer in self.done:
            seen = (str(transfer.sent), transfer.sent_sha, str(transfer.received), transfer.received_sha)
            assert ended[transfer.id] == seen, transfer
        assert set(begun) == set(ended) == {transfer.id for transfer in self.done}

    def __str__(self) -> str:
        size = sum(transfer.sent + transfer.received for transfer in self.done)
        slowest = max(transfer.seconds for transfer in self.done)
        return f"{len(self.done)} requests, {size / MIB:.0f} MiB, the slowest took {slowest:.1f} s"


@dataclass(frozen=True, slots=True)
class FunctionHeld:
    """What the environments of a stack hold, each by its process id."""

    tasks: dict[int, int]
    descriptors: dict[int, int]
    resident: dict[int, float]
    """MiB."""


async def function_held(stack: Stack, requests: int) -> FunctionHeld:
    """Ask all environments at once: `requests` more than all but one have places for."""
    async with aiohttp.ClientSession(stack.url, connector=aiohttp.TCPConnector(limit=0)) as client:

        async def ask() -> dict[str, int]:
            async with client.get("/state") as response:
                assert response.status == 200
                seen: dict[str, int] = json.loads(await response.read())
                return seen

        answers = await asyncio.gather(*(ask() for _ in range(requests)))
    tasks: dict[int, int] = {}
    for answer in answers:
        tasks[answer["pid"]] = min(answer["tasks"], tasks.get(answer["pid"], answer["tasks"]))
    pids = sorted(stack.environments)
    return FunctionHeld(
        tasks,
        {pid: process.descriptors(pid) for pid in pids},
        {pid: process.memory(pid).resident for pid in pids},
    )
