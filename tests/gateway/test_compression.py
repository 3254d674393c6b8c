"""Which responses are compressed and what their heads say; bodies that any client decodes, piece by piece."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import pytest
import zstandard

from gateway import compressors as compressors_module
from gateway.compression import SMALLEST, Compression, accepted
from gateway.compressors import CODINGS, Compressors
from gateway.exchange import Exchange
from gateway.limits import HttpLimits
from gateway.metrics import Metrics
from gateway.open_websockets import OpenWebSockets
from gateway.request_log import access_fields
from gateway.response_head import Pair, ResponseHead
from gateway.sides import RequestHead
from gateway.terms import Terms
from tests.gateway.function_fake import FakePool, FakeStream, answer, eventually, listening
from tests.gateway.test_ingress_malformed import parsed

ALL = Compression(("zstd", "br", "gzip"))
TEXT = b"To be, or not to be, that is the question. " * 100
HTML: list[Pair] = [(b"content-type", b"text/html; charset=utf-8")]


def decoder(coding: str) -> Callable[[bytes], bytes]:
    """Gives all that can be decoded so far, each time it is given more."""
    if coding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress
    if coding == "br":
        decompressor: Any = brotli.Decompressor()
        # Where its window wraps it returns a part, and the rest when asked again, with nothing more to read.
        return lambda data: bytes(decompressor.process(data) + decompressor.process(b""))
    return zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj().decompress


def judged(
    accept: bytes | None = b"gzip",
    headers: list[Pair] | None = None,
    *,
    method: bytes = b"GET",
    status: int = 200,
    length: int | None = None,
    request: tuple[Pair, ...] = (),
    compression: Compression = ALL,
) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """The fields of the head as judged, and the codings."""
    fields = request if accept is None else ((b"accept-encoding", accept), *request)
    head = ResponseHead(status, HTML if headers is None else headers, length, method == b"HEAD")
    head, codings = compression.judge(RequestHead(method, b"/", fields), head)
    return dict(head.headers), codings


# Negotiation (RFC 9110, section 12.5.3)


@pytest.mark.parametrize(
    ("accept", "codings"),
    [
        (None, ()),
        (b"", ()),
        (b"gzip", ("gzip",)),
        (b"x-gzip", ("gzip",)),
        (b"GZIP ; Q=0.5", ("gzip",)),
        (b"deflate, compress", ()),
        (b"gzip, deflate, br, zstd", ("zstd", "br", "gzip")),
        (b"gzip;q=1.0, br;q=0.9, zstd;q=0.9", ("gzip", "zstd", "br")),
        (b"gzip;q=0", ()),
        (b"gzip;q=0.000", ()),
        (b"*", ("zstd", "br", "gzip")),
        (b"*;q=0.1, br", ("br", "zstd", "gzip")),
        (b"br;q=0, *", ("zstd", "gzip")),
        (b"identity", ()),
        (b"identity, gzip;q=0.5", ()),
        (b"identity;q=0.5, gzip;q=0.5", ("gzip",)),
        (b"identity;q=0.5, gzip;q=0.4, br;q=0.6", ("br",)),
        (b"identity;q=0", ()),
        (b"gzip;q=2, br;q=0.1234, zstd;q=x", ()),
        (b"gzip;level=1, ,br", ("br",)),
    ],
)
def test_what_a_client_takes(accept: bytes | None, codings: tuple[str, ...]) -> None:
    assert judged(accept)[1] == codings


def test_accept_encoding_may_be_several_fields() -> None:
    assert accepted([b"gzip;q=0.5", b"br , *;q=0"]) == {b"gzip": 0.5, b"br": 1.0, b"*": 0.0}
    assert judged(b"br", request=((b"accept-encoding", b"gzip"),))[1] == ("br", "gzip")


def test_the_route_says_which_codings_there_are_and_which_is_liked_best() -> None:
    assert judged(b"gzip, br, zstd", compression=Compression(("gzip", "br")))[1] == ("gzip", "br")
    assert judged(b"zstd", compression=Compression(("gzip",)))[1] == ()


@pytest.mark.parametrize("accept", [b"gzip, identity;q=0", b"gzip, *;q=0"])
def test_who_refuses_plain_bytes_gets_even_short_ones_compressed(accept: bytes) -> None:
    assert judged(accept, [(b"content-type", b"image/png")], length=3)[1] == ("gzip",)
    assert judged(b"deflate, *;q=0")[1] == (), "there is nothing that it would take"


# What is compressed


@pytest.mark.parametrize(
    "kind",
    [b"text/plain", b"Text/HTML ; charset=x", b"text/event-stream", b"application/json", b"application/problem+json"]
    + [b"image/svg+xml", b"application/wasm", b"application/x-ndjson", b"application/javascript", b"font/ttf"],
)
def test_media_types_that_are_compressed(kind: bytes) -> None:
    assert judged(headers=[(b"content-type", kind)])[1] == ("gzip",)


@pytest.mark.parametrize(
    "kind",
    [b"image/png", b"image/webp", b"video/mp4", b"audio/mpeg", b"application/zip", b"application/gzip", b"font/woff2"]
    + [b"application/pdf", b"application/octet-stream", b"application/vnd.openxmlformats-officedocument", b"", b"text"],
)
def test_media_types_that_are_not(kind: bytes) -> None:
    fields, codings = judged(headers=[(b"content-type", kind)])
    assert codings == () and b"vary" not in fields


def test_without_a_type_nothing_is_known() -> None:
    assert judged(headers=[])[1] == ()


@pytest.mark.parametrize("length", [0, 1, SMALLEST - 1])
def test_a_short_body_is_left_as_it_is(length: int) -> None:
    assert judged(length=length)[1] == ()
    assert judged(length=SMALLEST)[1] == ("gzip",)


@pytest.mark.parametrize("status", [204, 205, 206, 304])
def test_statuses_that_are_left_alone(status: int) -> None:
    fields, codings = judged(status=status, headers=[*HTML, (b"etag", b'"x"'), (b"accept-ranges", b"bytes")])
    assert codings == ()
    assert fields == dict([*HTML, (b"etag", b'"x"'), (b"accept-ranges", b"bytes")])


@pytest.mark.parametrize("status", [200, 201, 403, 404, 500])
def test_statuses_with_a_body(status: int) -> None:
    assert judged(status=status)[1] == ("gzip",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"content-encoding", b"br"),
        (b"content-encoding", b"aes128gcm"),
        (b"content-range", b"bytes */100"),
        (b"cache-control", b"public, No-Transform"),
        (b"content-digest", b"sha-256=:x:"),
        (b"repr-digest", b"sha-256=:x:"),
        (b"digest", b"sha-256=x"),
        (b"content-md5", b"x"),
    ],
)
def test_what_a_response_says_of_its_bytes_stays_true(name: bytes, value: bytes) -> None:
    fields, codings = judged(headers=[*HTML, (name, value)])
    assert codings == () and fields == {**dict(HTML), name: value}


@pytest.mark.parametrize("field", [(b"range", b"bytes=0-"), (b"cache-control", b"no-transform")])
def test_what_a_request_may_ask_for(field: Pair) -> None:
    assert judged(request=(field,))[1] == ()


# What the head says


def begun(
    headers: list[Pair],
    *,
    method: bytes = b"GET",
    accept: bytes = b"gzip",
    length: int | None = 5000,
    end: bool = False,
) -> ResponseHead:
    exchange = Exchange(RequestHead(method, b"/", ((b"accept-encoding", accept),)), Any)
    head = ResponseHead(200, [*HTML, *headers], length, method == b"HEAD")
    return ALL.begin(exchange, head, end, Compressors(1 << 30))[0]


def test_the_head_of_a_compressed_response() -> None:
    head = begun([(b"etag", b'"abc"'), (b"accept-ranges", b"bytes"), (b"vary", b"Origin")])
    assert head.length is None
    assert head.headers == [
        *HTML,
        (b"etag", b'W/"abc"'),
        (b"vary", b"Origin"),
        (b"vary", b"accept-encoding"),
        (b"content-encoding", b"gzip"),
    ]
    assert dict(begun([(b"etag", b'W/"abc"')]).headers)[b"etag"] == b'W/"abc"'


@pytest.mark.parametrize("vary", [b"Accept-Encoding", b"origin , ACCEPT-ENCODING", b"*"])
def test_vary_is_said_once(vary: bytes) -> None:
    assert [value for name, value in begun([(b"vary", vary)]).headers if name == b"vary"] == [vary]


def test_vary_is_said_to_those_who_take_no_coding_too() -> None:
    head = begun([(b"etag", b'"abc"')], accept=b"identity")
    assert head.headers == [*HTML, (b"etag", b'"abc"'), (b"vary", b"accept-encoding")]
    assert head.length == 5000


def test_head_says_what_get_would() -> None:
    assert begun([(b"etag", b'"x"')], method=b"HEAD", end=True) == ResponseHead(
        200, begun([(b"etag", b'"x"')]).headers, None, True
    )


def test_an_empty_body_is_not_compressed() -> None:
    assert begun([], length=None, end=True).headers == HTML


def test_not_modified_speaks_of_what_the_client_has() -> None:
    fields = judged(status=304, headers=[(b"etag", b'"x"')], request=((b"if-none-match", b'"a", W/"x"'),))[0]
    assert fields == {b"etag": b'W/"x"'}
    fields = judged(status=304, headers=[(b"etag", b'"x"')], request=((b"if-none-match", b'"x"'),))[0]
    assert fields == {b"etag": b'"x"'}


# Bodies


def pieces_of(chance: random.Random) -> Iterator[bytes]:
    for _ in range(50):
        yield chance.choice([b"x", TEXT, chance.randbytes(chance.randrange(5000)), b"", bytes(100_000)])


@pytest.mark.parametrize("coding", CODINGS)
def test_each_piece_can_be_decoded_when_it_has_come(coding: str) -> None:
    exchange = Exchange(RequestHead(b"GET", b"/", ()), Any)
    owner = Compressors(1 << 30)
    compressor = owner.begin(coding, exchange)
    assert compressor is not None
    decode, sent, received = decoder(coding), 0, 0
    for number, piece in enumerate(pieces_of(random.Random(5))):
        payload: Any = (bytes, bytearray, memoryview)[number % 3](piece)
        encoded = compressor.encode(payload, False)
        assert decode(encoded) == piece
        sent, received = sent + len(piece), received + len(encoded)
    last = compressor.encode(TEXT, True)
    assert decode(last) == TEXT
    assert exchange.bytes_saved == sent + len(TEXT) - received - len(last)
    assert owner.held == 0 and compressor.encode(b"", True) == b""
    compressor.close()
    assert owner.held == 0


@pytest.mark.parametrize("coding", CODINGS)
def test_what_one_stream_holds_is_what_is_said(coding: str) -> None:
    """By what malloc and mmap gave a process of its own; thousands could be meant."""
    code = f"""
from gateway.compressors import CODINGS
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
import random
data = b"".join(b"%x " % random.getrandbits(60) for _ in range(1 << 14))
warm = CODINGS[{coding!r}].begin(); warm(data, True)
before = resident()
streams = [CODINGS[{coding!r}].begin() for _ in range(200)]
for stream in streams:
    for at in range(0, len(data), 1 << 14):
        stream(data[at : at + (1 << 14)], False)
print((resident() - before) // 200)
"""
    measured = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert 0.5 * CODINGS[coding].memory < measured < 1.1 * CODINGS[coding].memory


def test_all_of_them_are_bounded_and_what_comes_beyond_is_sent_as_it_is() -> None:
    exchange = Exchange(RequestHead(b"GET", b"/", ((b"accept-encoding", b"zstd, br, gzip"),)), Any)
    room = CODINGS["br"].memory + CODINGS["gzip"].memory
    owner, head = Compressors(room), ResponseHead(200, HTML, None, False)
    compression = Compression(("br", "zstd", "gzip"))
    begun = [compression.begin(exchange, head, False, owner) for _ in range(3)]
    codings = [dict(head.headers).get(b"content-encoding") for head, _ in begun]
    assert codings == [b"br", b"gzip", None]
    assert all(dict(head.headers)[b"vary"] == b"accept-encoding" for head, _ in begun)
    assert begun[2][1] is None and owner.held == room
    assert begun[0][1] is not None and begun[1][1] is not None
    begun[0][1].close()
    begun[1][1].encode(b"", True)
    assert owner.held == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deflate", "of zstd, br, gzip"),
        ("gzip, gzip", "each once"),
        ("", "of zstd, br, gzip"),
        ("gzip off", "of zstd, br, gzip"),
    ],
)
def test_what_no_list_of_codings_is(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Compression.read(text)


def test_a_coding_whose_library_is_missing_is_told_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        return None if name in ("brotli", "zstandard") else object()

    monkeypatch.setattr(compressors_module.importlib.util, "find_spec", find)
    with pytest.raises(ValueError, match=r"names zstd and br, .* pip install 'dialback\[compression\]'"):
        Compression.read("zstd, br, gzip")
    assert Compression.read("gzip") == Compression(("gzip",))
    assert Compression.read("off") is None


# On a client's connection


def get(accept: str, *, method: str = "GET", version: str = "1.1") -> bytes:
    lines = f"{method} / HTTP/{version}\r\nHost: x\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n\r\n"
    return lines.encode()


def content(headers: dict[str, str], body: bytes) -> bytes:
    """What the framing holds; raises AssertionError where it does not end."""
    if headers.get("transfer-encoding") != "chunked":
        return body
    found = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert body.endswith(b"\r\n")
            return found
        assert body[length : length + 2] == b"\r\n"
        found, body = found + body[:length], body[length + 2 :]


def compressing(function: Any) -> FakePool:
    return FakePool(function, Terms(compression=ALL))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("trailers", [None, [(b"x-sum", b"1")]])
async def test_a_response_on_the_wire(coding: str, version: str, trailers: Any) -> None:
    pool = compressing(answer(TEXT, headers=HTML, trailers=trailers))
    async with listening(pool) as front:
        status, headers, body = parsed(await front.ask(get(coding, version=version)))
        body = content(headers, body)
        exchange = await front.ended.get()
        assert front.ingress.compressors.held == 0
    assert (status, headers["content-encoding"]) == (200, coding)
    assert "content-length" not in headers
    assert decoder(coding)(body) == TEXT
    assert exchange.state == "complete" and exchange.bytes_out == len(TEXT)
    assert access_fields(exchange)["bytes_out"] == len(body), "as the client got it"
    metrics = Metrics({}, OpenWebSockets())
    metrics.ended(exchange)
    assert f'response_bytes_total{{function="fake"}} {float(len(body))}'.encode() in metrics.exposition()


async def test_a_body_that_came_with_its_head() -> None:
    async with listening(compressing(answer(TEXT, headers=HTML, length=True, whole=True))) as front:
        status, headers, body = parsed(await front.ask(get("gzip")))
        assert front.ingress.compressors.held == 0
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert decoder("gzip")(content(headers, body)) == TEXT


async def test_head_on_the_wire() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.response(200, [*HTML, (b"content-length", b"5000")])

    async with listening(compressing(function)) as front:
        raw = await front.ask(get("br", method="HEAD"))
        assert front.ingress.compressors.held == 0
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-encoding: br" in head and b"content-length" not in head and not body


async def test_a_length_that_is_not_true_is_found_before_compression() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.response(200, [*HTML, (b"content-length", b"5000")])
        exchange.data(TEXT[:4000], end=True)

    async with listening(compressing(function)) as front:
        raw = await front.ask(get("gzip"))
        assert not raw.endswith(b"0\r\n\r\n")
        assert (await front.ended.get()).state == "aborted"
        assert front.ingress.compressors.held == 0


async def test_the_gateways_own_errors_are_as_ever() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.reset(1, "boom")

    async with listening(compressing(function)) as front:
        status, headers, body = parsed(await front.ask(get("gzip")))
    assert status == 502 and "content-encoding" not in headers and json.loads(body)["status"] == 502


async def test_a_client_that_leaves_gives_its_memory_back() -> None:
    def function(exchange: Exchange, stream: FakeStream) -> None:
        exchange.response(200, HTML)
        exchange.data(TEXT)

    async with listening(compressing(function)) as front:
        client = await front.connect()
        client.send(get("br"))
        await client.head()
        assert front.ingress.compressors.held == CODINGS["br"].memory
        await client.close()
        assert (await front.ended.get()).state == "cancelled"
        await eventually(lambda: front.ingress.compressors.held == 0)


async def test_a_client_that_does_not_read_holds_back_the_function() -> None:
    """What it is behind with is compressed: credit stops all the same."""
    noise = random.Random(3).randbytes(48 << 10).hex().encode()  # becomes half
    limits = HttpLimits(write_buffer=64 << 10, kernel_unsent=64 << 10)

    async with listening(compressing(None), limits=limits) as front:
        client = await front.connect()
        client.send(get("gzip"))
        stream = await front.pool.opened.get()
        exchange = stream.exchange
        exchange.response(200, HTML)
        sent = 0
        async with asyncio.timeout(20):
            while stream.credit == sent:
                exchange.data(noise)
                sent += len(noise)
                await asyncio.sleep(0)
        exchange.data(b"", end=True)
        raw = await client.rest()
    _, headers, body = parsed(raw)
    assert decoder("gzip")(content(headers, body)) == noise * (sent // len(noise))
