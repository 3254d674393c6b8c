"""Responses on real sockets: framing, connections, what goes on and what does not."""

from __future__ import annotations

import asyncio
import http.client

import aiohttp
import pytest

from gateway.client_connection import MAX_PIPELINED
from gateway.exchange import Exchange, RequestHead
from gateway.limits import HttpLimits
from gateway.outgoing import Outgoing, Turn
from gateway.response_head import ResponseHead
from gateway.response_writer import ResponseWriter
from protocol.frames import Headers
from tests.gateway.function_fake import FakePool, FakeStream, answer, eventually, listening
from tests.gateway.test_ingress_malformed import get, parsed

CLOSE = b"Connection: close\r\n"


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
    ("method", "status", "length"),
    [
        (b"HEAD", 200, "5"),
        (b"GET", 304, "5"),
        (b"GET", 204, None),
        (b"HEAD", 204, None),
        (b"GET", 205, "0"),
        (b"HEAD", 205, "0"),
    ],
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


@pytest.mark.parametrize(
    ("line", "length", "is_said"),
    [
        (b"GET / HTTP/1.1", False, True),
        (b"GET / HTTP/1.1", True, False),
        (b"GET / HTTP/1.0", False, False),
        (b"HEAD / HTTP/1.1", False, False),
    ],
)
async def test_trailers_are_announced_where_there_is_a_place_for_them(line: bytes, length: bool, is_said: bool) -> None:
    announced = [(b"Trailer", b"x-sum"), (b"Trailer", b"x-more")]
    async with listening(FakePool(answer(b"hello", headers=announced, length=length, trailers=()))) as front:
        head = (await front.ask(get(line, CLOSE))).partition(b"\r\n\r\n")[0]
    said = [row for row in head.split(b"\r\n") if row.startswith(b"trailer")]
    assert said == ([b"trailer: x-sum", b"trailer: x-more"] if is_said else [])


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
    writer = ResponseWriter(Outgoing(transport, Turn()), "1" * 32, is_http11=True, keep_alive=True)
    writer.head(ResponseHead(200, [], None, False), False)
    assert transport.writes == []
    writer.data(b"hello", True)
    [written] = transport.writes
    assert written.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    await asyncio.sleep(0)
    assert len(transport.writes) == 1


async def test_a_head_leaves_at_the_end_of_the_turn() -> None:
    transport = Written()
    writer = ResponseWriter(Outgoing(transport, Turn()), "1" * 32, is_http11=True, keep_alive=True)
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


@pytest.mark.parametrize("length", [False, True])
@pytest.mark.parametrize("status", [200, 204, 205, 304, 404])
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"HEAD / HTTP/1.1"])
async def test_a_response_that_came_whole_is_the_same_bytes(line: bytes, status: int, length: bool) -> None:
    said: list[bytes] = []
    for whole in (False, True):
        fields = [(b"date", b"then"), (b"x-request-id", b"mine"), (b"trailer", b"x-sum")]
        pool = FakePool(answer(b"hello", status=status, headers=fields, length=length, whole=whole))
        async with listening(pool) as front:
            said.append(await front.ask(get(line, CLOSE)))
            exchange = await front.ended.get()
            assert exchange.state == "complete" and exchange.bytes_out == (5 if b"hello" in said[-1] else 0)
    assert said[0] == said[1]


async def test_a_response_that_came_whole_is_one_write() -> None:
    transport = Written()
    writer = ResponseWriter(Outgoing(transport, Turn()), "1" * 32, is_http11=True, keep_alive=True)
    buffer = bytearray(b"hello")
    writer.head(ResponseHead(200, [], None, False), True, memoryview(buffer))
    buffer[:] = b"wrong"
    [written] = transport.writes
    assert written.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    await asyncio.sleep(0)
    assert len(transport.writes) == 1


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
    assert first.headers[:4] == ((b"host", b"x"), (b"x-one", b"1"), (b"x-two", b"2"), (b"x-one", b"\xff"))
    ours = {name for name, _ in first.headers[4:]}
    assert ours == {b"forwarded"} | {b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"port")}
    assert (first.client[0], first.has_body, first.expects_continue) == ("127.0.0.1", False, False)
    assert (second.target, second.headers[0], len(second.headers)) == (b"/?q", (b"host", b"Other:80"), 6)
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


async def test_many_pipelined_requests_wait_in_order_and_in_bounds() -> None:
    count = 2000
    async with listening(FakePool()) as front:
        client = await front.connect()
        requests = [get(b"GET /%d HTTP/1.1" % number, b"X-Long: %b\r\n" % (b"a" * 400)) for number in range(count)]
        client.send(b"".join(requests[:-1]) + get(b"GET /%d HTTP/1.1" % (count - 1), CLOSE))
        first = await front.pool.opened.get()
        [connection] = front.server.connections
        await eventually(lambda: connection.is_blind)
        assert len(connection._waiting) <= MAX_PIPELINED
        assert not front.pool.opened.qsize(), "one after the other"
        front.pool.function = lambda exchange, stream: answer(exchange.head.target)(exchange, stream)
        answer(b"/0")(first.exchange, first)
        bodies = (await client.rest()).split(b"\r\n\r\n")
        told = [part.split(b"\r\n")[1] for part in bodies if b"\r\n/" in part]
        assert told == [b"/%d" % number for number in range(count)]


async def test_pipelined_requests_end_with_their_client() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get() * 100)
        stream = await front.pool.opened.get()
        await client.close()
        assert ((await front.ended.get()).state, stream.told) == ("cancelled", ["cancel CANCELLED"])
        await eventually(lambda: not front.server.connections)
        assert not front.pool.opened.qsize(), "nobody asked for the others any more"
