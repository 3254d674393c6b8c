"""From a configuration's keys to what a request is granted, and to what its function meets on a real link."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.affinity import Affinity
from gateway.compression import Compression
from gateway.config import ConfigError, TimeoutsConfig
from gateway.sources import load
from gateway.terms import Terms
from tests.gateway.environment_fake import SECRET, Environment, leave_it
from tests.gateway.function_fake import eventually
from tests.gateway.whole_gateway import first_stream, url_of, whole

FILE = """
dial_address = "wss://x"
on_disconnect = "grace"
disconnect_grace = 7
timeouts.exchange = 100
client.head_timeout = 3
client.max_exchanges = 11
trusted_proxies = "10.0.0.0/8, ::1"
cancel_after = 5
compression = "br, gzip"

[functions.a]
url = "https://a/"
on_disconnect = "detach"
cancel_after = 900
affinity = "header:X-A"
limits.max_exchanges = 5
timeouts.request_idle = 1
timeouts.response_idle = 2
timeouts.response_start = 4

[functions.b]
url = "https://b/"

[[routes]]
function = "a"

[[routes]]
path = "/now"
function = "a"
on_disconnect = "cancel"
affinity = "off"
compression = "off"

[[routes]]
path = "/b"
function = "b"
disconnect_grace = 0
cancel_after = 2.5
affinity = "cookie:b"
compression = "gzip"
"""


def test_a_route_overrides_its_function_and_that_the_gateway(tmp_path: Path) -> None:
    (file := tmp_path / "x.toml").write_text(FILE)
    config = load(file=file, environ={"DIALBACK_SECRET": SECRET})
    first, now, b = (config.functions[route.function].terms(route) for route in config.routes)
    common = dict(response_start=4.0, request_idle=1.0, response_idle=2.0, exchange=100.0, max_exchanges=5)
    header = Affinity(False, b"x-a")
    both = Compression(("br", "gzip"))
    assert first == Terms(
        on_disconnect="detach",
        disconnect_grace=7.0,
        affinity=header,
        compression=both,
        **common,  # type: ignore[arg-type]
    )
    assert now == Terms(on_disconnect="cancel", disconnect_grace=7.0, **common)  # type: ignore[arg-type]
    cookie, gzip = Affinity(True, b"b"), Compression(("gzip",))
    assert b == Terms(
        on_disconnect="grace",
        disconnect_grace=0.0,
        exchange=100.0,
        cancel_after=2.5,
        affinity=cookie,
        compression=gzip,
    )
    limits = config.client.limits()
    assert (limits.request_head, limits.max_exchanges) == (3.0, 11)
    assert [str(network) for network in config.trusted_proxies] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('on_disconnect = "never"', "must be one of: cancel, grace, detach"),
        ('trusted_proxies = "10.0.0.1/8"', "must be networks"),
        ('trusted_proxies = "proxy.example"', "must be networks"),
        ("timeouts.request_idle = 0", "must be from 0.1"),
        ('affinity = "mcp-session-id"', 'must be "header:NAME"'),
        ('compression = "gzip, deflate"', "of zstd, br, gzip"),
        ("cancel_after = 901", "must be from 0 to 900"),
    ],
)
def test_values_that_are_none(line: str, said: str, tmp_path: Path) -> None:
    (file := tmp_path / "x.toml").write_text(f'function_url = "https://a/"\n{line}\n')
    with pytest.raises(ConfigError, match=said):
        load(file=file, environ={"DIALBACK_SECRET": SECRET})


@pytest.mark.parametrize(("how", "is_stopped"), [("cancel", True), ("detach", False)])
async def test_a_real_link_whose_client_leaves(how: str, is_stopped: bool) -> None:
    environment = Environment(leave_it, places=1)
    async with whole(url_of(environment), on_disconnect=how, linger=0.0) as it:
        asking = it.asking()
        stream = await first_stream(environment)
        stream.respond(b"first", end=False)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        if is_stopped:
            await stream.until(lambda served: served.stopped is not None)
            stream.session.reset(stream.number, 1)
            environment.wake()
        else:
            for _ in range(64):
                stream.send(bytes(64 << 10))  # 4 MiB, far beyond its credit: it is granted more, and nobody reads it
            stream.send(b"", end=True)
        async with asyncio.timeout(10):
            await environment.parked.wait()
        assert (stream.stopped is not None) == is_stopped
        await eventually(lambda: it.gateway._open == 0)


@pytest.mark.parametrize(("seconds", "told"), [(2.5, 2500), (0, 0), (900, None)])
async def test_the_function_is_told_when_to_cancel_an_app(seconds: float, told: int | None) -> None:
    environment = Environment(leave_it, places=1)
    async with whole(url_of(environment), cancel_after=seconds) as it:
        asking = it.asking()
        stream = await first_stream(environment)
        assert stream.request.options.get("cancel_after") == told
        stream.respond()
        await asking


async def test_an_exchange_that_nobody_waits_for_any_more_ends_in_time() -> None:
    environment = Environment(leave_it, places=1)
    timeouts = TimeoutsConfig(dial_back=5, queue_wait=10, exchange=1.0)
    async with whole(url_of(environment), on_disconnect="detach", timeouts=timeouts) as it:
        asking = it.asking()
        stream = await first_stream(environment)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            await stream.until(lambda served: served.stopped is not None)
        await eventually(lambda: it.gateway._open == 0)
