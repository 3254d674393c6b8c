"""Every form of handler on the real stack: `def`, generators, existing Lambda code, files."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.lag import Lag
from tests.e2e.stack import Stack
from tests.e2e.wire import WireResponse


@pytest.fixture
def form(shared_stack: Callable[..., Stack]) -> Callable[[str], Stack]:
    """`form("generator")`: a stack that serves that handler of forms.py."""
    return lambda name: shared_stack(f"forms.py:{name}", environments=2)


def posted(stack: Stack) -> WireResponse:
    with stack.connect() as connection:
        connection.request("POST", "/a%20path?x=1", "Content-Type: text/plain", "Cookie: a=1; b=2", body=b"sent")
        response = connection.response()
    assert response.failure is None
    return response


def test_a_generator_streams_from_its_thread(form: Callable[[str], Stack], lag: Lag) -> None:
    response = posted(form("generator"))
    assert [chunk.data.split()[0] for chunk in response.chunks] == [b"0", b"1", b"2"]
    assert all(0 <= chunk.time - float(chunk.data.split()[1]) < lag.allow(0.05) for chunk in response.chunks)


def test_a_def_handler_reads_and_returns_text(form: Callable[[str], Stack]) -> None:
    response = posted(form("returns_text"))
    assert (response.value(b"content-type"), response.body) == (b"text/plain; charset=utf-8", b"POST sent")


def test_a_file_is_streamed(form: Callable[[str], Stack]) -> None:
    assert posted(form("file_object")).body == b"sent" * 100_000


def test_nothing_is_a_204(form: Callable[[str], Stack]) -> None:
    response = posted(form("nothing"))
    assert (response.status, response.body) == (204, b"")


def test_existing_lambda_code_sees_behind_a_gateway_what_it_saw_without_one(form: Callable[[str], Stack]) -> None:
    stack = form("event")
    headers = {"Content-Type": "text/plain", "Cookie": "a=1; b=2"}
    request = urllib.request.Request(stack.function_url + "a%20path?x=1", b"sent", headers)
    with urllib.request.urlopen(request, timeout=10) as plain:
        without: dict[str, Any] = json.loads(plain.read())
        assert plain.status == 201 and plain.headers.get_all("set-cookie") == ["a=1", "b=2"]
    response = posted(stack)
    assert response.status == 201 and response.values(b"set-cookie") == [b"a=1", b"b=2"]
    behind: dict[str, Any] = json.loads(response.body)
    assert behind.keys() == without.keys()
    assert behind["requestContext"].keys() == without["requestContext"].keys()
    assert behind["headers"]["cookie"] == without["headers"]["cookie"] == "a=1; b=2"
    same = "version routeKey rawPath rawQueryString queryStringParameters cookies body isBase64Encoded"
    for key in same.split():
        assert behind[key] == without[key], key
    for key in ("method", "path", "protocol", "sourceIp"):
        assert behind["requestContext"]["http"][key] == without["requestContext"]["http"][key], key
