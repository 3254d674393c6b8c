"""Dial-ins that come half the way, by the thousand: honest streams keep their pace, functions dial in, none is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from gateway.config import ClientConfig
from gateway.limits import HttpLimits
from tests.gateway.environment_fake import Environment
from tests.gateway.raw_link import UPGRADE
from tests.gateway.whole_gateway import Whole, url_of, whole
from tests.security.crowd import crowd
from tests.security.honest import PACE, honest_streams, paced

HEAD_TIMEOUT = 10.0  # seconds; longer than the last of ten thousand takes to come
FACTOR = 3.0  # of the control's 99th percentile, which that beside ten thousand held connections may be
STORM = 10.0  # the same, while thousands are accepted each second
NOISE = PACE  # seconds that the machine may add to it
HALVES = (
    b"",
    b"G",
    UPGRADE.encode(),
    UPGRADE.encode() + b"Authorization: Dialback-Invitation " + b"A" * 200,
)
"""A connection, the first byte of a request, an upgrade that does not end, the beginning of an invitation."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A gateway that waits for heads as long as the test has time for, and has room for more than come."""
    seconds = HEAD_TIMEOUT if request.node.get_closest_marker("slow") else 3.0
    limits = HttpLimits(request_head=seconds, linger=0.2, max_connections=12_000)
    monkeypatch.setattr(ClientConfig, "limits", lambda self: limits)
    yield


async def until_left(it: Whole, clients: int) -> None:
    """Until no more than so many are connected."""
    async with asyncio.timeout(HEAD_TIMEOUT + 30):
        while it.gateway._server.count > clients:  # noqa: ASYNC110 - nobody tells of connections that end
            await asyncio.sleep(0.1)


async def half_open(number: int, streams: int, storming: float) -> None:
    """`storming`: seconds in which they come."""
    environments = [Environment(paced, places=streams), Environment(paced)]
    async with whole(url_of(*environments), linger=5) as it, honest_streams(it, streams) as honest:
        port = int(it.gateway.url.rpartition(":")[2])
        before = it.gateway._server.count
        control = await honest.p99(2)
        async with crowd(port, number, *HALVES) as attackers:
            coming = asyncio.ensure_future(attackers.said("open"))
            storm = await honest.p99(storming)
            assert await coming == number
            began = time.monotonic()
            late = await it.client.get(it.gateway.url)  # its function is invoked, and dials in through the crowd
            assert (late.status, len(it.url.environments)) == (200, 2)
            dialled = time.monotonic() - began
            late.close()
            held = await honest.p99(1)
            await until_left(it, before)
            assert await attackers.closed() == number
        after = await honest.p99(1)
        assert it.endpoint.links == 2
    measured = f"p99 of gaps: {control:.3f} s before, {storm:.3f} while they come, {held:.3f} then, {after:.3f} after"
    print(f"{number} half open: {measured}; a dial-in took {dialled:.3f} s")
    assert max(held, after) < FACTOR * control + NOISE and storm < STORM * control, measured
    assert dialled < 2


async def test_five_hundred_half_open_dial_ins(hasty: None) -> None:
    await half_open(500, 20, 1)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_ten_thousand_half_open_dial_ins(hasty: None) -> None:
    await half_open(10_000, 100, 6)
