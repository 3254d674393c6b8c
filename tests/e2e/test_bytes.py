"""Promise 3: whatever goes in comes out byte for byte, up to each limit; one past it, the documented refusal."""

from __future__ import annotations

import hashlib
import json
import random
import time
from typing import Any

import pytest

from tests.e2e.lag import Lag
from tests.e2e.stack import Stack
from tests.e2e.wire import WireResponse

MIB = 1 << 20
CHANCE = random.Random(7)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH")


def told(stack: Stack, *lines: str, method: str = "GET", target: str = "/head", body: bytes | None = None) -> Any:
    """What the function saw of a request."""
    with stack.connect() as connection:
        connection.request(method, target, *lines, body=body)
        response = connection.response()
        assert response.status == 200, (response, response.body)
        return json.loads(response.body)


def answered(stack: Stack, target: str, *lines: str, method: str = "GET", body: bytes | None = None) -> WireResponse:
    with stack.connect() as connection:
        connection.request(method, target, *lines, body=body)
        response = connection.response()
        assert response.failure is None
        return response


def problem(response: WireResponse) -> str:
    """The name of the problem that a response documents, checked as far as every one must be alike."""
    assert response.value(b"content-type") == b"application/problem+json"
    assert response.value(b"server") is None
    document = json.loads(response.body)
    assert document["status"] == response.status
    assert document["instance"].removeprefix("urn:dialback:request:") == response.values(b"x-request-id")[0].decode()
    assert "Traceback" not in response.body.decode()
    return str(document["type"]).removeprefix("urn:dialback:error:")


@pytest.mark.parametrize("size", [0, 1, 1000, 64 << 10, MIB - 1, MIB, MIB + 1, 8 * MIB])
@pytest.mark.parametrize("path", ["/whole", "/echo"])
def test_random_bytes_come_back_equal(stack: Stack, path: str, size: int) -> None:
    sent = CHANCE.randbytes(size)
    assert answered(stack, path, method="POST", body=sent).body == sent


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 8 * MIB])
def test_a_chunked_upload_of_one_chunk_comes_back_equal(stack: Stack, size: int) -> None:
    sent = CHANCE.randbytes(size)
    with stack.connect() as connection:
        connection.request("POST", "/whole", "Transfer-Encoding: chunked")
        if sent:
            connection.chunk(sent)
        connection.chunk(b"")
        response = connection.response()
    assert response.body == sent


@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 8 * MIB])
def test_one_piece_of_a_streamed_response_may_be_larger_than_a_frame(stack: Stack, size: int) -> None:
    name = f"piece-{size}"
    response = answered(stack, f"/produce?size={size}&piece={size}&note={name}")
    assert len(response.body) == size
    assert stack.executions(f"{name}.sha256") == [hashlib.sha256(response.body).hexdigest()]


def test_100_000_chunks_of_one_byte_arrive_in_order(stack: Stack) -> None:
    response = answered(stack, "/produce?size=100000&piece=1&note=bytes")
    assert len(response.body) == 100_000
    assert stack.executions("bytes.sha256") == [hashlib.sha256(response.body).hexdigest()]


def test_an_upload_of_100_000_chunks_of_one_byte_arrives_in_order(stack: Stack) -> None:
    sent = CHANCE.randbytes(100_000)
    with stack.connect() as connection:
        connection.request("POST", "/digest", "Transfer-Encoding: chunked")
        for start in range(0, len(sent), 1000):
            connection.send(b"".join(b"1\r\n%c\r\n" % byte for byte in sent[start : start + 1000]))
        connection.chunk(b"")
        seen = json.loads(connection.response().body)
    assert (seen["size"], seen["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_arrives(stack: Stack, method: str) -> None:
    seen = told(stack, method=method, body=b"a body" if method not in ("GET", "OPTIONS") else None)
    assert seen["method"] == method
    assert seen["size"] == (6 if method not in ("GET", "OPTIONS") else 0)


def test_a_get_may_have_a_body(stack: Stack) -> None:
    assert told(stack, body=b"unusual")["sha256"] == hashlib.sha256(b"unusual").hexdigest()


def test_options_of_the_server_itself_arrives(stack: Stack) -> None:
    assert told(stack, method="OPTIONS", target="*")["raw_path"] == "*"


@pytest.mark.parametrize(
    "target",
    [
        "/head/%C3%A4%E2%82%AC/%F0%9F%92%A9?q=%C3%BC",
        "/head/%2F%2f%25%00",
        "/head//double/../dots/./;a=b",
        "/head?a=1&a=2&b&=c&%26=+%20",
        "/head??&&",
        "/head?",
        "/head/a%zz~!$&'()*,;:@",
    ],
)
def test_the_target_is_kept_byte_for_byte(stack: Stack, target: str) -> None:
    seen = told(stack, target=target)
    path, mark, query = target.partition("?")
    assert (seen["raw_path"], seen["query_string"]) == (path, query)


def test_an_utf_8_path_is_decoded_for_the_handler(stack: Stack) -> None:
    assert told(stack, target="/head/%C3%A4%E2%82%AC/%F0%9F%92%A9")["path"] == "/head/ä€/💩"


def test_a_query_of_12_kb_arrives(stack: Stack) -> None:
    query = "&".join(f"key{index}=value{index:04}" for index in range(700))[: 12 * 1024]
    assert told(stack, target=f"/head?{query}")["query_string"] == query


def test_200_headers_arrive_in_their_order(stack: Stack) -> None:
    sent = [[f"x-{index}", f"value {index}"] for index in range(200)]
    seen = told(stack, *(f"{name}: {value}" for name, value in sent))
    assert [pair for pair in seen["headers"] if pair[1].startswith("value ")] == sent


def test_repeated_headers_stay_apart_and_obs_text_is_kept(stack: Stack) -> None:
    seen = told(stack, "X-A: 1", "x-b: \xe4\xff", "X-a: 2, 3", "Cookie: a=1; b=2", "Cookie: c=3")
    pairs = seen["headers"]
    assert [value for name, value in pairs if name == "x-a"] == ["1", "2, 3"]
    assert [value for name, value in pairs if name == "x-b"] == ["\xe4\xff"]
    assert seen["cookies"] == {"a": "1", "b": "2", "c": "3"}


def test_hop_by_hop_headers_are_ours(stack: Stack) -> None:
    seen = told(stack, "Connection: keep-alive, X-Secret", "X-Secret: 1", "TE: trailers", "X-Kept: 1")
    names = {name for name, _ in seen["headers"]}
    assert {"connection", "x-secret", "te"}.isdisjoint(names) and {"host", "x-kept"} <= names


def test_what_a_client_says_of_its_origin_is_not_believed(stack: Stack) -> None:
    claims = [f"{name}: 203.0.113.7" for name in ("X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "Forwarded")]
    seen = told(stack, *claims)["headers"]
    assert not [pair for pair in seen if "203.0.113.7" in pair[1]]
    assert [value for name, value in seen if name == "x-forwarded-for"] == ["127.0.0.1"]


def test_200_response_headers_arrive(stack: Stack) -> None:
    response = answered(stack, "/fields?count=200")
    assert [pair for pair in response.headers if pair[0].startswith(b"x-") and pair[0] != b"x-request-id"] == [
        (b"x-%d" % index, (b"%d-" % index).ljust(20, b"v")) for index in range(200)
    ]


def test_several_set_cookie_and_repeated_fields_arrive_apart(stack: Stack) -> None:
    response = answered(stack, "/cookies")
    assert response.values(b"set-cookie") == [b"c%d=%d; Path=/; HttpOnly" % (index, index) for index in range(3)]
    assert response.values(b"x-twice") == [b"a, b", b"c"]


def test_trailers_follow_the_body(stack: Stack) -> None:
    response = answered(stack, "/trailers", "TE: trailers")
    assert response.value(b"trailer") == b"x-sha256", "nobody was told what would follow"
    assert dict(response.trailers) == {
        b"x-sha256": hashlib.sha256(response.body).hexdigest().encode(),
        b"x-second": b"2",
    }


def test_early_hints_leave_before_the_response(stack: Stack) -> None:
    response = answered(stack, "/hints")
    assert response.interim == [(103, [(b"link", b"</style.css>; rel=preload; as=style")])]
    assert response.body == b"after the hints"


def test_head_has_the_headers_and_no_body(stack: Stack) -> None:
    with stack.connect() as connection:
        for target in ("/hello", "/produce?size=5000000", "/ticks?count=2&interval=0.1"):
            connection.request("HEAD", target)
            response = connection.response()
            assert (response.status, response.body) == (200, b"")
        connection.request("GET", "/hello")
        assert connection.response().body.startswith(b"hello ")


@pytest.mark.parametrize("code", [204, 205, 304])
def test_204_205_and_304_have_no_body_and_the_connection_goes_on(stack: Stack, code: int) -> None:
    with stack.connect() as connection:
        connection.request("GET", f"/status?code={code}")
        response = connection.response()
        assert response.status == code and response.body == b""
        assert code != 204 or not response.values(b"content-length")
        connection.request("GET", "/hello")
        assert connection.response().body.startswith(b"hello ")


@pytest.mark.parametrize("code", [200, 201, 206, 301, 404, 418, 451, 500, 503, 599])
def test_every_status_of_the_function_is_the_clients(stack: Stack, code: int) -> None:
    response = answered(stack, f"/status?code={code}&body=said")
    assert (response.status, response.body) == (code, b"said")


class TestExpectContinue:
    """`100 Continue` leaves when the function first reads, and not before."""

    def test_it_waits_for_the_first_read(self, stack: Stack, lag: Lag) -> None:
        with stack.connect() as connection:
            asked = time.time()
            connection.request("POST", "/late?wait=0.4", "Expect: 100-continue", "Content-Length: 5")
            status, _ = connection.next_head()
            continued = time.time()
            connection.send(b"hello")
            response = connection.response()
        assert status == 100 and continued - asked >= 0.4
        read_at, size = response.body.split()
        assert abs(continued - float(read_at)) < lag.allow(0.05) and size == b"5"

    def test_a_function_that_does_not_read_says_no_continue(self, stack: Stack) -> None:
        with stack.connect() as connection:
            connection.request("POST", "/unread?code=413", "Expect: 100-continue", "Content-Length: 1000000000")
            response = connection.response()
            assert response.status == 413 and not response.interim
            assert response.value(b"connection") == b"close"


class TestPastTheLimits:
    """One past each limit: the documented refusal, as a problem document."""

    def test_a_request_line_of_16_kib_passes_and_one_more_byte_is_414(self, stack: Stack) -> None:
        room = (16 << 10) - len("GET  HTTP/1.1")
        target = "/head?" + "q" * (room - len("/head?"))
        assert len(told(stack, target=target)["query_string"]) == room - len("/head?")
        response = answered(stack, target + "q")
        assert (response.status, problem(response)) == (414, "target-too-long")

    def test_a_field_of_16_kib_passes_and_one_more_byte_is_431(self, stack: Stack) -> None:
        value = "v" * ((16 << 10) - len("x-big"))
        assert ["x-big", value] in told(stack, f"X-Big: {value}")["headers"]
        response = answered(stack, "/head", f"X-Big: {value}v")
        assert (response.status, problem(response)) == (431, "header-too-large")

    def test_256_fields_pass_and_one_more_is_431(self, stack: Stack) -> None:
        lines = [f"x-{index}: {index}" for index in range(255)]  # and Host
        seen = told(stack, *lines)["headers"]
        assert [f"{name}: {value}" for name, value in seen if name != "host"][: len(lines)] == lines
        response = answered(stack, "/head", *lines, "x-255: 255")
        assert (response.status, problem(response)) == (431, "header-too-large")

    def test_a_head_of_60_kib_passes_and_a_larger_one_is_431(self, stack: Stack) -> None:
        lines = [f"x-{index}: " + "v" * 15_000 for index in range(4)]
        seen = told(stack, *lines)["headers"]
        assert [f"{name}: {value}" for name, value in seen if value.startswith("vvv")] == lines
        response = answered(stack, "/head", *lines, "x-4: " + "v" * 2_000)
        assert (response.status, problem(response)) == (431, "header-too-large")

    def test_a_target_beyond_ascii_is_400(self, stack: Stack) -> None:
        with stack.connect() as connection:
            connection.send(b"GET /\xc3\xa4 HTTP/1.1\r\nHost: test\r\n\r\n")
            response = connection.response()
        assert (response.status, problem(response)) == (400, "bad-request")

    def test_an_unknown_expectation_is_417(self, stack: Stack) -> None:
        response = answered(stack, "/head", "Expect: miracles")
        assert (response.status, problem(response)) == (417, "expectation-failed")

    @pytest.mark.parametrize("line", ["CONNECT test:80 HTTP/1.1", "BREW /pot HTTP/1.1"])
    def test_methods_that_are_not_served_are_501(self, stack: Stack, line: str) -> None:
        with stack.connect() as connection:
            connection.send(f"{line}\r\nHost: test\r\n\r\n".encode())
            response = connection.response()
        assert (response.status, problem(response)) == (501, "not-implemented")

    def test_response_fields_beyond_a_frame_are_a_502_with_the_requests_id(self, stack: Stack) -> None:
        response = answered(stack, "/fields?count=200&size=400")
        assert (response.status, problem(response)) == (502, "function-error")
