"""What a handler is given."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lambda_client import Request, RequestIdFilter, Response, SyncRequest, current_request, stream_handler
from lambda_client.body import SyncBody
from lambda_client.fields import Headers, Query, parse_cookies
from lambda_client.testing import TestClient
from lambda_client.testing_gateway import GatewayEnd


def ask(handler: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with TestClient(stream_handler(handler)) as client:
        return client.request(*arguments, **options)


async def describe(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "raw_path": request.raw_path.decode(),
        "query_string": request.query_string.decode(),
        "first": request.query.get("a"),
        "all": request.query.getlist("a"),
        "default": request.query.get("z", "none"),
        "header": request.headers["X-A"],
        "headers": request.headers.getlist("x-a"),
        "cookies": request.cookies,
        "url": request.url,
        "scheme": request.scheme,
        "client": list(request.client),
        "host": request.client.host,
        "id": request.id,
        "state": request.state,
        "remaining": request.remaining_time(),
        "context": request.lambda_context.aws_request_id,
        "cancelled": request.cancelled,
    }


def test_every_attribute_says_what_the_client_sent() -> None:
    headers = [("X-A", "1"), ("x-a", "2"), ("Cookie", 'a=b; c="d%20e"; a=z; broken')]
    said = ask(describe, "PATCH", "/a%2Fb/%C3%A9%ff?a=1&a=%C3%A9&b=", headers=headers).json()
    assert 890 < said.pop("remaining") <= 900
    assert len(said.pop("id")) == 32
    assert said == {
        "method": "PATCH",
        "path": "/a/b/é\ufffd",
        "raw_path": "/a%2Fb/%C3%A9%ff",
        "query_string": "a=1&a=%C3%A9&b=",
        "first": "1",
        "all": ["1", "é"],
        "default": "none",
        "header": "1",
        "headers": ["1", "2"],
        "cookies": {"a": "b", "c": "d e"},
        "url": "http://testserver/a%2Fb/%C3%A9%ff?a=1&a=%C3%A9&b=",
        "scheme": "http",
        "client": ["127.0.0.1", 50000],
        "host": "127.0.0.1",
        "state": None,
        "context": "00000000-0000-0000-0000-000000000000",
        "cancelled": False,
    }


def test_headers_are_a_mapping_that_ignores_case() -> None:
    headers = Headers([(b"X-A", b"\xe9"), (b"x-a", b"2"), (b"b", b"")])
    assert ("x-A" in headers, "c" in headers, 7 in headers) == (True, False, False)
    assert (headers["X-a"], headers.get("B"), headers.get("c"), headers.get("c", 1)) == ("é", "", None, 1)
    assert (list(headers), len(headers), headers.getlist("c")) == (["x-a", "b"], 2, [])
    assert headers.raw == ((b"X-A", b"\xe9"), (b"x-a", b"2"), (b"b", b""))
    with pytest.raises(KeyError):
        headers["c"]


def test_a_query_keeps_blanks_and_reads_what_is_not_utf8() -> None:
    query = Query(b"a=&b&a=%ff&=x&c=1+2")
    assert (query.getlist("a"), query["b"], query[""], query["c"]) == (["", "\ufffd"], "", "x", "1 2")


def test_cookies_of_several_headers_are_read() -> None:
    assert parse_cookies(Headers([(b"cookie", b"a=1"), (b"cookie", b"b=2;=3;;c")])) == {"a": "1", "b": "2"}


# The body

PAYLOAD = json.dumps({"text": "é" * 100_000}).encode()


async def read_each_way(request: Request) -> dict[str, Any]:
    first = await request.read()
    assert await request.read() is first, "what was read is kept"
    return {"bytes": len(first), "text": len(await request.text()), "json": len((await request.json())["text"])}


def read_each_way_in_a_thread(request: SyncRequest) -> dict[str, Any]:
    first = request.read()
    assert request.read() is first
    return {"bytes": len(first), "text": len(request.text()), "json": len(request.json()["text"])}


@pytest.mark.parametrize("handler", [read_each_way, read_each_way_in_a_thread])
def test_a_body_is_read_whole_as_often_as_wanted(handler: Any) -> None:
    said = ask(handler, "POST", "/", content=PAYLOAD).json()
    assert said == {"bytes": len(PAYLOAD), "text": len(PAYLOAD.decode()), "json": 100_000}


async def hash_pieces(request: Request) -> dict[str, Any]:
    digest, pieces = hashlib.sha256(), 0
    async for piece in request.body:
        assert isinstance(piece, bytes)
        digest.update(piece)
        pieces += 1
    return {"digest": digest.hexdigest(), "pieces": pieces}


def hash_pieces_in_a_thread(request: SyncRequest) -> dict[str, Any]:
    digest, pieces = hashlib.sha256(), 0
    for piece in request.body:
        digest.update(piece)
        pieces += 1
    return {"digest": digest.hexdigest(), "pieces": pieces}


def hash_file(request: SyncRequest) -> dict[str, Any]:
    digest = hashlib.sha256(request.file.readline())
    pieces = 1
    while piece := request.file.read(10_000):
        digest.update(piece)
        pieces += 1
    return {"digest": digest.hexdigest(), "pieces": pieces}


@pytest.mark.parametrize("handler", [hash_pieces, hash_pieces_in_a_thread, hash_file])
def test_a_large_body_streams_through(handler: Any) -> None:
    pieces = [bytes([number]) * 40_000 for number in range(200)]
    said = ask(handler, "POST", "/", content=pieces).json()
    assert said["digest"] == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert said["pieces"] > 10


def test_an_empty_body_ends_at_once() -> None:
    for handler in (hash_pieces, hash_pieces_in_a_thread, hash_file):
        assert ask(handler, "GET", "/").json()["digest"] == hashlib.sha256(b"").hexdigest()
        assert ask(handler, "POST", "/", content=b"").json()["digest"] == hashlib.sha256(b"").hexdigest()


def test_text_is_read_by_its_charset() -> None:
    async def text(request: Request) -> str:
        return await request.text()

    response = ask(
        text, "POST", "/", content=b"\xe9", headers={"content-type": 'text/plain; Charset="ISO-8859-1"; x=y'}
    )
    assert response.text == "é"


def test_a_body_is_read_once() -> None:
    async def pieces_then_whole(request: Request) -> str:
        async for _ in request.body:
            break
        await request.read()
        return ""

    async def whole_then_pieces(request: Request) -> str:
        await request.read()
        async for _ in request.body:
            pass
        return ""

    def pieces_then_json(request: SyncRequest) -> str:
        next(request.body)
        request.json()
        return ""

    for handler in (pieces_then_whole, whole_then_pieces, pieces_then_json):
        with TestClient(stream_handler(handler)) as client:
            assert client.request("POST", "/", content=b"abc").status == 502


# Likely mistakes, and what is said of each


def attempt(mistake: Callable[[Any], Any], *, sync: bool) -> str:
    async def handler(request: Request) -> str:
        with pytest.raises((TypeError, AttributeError)) as raised:
            await mistake(request.body)
        return str(raised.value)

    def sync_handler(request: SyncRequest) -> str:
        with pytest.raises((TypeError, AttributeError)) as raised:
            mistake(request.body)
        return str(raised.value)

    return str(ask(sync_handler if sync else handler, "POST", "/", content=b"{}").text)


MISTAKES: list[Callable[[Any], Any]] = [
    lambda body: json.loads(body),
    lambda body: json.load(body),
    lambda body: io.BytesIO(body),
    lambda body: base64.b64decode(body),
    lambda body: body.decode(),
    lambda body: body.read(5),
    lambda body: body(),
    lambda body: len(body),
    lambda body: bytes(body),
    lambda body: body["a"],
    lambda body: "yes" if body else "no",
    lambda body: not body,
    lambda body: b"a" + body,
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_likely_mistake_is_answered_with_the_line_to_write(mistake: Callable[[Any], Any]) -> None:
    assert "await request.read()" in attempt(mistake, sync=False)
    said = attempt(mistake, sync=True)
    assert "request.read()" in said and "await" not in said


def test_iterating_the_wrong_way_is_answered_with_the_right_one() -> None:
    assert "async for piece in request.body" in attempt(lambda body: list(body), sync=False)
    assert "await request.read()" in attempt(lambda body: body.__await__(), sync=False)
    assert "async for piece in request.body" in attempt(lambda body: b"a" in body, sync=False)
    assert "for piece in request.body" in attempt(lambda body: body.__aiter__(), sync=True)


def test_a_sync_body_is_an_ordinary_iterator() -> None:
    body = SyncBody(iter([b"a", b"b", None]).__next__)
    assert list(body) == [b"a", b"b"]


# The current request


def test_the_current_request_is_known_in_tasks_and_threads_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(RequestIdFilter())
    log = logging.getLogger("tests.current_request")
    seen: list[str] = []

    def sync_handler(request: SyncRequest) -> str:
        assert current_request() is request
        log.warning("in a thread")
        return request.id

    async def handler(request: Request) -> str:
        assert current_request() is request
        log.warning("in a task")
        return request.id

    for each in (sync_handler, handler):
        seen.append(ask(each, "GET", "/").text)
    log.warning("outside")
    ids = [getattr(record, "request_id", None) for record in caplog.records if record.name == log.name]
    assert ids == [*seen, "-"]
    with pytest.raises(LookupError):
        current_request()


def test_requests_at_once_are_not_mixed_up() -> None:
    barrier = threading.Barrier(4)

    @stream_handler(concurrency=4)
    def handler(request: SyncRequest) -> Response:
        barrier.wait(10)
        return Response(current_request().id, headers={"x-id": request.id})

    with TestClient(handler) as client:
        answers: list[Any] = []
        askers = [threading.Thread(target=lambda: answers.append(client.request("GET", "/"))) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert len({answer.text for answer in answers}) == 4
    assert all(answer.text == answer.headers["x-id"] for answer in answers)


def test_a_request_that_is_opened_before_its_lease_was_looked_at_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other thread's word that one waits may come between a dial and the offer that came with it."""
    attach = GatewayEnd.attach

    def attach_and_open(end: GatewayEnd, *arguments: Any) -> None:
        attach(end, *arguments)
        end.open_waiting()

    monkeypatch.setattr(GatewayEnd, "attach", attach_and_open)

    @stream_handler
    async def handler(request: Request) -> str:
        return request.path

    with TestClient(handler) as client:
        assert client.request("GET", "/a").text == "/a"
    assert not client._thread.is_alive(), "its invocation has ended"
