"""What a handler returns, and what it becomes."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lambda_client import Request, Response, stream_handler
from lambda_client.response import Prepared, prepare, prepare_lambda
from lambda_client.testing import TestClient


def headers_of(prepared: Prepared) -> dict[bytes, bytes]:
    assert len(dict(prepared.headers)) == len(prepared.headers)
    return dict(prepared.headers)


@pytest.mark.parametrize(
    ("returned", "kind", "body"),
    [
        ("héllo", b"text/plain; charset=utf-8", "héllo".encode()),
        (b"\x00\xff", b"application/octet-stream", b"\x00\xff"),
        (bytearray(b"ab"), b"application/octet-stream", b"ab"),
        (memoryview(b"ab"), b"application/octet-stream", b"ab"),
        ({"a": ["é", None, 1.5]}, b"application/json", '{"a":["é",null,1.5]}'.encode()),
        ([1, 2], b"application/json", b"[1,2]"),
        ((1, 2), b"application/json", b"[1,2]"),
        ({}, b"application/json", b"{}"),
        ("", b"text/plain; charset=utf-8", b""),
        ({"statusCode": 418}, b"application/json", b'{"statusCode":418}'),
    ],
)
def test_a_whole_body_is_typed_and_measured(returned: Any, kind: bytes, body: bytes) -> None:
    for prepared in (prepare(returned), prepare(Response(returned))):
        assert prepared.status == 200
        assert prepared.body == body
        assert headers_of(prepared) == {b"content-type": kind, b"content-length": str(len(body)).encode()}


def test_none_is_204_without_a_body() -> None:
    assert prepare(None) == Prepared(204, [], b"")
    assert prepare(Response(status=304)) == Prepared(304, [], b"")
    assert headers_of(prepare(Response())) == {b"content-length": b"0"}


def test_what_a_response_says_of_itself_is_kept() -> None:
    prepared = prepare(Response("{}", 201, {"Content-Type": "application/x", "Content-Length": 2}))
    assert (prepared.status, headers_of(prepared)) == (
        201,
        {b"content-type": b"application/x", b"content-length": b"2"},
    )


def test_pairs_keep_their_order_and_repeat() -> None:
    pairs = [("set-cookie", "a=1"), ("X-A", b"\xe9"), ("Set-Cookie", "b=é")]
    assert prepare(Response(status=204, headers=pairs)).headers == [
        (b"set-cookie", b"a=1"),
        (b"x-a", b"\xe9"),
        (b"set-cookie", b"b=\xe9"),
    ]


def generator() -> Iterator[str]:
    yield "a"


async def async_generator() -> AsyncIterator[str]:
    yield "a"


class Unseekable:
    """As boto3's `StreamingBody`: reads, iterates (in lines of 1 KiB), closes."""

    def __init__(self) -> None:
        self.left = [b"ab", b"c"]
        self.is_closed = False

    def read(self, size: int) -> bytes:
        return self.left.pop(0) if self.left else b""

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("a file is read, not iterated")

    def close(self) -> None:
        self.is_closed = True


def test_iterators_are_not_typed_before_their_first_piece() -> None:
    for body in (generator(), iter(["a"]), map(str, [1])):
        prepared = prepare(body)
        assert isinstance(prepared.body, Iterator) and prepared.headers == []
    prepared = prepare(async_generator())
    assert isinstance(prepared.body, AsyncIterator) and prepared.headers == []


def test_a_file_is_read_in_pieces_and_closed() -> None:
    file = Unseekable()
    body = prepare(file).body
    assert isinstance(body, Iterator)
    assert list(body) == [b"ab", b"c"]
    body.close()  # type: ignore[attr-defined]
    assert file.is_closed
    large = prepare(io.BytesIO(bytes(100_000))).body
    assert [len(piece) for piece in large] == [65536, 34464]  # type: ignore[union-attr]


async def forgotten() -> str:
    return ""


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (1, "int is not a response"),
        (object(), "object is not a response"),
        ({1, 2}, "set is not a response"),
        (1.5, "a handler returns Response, str, bytes"),
        ({"a": object()}, "not JSON serializable"),
    ],
)
def test_what_is_no_response_is_named(returned: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        prepare(returned)


def test_a_coroutine_that_nobody_awaited_is_named() -> None:
    with pytest.raises(TypeError, match="an `await` is missing"):
        prepare(forgotten())


def test_a_coroutine_within_json_is_told_to_be_awaited() -> None:
    inner = forgotten()
    with pytest.raises(TypeError, match="coroutine is not JSON serializable: await it, for example `await request"):
        prepare({"a": [inner]})
    inner.close()


def test_a_coroutine_in_the_handlers_own_json_is_told_to_be_awaited(caplog: pytest.LogCaptureFixture) -> None:
    @stream_handler
    async def handler(request: Request) -> str:
        forgotten = request.json()
        try:
            return json.dumps({"said": forgotten})
        finally:
            forgotten.close()

    with TestClient(handler) as client:
        assert client.request("POST", "/", content="1").status == 502
    assert "the handler raised TypeError: await it, for example `await request.json()`" in caplog.text


@pytest.mark.parametrize(
    ("headers", "error", "message"),
    [
        ({"x": "a\r\nset-cookie: b"}, ValueError, "CR, LF or NUL"),
        ({"x": "a\nb"}, ValueError, "CR, LF or NUL"),
        ({"x": b"a\0"}, ValueError, "CR, LF or NUL"),
        ({"x\r\n": "a"}, ValueError, "not a header name"),
        ({"x:": "a"}, ValueError, "not a header name"),
        ({"": "a"}, ValueError, "not a header name"),
        ({"é": "a"}, ValueError, "not a header name"),
        ({"x": "→"}, ValueError, "beyond latin-1"),
        ({"x": None}, TypeError, "not NoneType"),
        ({"set-cookie": ["a=1", "b=2"]}, TypeError, "give pairs"),
        ({1: "a"}, TypeError, "name is str or bytes"),
        ("x: a", TypeError, "mapping, or|mapping or"),
        (["x: a"], TypeError, "pair"),
        (7, TypeError, "mapping or"),
    ],
)
def test_headers_that_would_break_the_message_are_refused(headers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prepare(Response(headers=headers))


@pytest.mark.parametrize("status", [100, 199, 600, "200", None])
def test_a_status_is_a_final_one(status: Any) -> None:
    with pytest.raises(ValueError, match="200 to 599"):
        Response(status=status)


# The Lambda response shape (AWS, "Response payload format for Lambda function URLs")


def test_the_lambda_shape() -> None:
    prepared = prepare_lambda(
        {
            "statusCode": 201,
            "headers": {"Content-Type": "text/html", "X-A": "1", "X-B": 2, "X-C": True},
            "multiValueHeaders": {"x-a": ["3", "4"]},
            "cookies": ["a=1; Secure", "b=2"],
            "body": "aGk=",
            "isBase64Encoded": True,
        }
    )
    assert (prepared.status, prepared.body) == (201, b"hi")
    assert prepared.headers == [
        (b"content-type", b"text/html"),
        (b"x-b", b"2"),
        (b"x-c", b"True"),
        (b"x-a", b"3"),
        (b"x-a", b"4"),
        (b"set-cookie", b"a=1; Secure"),
        (b"set-cookie", b"b=2"),
        (b"content-length", b"2"),
    ]


@pytest.mark.parametrize(
    ("returned", "status", "kind", "body"),
    [
        ({"statusCode": 200, "body": "x"}, 200, b"application/json", b"x"),
        ({"statusCode": 200, "body": {"a": 1}}, 200, b"application/json", b'{"a":1}'),
        ({"statusCode": 404}, 404, b"application/json", b""),
        ({"statusCode": "200"}, 200, b"application/json", b'{"statusCode":"200"}'),
        ({"a": 1}, 200, b"application/json", b'{"a":1}'),
        (7, 200, b"application/json", b"7"),
        (True, 200, b"application/json", b"true"),
        ("text", 200, b"text/plain; charset=utf-8", b"text"),
    ],
)
def test_what_lambda_code_returns_is_inferred(returned: Any, status: int, kind: bytes, body: bytes) -> None:
    prepared = prepare_lambda(returned)
    assert (prepared.status, headers_of(prepared)[b"content-type"], prepared.body) == (status, kind, body)
