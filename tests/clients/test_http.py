"""One app, one list of behaviours, and each HTTP client that people use: what docs/apps.md says of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.clients.libraries import Aiohttp, AsyncHttpx, Httpx, Requests
from tests.clients.programs import Curl, Node
from tests.clients.seen import Ask, Client, Leaving, Reads, Seen
from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

CLIENTS: dict[str, Client] = {
    "curl": Curl(),
    "requests": Requests(),
    "httpx": Httpx(),
    "httpx-async": AsyncHttpx(),
    "aiohttp": Aiohttp(),
    "node-fetch": Node(
        "fetch",
        shows_trailers=False,
        cut_error="TypeError: terminated",
        timeout_error="TimeoutError: The operation was aborted due to timeout",
    ),
    "node-http": Node("http", shows_trailers=True, cut_error="Error: aborted", timeout_error="Error: timeout"),
}
AT_ONCE = 0.1
"""Seconds from writing to arrival in a client's hands, which are slower than a socket's."""
SOON = 0.5
"""Seconds from the client's leaving, as its library or program does it, to the end of the function's code."""


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> Client:
    if request.param == "curl" and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    return CLIENTS[request.param]


@pytest.fixture
def note(request: pytest.FixtureRequest) -> str:
    """A name that no other test notes under."""
    return request.node.name.replace("[", "-").rstrip("]")


def fetch(client: Client, stack: Stack, target: str, method: str = "GET", **how: object) -> Seen:
    seen = Seen()
    client.fetch(Ask(stack.url + target, method, **how), seen)  # type: ignore[arg-type]
    return seen


def test_each_chunk_is_there_when_it_is_written(client: Client, stack: Stack, lag: Lag) -> None:
    seen = fetch(client, stack, "/ticks?count=5&interval=0.1")
    assert (seen.status, seen.error, len(seen.pieces)) == (200, "", 5)
    for came, piece in seen.pieces:
        assert came - float(piece.split()[1]) < lag.allow(AT_ONCE)


def test_a_large_download_is_whole(client: Client, stack: Stack, note: str) -> None:
    seen = fetch(client, stack, f"/produce?size={20 << 20}&note={note}")
    assert (seen.status, seen.error, len(seen.body)) == (200, "", 20 << 20)
    assert [hashlib.sha256(seen.body).hexdigest()] == stack.executions(f"{note}.sha256")


def test_an_upload_is_whole(client: Client, stack: Stack) -> None:
    sent = os.urandom(3 << 20)
    seen = fetch(client, stack, "/digest", "PUT", body=sent)
    digest = json.loads(seen.body)
    assert (digest["size"], digest["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())


def test_each_piece_of_an_upload_is_there_before_the_next_is_made(client: Client, stack: Stack, note: str) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(5):
            wait_for(lambda: len(stack.executions(note)) == number)  # noqa: B023  # it is awaited here
            yield b"piece %d" % number

    seen = fetch(client, stack, f"/heard?note={note}", "POST", body=pieces())
    assert (seen.status, seen.body) == (200, b"heard")
    assert stack.executions(note) == [f"piece {number}" for number in range(5)] + ["whole"]


def test_each_piece_is_answered_while_the_next_is_made_where_the_client_can(client: Client, stack: Stack) -> None:
    seen = Seen()

    def pieces() -> Iterator[bytes]:
        for number in range(5):
            if client.reads is Reads.ALWAYS:
                wait_for(lambda: len(seen.pieces) == number)  # noqa: B023  # it is awaited here
            yield b"piece %d" % number
            time.sleep(0.01 if client.reads is Reads.ALWAYS else 0.1)
        assert bool(seen.pieces) == (client.reads is not Reads.AFTER)

    client.fetch(Ask(f"{stack.url}/echo", "POST", pieces()), seen)
    assert (seen.status, seen.error, seen.body) == (200, "", b"piece 0piece 1piece 2piece 3piece 4")


def test_a_large_body_comes_back_while_it_is_sent_where_the_client_reads_meanwhile(
    client: Client, stack: Stack
) -> None:
    sent = os.urandom((8 if client.reads is not Reads.AFTER else 1) << 20)  # unread, it fills every buffer on its way
    seen = fetch(client, stack, "/echo", "POST", body=sent)
    assert (seen.status, seen.error, len(seen.body)) == (200, "", len(sent)) and seen.body == sent


@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.reads is Reads.AFTER])
def test_a_client_that_reads_late_stands_still_before_a_handler_that_answers_early(stack: Stack, name: str) -> None:
    """As docs/apps.md says: every buffer on the way fills up, and none grows; the client loses its patience."""
    seen = fetch(CLIENTS[name], stack, "/echo", "POST", body=bytes(48 << 20), timeout=1)
    assert seen.error in ("ConnectionError", "WriteTimeout") and not seen.body
    wait_for(lambda: stack.gauge("open_streams") == 0)


def test_a_client_that_leaves_stops_the_function(client: Client, stack: Stack, note: str, lag: Lag) -> None:
    seen = fetch(client, stack, f"/abandoned?count=200&note={note}", leave_after=3)
    wait_for(lambda: "finally" in stack.executions(note))
    assert time.time() - seen.pieces[2][0] < lag.allow(SOON)
    assert {"cancelled", "closed"} & set(stack.executions(note))


def test_a_client_that_leaves_in_its_upload_stops_the_function(client: Client, stack: Stack, note: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"first"
        wait_for(lambda: stack.executions(note) == ["first"])
        raise Leaving

    fetch(client, stack, f"/heard?note={note}", "POST", body=pieces())
    wait_for(lambda: stack.executions(note) == ["first", "gone"])


def test_a_client_that_loses_its_patience_stops_the_function(client: Client, stack: Stack, note: str) -> None:
    seen = fetch(client, stack, f"/waits?note={note}", timeout=1)
    assert seen.error == client.timeout_error
    wait_for(lambda: stack.executions(note) == ["begun", "cancelled"])


def test_a_function_that_fails_is_a_502_with_a_problem_document(client: Client, stack: Stack) -> None:
    seen = fetch(client, stack, "/broken")
    assert (seen.status, seen.headers["content-type"]) == (502, "application/problem+json")
    problem = json.loads(seen.body)
    assert problem["type"] == "urn:dialback:error:function-error"
    assert problem["instance"] == f"urn:dialback:request:{seen.headers['x-request-id']}"


def test_a_response_that_is_cut_is_an_error_of_the_client(client: Client, stack: Stack) -> None:
    seen = fetch(client, stack, "/broken?after=3")
    assert (seen.status, seen.body) == (200, b"piece 0\npiece 1\npiece 2\n")
    assert seen.error == client.cut_error


def test_trailers_where_the_client_shows_them(client: Client, stack: Stack) -> None:
    seen = fetch(client, stack, "/trailers")
    assert (seen.status, seen.error, seen.body) == (200, "", b"piece 0\npiece 1\npiece 2\n")
    shown = {"x-sha256": hashlib.sha256(seen.body).hexdigest(), "x-second": "2"}
    assert seen.trailers == (shown if client.shows_trailers else {})


def test_a_head_request_has_a_head_alone(client: Client, stack: Stack) -> None:
    seen = fetch(client, stack, "/produce?size=1000", "HEAD")
    assert (seen.status, seen.error, seen.body) == (200, "", b"")
    assert seen.headers["content-type"] == "application/octet-stream"
