"""Request bodies on real sockets: how they flow, how they are held back, and how they end when nobody wants them."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from gateway.exchange import Exchange
from gateway.limits import HttpLimits
from protocol.frames import Code
from tests.gateway.certificate import localhost_pair
from tests.gateway.function_fake import FakePool, FakeStream, answer, listening
from tests.gateway.test_ingress_malformed import CHUNKED, get, parsed

QUICK = HttpLimits(linger=0.3, drain=0.3)


def post(size: int, fields: bytes = b"") -> bytes:
    return get(b"POST / HTTP/1.1", b"Content-Length: %d\r\n" % size + fields)


async def test_a_body_arrives_whole_and_ends() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(post(6, b"Content-Encoding: gzip\r\n") + b"abc")  # nobody undoes the encoding
        stream = await front.pool.opened.get()
        assert stream.exchange.head.has_body
        await stream.until(lambda: stream.body == b"abc")
        assert stream.exchange.state == "opened"
        client.send(b"def")
        await stream.until(lambda: stream.has_ended)
        assert (bytes(stream.body), stream.exchange.state, stream.exchange.bytes_in) == (b"abcdef", "request_sent", 6)
        answer(b"ok", length=True)(stream.exchange, stream)
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("body", [b"", b"x", b"0\r\n\r\n" * 9, bytes(range(256)) * 1024])
async def test_chunked(body: bytes) -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        pieces = [body[start : start + 5000] for start in range(0, len(body), 5000)]
        client.send(CHUNKED + b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")
        stream = await front.pool.opened.get()
        await stream.until(lambda: stream.has_ended)
        assert bytes(stream.body) == body


async def test_a_body_of_no_bytes_needs_no_end() -> None:
    async with listening(FakePool(answer())) as front:
        client = await front.connect()
        client.send(post(0))
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        stream = await front.pool.opened.get()
        assert (stream.exchange.head.has_body, stream.has_ended) == (False, False)


async def test_an_upload_is_held_back_while_the_stream_is_full() -> None:
    size = 12 << 20
    body = random.Random(1).randbytes(size)
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(post(size))
        stream = await front.pool.opened.get()
        stream.is_writable = False
        before = len(stream.body)
        client.send(body)
        taken = asyncio.ensure_future(client.writer.drain())
        done, _ = await asyncio.wait([taken], timeout=0.1)
        assert not done
        [connection] = front.server.connections
        assert connection.is_blind  # type: ignore[attr-defined]
        assert len(stream.body) <= before + (256 << 10)  # what one read had brought already
        while not stream.has_ended:  # a function that takes some, and then waits
            stream.is_writable = True
            stream.changed.clear()
            stream.exchange.writable()
            await stream.changed.wait()
            stream.is_writable = False
            await asyncio.sleep(0)
        await taken
        assert hashlib.sha256(stream.body).digest() == hashlib.sha256(body).digest()
        answer()(stream.exchange, stream)
        assert (await front.ended.get()).state == "complete"


async def test_full_duplex() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(CHUNKED)
        stream = await front.pool.opened.get()
        stream.exchange.response(200, ())
        await client.head()
        for piece in (b"one", b"two"):
            client.send(b"3\r\n%b\r\n" % piece)
            await stream.until(lambda piece=piece: stream.body.endswith(piece))  # type: ignore[misc]
            stream.exchange.data(piece.upper())
            assert await client.reader.readexactly(8) == b"3\r\n%b\r\n" % piece.upper()
        stream.exchange.data(b"", end=True)
        assert stream.exchange.state == "uploading"
        client.send(b"0\r\n\r\n" + get())
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        second = await front.pool.opened.get()  # the connection is still of use
        answer()(second.exchange, second)
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


# 100 Continue


async def test_100_continue_leaves_when_the_function_reads() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(post(3, b"Expect: 100-Continue\r\n"))
        stream = await front.pool.opened.get()
        assert stream.exchange.head.expects_continue
        assert b"expect" not in dict(stream.exchange.head.headers)
        silence = asyncio.ensure_future(client.reader.read(1))
        done, _ = await asyncio.wait([silence], timeout=0.05)
        assert not done
        stream.exchange.credit()
        assert await silence + await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"abc" + get())
        await stream.until(lambda: stream.has_ended)
        answer(length=True)(stream.exchange, stream)
        assert b"connection" not in await client.head()
        assert await client.reader.readexactly(2) == b"ok"


async def test_a_function_that_never_reads_ends_the_connection() -> None:
    async with listening(FakePool(answer(status=403, length=True))) as front:
        client = await front.connect()
        client.send(post(3, b"Expect: 100-continue\r\n"))
        status, fields, body = parsed(await client.rest())
        assert (status, fields["connection"], body) == (403, "close", b"ok")


@pytest.mark.parametrize(
    "request_",
    [
        get(b"POST / HTTP/1.0", b"Content-Length: 3\r\nExpect: 100-continue\r\n") + b"abc",
        get(fields=b"Expect: 100-continue\r\n"),
    ],
)
async def test_no_100_continue_for_http_1_0_or_without_a_body(request_: bytes) -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.credit()
        answer()(exchange, stream)

    async with listening(FakePool(function)) as front:
        client = await front.connect()
        client.send(request_)
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")


# Uploads that break off


def bad_request(answer: bytes) -> bool:
    """Whether it is the whole answer to a request that was cut short, and the connection's last."""
    status, fields, body = parsed(answer)
    assert (status, fields["connection"]) == (400, "close")
    return bool(json.loads(body)["type"] == "urn:dialback:error:bad-request")


CUT_SHORT = pytest.mark.parametrize("start", [post(10) + b"abc", CHUNKED + b"A\r\nabc", CHUNKED + b"3\r\nabc\r\n"])


@CUT_SHORT
@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_leaves_its_upload(start: bytes, is_half: bool, has_begun: bool) -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(start)
        stream = await front.pool.opened.get()
        await stream.until(lambda: stream.body == b"abc")
        if has_begun:
            stream.exchange.response(200, ())
            await client.head()
        if is_half:
            client.writer.write_eof()
            rest = await client.rest()
            assert rest == b"" if has_begun else bad_request(rest)
        else:
            await client.close()
        exchange = await front.ended.get()
    assert exchange.state == ("cancelled" if has_begun else "refused")
    assert (stream.told, stream.has_ended) == (["cancel CANCELLED"], False)


@CUT_SHORT
async def test_an_upload_that_is_cut_short_at_once(start: bytes) -> None:
    """Head, half of a body and FIN in one: the gateway may see all three before it serves the request."""
    async with listening(FakePool(), limits=HttpLimits(linger=60)) as front:
        client = await front.connect()
        client.send(start)
        client.writer.write_eof()
        async with asyncio.timeout(30):
            assert bad_request(await client.rest())
        for connection in list(front.server.connections):
            await asyncio.wait_for(connection.shutdown(0), 30)


async def test_an_upload_that_is_cut_short_in_the_queue() -> None:
    pool = FakePool()
    pool.gate = asyncio.Event()
    async with listening(pool) as front:
        client = await front.connect()
        client.send(post(10) + b"abc")
        await pool.entered.wait()
        client.writer.write_eof()
        assert bad_request(await client.rest())
        await pool.left.wait()
        assert (await front.ended.get()).state == "refused"


async def test_a_whole_request_before_one_that_is_cut_short_has_lost_its_client() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get() + post(10) + b"abc")
        stream = await front.pool.opened.get()
        client.writer.write_eof()
        assert await client.rest() == b""
        assert ((await front.ended.get()).state, stream.told) == ("cancelled", ["cancel CANCELLED"])


async def test_a_whole_request_and_the_end_of_its_connection_at_once() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(post(3) + b"abc")
        client.writer.write_eof()
        assert await client.rest() == b""


async def test_an_upload_that_is_cut_short_under_tls(tmp_path: Path) -> None:
    """`close_notify` ends a half; asyncio's own client cannot send one and read on."""
    server, trusting = localhost_pair(tmp_path)
    loop = asyncio.get_running_loop()
    async with listening(FakePool(), tls=server) as front:
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting.wrap_bio(received, sent, server_hostname="localhost")
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", front.port))

            async def finished(step: Callable[[], object]) -> object:
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        await loop.sock_sendall(connection, sent.read())
                        received.write(await asyncio.wait_for(loop.sock_recv(connection, 1 << 16), 10))

            await finished(client.do_handshake)
            client.write(post(10) + b"abc")
            await loop.sock_sendall(connection, sent.read())
            stream = await front.pool.opened.get()
            await stream.until(lambda: stream.body == b"abc")
            with pytest.raises(ssl.SSLWantReadError):
                client.unwrap()
            answer = bytes(cast(bytes, await finished(lambda: client.read(1 << 16))))
            assert bad_request(answer)
        assert ((await front.ended.get()).state, stream.told) == ("refused", ["cancel CANCELLED"])


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_body_that_goes_wrong_on_the_way(has_begun: bool) -> None:
    async with listening(FakePool(), limits=QUICK) as front:
        client = await front.connect()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        stream = await front.pool.opened.get()
        await stream.until(lambda: stream.body == b"abc")
        if has_begun:
            stream.exchange.response(200, ())
            await client.head()
        client.send(b"not a size\r\n")
        rest = await client.rest()
        exchange = await front.ended.get()
    assert stream.told == ["cancel CANCELLED"]
    assert not stream.has_ended
    if has_begun:
        assert (exchange.state, rest) == ("cancelled", b"")
    else:
        status, fields, body = parsed(rest)
        assert (exchange.state, status, json.loads(body)["status"]) == ("refused", 400, 400)


async def test_a_body_that_goes_wrong_behind_another_request() -> None:
    async with listening(FakePool(), limits=QUICK) as front:
        client = await front.connect()
        client.send(get() + CHUNKED + b"3\r\nabc\r\n")
        stream = await front.pool.opened.get()
        client.send(b"not a size\r\n")
        for _ in range(20):
            await asyncio.sleep(0)
        answer(length=True)(stream.exchange, stream)
        response = await client.rest()
    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"okHTTP/1.1 400 " in response
    assert front.pool.opened.empty()


# Responses that do not wait for the whole request


def not_reading(status: int = 200) -> FakePool:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        stream.is_writable = False
        answer(b"enough", status=status, length=True)(exchange, stream)
        exchange.stopped(Code.NO_ERROR)

    return FakePool(function)


async def test_a_small_rest_is_drained_and_the_connection_kept() -> None:
    async with listening(not_reading()) as front:
        client = await front.connect()
        client.send(post(300_000) + bytes(300_000) + get())
        for _ in range(2):
            status, fields, _ = parsed(await client.head())
            assert (status, await client.reader.readexactly(6)) == (200, b"enough")
        first = await front.pool.opened.get()
        assert (first.exchange.state, first.told) == ("complete", ["reset NO_ERROR"])


@pytest.mark.parametrize(("sends", "drain"), [(0, 0.3), (3 << 20, 60)])
async def test_a_rest_that_does_not_come_or_is_large_ends_the_connection(sends: int, drain: float) -> None:
    async with listening(not_reading(), limits=HttpLimits(linger=0.3, drain=drain)) as front:
        client = await front.connect()
        client.send(post(1 << 30) + bytes(sends))
        status, _, body = parsed(await client.rest())
        assert (status, body) == (200, b"enough")


async def test_a_client_that_sends_all_before_it_reads() -> None:
    """As most do. The response is not lost to a reset, and while it lasts the client is not blocked."""

    def function(exchange: Exchange, stream: FakeStream) -> None:
        stream.is_writable = False
        exchange.response(200, ())
        exchange.data(b"x" * 1000)
        exchange.stopped(Code.NO_ERROR)

    async with listening(FakePool(function)) as front:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=10)

        def upload() -> None:
            connection.request("POST", "/", body=bytes(32 << 20))

        def read() -> tuple[int, int]:
            response = connection.getresponse()
            return response.status, len(response.read())

        await asyncio.to_thread(upload)
        stream = await front.pool.opened.get()
        assert stream.exchange.state == "downloading"
        stream.exchange.data(b"y" * 1000, end=True)
        assert await asyncio.to_thread(read) == (200, 2000)
        connection.close()


async def test_a_rest_that_is_no_body_does_not_harm_the_response() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.response(200, ())
        exchange.stopped(Code.NO_ERROR)

    async with listening(FakePool(function), limits=QUICK) as front:
        client = await front.connect()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        await client.head()
        client.send(b"not a size\r\n")
        for _ in range(20):
            await asyncio.sleep(0)
        stream = await front.pool.opened.get()
        stream.exchange.data(b"whole", True)
        assert await client.rest() == b"5\r\nwhole\r\n0\r\n\r\n"


async def test_a_refused_upload_is_answered() -> None:
    pool = FakePool()
    async with listening(pool, limits=QUICK) as front:
        front.ingress.is_draining = True
        client = await front.connect()
        client.send(post(4 << 20) + bytes(4 << 20))
        status, fields, _ = parsed(await client.rest())
    assert (status, fields["connection"]) == (503, "close")


async def test_stopping_waits_for_a_running_upload() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(post(6) + b"abc")
        stream = await front.pool.opened.get()
        await stream.until(lambda: stream.body == b"abc")
        front.ingress.is_draining = True
        front.server.close_idle()
        stopping = asyncio.ensure_future(front.server.shutdown(5))
        await asyncio.sleep(0)
        client.send(b"def")
        await stream.until(lambda: stream.has_ended)
        answer(b"done")(stream.exchange, stream)
        assert (await client.rest()).endswith(b"done\r\n0\r\n\r\n")
        await stopping
