"""Payload format 2.0, request to event and answer to response, against what was documented and recorded of it."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_lambda.function_url import HttpRequest, build_answer, build_event

RECORDED = Path(__file__).parent / "recorded"
ANSWERS = json.loads((RECORDED / "answers.json").read_text())
REQUEST = HttpRequest(
    method="POST",
    target="/my/path?parameter1=value1&parameter1=value2&parameter2=value",
    headers=[
        ("Host", "<url-id>.lambda-url.us-west-2.on.aws"),
        ("User-Agent", "agent"),
        ("Header1", "value1"),
        ("Header2", "value1"),
        ("hEADER2", "value2"),
        ("Cookie", "cookie1; cookie2"),
        ("Content-Type", "text/plain"),
        ("Content-Length", "18"),
        ("Connection", "keep-alive"),
    ],
    body=b"Hello from client!",
    source_ip="123.123.123.123",
)


def event_for(request: HttpRequest) -> dict[str, Any]:
    return build_event(request, "id", "Root=1-67891233-abcdef012345678912345678", 1583348638.390, 9000)


def with_header(name: str, value: str) -> HttpRequest:
    headers = [pair for pair in REQUEST.headers if pair[0] != name]
    return replace(REQUEST, headers=[*headers, (name, value)])


def test_documented_event() -> None:
    recorded = json.loads((RECORDED / "documented-event.json").read_text())
    event = event_for(REQUEST)
    # The documentation's `time` and `timeEpoch` are of different days: its format counts, and the epoch's day.
    recorded["requestContext"]["time"] = "04/Mar/2020:19:03:58 +0000"
    headers = event.pop("headers")
    assert recorded.pop("headers").items() <= headers.items()
    assert event == recorded


def test_headers_are_those_of_a_recorded_event() -> None:
    assert event_for(REQUEST)["headers"] == {
        "host": "<url-id>.lambda-url.us-west-2.on.aws",
        "user-agent": "agent",
        "header1": "value1",
        "header2": "value1,value2",
        "cookie": "cookie1; cookie2",
        "content-type": "text/plain",
        "content-length": "18",
        "x-amzn-trace-id": "Root=1-67891233-abcdef012345678912345678",
        "x-forwarded-for": "123.123.123.123",
        "x-forwarded-port": "9000",
        "x-forwarded-proto": "http",
    }


def test_absent_parts_have_no_keys() -> None:
    event = event_for(HttpRequest("GET", "/", [("Host", "localhost:9000")], b"", "127.0.0.1"))
    assert not {"cookies", "queryStringParameters", "body"} & event.keys()
    assert event["rawQueryString"] == ""
    assert event["isBase64Encoded"] is False
    assert event["requestContext"]["http"]["userAgent"] == ""
    assert event["requestContext"]["domainPrefix"] == "localhost"


@pytest.mark.parametrize("path", ["/pa2%2Fth/1", "/a%20b", "/gr%C3%BC%C3%9Fe", "/a//b/../c", "/%"])
def test_path_stays_as_sent(path: str) -> None:
    event = event_for(replace(REQUEST, target=path))
    assert event["rawPath"] == path
    assert event["requestContext"]["http"]["path"] == path


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("q=a%20b+c%2Bd", {"q": "a b c+d"}),
        ("q=&q=1&flag", {"q": ",1", "flag": ""}),
        ("q=1?2", {"q": "1?2"}),
        ("multiQuery=foo&multiQuery=%2Fbar", {"multiQuery": "foo,/bar"}),
    ],
)
def test_query(query: str, parameters: dict[str, str]) -> None:
    event = event_for(replace(REQUEST, target=f"/?{query}"))
    assert event["rawQueryString"] == query
    assert event["queryStringParameters"] == parameters


def test_several_cookie_headers() -> None:
    request = replace(REQUEST, headers=[("Cookie", "a=1; b=2"), ("Cookie", "c=3")])
    event = event_for(request)
    assert event["cookies"] == ["a=1", "b=2", "c=3"]
    assert event["headers"]["cookie"] == "a=1; b=2; c=3"


def test_forwarded_for_grows() -> None:
    event = event_for(with_header("X-Forwarded-For", "10.0.0.1"))
    assert event["headers"]["x-forwarded-for"] == "10.0.0.1, 123.123.123.123"
    assert event["requestContext"]["http"]["sourceIp"] == "123.123.123.123"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/html; charset=utf-8",
        "application/json",
        "Application/JSON;charset=utf-8",
        "application/xml",
        "application/javascript",
    ],
)
def test_text_bodies(content_type: str) -> None:
    event = event_for(replace(with_header("Content-Type", content_type), body="grüße".encode()))
    assert event["body"] == "grüße"
    assert event["isBase64Encoded"] is False


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "image/svg+xml",
        "application/vnd.api+json",
    ],
)
def test_binary_bodies(content_type: str) -> None:
    event = event_for(with_header("Content-Type", content_type))
    assert base64.b64decode(event["body"]) == REQUEST.body
    assert event["isBase64Encoded"] is True


def test_text_that_is_not_utf8_is_binary() -> None:
    event = event_for(replace(REQUEST, body=b"\xff\xfe"))
    assert event["body"] == "//4="
    assert event["isBase64Encoded"] is True


@pytest.mark.parametrize("recorded", ANSWERS, ids=[json.dumps(answer["returned"])[:50] for answer in ANSWERS])
def test_recorded_answers(recorded: dict[str, Any]) -> None:
    answer = build_answer(json.dumps(recorded["returned"]).encode())
    assert answer.status == recorded["status"]
    assert {name: value for name, value in answer.headers if name != "set-cookie"} == recorded["headers"]
    assert [value for name, value in answer.headers if name == "set-cookie"] == recorded.get("cookies", [])
    assert answer.body == recorded["body"].encode()


def test_binary_answer() -> None:
    document = {"statusCode": 200, "body": base64.b64encode(bytes(range(256))).decode(), "isBase64Encoded": True}
    assert build_answer(json.dumps(document).encode()).body == bytes(range(256))


def test_headers_that_a_function_cannot_set_are_remapped() -> None:
    document = {"statusCode": 200, "headers": {"Content-Length": 2, "Connection": "Keep-Alive", "Server": "x"}}
    headers = dict(build_answer(json.dumps(document).encode()).headers)
    assert headers == {
        "content-type": "application/json",
        "x-amzn-remapped-content-length": "2",
        "x-amzn-remapped-connection": "Keep-Alive",
        "x-amzn-remapped-server": "x",
    }


@pytest.mark.parametrize(
    "document",
    [
        {"statusCode": "ok"},
        {"statusCode": None},
        {"statusCode": 99},
        {"statusCode": 600},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "cookies": "a=1"},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
    ],
    ids=json.dumps,
)
def test_answers_that_make_no_response(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        build_answer(json.dumps(document).encode())
