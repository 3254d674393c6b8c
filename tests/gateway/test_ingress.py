"""Responses on real sockets: framing, what goes on and what does not, ends that are clean and ends that are not."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

from gateway.errors import Problem
from gateway.exchange import Exchange, RequestHead
from gateway.ingress import Ingress
from gateway.limits import HttpLimits
from gateway.response_head import ResponseHead
from gateway.response_writer import ResponseWriter
from protocol.frames import Code, Headers
from tests.gateway.function_fake import FakePool, FakeStream, answer, listening
from tests.gateway.test_ingress_malformed import get, parsed

CLOSE = b"Connection: close\r\n"
QUICK = HttpLimits(linger=0.3, drain=0.3, flush=0.3, response_wait=0.2)


async def ask(pool: FakePool, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with listening(pool) as front:
        return parsed(await front.ask(request))


# Framing


async def test_chunked_when_the_length_is_not_known() -> None:
    status, fields, body = await ask(FakePool(answer(b"hello")), get(fields=CLOSE))
    assert (status, body) == (200, b"5\r\nhello\r\n0\r\n\r\n")
    assert fields["transfer-encoding"] == "chunked"
    assert "content-length" not in fields


async def test_content_length_is_kept_and_needs_no_chunks() -> None:
    status, fields, body = await ask(FakePool(answer(b"hello", length=True)), get(fields=CLOSE))
    assert (status, body, fields["content-length"]) == (200, b"hello", "5")
    assert "transfer-encoding" not in fields


async def test_no_body() -> None:
    status, fields, body = await ask(FakePool(answer(b"", status=201)), get(fields=CLOSE))
    assert (status, body, fields["content-length"]) == (201, b"", "0")


@pytest.mark.parametrize(
    ("method", "status", "length"), [(b"HEAD", 200, "5"), (b"GET", 304, "5"), (b"GET", 204, None), (b"HEAD", 204, None)]
)
async def test_responses_without_a_body_keep_the_connection(method: bytes, status: int, length: str | None) -> None:
    async with listening(FakePool(answer(b"hello", status=status, length=True))) as front:
        client = await front.connect()
        client.send(get(method + b" / HTTP/1.1"))
        first = await client.head()
        client.send(get(b"HEAD / HTTP/1.1", CLOSE))
        second = await client.rest()
        await client.close()
    assert parsed(first)[0] == parsed(second)[0] == status
    assert parsed(first)[1].get("content-length") == length
    assert "transfer-encoding" not in parsed(first)[1]
    assert (await front.pool.opened.get()).told == ["stop NO_ERROR"]


async def test_http_1_0_gets_its_body_until_the_connection_ends() -> None:
    status, fields, body = await ask(FakePool(answer(b"hello")), get(b"GET / HTTP/1.0", b"Connection: keep-alive\r\n"))
    assert (status, body, fields["connection"]) == (200, b"hello", "close")
    assert "transfer-encoding" not in fields


async def test_http_1_0_keeps_a_connection_that_it_asked_to_keep() -> None:
    async with listening(FakePool(answer(b"hello", length=True))) as front:
        client = await front.connect()
        client.send(get(b"GET / HTTP/1.0", b"Connection: keep-alive\r\n") + get(b"GET / HTTP/1.0"))
        both = await client.rest()
        await client.close()
    assert both.count(b"\r\n\r\nhello") == 2
    assert both.count(b"connection: keep-alive") == both.count(b"connection: close") == 1


async def test_trailers() -> None:
    _, _, body = await ask(FakePool(answer(b"hello", trailers=[(b"x-sum", b"1"), (b"host", b"x")])), get(fields=CLOSE))
    assert body == b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"
    _, _, body = await ask(FakePool(answer(b"", trailers=[(b"x-sum", b"1")])), get(fields=CLOSE))
    assert body == b"0\r\nx-sum: 1\r\n\r\n"
    _, _, body = await ask(FakePool(answer(b"hello", trailers=[(b"x-sum", b"1")])), get(b"GET / HTTP/1.0"))
    assert body == b"hello"


async def test_empty_pieces_do_not_end_a_chunked_body() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.response(200, ())
        for piece in (b"", b"a", b"", b"b"):
            exchange.data(piece)
        exchange.data(b"", end=True)

    assert (await ask(FakePool(function), get(fields=CLOSE)))[2] == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


async def test_103_before_the_response() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.informational(103, [(b"link", b"</a.css>; rel=preload")])
        answer(b"hello")(exchange, stream)

    async with listening(FakePool(function)) as front:
        response = await front.ask(get(fields=CLOSE))
        old = await front.ask(get(b"GET / HTTP/1.0"))
    early, _, final = response.partition(b"\r\n\r\n")
    assert early == b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload"
    assert parsed(final)[0] == 200
    assert parsed(old)[0] == 200


async def test_each_piece_leaves_when_it_comes() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get())
        stream = await front.pool.opened.get()
        stream.exchange.response(200, ())
        assert b" 200 " in await client.head()  # a head alone does not wait for a body
        for n in range(3):
            stream.exchange.data(b"piece %d" % n)
            assert await client.reader.readexactly(12) == b"7\r\npiece %d\r\n" % n
        assert stream.credit == 21
        await client.close()


class Written(asyncio.Transport):
    """A transport that remembers its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: object) -> None:
        assert isinstance(data, bytes), "a view of a reused buffer could change before it leaves"
        self.writes.append(data)

    def is_closing(self) -> bool:
        return False


async def test_a_small_response_is_one_write() -> None:
    transport = Written()
    writer = ResponseWriter(transport, asyncio.get_running_loop(), "1" * 32, is_http11=True, keep_alive=True)
    writer.head(ResponseHead(200, [], None, False), False)
    assert transport.writes == []
    writer.data(b"hello", True)
    [written] = transport.writes
    assert written.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    await asyncio.sleep(0)
    assert len(transport.writes) == 1


async def test_a_head_leaves_at_the_end_of_the_turn() -> None:
    transport = Written()
    writer = ResponseWriter(transport, asyncio.get_running_loop(), "1" * 32, is_http11=True, keep_alive=True)
    writer.head(ResponseHead(200, [], 5, False), False)
    await asyncio.sleep(0)
    writer.data(memoryview(bytearray(b"hello")), True)
    assert [write[-5:] for write in transport.writes] == [b"5\r\n\r\n"[-5:], b"hello"]


async def test_a_reused_buffer_is_not_written_twice() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        buffer = bytearray(b"x" * 300_000)
        exchange.response(200, [(b"content-length", b"900000")] if exchange.head.path == b"/length" else ())
        for n in range(3):
            buffer[:] = b"%d" % n * len(buffer)
            exchange.data(memoryview(buffer), end=n == 2)

    async with listening(FakePool(function)) as front:
        for path in ("/length", "/chunked"):
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{front.port}{path}") as response,
            ):
                assert await response.read() == b"0" * 300_000 + b"1" * 300_000 + b"2" * 300_000


# Heads


async def test_a_request_goes_on_byte_for_byte() -> None:
    heads: list[RequestHead] = []

    def function(exchange: Exchange, stream: FakeStream) -> None:
        heads.append(exchange.head)
        answer()(exchange, stream)

    target = b'/%7Ea//b/../c%2f%E2%82%AC;x="<>\\^`{|}?q=%zz&q=+&&?'
    fields = b"X-One: 1\r\nx-two:  2 \r\nX-ONE: \xff\r\nConnection: x-mine, close\r\nX-Mine: gone\r\nTE: trailers\r\n"
    async with listening(FakePool(function)) as front:
        await front.ask(get(b"GET " + target + b" HTTP/1.1", fields))
        await front.ask(get(b"GET http://Other:80?q HTTP/1.1", CLOSE))
        await front.ask(get(b"OPTIONS * HTTP/1.0"))
    first, second, third = heads
    assert (first.method, first.target, first.version, first.scheme) == (b"GET", target, "1.1", "http")
    assert first.headers == ((b"host", b"x"), (b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"\xff"))
    assert (first.client[0], first.has_body, first.expects_continue) == ("127.0.0.1", False, False)
    assert (second.target, second.headers) == (b"/?q", ((b"host", b"Other:80"),))
    assert (third.method, third.target, third.version) == (b"OPTIONS", b"*", "1.0")


async def test_a_response_goes_on_in_order_with_one_date_and_an_id() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-odd", b"\xff"), (b"server", b"mine")]
    async with listening(FakePool(answer(headers=cookies))) as front:
        response = await front.ask(get(fields=CLOSE))
    exchange = await front.ended.get()
    assert b"set-cookie: a=1\r\nset-cookie: b=2\r\nx-odd: \xff\r\nserver: mine\r\n" in response
    assert response.count(b"\r\ndate: ") == 1
    assert b"\r\nx-request-id: %b\r\n" % exchange.id.hex().encode() in response
    own: Headers = [(b"Date", b"then"), (b"date", b"later"), (b"X-Request-Id", b"mine"), (b"connection", b"keep-alive")]
    _, fields, _ = await ask(FakePool(answer(headers=own)), get(fields=CLOSE))
    assert (fields["date"], fields["x-request-id"], fields["connection"]) == ("then", "mine", "close")


# Connections


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with listening(FakePool(answer(length=True))) as front:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=5)

        def requests() -> list[bytes]:
            bodies = []
            for _ in range(3):
                connection.request("GET", "/")
                bodies.append(connection.getresponse().read())
            connection.close()
            return bodies

        assert await asyncio.to_thread(requests) == [b"ok"] * 3


async def test_pipelined_requests_are_answered_in_order() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        answer(exchange.head.target, length=True)(exchange, stream)

    async with listening(FakePool(function)) as front:
        client = await front.connect()
        client.send(b"".join(get(b"GET /%03d HTTP/1.1" % n, CLOSE * (n == 99)) for n in range(100)))
        response = await client.rest()
        await client.close()
    assert [part[:4] for part in response.split(b"\r\n\r\n")[1:]] == [b"/%03d" % n for n in range(100)]


async def test_an_ignored_upgrade_ends_the_connection() -> None:
    fields = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    async with listening(FakePool(answer())) as front:
        assert parsed(await front.ask(get(fields=fields) + get()))[1]["connection"] == "close"


async def test_an_idle_connection_is_closed() -> None:
    async with listening(FakePool(), limits=HttpLimits(keep_alive=0.05)) as front:
        assert await front.ask(b"") == b""
        assert await front.ask(b"GET / HT") == b""


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
    async with listening(FakePool(), limits=QUICK) as front:
        assert parsed(await front.ask(get(fields=CLOSE)))[0] == 504
        assert (await front.pool.opened.get()).told == ["cancel TIMEOUT"]
        assert (await front.ended.get()).state == "timed_out"


async def test_a_function_that_has_begun_to_answer_is_given_time() -> None:
    async with listening(FakePool(), limits=QUICK) as front:
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
    assert "secret" not in caplog.text


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


async def test_a_handler_that_is_cancelled_lets_go_of_its_stream() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get())
        stream = await front.pool.opened.get()
        [connection] = front.server.connections
        assert connection._task_handler is not None
        connection._task_handler.cancel()
        await stream.until(lambda: bool(stream.told))
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
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = await asyncio.create_subprocess_exec(
        "openssl", *command.split(), "-out", files[0], "-keyout", files[1], stderr=asyncio.subprocess.DEVNULL
    )
    assert await made.wait() == 0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    trusting = ssl.create_default_context(cafile=files[0])
    async with listening(FakePool(answer(b"hello")), tls=context) as front:
        async with aiohttp.ClientSession() as session:
            url = f"https://localhost:{front.port}/"
            async with session.get(url, ssl=trusting) as response:
                assert await response.read() == b"hello"
            async with session.get(url, ssl=trusting, headers={"Transfer-Encoding": "gzip, chunked"}) as response:
                assert response.status == 501
    assert (await front.pool.opened.get()).exchange.head.scheme == "https"
