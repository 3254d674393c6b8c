"""What Prometheus sees: counted once, in the right place, in its own text format."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus

from gateway.config import BreakerConfig, LimitsConfig, RetryConfig
from gateway.exchange import Exchange, RequestHead
from gateway.metrics import FIRST_BYTE_BUCKETS, Metrics
from gateway.open_websockets import OpenWebSockets
from gateway.routes import Routes
from gateway.server import Gateway
from gateway.silent_side import SilentSide
from tests.gateway.environment_fake import Environment, FunctionUrl, leave_it, open_socket
from tests.gateway.function_fake import eventually
from tests.gateway.whole_gateway import Whole, first_stream, url_of, whole

Samples = dict[tuple[str, str], float]


async def samples(gateway: Gateway) -> Samples:
    """(name, the label beside the function) -> value."""
    async with ClientSession() as client, client.get(gateway.admin_url + "/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            other = [value for name, value in sample.labels.items() if name not in ("function", "le")]
            if not sample.name.endswith("_bucket"):
                found[sample.name, "".join(other)] = sample.value
    return found


async def ended(it: Whole, number: int) -> Samples:
    """As soon as so many requests have ended."""
    while True:
        it.gateway._closed_one.clear()
        seen = await samples(it.gateway)
        if sum(value for (name, _), value in seen.items() if name == "dialback_exchanges_total") >= number:
            return seen
        await it.gateway._closed_one.wait()


async def test_a_gateway_that_has_done_nothing_says_so() -> None:
    async with whole(url_of()) as it:
        seen = await samples(it.gateway)
        assert seen["dialback_waiting_requests", ""] == seen["dialback_leased_links", ""] == 0
        assert seen["dialback_invocations_total", "answered"] == 0


async def test_requests_are_counted_by_their_ends_and_bodies_by_their_bytes() -> None:
    async with whole(url_of(Environment()), linger=5) as it:
        sizes = [len((await it.get("/", b"x" * 1000))[1]) for _ in range(3)]
        seen = await ended(it, 3)
        assert seen["dialback_exchanges_total", "complete"] == 3
        assert seen["dialback_request_bytes_total", ""] == 3000
        assert seen["dialback_response_bytes_total", ""] == sum(sizes)
        assert seen["dialback_first_byte_seconds_count", ""] == 3
        assert 0 < seen["dialback_first_byte_seconds_sum", ""] < 5


async def test_what_is_now_is_read_when_it_is_asked_for() -> None:
    environment = Environment(leave_it)
    async with whole(url_of(environment), linger=0, limits=LimitsConfig(max_invocations=1)) as it:
        asked = it.asking()
        stream = await first_stream(environment)
        waiting = it.asking()
        await it.until_waiting(1)
        seen = await samples(it.gateway)
        assert seen["dialback_open_streams", ""] == seen["dialback_leased_links", ""] == 1
        assert seen["dialback_waiting_requests", ""] == 1
        assert seen["dialback_running_invocations", ""] == 1
        stream.respond()
        await asked
        (await first_stream(environment)).respond()
        await waiting
        seen = await ended(it, 2)
        assert seen["dialback_waiting_requests", ""] == 0
        assert seen["dialback_open_streams", ""] == 0


async def test_dials_are_counted_by_what_became_of_them() -> None:
    environment = Environment(leave_it)
    async with whole(url_of(environment), linger=5) as it:
        asked = it.asking()
        stream = await first_stream(environment)
        environment.cut()
        stream.respond()
        assert (await asked)[0] == 200
        with pytest.raises(InvalidStatus):
            await open_socket(it.gateway, [])
        seen = await samples(it.gateway)
        dials = [seen["dialback_dials_total", outcome] for outcome in ("first", "resumed", "version")]
        assert dials == [1, 1, 1]


async def test_failures_retries_and_the_circuit_are_counted() -> None:
    async def behave(token: str) -> web.StreamResponse:
        return web.json_response(None, status=502)

    options = {"breaker": BreakerConfig(failures=2, pause=60), "retry": RetryConfig(count=1)}
    async with whole(FunctionUrl(behave=behave), **options) as it:
        before = await samples(it.gateway)
        assert (before["dialback_circuit", "closed"], before["dialback_circuit", "open"]) == (1, 0)
        assert [(await it.get())[0] for _ in range(2)] == [502, 503]
        seen = await ended(it, 2)
        assert seen["dialback_invocations_total", "error"] == 2
        assert seen["dialback_retries_total", "granted"] == 1
        assert seen["dialback_retries_total", "denied"] == 0
        assert (seen["dialback_circuit", "closed"], seen["dialback_circuit", "open"]) == (0, 1)
        assert seen["dialback_circuit_openings_total", ""] == 1


async def test_what_environments_cost_is_counted_as_they_say_it() -> None:
    async with whole(url_of(Environment(awake=1234)), linger=0) as it:
        assert (await it.get())[0] == 200
        await asyncio.wait_for(it.url.ended.wait(), 5)
        await eventually(lambda: not it.pool.starts.running)
        seen = await samples(it.gateway)
        assert seen["dialback_streams_total", ""] == 1
        assert seen["dialback_billed_seconds_total", ""] == 1.234
        assert 0 <= seen["dialback_idle_seconds_total", ""] <= seen["dialback_leased_seconds_total", ""] < 5


async def test_what_is_awake_is_counted_up_to_now() -> None:
    """A lease may last for a quarter of an hour; its cost is not first heard of at its end."""
    async with whole(url_of(Environment()), linger=60) as it:
        assert (await it.get())[0] == 200
        await asyncio.sleep(0.1)
        first = await samples(it.gateway)
        await asyncio.sleep(0.2)
        second = await samples(it.gateway)
        assert first["dialback_leased_links", ""] == second["dialback_leased_links", ""] == 1
        for seen in first, second:
            assert 0.1 <= seen["dialback_idle_seconds_total", ""] <= seen["dialback_leased_seconds_total", ""]
        for name in "dialback_idle_seconds_total", "dialback_leased_seconds_total":
            assert second[name, ""] - first[name, ""] >= 0.2


async def test_what_says_nothing_of_its_cost_is_measured() -> None:
    async with whole(url_of(Environment()), linger=0.2) as it:
        assert (await it.get())[0] == 200
        await asyncio.wait_for(it.url.ended.wait(), 5)
        await eventually(lambda: not it.pool.starts.running)
        seen = await samples(it.gateway)
        assert 0.2 <= seen["dialback_billed_seconds_total", ""] < 5
        assert 0.19 <= seen["dialback_idle_seconds_total", ""] <= seen["dialback_leased_seconds_total", ""]


async def test_a_path_without_a_function_is_counted_without_one() -> None:
    async with whole(url_of(Environment())) as it:
        it.gateway._routes = Routes(())
        assert (await it.get())[0] == 404
        seen = await ended(it, 1)
        assert seen["dialback_exchanges_total", "refused"] == 1
        assert ("dialback_first_byte_seconds_count", "") in seen


def untimed(text: bytes) -> str:
    """Without the values of `_created`."""
    return re.sub(r"(_created\{.*\}) .*", r"\1", text.decode())


def test_the_text_is_what_prometheus_clients_own_counters_would_say() -> None:
    control = CollectorRegistry()
    by_function = ("function",)
    exchanges = Counter("dialback_exchanges", "Ended requests.", ("function", "state"), registry=control)
    received = Counter("dialback_request_bytes", "Request bodies.", by_function, registry=control)
    sent = Counter("dialback_response_bytes", "Response bodies, as clients got them.", by_function, registry=control)
    dials_text = "Dials of functions: first ones, those that resumed a session, and the refused by their reason."
    dials = Counter("dialback_dials", dials_text, ("outcome",), registry=control)
    wait_text = "From a request's head to its response's."
    waits = Histogram(
        "dialback_first_byte_seconds", wait_text, by_function, buckets=FIRST_BYTE_BUCKETS, registry=control
    )
    metrics = Metrics({}, OpenWebSockets())
    for function, state, wait in (
        *(("shop", "complete", seconds) for seconds in (0.0, *FIRST_BYTE_BUCKETS, 30.1)),
        ("shop", "failed", 0.003),
        ("", "refused", None),
        ('a"b\\', "complete", 7.0),
    ):
        exchange = Exchange(RequestHead(b"GET", b"/", ()), SilentSide(), function=function)
        exchange.state, exchange.began, exchange.head_at = state, 0.0, wait
        exchange.bytes_in, exchange.bytes_out, exchange.bytes_saved = 1, 1 << 40, 7
        metrics.ended(exchange)
        exchanges.labels(function, state).inc()
        received.labels(function).inc(1)
        sent.labels(function).inc((1 << 40) - 7)
        waits.labels(function)
        if wait is not None:
            waits.labels(function).observe(wait)
    for outcome in ("first", "version", "first"):
        metrics.dialled(outcome)
        dials.labels(outcome).inc()
    whole, text = untimed(metrics.exposition()), untimed(generate_latest(control))
    assert whole.endswith(text) and "dialback_first_byte_seconds_created{" in text
