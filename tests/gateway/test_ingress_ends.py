"""Ends on real sockets: functions that fail, clients that leave or read slowly, gateways that stop."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
from pathlib import Path

import aiohttp
import pytest

from gateway.errors import Problem
from gateway.exchange import Exchange
from gateway.ingress import Ingress
from gateway.limits import HttpLimits
from gateway.terms import Terms
from protocol.frames import Code
from tests.gateway.certificate import localhost_pair
from tests.gateway.function_fake import FakePool, FakeStream, answer, listening
from tests.gateway.test_ingress_malformed import get, parsed

CLOSE = b"Connection: close\r\n"
QUICK = HttpLimits(linger=0.3, drain=0.3, flush=0.3)
IMPATIENT = Terms(response_start=0.2)


async def ask(pool: FakePool, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with listening(pool) as front:
        return parsed(await front.ask(request))


# Ends that are not clean


def failing_after(*pieces: bytes, length: int | None = None) -> FakePool:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.response(200, [] if length is None else [(b"content-length", b"%d" % length)])
        for piece in pieces:
            exchange.data(piece)
        exchange.reset(Code.INTERNAL, "boom")

    return FakePool(function)


@pytest.mark.parametrize("length", [None, 100])
async def test_a_response_that_fails_after_its_head_never_looks_whole(length: int | None) -> None:
    async with listening(failing_after(b"part", length=length)) as front:
        async with aiohttp.ClientSession() as session:
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
                async with session.get(f"http://127.0.0.1:{front.port}/") as response:
                    await response.read()
        exchange = await front.ended.get()
    assert (exchange.state, exchange.reason) == ("aborted", "boom")


async def test_nor_does_one_that_only_the_connection_ends() -> None:
    async with listening(failing_after(b"part")) as front:
        client = await front.connect()
        client.send(get(b"GET / HTTP/1.0"))
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await client.close()


async def test_a_response_that_fails_before_its_head_is_a_problem() -> None:
    async with listening(
        FakePool(lambda exchange, stream: exchange.reset(Code.INTERNAL, "Traceback: secret"))
    ) as front:
        response = await front.ask(get(fields=CLOSE))
        status, fields, body = parsed(response)
        exchange = await front.ended.get()
    assert status == 502
    assert json.loads(body)["instance"] == f"urn:dialback:request:{exchange.id.hex()}"
    assert b"secret" not in response


async def test_a_problem_for_a_head_request_has_no_body() -> None:
    pool = FakePool(lambda exchange, stream: exchange.reset(Code.INTERNAL))
    status, fields, body = await ask(pool, get(b"HEAD / HTTP/1.1", CLOSE))
    assert (status, body) == (502, b"")
    assert int(fields["content-length"]) > 100


@pytest.mark.parametrize(
    ("name", "status", "state", "retry"),
    [
        ("overloaded", 503, "refused", "1"),
        ("queue-timeout", 503, "timed_out", "1"),
        ("dial-back-timeout", 504, "timed_out", None),
        ("invoke-failed", 502, "failed", None),
    ],
)
async def test_a_pool_that_refuses(name: str, status: int, state: str, retry: str | None) -> None:
    pool = FakePool()
    pool.refusal = Problem(name, "In our words.")
    async with listening(pool) as front:
        client = await front.connect()
        for _ in range(2):  # the connection stays of use
            client.send(get())
            got, fields, _ = parsed(await client.head())
            body = await client.reader.readexactly(int(fields["content-length"]))
            assert (got, fields.get("retry-after"), json.loads(body)["detail"]) == (status, retry, "In our words.")
        await client.close()
        assert (await front.ended.get()).state == state


async def test_no_route() -> None:
    ingress = Ingress(lambda head: None)
    listener = await asyncio.get_running_loop().create_server(server := ingress.server(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
    writer.write(get(fields=CLOSE))
    assert parsed(await reader.read())[0] == 404
    writer.close()
    listener.close()
    await server.shutdown(0.1)


async def test_a_function_that_does_not_answer() -> None:
    async with listening(FakePool(terms=IMPATIENT), limits=QUICK) as front:
        assert parsed(await front.ask(get(fields=CLOSE)))[0] == 504
        assert (await front.pool.opened.get()).told == ["cancel TIMEOUT"]
        assert (await front.ended.get()).state == "timed_out"


async def test_a_function_that_has_begun_to_answer_is_given_time() -> None:
    async with listening(FakePool(terms=IMPATIENT), limits=QUICK) as front:
        client = await front.connect()
        client.send(get(fields=CLOSE))
        stream = await front.pool.opened.get()
        stream.exchange.response(200, ())
        asyncio.get_running_loop().call_later(0.4, stream.exchange.data, b"late", True)
        assert b"late" in await client.rest()
        await client.close()


async def test_a_stream_that_comes_back_unseen_goes_to_another() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        if front.pool.opened.qsize() < 3:
            exchange.reset(Code.REFUSED)
        else:
            asyncio.get_running_loop().call_soon(answer(), exchange, stream)

    async with listening(FakePool(function)) as front:
        assert parsed(await front.ask(get(fields=CLOSE)))[0] == 200
        front.pool.function = lambda exchange, stream: exchange.reset(Code.REFUSED)
        assert parsed(await front.ask(get(fields=CLOSE)))[0] == 503
        assert front.pool.opened.qsize() == 6


async def test_our_own_mistake_is_a_500_with_the_traceback_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        raise ZeroDivisionError("secret")

    async with listening(FakePool(function)) as front:
        response = await front.ask(get(fields=CLOSE))
    assert parsed(response)[0] == 500
    assert b"secret" not in response
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]


# Clients that leave, or read slowly


async def test_a_client_that_leaves_the_queue() -> None:
    pool = FakePool()
    pool.gate = asyncio.Event()
    async with listening(pool) as front:
        client = await front.connect()
        client.send(get())
        await pool.entered.wait()
        await client.close()
        await pool.left.wait()
        assert (await front.ended.get()).state == "cancelled"


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_leaves(is_half: bool, has_begun: bool) -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get())
        stream = await front.pool.opened.get()
        if has_begun:
            stream.exchange.response(200, ())
            await client.head()
        if is_half:
            client.writer.write_eof()
        else:
            await client.close()
        await stream.until(lambda: bool(stream.told))
        assert stream.told == ["cancel CANCELLED"]
        exchange = await front.ended.get()
        assert (exchange.state, exchange.reason) == ("cancelled", "client left")


async def test_a_slow_client_that_closes_its_half_is_not_waited_for() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        stream = await front.pool.opened.get()
        stream.exchange.response(200, ())
        stream.exchange.data(bytes(16 << 20))
        client.writer.write_eof()
        assert (await front.ended.get()).state == "cancelled"


async def test_garbage_behind_a_request_does_not_hide_that_the_client_leaves() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get())
        await front.pool.opened.get()
        for _ in range(100):
            client.send(b"rubbish\r\n\r\n")
            await asyncio.sleep(0)  # so that each is read alone
        await client.close()
        assert (await front.ended.get()).state == "cancelled"


async def test_a_stalled_client_stops_the_credit_and_holds_little() -> None:
    piece = bytes(64 << 10)
    async with listening(FakePool()) as front:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, ("127.0.0.1", front.port))
            await loop.sock_sendall(connection, get())
            stream = await front.pool.opened.get()
            stream.exchange.response(200, ())
            window, sent = 256 << 10, 0
            while sent - stream.credit < window:  # a function that keeps to its credit
                stream.exchange.data(piece)
                sent += len(piece)
                await asyncio.sleep(0)
                assert sent < 4 << 20
            assert stream.credit < 1 << 20
            received = 0
            while received < sent:
                received += len(await loop.sock_recv(connection, 1 << 20))
            await stream.until(lambda: stream.credit == sent)
            stream.exchange.data(b"", end=True)
            assert (await front.ended.get()).state == "complete"


@pytest.mark.parametrize("fields", [b"", CLOSE])
async def test_a_client_that_does_not_take_the_end_is_cut_off(fields: bytes) -> None:
    async with listening(FakePool(answer(bytes(8 << 20), length=True)), limits=QUICK) as front:
        client = await front.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get(fields=fields))
        assert (await front.ended.get()).state == "complete"
        await asyncio.sleep(2 * QUICK.flush)  # not to wait for anything: this is how slow the client is
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await client.rest()) < 8 << 20


# Logs, stopping, TLS


async def test_the_log_has_a_line_per_exchange_without_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dialback.access")
    async with listening(FakePool(answer(b"hello")), log=True) as front:
        await front.ask(get(b"GET /path?token=secret HTTP/1.1", CLOSE))
        front.pool.function = lambda exchange, stream: exchange.reset(Code.INTERNAL, "boom\nfake line")
        await front.ask(get(b"GET /path?token=secret HTTP/1.1", CLOSE))
    good, bad = caplog.records
    assert good.getMessage().startswith("GET /path 200 complete function=fake in=0 out=5 ttfb_ms=")
    assert (good.levelname, bad.levelname) == ("INFO", "WARNING")
    assert good.__dict__["duration_ms"] >= good.__dict__["ttfb_ms"] >= 0
    assert bad.getMessage().endswith(r"reason='boom\\nfake line'")
    assert "ttfb_ms" not in bad.getMessage() and "ttfb_ms" not in bad.__dict__
    assert good.__dict__["event"] == bad.__dict__["event"] == "request.ended"  # for machines, beside the fields
    assert "secret" not in caplog.text


async def test_a_long_path_is_cut_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dialback.access")
    async with listening(FakePool(answer()), log=True) as front:
        for length in (512, 16_000):
            await front.ask(get(b"GET /" + b"a" * (length - 1) + b" HTTP/1.1", CLOSE))
    whole, cut = (record.__dict__["path"] for record in caplog.records)
    assert whole == "/" + "a" * 511
    assert cut == "/" + "a" * 511 + "...(+15488)"
    assert len(caplog.records[1].getMessage()) < 1000


async def test_stopping_lets_running_requests_end() -> None:
    async with listening(FakePool()) as front:
        busy, idle = await front.connect(), await front.connect()
        busy.send(get())
        stream = await front.pool.opened.get()
        front.ingress.is_draining = True
        front.server.close_idle()
        assert await idle.rest() == b""
        late = await front.connect()
        late.send(get())
        assert parsed(await late.rest())[0] == 503
        stopping = asyncio.ensure_future(front.server.shutdown(5))
        await asyncio.sleep(0)
        answer(b"done")(stream.exchange, stream)
        assert (await busy.rest()).endswith(b"4\r\ndone\r\n0\r\n\r\n")
        await stopping


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_connection_that_a_request_kept_closes_when_the_gateway_drains(has_begun: bool) -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get())
        stream = await front.pool.opened.get()
        if has_begun:
            stream.exchange.response(200, ())
        front.ingress.is_draining = True
        if not has_begun:
            stream.exchange.response(200, ())
        stream.exchange.data(b"done", True)
        response = await client.rest()
        assert (b"connection: close" in response) is not has_begun
        assert response.endswith(b"4\r\ndone\r\n0\r\n\r\n")


async def test_a_wait_for_a_place_that_is_cancelled_ends_its_request() -> None:
    """As when the loop itself is stopped."""
    pool = FakePool()
    pool.gate = asyncio.Event()
    async with listening(pool) as front:
        client = await front.connect()
        client.send(get())
        await pool.entered.wait()
        [waiting] = [task for task in asyncio.all_tasks() if "ClientRequest" in str(task.get_coro())]
        waiting.cancel()
        assert parsed(await client.head())[0] == 503
        assert (await front.ended.get()).is_ended


async def test_stopping_does_not_wait_for_ever() -> None:
    async with listening(FakePool()) as front:
        waiting, streaming = await front.connect(), await front.connect()
        waiting.send(get())
        first = await front.pool.opened.get()
        streaming.send(get())
        second = await front.pool.opened.get()
        second.exchange.response(200, ())
        await front.server.shutdown(0.05)
        assert parsed(await waiting.rest())[0] == 503
        assert not (await streaming.rest()).endswith(b"0\r\n\r\n")
        assert (first.exchange.state, second.exchange.state) == ("refused", "cancelled")
        assert first.told == second.told == ["cancel CANCELLED"]


async def test_tls(tmp_path: Path) -> None:
    context, trusting = localhost_pair(tmp_path)
    async with listening(FakePool(answer(b"hello")), tls=context) as front:
        async with aiohttp.ClientSession() as session:
            url = f"https://localhost:{front.port}/"
            async with session.get(url, ssl=trusting) as response:
                assert await response.read() == b"hello"
            async with session.get(url, ssl=trusting, headers={"Transfer-Encoding": "gzip, chunked"}) as response:
                assert response.status == 501
    assert (await front.pool.opened.get()).exchange.head.scheme == "https"


async def test_what_has_ended_is_not_left_to_the_garbage_collector() -> None:
    async with listening(FakePool(answer(length=True))) as front:
        client = await front.connect()
        for body in (b"", b"1"):
            request = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            gc.collect()
            gc.disable()
            try:
                for _ in range(100):
                    client.send(request)
                    await client.reader.readuntil(b"\r\n\r\nok")
                    await front.ended.get()
                    await front.pool.opened.get()
                assert gc.collect() < 100
            finally:
                gc.enable()
