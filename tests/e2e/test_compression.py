"""Compression at the gateway, with the clients that people use: the same bytes, each piece in time."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable

import aiohttp
import httpx
import pytest
import requests
from websockets.sync.client import connect

from tests.e2e.handlers import pages
from tests.e2e.lag import Lag
from tests.e2e.stack import Stack

CODINGS = ("zstd", "br", "gzip")


def config(url: str) -> str:
    """All codings, but below /plain none."""
    return (
        f'compression = "zstd, br, gzip"\n[functions.pages]\nurl = "{url}"\nlinger = 5\n'
        '[[routes]]\nfunction = "pages"\n[[routes]]\npath = "/plain"\nfunction = "pages"\ncompression = "off"\n'
    )


@pytest.fixture
def compressing(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("pages.py:handler", environments=2, config=config)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("coding", CODINGS)
def test_curl(compressing: Stack, coding: str) -> None:
    url = f"{compressing.url}/page"
    plain = subprocess.run(["curl", "-sS", url], capture_output=True, check=True).stdout
    done = subprocess.run(
        ["curl", "-sSi", "--compressed", "-H", f"Accept-Encoding: {coding}", url], capture_output=True, check=True
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert plain == body == pages.PAGE
    assert f"content-encoding: {coding}".encode() in head and b"vary: accept-encoding" in head
    assert b'etag: W/"page"' in head and b"accept-ranges" not in head and b"content-length" not in head
    size = ["curl", "-sS", "-o", "/dev/null", "-w", "%{size_download}", "-H", f"Accept-Encoding: {coding}", url]
    assert int(subprocess.run(size, capture_output=True, check=True).stdout) < len(plain) / 4


def test_httpx(compressing: Stack) -> None:
    with httpx.Client(base_url=compressing.url) as client:
        response = client.get("/page")
        assert response.headers["content-encoding"] in CODINGS and response.content == pages.PAGE
        for coding in CODINGS:
            response = client.get("/page", headers={"accept-encoding": coding})
            assert response.headers["content-encoding"] == coding and response.content == pages.PAGE


def test_requests(compressing: Stack) -> None:
    response = requests.get(f"{compressing.url}/page", timeout=20)
    assert response.headers["content-encoding"] in CODINGS and response.content == pages.PAGE


async def test_aiohttp(compressing: Stack) -> None:
    async with aiohttp.ClientSession(compressing.url) as client, client.get("/page") as response:
        assert response.headers["content-encoding"] in CODINGS and await response.read() == pages.PAGE


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js")
def test_node(compressing: Stack) -> None:
    code = (
        "const r = await fetch(process.argv[1]); const text = await r.text();"
        "console.log(JSON.stringify([r.headers.get('content-encoding'), text.length]))"
    )
    command = ["node", "--input-type=module", "-e", code, f"{compressing.url}/page"]
    coding, size = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    assert coding in CODINGS and size == len(pages.PAGE)


@pytest.mark.parametrize("coding", CODINGS)
def test_each_piece_comes_when_it_was_written(compressing: Stack, lag: Lag, coding: str) -> None:
    """Half a second before the next: nothing waits for more in any buffer."""
    with httpx.stream("GET", f"{compressing.url}/stamps", headers={"accept-encoding": coding}) as response:
        assert response.headers["content-encoding"] == coding
        late = [time.time() - float(line) for line in response.iter_lines()]
    assert len(late) == 4 and max(late) < lag.allow(0.25), late


@pytest.mark.parametrize("coding", ["br", "gzip"])  # aiohttp knows zstd with another library only
async def test_each_event_comes_when_it_was_sent(compressing: Stack, lag: Lag, coding: str) -> None:
    late = []
    async with aiohttp.ClientSession(compressing.url, headers={"accept-encoding": coding}) as client:
        async with client.get("/events") as response:
            assert response.headers["content-encoding"] == coding
            assert response.headers["content-type"].startswith("text/event-stream")
            async for line in response.content:
                if line.startswith(b"data: "):
                    late.append(time.time() - float(line.removeprefix(b"data: ")))
    assert len(late) == 4 and max(late) < lag.allow(0.25), late


@pytest.mark.parametrize("coding", CODINGS)
def test_a_long_body_comes_whole_beside_others(compressing: Stack, coding: str) -> None:
    count = 10_000
    wanted, found = hashlib.sha256(), hashlib.sha256()
    for number in range(count):
        wanted.update(b"%d %b" % (number, pages.LINE))
    with httpx.stream("GET", f"{compressing.url}/lines?count={count}", headers={"accept-encoding": coding}) as response:
        for piece in response.iter_bytes():
            found.update(piece)
        assert response.num_bytes_downloaded < count * len(pages.LINE) / 10
    assert found.digest() == wanted.digest()


@pytest.mark.parametrize("kind", ["stored", "part", "image", "plain/page"])
def test_what_is_left_alone(compressing: Stack, kind: str) -> None:
    with compressing.connect() as connection:
        connection.request("GET", f"/{kind}", "Accept-Encoding: gzip, br, zstd")
        response = connection.response()
    assert response.value(b"content-encoding") == (b"gzip" if kind == "stored" else None)
    assert response.values(b"vary") == []
    if kind == "part":
        assert (response.status, response.body) == (206, pages.PAGE[:100_000])
    elif kind == "plain/page":
        assert response.value(b"content-length") == str(len(pages.PAGE)).encode() and response.body == pages.PAGE
        assert response.value(b"etag") == b'"page"'


def test_head_says_what_get_says(compressing: Stack) -> None:
    heads = []
    for method in ("GET", "HEAD"):
        with compressing.connect() as connection:
            connection.request(method, "/page", "Accept-Encoding: gzip")
            response = connection.response()
            own = (b"date", b"x-request-id", b"transfer-encoding")
            heads.append([pair for pair in response.headers if pair[0].lower() not in own])
    assert heads[0] == heads[1] and response.body == b""


def test_a_websocket_is_none_of_its_business(compressing: Stack) -> None:
    with connect(f"ws://{compressing.authority}/", compression=None) as client:
        assert client.response is not None and "content-encoding" not in client.response.headers
        client.send("a" * 5000)
        assert client.recv() == "a" * 5000
