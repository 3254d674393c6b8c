"""Plain invocations: HTTP events answered as ever, other events passed through, bad invitations refused."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lambda_client import Request, Response, SyncRequest, current_request, stream_handler, wire
from lambda_client.buffered import ANSWER_LIMIT, AnswerTooLarge
from lambda_client.event import build_event, opening_of
from lambda_client.testing import TestContext, TestEnvironment

# AWS, "Invoking Lambda function URLs", the request payload format's example
EVENT: dict[str, Any] = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/my/path",
    "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
    "cookies": ["cookie1", "cookie2=b"],
    "headers": {"header1": "value1", "header2": "value1,value2", "host": "id.lambda-url.us-west-2.on.aws"},
    "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
    "requestContext": {
        "accountId": "123456789012",
        "apiId": "<urlid>",
        "authentication": None,
        "domainName": "<url-id>.lambda-url.us-west-2.on.aws",
        "domainPrefix": "<url-id>",
        "http": {
            "method": "POST",
            "path": "/my/path",
            "protocol": "HTTP/1.1",
            "sourceIp": "123.123.123.123",
            "userAgent": "agent",
        },
        "requestId": "id",
        "routeKey": "$default",
        "stage": "$default",
        "time": "12/Mar/2020:19:03:58 +0000",
        "timeEpoch": 1583348638390,
    },
    "body": "Hello from client!",
    "pathParameters": None,
    "isBase64Encoded": False,
    "stageVariables": None,
}


def event(**changes: Any) -> dict[str, Any]:
    changed = copy.deepcopy(EVENT)
    method = changes.pop("method", None)
    if method:
        changed["requestContext"]["http"]["method"] = method
    return {**changed, **changes}


def answer(handler: Any, event: Any = EVENT, **variables: str) -> Any:
    handler = handler if hasattr(handler, "runner") else stream_handler(handler)
    environment = TestEnvironment(handler.runner(), handler.concurrency, handler.lifespan, variables)
    try:
        return environment.invoke(event, TestContext(900))
    finally:
        environment.close()


async def describe(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query.getlist("parameter1"),
        "headers": [request.headers["header2"], request.headers["HOST"]],
        "cookies": request.cookies,
        "client": request.client.host,
        "id": request.id,
        "scheme": request.scheme,
        "body": await request.text(),
        "remaining": request.remaining_time() > 800,
    }


def test_a_function_urls_event_is_answered_by_the_same_handler() -> None:
    said = answer(describe)
    assert (said["statusCode"], said["headers"], said["isBase64Encoded"]) == (
        200,
        {"content-type": "application/json"},
        False,
    )
    assert json.loads(said["body"]) == {
        "method": "POST",
        "path": "/my/path",
        "query": ["value1", "value2"],
        "headers": ["value1,value2", "id.lambda-url.us-west-2.on.aws"],
        "cookies": {"cookie2": "b"},
        "client": "123.123.123.123",
        "id": "id",
        "scheme": "https",
        "body": "Hello from client!",
        "remaining": True,
    }


def test_a_body_in_base64_is_bytes() -> None:
    def handler(request: SyncRequest) -> bytes:
        return request.file.read()

    said = answer(handler, event(body=base64.b64encode(b"\x00\xff").decode(), isBase64Encoded=True))
    assert said == {
        "statusCode": 200,
        "headers": {"content-type": "application/octet-stream"},
        "body": base64.b64encode(b"\x00\xff").decode(),
        "isBase64Encoded": True,
    }


def test_cookies_repeated_headers_and_status_are_kept() -> None:
    async def handler(request: Request) -> Response:
        headers = [("set-cookie", "a=1"), ("x-a", "1"), ("set-cookie", "b=2"), ("x-a", "2"), ("content-type", "text/x")]
        return Response(iter(["a", "b"]), 201, headers)

    assert answer(handler) == {
        "statusCode": 201,
        "headers": {"x-a": "1, 2", "content-type": "text/x"},
        "body": "ab",
        "cookies": ["a=1", "b=2"],
        "isBase64Encoded": False,
    }


def test_text_that_is_none_or_is_compressed_travels_as_base64() -> None:
    def handler(request: SyncRequest) -> Response:
        return Response(b"\xff", headers={"content-type": "text/plain"})

    def compressed(request: SyncRequest) -> Response:
        return Response(b"abc", headers={"content-type": "text/plain", "content-encoding": "br"})

    assert answer(handler)["body"] == base64.b64encode(b"\xff").decode()
    assert answer(compressed)["body"] == base64.b64encode(b"abc").decode()


@pytest.mark.parametrize("kind", ["async generator", "generator"])
def test_iterators_are_gathered(kind: str) -> None:
    async def pieces(request: Request) -> AsyncIterator[str]:
        for number in range(3):
            await asyncio.sleep(0)
            yield str(number)

    def sync_pieces(request: SyncRequest) -> Iterator[str]:
        yield from "012"

    assert answer(pieces if kind == "async generator" else sync_pieces)["body"] == "012"


def test_no_body_and_head() -> None:
    assert answer(lambda request: None) == {"statusCode": 204, "headers": {}, "body": "", "isBase64Encoded": False}
    head = answer(lambda request: "hello", event(method="HEAD"))
    assert (head["body"], head["headers"]["content-length"]) == ("", "5")


def test_an_answer_above_lambdas_limit_says_so() -> None:
    def large(request: SyncRequest) -> bytes:
        return bytes(ANSWER_LIMIT * 3 // 4 + 100)

    def endless(request: SyncRequest) -> Iterator[bytes]:
        while True:
            yield bytes(1 << 20)

    with pytest.raises(AnswerTooLarge, match="6 MB in base64"):
        answer(large)
    with pytest.raises(AnswerTooLarge, match="behind a Dialback gateway it would stream"):
        answer(endless)


def test_a_failure_is_the_invocations_failure() -> None:
    def handler(request: SyncRequest) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        answer(handler)


def test_a_request_handler_wants_a_request() -> None:
    for other in ({"Records": []}, {}, [], "text", None, {"version": "1.0", "requestContext": {"http": {}}}):
        with pytest.raises(ValueError, match="takes \\(event, context\\)"):
            answer(lambda request: "", other)


# Existing Lambda code


def test_existing_code_is_called_as_ever_and_its_answer_is_its_own() -> None:
    threads: list[Any] = []

    def handler(event: Any, context: Any) -> Any:
        threads.append(threading.current_thread())
        asyncio.run(asyncio.sleep(0))  # as existing code may: no loop runs in its thread
        return {"event": event, "remaining": context.get_remaining_time_in_millis() > 0}

    for payload in ({"Records": [1]}, EVENT, [], None):
        assert answer(handler, payload) == {"event": payload, "remaining": True}
    assert set(threads) == {threading.current_thread()}
    assert answer(lambda event, context: "text") == "text"
    assert answer(lambda event, context: None) is None


def test_existing_async_code_is_awaited() -> None:
    async def handler(event: Any, context: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"statusCode": 200, "body": event["body"]}

    assert answer(handler) == {"statusCode": 200, "body": "Hello from client!"}


def test_existing_code_that_streams_is_gathered_without_a_gateway() -> None:
    def handler(event: Any, context: Any) -> Iterator[str]:
        yield "a"
        yield "b"

    async def async_handler(event: Any, context: Any) -> Response:
        return Response(b"ab", headers={"content-type": "text/plain"})

    for each in (handler, async_handler):
        assert answer(each)["body"] == "ab"
    with pytest.raises(TypeError, match="payload format 2.0"):
        answer(handler, {"Records": []})


def test_the_current_request_of_existing_code_ends_with_its_call() -> None:
    def handler(event: Any, context: Any) -> str:
        with pytest.raises(LookupError):
            current_request()
        return ""

    assert answer(handler) == ""


# Events for existing code behind a gateway


def test_an_event_goes_there_and_back() -> None:
    opening = opening_of(EVENT)
    again = build_event(opening, "id", b"Hello from client!")
    for key in ("version", "routeKey", "rawPath", "rawQueryString", "cookies", "queryStringParameters"):
        assert again[key] == EVENT[key], key
    assert again["headers"] == {**EVENT["headers"], "cookie": "cookie1; cookie2=b"}
    assert again["requestContext"]["http"] == {**EVENT["requestContext"]["http"], "userAgent": ""}
    assert (again["body"], again["isBase64Encoded"]) == (base64.b64encode(b"Hello from client!").decode(), True)


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "é".encode(), "é"),
        ("application/json; charset=utf-8", b"{}", "{}"),
        ("application/problem+json", b"{}", "{}"),
        ("image/svg+xml", b"<svg/>", "<svg/>"),
        ("text/plain", b"\xff", None),
        ("text/plain; charset=latin-1", b"a", None),
        ("application/x-www-form-urlencoded", b"a=b", None),
        ("", b"a", None),
    ],
)
def test_bodies_are_text_where_aws_hands_over_text(kind: str, body: bytes, text: str | None) -> None:
    opening = opening_of(event(headers={"content-type": kind}))
    built = build_event(opening, "id", body)
    assert built["isBase64Encoded"] is (text is None)
    assert built["body"] == (base64.b64encode(body).decode() if text is None else text)


def test_an_http_apis_decoded_path_is_a_target_again() -> None:
    assert opening_of(event(rawPath="/a b/é%20", rawQueryString="x=%20")).target == b"/a%20b/%C3%A9%20?x=%20"


COOKIES = ["a=1", "b=2,3", "b=4"]
FROM_FUNCTION_URL = event(cookies=COOKIES, headers={"host": "h", "cookie": "a=1; b=2,3; b=4"})
FROM_HTTP_API = event(cookies=COOKIES, headers={"host": "h"})


@pytest.mark.parametrize("given", [FROM_FUNCTION_URL, FROM_HTTP_API])
def test_a_request_has_its_cookies_once(given: dict[str, Any]) -> None:
    async def handler(request: Request) -> dict[str, Any]:
        return {"headers": request.headers.getlist("cookie"), "cookies": request.cookies}

    said = json.loads(answer(handler, given)["body"])
    assert said == {"headers": ["a=1; b=2,3; b=4"], "cookies": {"a": "1", "b": "2,3"}}


def test_a_cookie_header_without_cookies_is_kept() -> None:
    given = event(headers={"cookie": "a=1"})
    del given["cookies"]
    assert opening_of(given).headers == [(b"cookie", b"a=1")]


@pytest.mark.parametrize(
    "sent", [[b"a=1; b=2,3; b=4"], [b"a=1", b"b=2,3;b=4;"], [b"a=1", b"b=2,3", b" b=4 "]], ids=["one", "two", "three"]
)
def test_an_event_has_cookies_where_a_function_url_has_them(sent: list[bytes]) -> None:
    opening = wire.frames.Request(1, bytes(16), b"GET", b"/", [(b"cookie", value) for value in sent])
    built = build_event(opening, "id", b"")
    assert built["cookies"] == COOKIES
    assert built["headers"] == {"cookie": "a=1; b=2,3; b=4"}


def test_an_event_without_cookies_has_none() -> None:
    built = build_event(opening_of(event(cookies=[])), "id", b"")
    assert "cookies" not in built and "cookie" not in built["headers"]


# Invitations that are none


def test_with_dialback_only_a_plain_event_is_refused() -> None:
    said = answer(describe, EVENT, DIALBACK_ONLY="1")
    assert said["statusCode"] == 403
    assert said["headers"] == {"content-type": "application/problem+json"}
    assert json.loads(said["body"])["type"] == "urn:dialback:dialback-only"


INVITATION_TYPE = "application/vnd.dialback.invitation+json"


@pytest.mark.parametrize(
    "payload",
    [
        {"dialback-invitation": "forged"},
        {"dialback-invitation": None},
        {"dialback-invitation": {"a": 1}, **EVENT},
        event(headers={"content-type": INVITATION_TYPE}, body='{"dialback-invitation": "forged"}'),
        event(headers={"Content-Type": f"{INVITATION_TYPE.upper()}; charset=utf-8"}, body="not json"),
        event(headers={"content-type": INVITATION_TYPE}, body="[]"),
        event(headers={"content-type": INVITATION_TYPE}, body="*", isBase64Encoded=True),
        event(headers={"content-type": INVITATION_TYPE}, body="{}"),
        {"headers": {"content-type": INVITATION_TYPE}},
    ],
)
@pytest.mark.parametrize("secret", ["", "a secret of thirty-two bytes or more"])
def test_what_says_that_it_is_an_invitation_is_never_answered_otherwise(payload: Any, secret: str) -> None:
    called = []

    def handler(event: Any, context: Any) -> None:
        called.append(event)

    said = answer(handler, payload, DIALBACK_SECRET=secret, DIALBACK_GATEWAY="wss://gw.example.com")
    assert said["statusCode"] == 403
    problem = json.loads(said["body"])
    assert problem["type"] == "urn:dialback:invitation-refused"
    assert problem["detail"] in ("malformed", "unconfigured")
    assert not called
