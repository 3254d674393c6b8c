"""Broken requests, thousands, from clients that come and go: an answer or an end for each, and nothing left of any."""

from __future__ import annotations

import asyncio
import logging
import random

import pytest

from gateway.exchange import Exchange
from gateway.limits import HttpLimits
from protocol.frames import Code
from tests.gateway.function_fake import FakePool, FakeStream, Front, answer, listening
from tests.gateway.test_ingress_malformed import REFUSED, TAKEN
from tests.security.recorded import cases

LIMITS = HttpLimits(linger=0.005, drain=0.005, keep_alive=0.05)
SEEDS = [request for request, _ in REFUSED.values() if len(request) < 2000]
SEEDS += [request for request in TAKEN.values() if len(request) < 2000]
SEEDS += [case.sent for case in cases() if len(case.sent) < 2000]
PIECES = [b"\r\n", b":", b" ", b"\0", b"\r", b"chunked", b"0\r\n\r\n"]
AT_ONCE = 30
PATIENCE = 5.0  # seconds for an answer or an end


def mutated(dice: random.Random) -> bytes:
    """One to three requests of the tables and of the corpus, damaged in up to six places."""
    data = bytearray(b"".join(dice.choices(SEEDS, k=dice.randint(1, 3))))
    for _ in range(dice.randint(0, 6)):
        at = dice.randrange(len(data) + 1)
        how = dice.random()
        if how < 0.4:
            data[at : at + 1] = dice.randbytes(1)
        elif how < 0.6:
            del data[at : at + dice.randint(1, 20)]
        elif how < 0.8:
            data[at:at] = dice.choice(PIECES)
        else:
            del data[at:]
    return bytes(data)


async def visit(front: Front, dice: random.Random) -> None:
    """One client."""
    client = await front.connect()
    front.clients.remove(client)
    data = mutated(dice)
    cut = dice.randrange(len(data) + 1)
    client.send(data[:cut])
    if dice.random() < 0.5:
        await asyncio.sleep(0)
    client.send(data[cut:])
    if dice.random() < 0.9:
        try:
            response = await asyncio.wait_for(client.rest(), PATIENCE)
            assert not response or response.startswith(b"HTTP/1.1 "), data
        except ConnectionError:
            pass
        except TimeoutError:
            raise AssertionError(f"neither answer nor end: {data!r}") from None
    await client.close()


async def storm(seed: int, clients: int, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()

    def function(exchange: Exchange, stream: FakeStream) -> None:
        steps = [  # every function stops its request in the end, some before they answer
            lambda: exchange.stopped(Code.NO_ERROR),
            lambda: answer(b"x" * dice.choice([1, 100_000]))(exchange, stream),
        ]
        for step in steps if dice.random() < 0.3 else reversed(steps):
            loop.call_soon(step)

    async with listening(FakePool(function), limits=LIMITS) as front:
        for _ in range(clients // AT_ONCE):
            await asyncio.gather(*(visit(front, dice) for _ in range(AT_ONCE)))
        opened = front.pool.opened.qsize()
        for _ in range(opened):
            await asyncio.wait_for(front.ended.get(), PATIENCE)
    assert opened
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_hundred_broken_requests(caplog: pytest.LogCaptureFixture) -> None:
    await storm(1, 120, caplog)


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(2, 7))
async def test_thousands_of_broken_requests(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    await storm(seed, 3000, caplog)
