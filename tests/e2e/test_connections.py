"""What a client does with its connection: keep it, pipeline on it, leave in the middle, speak HTTP/1.0; and the same
function asked without any gateway."""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import time
import urllib.request
from collections.abc import Callable

import aiohttp
import pytest

from tests.e2e import process
from tests.e2e.patience import PATIENCE, wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import Connection

SOON = 1.0
"""Seconds in which a function hears that its client has left."""


def test_a_connection_serves_many_requests(stack: Stack) -> None:
    client = http.client.HTTPConnection(stack.authority, timeout=PATIENCE)
    client.connect()
    own = client.sock
    for number in range(50):
        body = os.urandom(number * 100)
        client.request("POST", "/whole", body=body)
        response = client.getresponse()
        assert response.read() == body
        assert client.sock is own, "the connection was closed in between"
    client.close()


def test_pipelined_requests_are_answered_in_their_order(busy_stack: Stack) -> None:
    """The first is the slowest; the third has a body, and is not parsed before the second's turn is over."""
    with busy_stack.connect() as connection:
        connection.send(
            b"GET /ticks?count=3&interval=0.1 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
            b"POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nthree"
            b"HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /once?key=last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        connection._methods = ["GET", "GET", "POST", "HEAD", "GET"]
        first, second, third, fourth, last = (connection.response() for _ in range(5))
        assert connection.is_closed_by_peer()
    assert len(first.body.splitlines()) == 3
    assert second.body.startswith(b"hello ") and third.body == b"three" and fourth.body == b""
    assert last.body.startswith(b"last ")
    ids = [answer.values(b"x-request-id")[0] for answer in (first, second, third, fourth, last)]
    assert len(set(ids)) == 5


def test_a_hundred_pipelined_requests_are_all_answered(stack: Stack) -> None:
    with stack.connect() as connection:
        for number in range(100):
            connection.request("GET", f"/once?key=pipelined-{number}")
        for number in range(100):
            assert connection.response().body.startswith(b"pipelined-%d " % number)


def test_an_upload_that_is_not_read_does_not_spoil_the_connection(stack: Stack) -> None:
    """What is left of a small one is drained; with a large one the connection closes, and the client knows."""
    with stack.connect() as connection:
        connection.request("POST", "/unread", body=bytes(100_000))
        assert connection.response().body == b"not read"
        connection.request("GET", "/hello")
        assert connection.response().body.startswith(b"hello ")
    with stack.connect() as connection:
        connection.request("POST", "/unread?code=413", body=bytes(20_000_000))
        response = connection.response()
        assert (response.status, response.body, response.failure) == (413, b"not read", None)


def test_http_1_0_is_answered_until_the_connections_end(stack: Stack) -> None:
    with stack.connect() as connection:
        connection.send(b"GET /ticks?count=3&interval=0.05 HTTP/1.0\r\n\r\n")
        response = connection.response()
    assert response.value(b"transfer-encoding") is None
    assert [line.split()[0] for line in response.body.splitlines()] == [b"0", b"1", b"2"]


def test_a_target_in_absolute_form_is_served_as_its_path(stack: Stack) -> None:
    with stack.connect() as connection:
        connection.request("GET", "http://elsewhere.test:81/head/a?b=c", "X-Kept: 1")
        seen = json.loads(connection.response().body)
    assert (seen["raw_path"], seen["query_string"]) == ("/head/a", "b=c")
    assert [value for name, value in seen["headers"] if name == "host"] == ["elsewhere.test:81"]


def test_an_offer_of_http_2_is_not_taken_and_does_no_harm(stack: Stack) -> None:
    curl = subprocess.run(
        ["curl", "-sS", "--http2", "-w", " %{http_version}", stack.url + "/once?key=h2c"],
        capture_output=True,
        timeout=30,
    )
    assert curl.stdout.startswith(b"h2c ") and curl.stdout.endswith(b" 1.1")


def test_empty_lines_before_a_request_and_extensions_of_chunks_are_ignored(stack: Stack) -> None:
    """RFC 9112, sections 2.2 and 7.1.1."""
    with stack.connect() as connection:
        connection.send(
            b"\r\n\r\nPOST /whole HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;name=value\r\nhello\r\n0;last\r\nX-Trailer: ignored\r\n\r\n"
        )
        assert connection.response().body == b"hello"


def test_an_upload_goes_on_arriving_while_the_function_has_long_answered(only: Stack) -> None:
    """The rest is dropped here: it holds neither the environment nor the connection."""
    stack = only
    with stack.connect() as connection:
        connection.request("POST", "/unread", "Content-Length: 100")
        connection.send(bytes(10))
        response = connection.response()
        assert (response.body, response.failure) == (b"not read", None)
        environment = stack.environment
        wait_for(lambda: process.state(environment) == "T")
        connection.send(bytes(90))
        connection.request("GET", "/hello")
        assert connection.response().body.startswith(b"hello ")


def test_a_thousand_idle_connections_cost_little(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("paths.py:one")
    stack.get("/hello")
    before = process.memory(stack.gateway.pid).resident
    connections = [stack.connect() for _ in range(1000)]
    try:
        for connection in connections:
            connection.request("GET", "/_dialback/nothing")
        for connection in connections:
            assert connection.response().status == 404
        assert stack.get("/hello").startswith(b"hello ")
        assert process.memory(stack.gateway.pid).resident - before < 60
    finally:
        for connection in connections:
            connection.socket.close()
    wait_for(lambda: process.descriptors(stack.gateway.pid) < 100)


def test_health_readiness_and_metrics_are_on_the_private_listener_alone(stack: Stack) -> None:
    stack.get("/hello")
    with Connection(("127.0.0.1", stack.admin_port)) as admin:
        for path in ("/healthz", "/readyz"):
            admin.request("GET", path)
            assert admin.response().status == 200
    assert stack.gauge("exchanges_total") >= 1 and stack.gauge("invocations_total") >= 0
    assert json.loads(stack.get("/healthz"))["raw_path"] == "/healthz", "on the public one it is the function's"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_code_is_cancelled_when_its_client_leaves_and_the_environment_parks(only: Stack, how: str) -> None:
    stack, name = only, f"left-by-{how}"
    lines = len(stack.gateway.lines)
    with stack.connect() as connection:
        connection.request("GET", f"/abandoned?note={name}&count=1000")
        next(connection.pieces(connection.head()))
        if how == "reset":
            connection.reset()
    left_at = time.monotonic()
    wait_for(lambda: "finally" in stack.executions(name))
    assert time.monotonic() - left_at < SOON
    assert "cancelled" in stack.executions(name) or "closed" in stack.executions(name)
    pid = stack.environment
    wait_for(lambda: process.state(pid) == "T", SOON)
    stack.gateway.line("GET /abandoned 200 cancelled", after=lines)
    pieces = len(stack.executions(name))
    assert stack.get("/hello").startswith(b"hello ")
    assert (stack.environment, len(stack.executions(name))) == (pid, pieces), "it went on for nobody"


def test_code_is_cancelled_when_its_client_leaves_before_the_response(stack: Stack) -> None:
    with stack.connect() as connection:
        connection.request("GET", "/waits?note=early")
        wait_for(lambda: "begun" in stack.executions("early"))
    left_at = time.monotonic()
    wait_for(lambda: "cancelled" in stack.executions("early"))
    assert time.monotonic() - left_at < SOON


def test_a_client_that_leaves_while_it_queues_is_never_served(only: Stack) -> None:
    stack = only
    lines, noted = len(stack.gateway.lines), len(stack.executions("executions"))
    with stack.connect() as holder:
        holder.request("GET", "/ticks?count=4&interval=0.2")
        holder.head()
        with stack.connect() as queued:
            queued.request("GET", "/once?key=left-in-the-queue")
            time.sleep(0.1)
    stack.gateway.line("GET /once .*cancelled", after=lines)
    assert stack.get("/once?key=next").startswith(b"next ")
    assert [line.split()[0] for line in stack.executions("executions")[noted:]] == ["next"]


@pytest.mark.parametrize("handler", ["paths.py:many", "paths.py:one"])
def test_clients_that_leave_at_once_leave_nothing_open(shared_stack: Callable[..., Stack], handler: str) -> None:
    """They are gone before their request has a place, while it is on its way, just when its code begins."""
    stack = shared_stack(handler, environments=1)
    stack.get("/hello")
    chance = random.Random(2)
    for _ in range(10):
        connections = [stack.connect() for _ in range(20)]
        for connection in connections:
            connection.request("GET", "/stuck")
            time.sleep(chance.choice((0, 0, 0.0005, 0.002)))
            connection.reset()
    wait_for(lambda: stack.gauge("open_streams") == 0)
    wait_for(lambda: stack.gauge("waiting_requests") == 0)
    environment = stack.environment
    wait_for(lambda: process.state(environment) == "T")
    assert stack.get("/hello").startswith(b"hello ") and stack.environment == environment


async def test_aiohttp_streams_both_ways(stack: Stack) -> None:
    async with aiohttp.ClientSession(stack.url) as client:
        async with client.post("/echo", data=b"abc" * 100_000) as response:
            assert await response.read() == b"abc" * 100_000
        async with client.get("/ticks?count=3&interval=0.01") as response:
            assert [line async for line in response.content] != []


class TestWithoutGateway:
    """The same handlers answer a plain Function URL's event buffered: deploying the wrapper breaks nothing."""

    def test_a_plain_event_is_answered_buffered(self, stack: Stack) -> None:
        body = json.dumps({"a": "ä"}).encode()
        headers = {"Content-Type": "application/json", "Cookie": "a=1; b=2", "X-Kept": "1"}
        request = urllib.request.Request(stack.function_url + "head?x=1&x=2", body, headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            seen = json.loads(response.read())
        assert (seen["method"], seen["raw_path"], seen["query_string"]) == ("POST", "/head", "x=1&x=2")
        assert seen["size"] == len(body) and seen["cookies"] == {"a": "1", "b": "2"}

    def test_a_streamed_body_comes_whole(self, stack: Stack) -> None:
        with urllib.request.urlopen(stack.function_url + "produce?size=1000000&note=plain") as response:
            assert len(response.read()) == 1_000_000

    def test_several_cookies_arrive(self, stack: Stack) -> None:
        with urllib.request.urlopen(stack.function_url + "cookies") as response:
            assert len(response.headers.get_all("set-cookie")) == 3

    def test_plain_events_and_invitations_take_turns(self, stack: Stack) -> None:
        for number in range(5):
            assert stack.get(f"/once?key=turn-{number}").startswith(f"turn-{number} ".encode())
            with urllib.request.urlopen(stack.function_url + f"once?key=plain-{number}") as response:
                assert response.read().startswith(f"plain-{number} ".encode())

    def test_a_forged_invitation_is_refused_and_never_answered_otherwise(self, stack: Stack) -> None:
        request = urllib.request.Request(
            stack.function_url,
            b'{"dialback-invitation": "AAAA"}',
            {"Content-Type": "application/vnd.dialback.invitation+json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=PATIENCE)
        with refused.value:
            assert refused.value.code == 403
            assert json.loads(refused.value.read())["type"] == "urn:dialback:invitation-refused"
