"""What is not a request that we serve: each case gets its documented problem, and the gateway notices nothing else."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from structlog.testing import capture_logs

from gateway.limits import HttpLimits
from tests.gateway.function_fake import FakePool, answer, listening

HOST = b"Host: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + b"A" * 22
    + b"==\r\n"
)
LIMITS = HttpLimits(linger=0.5, drain=0.5)


def get(line: bytes = b"GET / HTTP/1.1", fields: bytes = b"") -> bytes:
    return line + b"\r\n" + HOST + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"abc") -> bytes:
    return get(b"POST / HTTP/1.1", fields) + body


REFUSED = {
    "nothing like HTTP": (b"\x00\x01\x02\x03\r\n\r\n", "bad-request"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "bad-request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad-request"),
    "HTTP/2.0 in a request line": (get(b"GET / HTTP/2.0"), "version-not-supported"),
    "HTTP/0.9": (b"GET /\r\n\r\n", "version-not-supported"),
    "HTTP/1.2": (get(b"GET / HTTP/1.2"), "version-not-supported"),
    "HTTP/9.9": (get(b"GET / HTTP/9.9"), "version-not-supported"),
    "HTTP/1.2 and a field that is none": (get(b"GET / HTTP/1.2", b"abc\r\n"), "version-not-supported"),
    "a version that is none": (get(b"GET / HTTP/1.x"), "bad-request"),
    "ICE": (get(b"SOURCE / ICE/1.0"), "bad-request"),
    "unknown method": (get(b"FROB / HTTP/1.1"), "not-implemented"),
    "lower-case method": (get(b"get / HTTP/1.1"), "not-implemented"),
    "CONNECT": (get(b"CONNECT a:1 HTTP/1.1"), "not-implemented"),
    "bare LF": (b"GET / HTTP/1.1\nHost: x\n\n", "bad-request"),
    "space in the target": (get(b"GET /a b HTTP/1.1"), "bad-request"),
    "non-ASCII target": (get("GET /é HTTP/1.1".encode()), "bad-request"),
    "non-ASCII query": (get("GET /?é HTTP/1.1".encode()), "bad-request"),
    "NUL in the target": (get(b"GET /\0 HTTP/1.1"), "bad-request"),
    "escape sequence in the target": (get(b"GET /\x1b[31m HTTP/1.1"), "bad-request"),
    "fragment": (get(b"GET /a#b HTTP/1.1"), "bad-request"),
    "target without a slash": (get(b"GET abc HTTP/1.1"), "bad-request"),
    "asterisk with GET": (get(b"GET * HTTP/1.1"), "bad-request"),
    "ftp target": (get(b"GET ftp://h/ HTTP/1.1"), "bad-request"),
    "user info in the target": (get(b"GET http://u@h/ HTTP/1.1"), "bad-request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", "bad-request"),
    "two Hosts": (get(fields=HOST), "bad-request"),
    "Host that is none": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "bad-request"),
    "no colon": (get(fields=b"abc\r\n"), "bad-request"),
    "space before the colon": (get(fields=b"A : b\r\n"), "bad-request"),
    "empty name": (get(fields=b": b\r\n"), "bad-request"),
    "folded field": (get(fields=b"A: b\r\n c\r\n"), "bad-request"),
    "NUL in a value": (get(fields=b"A: b\0c\r\n"), "bad-request"),
    "CR in a value": (get(fields=b"A: b\rc\r\n"), "bad-request"),
    "non-ASCII name": (get(fields="é: b\r\n".encode()), "bad-request"),
    "length and coding": (post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), "bad-request"),
    "coding and length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n\r\n"), "bad-request"),
    "chunked, then gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n"), "bad-request"),
    "gzip alone": (post(b"Transfer-Encoding: gzip\r\n"), "bad-request"),
    "gzip, then chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), "not-implemented"),
    "chunked twice": (post(b"Transfer-Encoding: chunked\r\n" * 2, b"0\r\n\r\n"), "bad-request"),
    "xchunked": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), "bad-request"),
    "chunked in HTTP/1.0": (get(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked\r\n") + b"0\r\n\r\n", "bad-request"),
    "two lengths": (post(b"Content-Length: 3\r\n" * 2), "bad-request"),
    "list of lengths": (post(b"Content-Length: 3, 3\r\n"), "bad-request"),
    "signed length": (post(b"Content-Length: +3\r\n"), "bad-request"),
    "negative length": (post(b"Content-Length: -3\r\n"), "bad-request"),
    "hexadecimal length": (post(b"Content-Length: 0x3\r\n"), "bad-request"),
    "empty length": (post(b"Content-Length: \r\n"), "bad-request"),
    "length past 64 bits": (post(b"Content-Length: 99999999999999999999\r\n"), "bad-request"),
    "length of 2**64 - 1": (post(b"Content-Length: 18446744073709551615\r\n"), "bad-request"),
    "chunk size that is none": (CHUNKED + b"zz\r\n\r\n", "bad-request"),
    "negative chunk size": (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", "bad-request"),
    "chunk size past 64 bits": (CHUNKED + b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n", "bad-request"),
    "chunk longer than said": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", "bad-request"),
    "chunks ended by LF": (CHUNKED + b"3\nabc\n0\n\n", "bad-request"),
    "unknown expectation": (post(b"Content-Length: 3\r\nExpect: 200-ok\r\n"), "expectation-failed"),
    "WebSocket of another version": (get(fields=UPGRADE.replace(b"13", b"8")), "websocket-version"),
    "our own path, unknown": (get(b"GET /_dialback/secret HTTP/1.1"), "no-route"),
    "our own path in an absolute target": (get(b"GET http://x/_dialback/v9 HTTP/1.1"), "no-route"),
    "our own root": (get(b"GET /_dialback HTTP/1.1"), "no-route"),
    "line past its limit": (get(b"GET /" + b"a" * ((16 << 10) - 13) + b" HTTP/1.1"), "target-too-long"),
    "line far past its limit": (get(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"), "target-too-long"),
    "field past its limit": (get(fields=b"a: " + b"b" * (16 << 10) + b"\r\n"), "header-too-large"),
    "field far past its limit": (get(fields=b"a: " + b"b" * 50_000 + b"\r\n"), "header-too-large"),
    "name far past its limit": (get(fields=b"a" * 50_000 + b": b\r\n"), "header-too-large"),
    "257 fields": (get(fields=b"a: b\r\n" * 256), "header-too-large"),
    "head past its limit": (
        get(fields=b"a: %b\r\n" % (b"b" * 15_000) * 4 + b"a: %b\r\n" % (b"b" * 1391)),
        "header-too-large",
    ),
    "head without end": (get(fields=b"a: %b\r\n" % (b"b" * 15_000) * 8)[:-2], "header-too-large"),
}
STATUS = {
    "bad-request": 400,
    "no-route": 404,
    "target-too-long": 414,
    "expectation-failed": 417,
    "header-too-large": 431,
    "not-implemented": 501,
    "websocket-version": 426,
    "version-not-supported": 505,
}

TAKEN = {
    "line at its limit": get(b"GET /" + b"a" * ((16 << 10) - 14) + b" HTTP/1.1"),
    "field at its limit": get(fields=b"a: " + b"b" * ((16 << 10) - 1) + b"\r\n"),
    "long names one after the other": get(fields=b"a" * 16_000 + b": b\r\n" + b"c" * 16_000 + b": d\r\n"),
    "256 fields": get(fields=b"a: b\r\n" * 255),
    "head at its limit": get(fields=b"a: %b\r\n" % (b"b" * 15_000) * 4 + b"a: %b\r\n" % (b"b" * 1390)),
    "non-ASCII value": get(fields="A: é\r\n".encode()),
    "blank lines first": b"\r\n\r\n" + get(),
    "HTTP/1.0 without Host": b"GET / HTTP/1.0\r\n\r\n",
    "an upgrade that we do not know": get(
        fields=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
    ),
    "chunk extension and trailer": CHUNKED + b"3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n",
    "an old method": get(b"PROPFIND / HTTP/1.1"),
}


def parsed(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body of a single response; HTTP/1.1, nothing else."""
    head, _, body = response.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    assert line.startswith("HTTP/1.1 "), response[:80]
    return int(line.split(" ")[1]), dict(field.split(": ", 1) for field in fields), body


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_with_its_problem(case: str) -> None:
    request, name = REFUSED[case]
    with capture_logs() as lines:
        async with listening(FakePool(answer()), limits=LIMITS) as front:
            status, fields, body = parsed(await front.ask(request))
            other = parsed(await front.ask(get(fields=b"Connection: close\r\n")))
    document = json.loads(body)
    assert status == document["status"] == STATUS[name]
    assert document["type"] == f"urn:dialback:error:{name}"
    assert document["instance"] == f"urn:dialback:request:{fields['x-request-id']}"
    assert fields["content-type"] == "application/problem+json"
    assert fields["connection"] == "close"
    assert fields["content-length"] == str(len(body))
    assert "server" not in fields
    assert other[0] == 200
    assert front.ended.qsize() == front.pool.opened.qsize() == 1  # only the other one became an exchange
    (warning,) = [line for line in lines if line["log_level"] in ("warning", "error", "critical")]
    assert "exc_info" not in warning and warning["problem"] == name


@pytest.mark.parametrize("case", TAKEN)
async def test_taken(case: str) -> None:
    async with listening(FakePool(answer())) as front:
        client = await front.connect()
        client.send(TAKEN[case])
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        await client.close()


@pytest.mark.parametrize("piece", [1, 7, 4096])
async def test_a_head_may_come_in_pieces(piece: int) -> None:
    request = get(fields=b"a: " + b"b" * 5000 + b"\r\nConnection: close\r\n")
    async with listening(FakePool(answer())) as front:
        client = await front.connect()
        for start in range(0, len(request), piece):
            client.send(request[start : start + piece])
            if start % 101 == 0:
                await client.writer.drain()
                await asyncio.sleep(0)
        assert parsed(await client.rest())[0] == 200
        await client.close()


async def test_a_bad_request_behind_a_good_one() -> None:
    async with listening(FakePool(answer(length=True)), limits=LIMITS) as front:
        client = await front.connect()
        client.send(get())
        first = await client.head()
        client.send(b"nonsense\r\n\r\n")
        rest = await client.rest()
        await client.close()
    assert first.startswith(b"HTTP/1.1 200 ")
    assert rest.startswith(b"okHTTP/1.1 400 ")


async def test_a_flood_of_bad_requests_is_one_line() -> None:
    with capture_logs() as lines:
        async with listening(FakePool(), limits=LIMITS) as front:
            for _ in range(20):
                assert b" 400 " in await front.ask(b"rubbish \x1b[2J secret\r\n\r\n")
    assert 1 <= len(lines) <= 2  # a second may end meanwhile
    assert not re.search("rubbish|secret|\x1b", str(lines))


async def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async with listening(FakePool(), limits=LIMITS) as front:
        client = await front.connect()
        client.send(b"POST / HTTP/1.1\r\nHost: a b\r\nContent-Length: 100000000\r\n\r\n")
        client.send(b"x" * 4_000_000)  # more than the buffers in between hold: somebody must read it
        await client.writer.drain()
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        await client.close()


async def test_the_head_limit_holds_for_trailers() -> None:
    async with listening(FakePool(), limits=LIMITS) as front:
        client = await front.connect()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        stream = await front.pool.opened.get()
        await stream.until(lambda: bool(stream.body))
        client.send(b"0\r\n" + b"".join(b"a%d: %b\r\n" % (n, b"b" * 9000) for n in range(8)))
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")
        assert stream.told == ["cancel CANCELLED"]
        await client.close()


async def test_a_head_past_its_limit_is_told_that_the_request_line_counts() -> None:
    """Its fields alone are below the limit."""
    fields = b"a: %b\r\n" % (b"b" * 15_000) * 3 + b"a: %b\r\n" % (b"b" * 3_000)
    async with listening(FakePool(answer()), limits=LIMITS) as front:
        taken = parsed(await front.ask(get(fields=fields + b"Connection: close\r\n")))
        status, _, body = parsed(await front.ask(get(b"GET /" + b"a" * 15_000 + b" HTTP/1.1", fields)))
    assert (taken[0], status) == (200, 431)
    assert json.loads(body)["detail"] == "The request line and all fields together may have 61440 bytes."
