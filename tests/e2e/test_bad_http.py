"""Promise 6, clients: whatever they throw at the gateway gets its documented error, and nobody else notices."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from protocol.dial_reader import CONNECT_PATH
from tests.e2e import process
from tests.e2e.neighbour import Neighbour
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import ConnectionCut, WireResponse


@pytest.fixture(scope="module")
def neighbour(shared_stack: Callable[..., Stack]) -> Iterator[Neighbour]:
    """A healthy stream beside all tests of this module."""
    neighbour = Neighbour(shared_stack("paths.py:one"))
    yield neighbour
    neighbour.leave()


@pytest.fixture
def unimpressed(stack: Stack, neighbour: Neighbour) -> Iterator[Stack]:
    """The stack; at the end of each test the healthy stream beside it must have noticed nothing."""
    yield stack
    neighbour.check()


def refusal(stack: Stack, sent: bytes) -> WireResponse:
    """The answer to raw bytes, after which the connection must be closed."""
    with stack.connect() as connection:
        connection.send(sent)
        response = connection.response()
        try:
            assert connection.is_closed_by_peer(), "it stays open"
        except ConnectionCut:
            pass
    assert response.value(b"content-type") == b"application/problem+json"
    assert response.value(b"server") is None
    document = json.loads(response.body)
    assert document["status"] == response.status and document["type"].startswith("urn:dialback:error:")
    assert b"echo-me-not" not in response.body and b"Traceback" not in response.body
    return response


HOST = b"Host: test\r\n"
BAD_REQUESTS: dict[str, tuple[bytes, int]] = {
    "garbage": (b"\0\1\2\3echo-me-not\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)), 400),
    "HTTP/0.9": (b"GET /echo-me-not\r\n\r\n", 505),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a version that is not spoken": (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a bare line feed": (b"GET / HTTP/1.1\nHost: test\n\n", 400),
    "a folded line": (b"GET / HTTP/1.1\r\n" + HOST + b"A: 1\r\n echo-me-not\r\n\r\n", 400),
    "a space before the colon": (b"GET / HTTP/1.1\r\n" + HOST + b"A : 1\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\n" + HOST + b"A: 1\0echo-me-not\r\n\r\n", 400),
    "both framings": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "a negative length": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n", 400),
    "a length beyond all bounds": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
        400,
    ),
    "an unknown coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "an oversized header": (b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"echo-me-not" * 2000 + b"\r\n\r\n", 431),
    "a head that never ends": (b"GET / HTTP/1.1\r\n" + HOST + b"A: 1\r\n" * 20_000, 431),
    "a request line that never ends": (b"GET /" + b"echo-me-not" * 10_000, 414),
    "a fragment": (b"GET /a#echo-me-not HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a bad chunk size": (
        b"POST /digest HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\necho-me-not\r\n",
        400,
    ),
    "a chunk that is too long": (
        b"POST /digest HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello, echo-me-not\r\n0\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_what_is_not_http_is_refused_with_a_problem_document(unimpressed: Stack, case: str) -> None:
    sent, status = BAD_REQUESTS[case]
    assert refusal(unimpressed, sent).status == status


def test_a_flood_of_bad_requests_is_told_in_few_lines_and_disturbs_nobody(unimpressed: Stack) -> None:
    stack = unimpressed
    floods = set()

    def other_descriptors() -> int:
        """But those of live connections: some of the flood are whole heads, whose functions dial in and stay."""
        pid = stack.gateway.pid
        return process.descriptors(pid) - len(process.connections(pid) - floods)

    before = other_descriptors()
    lines = len(stack.gateway.lines)
    chance = random.Random(1)
    began = time.monotonic()
    for number in range(200):
        with stack.connect() as connection:
            floods.add((stack.port, connection.socket.getsockname()[1]))
            if number % 2:
                connection.send(b"\0" + chance.randbytes(chance.randrange(1, 200)) + b"\r\n\r\n")
                assert connection.response().status == 400
            else:
                sent, _ = chance.choice(list(BAD_REQUESTS.values()))
                connection.send(sent[: chance.randrange(1, len(sent))])
                connection.reset()
    told = [line for line in stack.gateway.lines[lines:] if "request.refused" in line]
    assert any("request.refused" in line for line in stack.gateway.lines)
    assert len(told) <= 5 * (1 + (time.monotonic() - began) / 10), "a flood of requests became a flood of lines"
    wait_for(lambda: other_descriptors() <= before)


def test_a_truncated_chunked_upload_cancels_the_functions_code(unimpressed: Stack) -> None:
    stack = unimpressed
    with stack.connect() as connection:
        connection.request("POST", "/heard?note=truncated", "Transfer-Encoding: chunked")
        connection.chunk(b"hello")
        connection.send(b"ff\r\nonly a part")
        wait_for(lambda: "".join(stack.executions("truncated")).startswith("hello"))
    wait_for(lambda: "gone" in stack.executions("truncated"))
    assert "whole" not in stack.executions("truncated"), "a cut upload looked whole"


def test_an_upload_shorter_than_its_length_cancels_the_functions_code(unimpressed: Stack) -> None:
    stack = unimpressed
    with stack.connect() as connection:
        connection.request("POST", "/heard?note=short", "Content-Length: 100")
        connection.send(b"hello")
        wait_for(lambda: "hello" in stack.executions("short"))
    wait_for(lambda: "gone" in stack.executions("short"))
    assert "whole" not in stack.executions("short"), "a cut upload looked whole"


def test_an_upload_that_is_cut_short_is_answered_while_its_client_reads(unimpressed: Stack) -> None:
    stack = unimpressed
    with stack.connect() as connection:
        connection.request("POST", "/heard?note=half", "Content-Length: 100")
        connection.send(b"hello")
        wait_for(lambda: "hello" in stack.executions("half"))
        connection.socket.shutdown(socket.SHUT_WR)
        response = connection.response()
    assert response.status == 400 and response.value(b"content-type") == b"application/problem+json"
    wait_for(lambda: "gone" in stack.executions("half"))
    assert "whole" not in stack.executions("half"), "a cut upload looked whole"


def test_the_gateways_own_paths_refuse_what_is_not_for_them(stack: Stack) -> None:
    for line in (b"GET %b HTTP/1.1\r\n", b"POST %b HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"):
        assert refusal(stack, line % CONNECT_PATH.encode() + HOST + b"\r\n").status == 400
    assert refusal(stack, b"GET /_dialback/secrets HTTP/1.1\r\n" + HOST + b"\r\n").status == 404
