"""Every time limit, on real sockets: what passes it is ended with its own error, what keeps it is not."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from gateway import deadlines
from gateway.limits import HttpLimits
from gateway.terms import Terms
from tests.gateway.function_fake import Client, FakePool, FakeStream, Front, answer, eventually, listening
from tests.gateway.test_ingress_malformed import CHUNKED, get, parsed

CLOSE = b"Connection: close\r\n"
QUICK = HttpLimits(linger=0.2, drain=0.2, flush=0.3, request_head=0.3, body_rate=0)
UPLOAD = get(b"POST / HTTP/1.1", b"Content-Length: 1000\r\n" + CLOSE)


async def opened(front: Front, request: bytes) -> tuple[Client, FakeStream]:
    client = await front.connect()
    client.send(request)
    return client, await front.pool.opened.get()


async def refusal(client: Client) -> tuple[int, str]:
    """Status and name of the problem."""
    async with asyncio.timeout(5):
        status, fields, body = parsed(await client.rest())
    document = json.loads(body)
    assert document["instance"].rpartition(":")[2] == fields["x-request-id"]
    return status, document["type"].rpartition(":")[2]


# A head


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n\r\n", b"\r\n\r\nG"])
async def test_a_head_that_does_not_come_to_its_end(start: bytes) -> None:
    async with listening(FakePool(), limits=QUICK) as front:
        client = await front.connect()
        client.send(start)
        assert await refusal(client) == (408, "request-head-timeout")


async def test_a_byte_now_and_then_gains_no_time() -> None:
    async with listening(FakePool(), limits=QUICK) as front:
        client = await front.connect()
        began = time.monotonic()

        async def drip() -> None:
            for byte in get(fields=b"a: %b\r\n" % (b"b" * 1000)):
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        assert await refusal(client) == (408, "request-head-timeout")
        assert time.monotonic() - began < 2
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    async with listening(FakePool(), limits=QUICK) as front:
        client = await front.connect()
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionResetError, EOFError)):
                if not await client.rest():
                    raise EOFError


async def test_a_second_head_has_its_own_time_and_an_idle_connection_more() -> None:
    async with listening(FakePool(answer(length=True)), limits=QUICK) as front:
        client = await front.connect()
        client.send(get())
        await client.head()
        await asyncio.sleep(2 * QUICK.request_head)  # idle for longer than a head may take
        client.send(b"\r\nGET / HT")
        assert (await client.reader.readexactly(2)) == b"ok"
        assert await refusal(client) == (408, "request-head-timeout")


# A request's body


@pytest.mark.parametrize("part", [b"", b"abc"])
async def test_a_body_that_stands_still(part: bytes) -> None:
    async with listening(FakePool(terms=Terms(request_idle=0.3)), limits=QUICK) as front:
        client, stream = await opened(front, UPLOAD + part)
        assert await refusal(client) == (408, "request-idle")
        assert stream.told == ["cancel TIMEOUT"]
        assert (await front.ended.get()).state == "timed_out"


@pytest.mark.parametrize("terms", [Terms(request_idle=0.3), Terms(exchange=0.3)])
async def test_an_error_in_the_middle_of_an_upload_says_that_the_connection_closes(terms: Terms) -> None:
    async with listening(FakePool(terms=terms), limits=QUICK) as front:
        client, _ = await opened(front, get(b"POST / HTTP/1.1", b"Content-Length: 100\r\n") + b"abc")
        async with asyncio.timeout(5):
            status, fields, _ = parsed(await client.rest())  # to the connection's end
        assert status in (408, 504) and fields["connection"] == "close"


async def test_one_after_the_upload_keeps_it() -> None:
    async with listening(FakePool(terms=Terms(exchange=0.3)), limits=QUICK) as front:
        client, _ = await opened(front, get(b"POST / HTTP/1.1", b"Content-Length: 3\r\n") + b"abc")
        async with asyncio.timeout(5):
            status, fields, _ = parsed(await client.head())
            await client.reader.readexactly(int(fields["content-length"]))
            assert status == 504 and "connection" not in fields
            client.send(get())
            assert (await front.pool.opened.get()).exchange.head.method == b"GET"


async def test_so_does_one_of_which_only_the_framing_moves() -> None:
    async with listening(FakePool(terms=Terms(request_idle=0.3)), limits=QUICK) as front:
        client, _ = await opened(front, CHUNKED + b"00")
        for _ in range(5):
            client.send(b"0")
            await asyncio.sleep(0.02)
        assert (await refusal(client))[1] == "request-idle"


async def test_a_body_that_moves_is_given_time() -> None:
    async with listening(FakePool(terms=Terms(request_idle=0.3)), limits=QUICK) as front:
        client, stream = await opened(front, get(b"POST / HTTP/1.1", b"Content-Length: 8\r\n" + CLOSE))
        for _ in range(8):
            await asyncio.sleep(0.1)
            client.send(b"x")
        await stream.until(lambda: stream.has_ended)
        answer()(stream.exchange, stream)
        assert b" 200 " in await client.rest()


async def test_a_client_is_not_blamed_for_a_function_that_does_not_read() -> None:
    async with listening(FakePool(terms=Terms(request_idle=0.1)), limits=QUICK) as front:
        client, stream = await opened(front, UPLOAD)
        stream.is_writable = False
        client.send(b"x" * 500)
        await asyncio.sleep(0.5)
        assert stream.told == []
        stream.is_writable = True
        stream.exchange.writable()
        client.send(b"x" * 500)
        await stream.until(lambda: stream.has_ended)


async def test_nor_is_one_that_was_not_told_to_continue() -> None:
    async with listening(FakePool(terms=Terms(request_idle=0.1)), limits=QUICK) as front:
        client, stream = await opened(front, get(b"POST / HTTP/1.1", b"Content-Length: 3\r\nExpect: 100-continue\r\n"))
        await asyncio.sleep(0.5)
        assert stream.told == []
        stream.exchange.credit()
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        assert (await refusal(client))[1] == "request-idle"


async def test_an_upload_that_stands_still_behind_a_whole_response_is_ended_quietly() -> None:
    async with listening(FakePool(terms=Terms(request_idle=0.3)), limits=QUICK) as front:
        client, stream = await opened(front, UPLOAD)
        answer(length=True)(stream.exchange, stream)
        assert (await client.rest()).endswith(b"ok")
        assert (await front.ended.get()).state == "complete"
        assert stream.told == ["reset NO_ERROR"]


async def test_a_body_below_the_least_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "RATE_SPAN", 0.4)
    async with listening(FakePool(), limits=HttpLimits(linger=0.2, body_rate=1000)) as front:
        client, stream = await opened(front, UPLOAD)

        async def drip() -> None:
            while True:
                client.send(b"x")
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        assert await refusal(client) == (408, "request-too-slow")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        assert stream.told == ["cancel TIMEOUT"]


async def test_a_conversation_may_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "RATE_SPAN", 0.1)
    async with listening(FakePool(), limits=HttpLimits(linger=0.2, body_rate=1000)) as front:
        client, stream = await opened(front, UPLOAD)
        stream.exchange.response(200, ())
        for _ in range(10):
            client.send(b"x")
            await asyncio.sleep(0.05)
        assert stream.told == []
        stream.exchange.data(b"", True)


# A response


async def test_the_time_to_a_response_begins_with_the_last_of_the_body() -> None:
    async with listening(FakePool(terms=Terms(response_start=0.4, request_idle=0.4)), limits=QUICK) as front:
        client, stream = await opened(front, get(b"POST / HTTP/1.1", b"Content-Length: 8\r\n" + CLOSE))
        for _ in range(8):
            await asyncio.sleep(0.1)
            client.send(b"x")
        await stream.until(lambda: stream.has_ended)
        assert stream.told == []
        assert await refusal(client) == (504, "response-timeout")
        assert stream.told == ["cancel TIMEOUT"]


async def test_a_response_that_stands_still_is_cut() -> None:
    async with listening(FakePool(terms=Terms(response_idle=0.3)), limits=QUICK) as front:
        client, stream = await opened(front, get())
        stream.exchange.response(200, ())
        stream.exchange.data(b"part")
        response = await client.rest()
        assert response.endswith(b"4\r\npart\r\n")  # never looks whole
        exchange = await front.ended.get()
    assert (exchange.state, exchange.reason, stream.told) == ("timed_out", "response-idle", ["cancel TIMEOUT"])


async def test_one_that_moves_is_given_time() -> None:
    async with listening(FakePool(terms=Terms(response_idle=0.3, response_start=0.3)), limits=QUICK) as front:
        client, stream = await opened(front, get(fields=CLOSE))
        stream.exchange.response(200, ())
        for _ in range(8):
            await asyncio.sleep(0.1)
            stream.exchange.data(b"x")
        stream.exchange.data(b"", True)
        assert (await client.rest()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(("how", "state"), [("cancel", "cancelled"), ("detach", "detached")])
async def test_a_client_that_stops_reading_counts_as_gone(how: str, state: str) -> None:
    terms = Terms(response_idle=0.3, on_disconnect=how)  # type: ignore[arg-type]
    async with listening(FakePool(terms=terms), limits=QUICK) as front:
        client = await front.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        stream = await front.pool.opened.get()
        stream.exchange.response(200, ())
        stream.exchange.data(bytes(16 << 20))
        await eventually(lambda: stream.exchange.state == state)
        assert stream.exchange.reason.startswith("client stopped reading")
        assert stream.told == (["cancel CANCELLED"] if how == "cancel" else [])
        stream.exchange.data(b"", True)


# All of it


async def test_a_request_that_takes_too_long_in_its_queue() -> None:
    pool = FakePool(terms=Terms(exchange=0.3))
    pool.gate = asyncio.Event()
    async with listening(pool, limits=QUICK) as front:
        client = await front.connect()
        client.send(get(fields=CLOSE))
        assert await refusal(client) == (504, "exchange-timeout")
        await pool.left.wait()


async def test_a_request_that_takes_too_long_at_its_function() -> None:
    async with listening(FakePool(terms=Terms(exchange=0.3)), limits=QUICK) as front:
        client, stream = await opened(front, get(fields=CLOSE))
        assert await refusal(client) == (504, "exchange-timeout")
        assert stream.told == ["cancel TIMEOUT"]


async def test_a_response_that_takes_too_long_is_cut_though_it_moves() -> None:
    async with listening(FakePool(terms=Terms(exchange=0.4)), limits=QUICK) as front:
        client, stream = await opened(front, get())
        stream.exchange.response(200, ())
        while not stream.told:
            stream.exchange.data(b"x")
            await asyncio.sleep(0.02)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        assert (await front.ended.get()).reason == "exchange-timeout"
