"""What becomes of a function whose client has left: cancelled at once, after a grace, or never."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.terms import Terms
from protocol.frames import Code
from tests.gateway.function_fake import FakePool, FakeStream, Front, eventually, listening
from tests.gateway.test_ingress_malformed import get

DETACH = Terms(on_disconnect="detach")


async def left(front: Front, request: bytes = get(), *, has_begun: bool = False) -> FakeStream:
    """A stream whose client has gone, as the gateway knows."""
    client = await front.connect()
    client.send(request)
    stream = await front.pool.opened.get()
    if has_begun:
        stream.exchange.response(200, ())
        await client.head()
    await client.close()
    await until_detached(stream)
    return stream


async def until_detached(stream: FakeStream) -> None:
    await eventually(lambda: stream.exchange.state == "detached")


@pytest.mark.parametrize("has_begun", [False, True])
async def test_detach_lets_the_function_run_to_its_end_and_drops_what_it_sends(has_begun: bool) -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        stream = await left(front, has_begun=has_begun)
        if not has_begun:
            stream.exchange.informational(103, ())
            stream.exchange.response(200, ())
        for _ in range(100):
            stream.exchange.data(bytes(1 << 20))  # far more than any window or buffer
        assert stream.credit == 100 << 20
        assert front.ended.empty()
        stream.exchange.data(b"", True)
        exchange = await front.ended.get()
    assert (exchange.state, exchange.reason) == ("discarded", "client left; the function goes on")
    assert (stream.told, exchange.bytes_out) == ([], 0)


async def test_what_a_slow_client_did_not_take_is_given_credit_for_when_it_leaves() -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        client = await front.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        stream = await front.pool.opened.get()
        stream.exchange.response(200, ())
        stream.exchange.data(bytes(16 << 20))
        assert stream.credit < 16 << 20
        await client.close()
        await until_detached(stream)
        assert stream.credit == 16 << 20
        stream.exchange.trailers(())
        assert (await front.ended.get()).state == "discarded"


async def test_an_upload_that_will_not_come_any_more_is_cut_and_the_function_goes_on() -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        stream = await left(front, get(b"POST / HTTP/1.1", b"Content-Length: 9\r\n") + b"abc")
        assert (stream.told, stream.has_ended) == (["reset CANCELLED"], False)
        stream.exchange.response(200, (), True)
        assert (await front.ended.get()).state == "discarded"


async def test_half_a_close_and_a_held_back_upload_detach_as_well() -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        client = await front.connect()
        client.send(get())
        stream = await front.pool.opened.get()
        client.writer.write_eof()
        await until_detached(stream)
        assert await client.rest() == b""
        stream.exchange.response(200, (), True)
        assert (await front.ended.get()).state == "discarded"


@pytest.mark.parametrize("is_answering", [False, True])
async def test_grace_lets_it_go_on_for_so_long(is_answering: bool) -> None:
    async with listening(FakePool(terms=Terms(on_disconnect="grace", disconnect_grace=0.3))) as front:
        stream = await left(front, has_begun=is_answering)
        began = time.monotonic()
        if is_answering:
            stream.exchange.data(b"more")
        exchange = await front.ended.get()
        assert 0.2 < time.monotonic() - began < 2
    assert (exchange.state, exchange.reason) == ("cancelled", "client left; its grace is over")
    assert stream.told == ["cancel CANCELLED"]


async def test_who_ends_within_the_grace_is_not_cancelled() -> None:
    async with listening(FakePool(terms=Terms(on_disconnect="grace", disconnect_grace=60))) as front:
        stream = await left(front)
        stream.exchange.response(200, (), True)
        assert (await front.ended.get()).state == "discarded"
        assert stream.told == []


@pytest.mark.parametrize("how", ["detach", "grace"])
async def test_no_exchange_outlives_the_time_that_any_may_take(how: str) -> None:
    terms = Terms(on_disconnect=how, disconnect_grace=60, exchange=0.3)  # type: ignore[arg-type]
    async with listening(FakePool(terms=terms)) as front:
        stream = await left(front)
        exchange = await front.ended.get()
    assert (exchange.state, exchange.reason, stream.told) == ("timed_out", "exchange-timeout", ["cancel TIMEOUT"])
    assert exchange.status is None  # nobody was told anything


async def test_a_function_that_fails_when_nobody_listens_is_told_to_the_log() -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        stream = await left(front)
        stream.exchange.reset(Code.INTERNAL, "boom")
        first = await front.ended.get()
        (await left(front, has_begun=True)).exchange.lost("gone")
        second = await front.ended.get()
    assert (first.state, first.reason) == ("failed", "boom")
    assert (second.state, second.reason) == ("failed", "gone")


async def test_who_leaves_before_a_function_has_the_request_leaves_nothing_behind() -> None:
    pool = FakePool(terms=DETACH)
    pool.gate = asyncio.Event()
    async with listening(pool) as front:
        client = await front.connect()
        client.send(get())
        await pool.entered.wait()
        await client.close()
        await pool.left.wait()
        assert (await front.ended.get()).state == "cancelled"


async def test_the_connection_is_forgotten_at_once_and_a_stop_does_not_wait_for_it() -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        stream = await left(front)
        await eventually(lambda: not front.server.connections)
        await front.server.shutdown(5)
        assert front.ingress.admission.total == 1
        stream.exchange.response(200, (), True)
        assert front.ingress.admission.total == 0


async def test_a_body_that_is_no_http_cancels_whatever_the_route_says() -> None:
    async with listening(FakePool(terms=DETACH)) as front:
        client = await front.connect()
        client.send(get(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked\r\n"))
        await front.pool.opened.get()
        client.send(b"nonsense\r\n")
        assert b" 400 " in await client.head()
        assert (await front.ended.get()).state == "refused"
