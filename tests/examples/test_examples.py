"""Every example does on the real stack what its docstring promises, when it promises it."""

from __future__ import annotations

import hashlib
import html.parser
import json
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.e2e.command import REPOSITORY
from tests.e2e.lag import Lag
from tests.e2e.stack import Stack
from tests.e2e.wire import WireResponse

EXAMPLES = REPOSITORY / "examples"
AT_ONCE = 0.05
"""Seconds that a chunk may come late, besides what the machine adds."""
DRIFT = 0.002
"""Seconds that each `asyncio.sleep` of an example may be longer than it says."""
MOST_LINES = 40


@pytest.fixture
def example(shared_stack: Callable[..., Stack]) -> Callable[[str], Stack]:
    """`example("chunks")`: a stack that serves examples/chunks.py."""

    return lambda name: serve(shared_stack, name)


def serve(shared_stack: Callable[..., Stack], name: str) -> Stack:
    return shared_stack(f"{name}.py:handler", root=EXAMPLES, environments=4)


class Fetched(NamedTuple):
    """Responses by example, and how many seconds a chunk may have come late."""

    responses: dict[str, WireResponse]
    late: float


def fetch(stack: Stack, target: str) -> WireResponse:
    with stack.connect() as connection:
        connection.request("GET", target)
        return connection.response()


@pytest.fixture(scope="module")
def fetched(shared_stack: Callable[..., Stack]) -> Fetched:
    """The responses of the examples that take their time, side by side: they mostly wait."""
    targets = {"chunks": "/", "tokens": "/?prompt=hello", "progress": "/"}
    stacks = {name: serve(shared_stack, name) for name in targets}
    lag = Lag()
    with ThreadPoolExecutor() as threads:
        coming = {name: threads.submit(fetch, stacks[name], target) for name, target in targets.items()}
        responses = {name: future.result() for name, future in coming.items()}
    lag.stop()
    return Fetched(responses, lag.allow(AT_ONCE))


def times(response: WireResponse) -> list[float]:
    """When each chunk came, in seconds after the first one."""
    assert (response.status, response.failure) == (200, None)
    return [chunk.time - response.chunks[0].time for chunk in response.chunks]


def test_every_example_is_tested_and_short() -> None:
    tested = {"chunks", "echo", "progress", "recycled", "tokens", "upload"}
    tested |= {"django_app", "fastapi_app", "flask_app", "native_style"}  # in test_app_examples
    tested |= {"chat", "mcp_server", "websocket_room"}  # each in a file of its own
    assert {file.stem for file in EXAMPLES.glob("*.py")} == tested
    for file in EXAMPLES.glob("*.py"):
        text = file.read_text()
        assert len(text.splitlines()) <= MOST_LINES and text.startswith('"""'), file.name


def test_an_environment_that_grows_is_replaced_and_no_request_is_lost(example: Callable[[str], Stack]) -> None:
    """One after the other, each in the only environment that is awake: 300 MiB are reached by the fifteenth."""
    stack, counts = example("recycled"), []
    for number in range(30):
        process, count = re.fullmatch(rb"process (\d+) remembers (\d+)\n", stack.get(f"/{number}")).groups()
        counts.append(int(count))
    assert 1 < counts.count(1) <= 4 and max(counts) <= 15
    assert stack.mistakes() == []


def test_chunks_come_one_a_second(fetched: Fetched) -> None:
    response = fetched.responses["chunks"]
    assert [chunk.data for chunk in response.chunks] == [b"Chunk %d\n" % number for number in range(1, 6)]
    assert times(response) == pytest.approx([0, 1, 2, 3, 4], abs=fetched.late)


def test_tokens_are_server_sent_events_50_ms_apart(fetched: Fetched) -> None:
    response = fetched.responses["tokens"]
    assert response.value(b"content-type") == b"text/event-stream"
    events = response.body.decode().split("\n\n")
    *tokens, done, end = events
    assert (done, end) == ("event: done\ndata: {}", "")
    words = []
    for number, event in enumerate(tokens):
        head, data = event.split("\n")
        assert head == f"id: {number}"
        words.append(json.loads(data.removeprefix("data: "))["token"])
    assert "".join(words).startswith("hello: ")
    assert len(response.chunks) == len(tokens) + 1
    assert times(response)[:-1] == pytest.approx(
        [0.05 * index for index in range(len(tokens))], abs=fetched.late + DRIFT * len(tokens)
    )


def test_readers_of_tokens_share_one_environment(example: Callable[[str], Stack]) -> None:
    stack = example("tokens")
    fetch(stack, "/")
    before = stack.environments
    connections = [stack.connect() for _ in range(10)]
    try:
        began = time.monotonic()
        for connection in connections:
            connection.request("GET", "/")
        for connection in connections:
            assert connection.response().body.endswith(b"event: done\ndata: {}\n\n")
        assert time.monotonic() - began < 3, "they waited for each other"
    finally:
        for connection in connections:
            connection.socket.close()
    assert stack.environments == before


class PageParser(html.parser.HTMLParser):
    """What is in the page, by tag."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_progress_fills_its_bar_while_it_streams(fetched: Fetched) -> None:
    response = fetched.responses["progress"]
    assert response.value(b"content-type") == b"text/html; charset=utf-8"
    page = PageParser()
    page.feed(response.chunks[0].data.decode())
    assert {"html", "style", "div", "p"} <= set(page.tags), "the first chunk is the page"
    steps = [chunk for chunk in response.chunks if chunk.data.startswith(b"<script>")]
    percents = [int(re.search(rb"step\((\d+)\)", chunk.data)[1]) for chunk in steps]  # type: ignore[index]
    assert percents == list(range(5, 101, 5))
    assert times(response)[1:21] == pytest.approx(
        [0.15 * index for index in range(1, 21)], abs=fetched.late + DRIFT * 20
    )
    assert response.body.endswith(b"</html>\n")


@pytest.mark.parametrize("size", [0, 1, 20 << 20])
def test_upload_counts_and_hashes(example: Callable[[str], Stack], size: int) -> None:
    sent = random.Random(size).randbytes(size)
    with example("upload").connect() as connection:
        connection.request("PUT", "/", body=sent)
        response = connection.response()
    seen = json.loads(response.body)
    assert (seen["bytes"], seen["sha256"]) == (size, hashlib.sha256(sent).hexdigest())
    assert response.value(b"content-type") == b"application/json"


def test_upload_is_hashed_while_it_comes(example: Callable[[str], Stack], lag: Lag) -> None:
    with example("upload").connect() as connection:
        connection.request("PUT", "/", "Transfer-Encoding: chunked")
        for _ in range(5):
            connection.chunk(b"piece")
            time.sleep(0.1)
        sent_at = time.monotonic()
        connection.chunk(b"")
        seen = json.loads(connection.response().body)
        assert time.monotonic() - sent_at < lag.allow(2 * AT_ONCE)
    assert seen["bytes"] == 25 and 0.35 < seen["seconds"] < 1.5


def test_echo_answers_each_piece_before_the_next_has_been_sent(example: Callable[[str], Stack], lag: Lag) -> None:
    with example("echo").connect() as connection:
        connection.request("POST", "/", "Transfer-Encoding: chunked", "Content-Type: text/plain")
        connection.chunk(b"1\n")
        response = connection.head()
        pieces = connection.pieces(response)
        assert response.value(b"content-type") == b"text/plain" and next(pieces).data == b"1\n"
        for number in (2, 3):
            began = time.monotonic()
            connection.chunk(b"%d\n" % number)
            assert next(pieces).data == b"%d\n" % number
            assert time.monotonic() - began < lag.allow(2 * AT_ONCE)
        connection.chunk(b"")
        assert list(pieces) == []
