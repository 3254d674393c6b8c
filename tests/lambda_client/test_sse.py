"""Server-sent events: the format of WHATWG HTML §9.2.5, read back by the rules of §9.2.6, and quiet times."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_client import Request, Response, SyncRequest, sse, stream_handler
from lambda_client.server_sent_events import encode_event
from lambda_client.testing import BrokenResponse, TestClient, TestResponse

TIMEOUT = 10.0


class Read(NamedTuple):
    """What a reader dispatches."""

    type: str
    data: str
    last_id: str


def read(text: str) -> tuple[list[Read], int | None]:
    """§9.2.6, step by step: the events, and the reconnection time."""
    events: list[Read] = []
    data: list[str] = []
    kind, last_id, retry = "", "", None
    *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert rest == "", "the last line has its end"
    for line in lines:
        if not line:
            if data:
                events.append(Read(kind or "message", "\n".join(data), last_id))
            data, kind = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value.isdigit():
            retry = int(value)
    return events, retry


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        ("hello", b"data: hello\n\n"),
        ("", b"data: \n\n"),
        ("two\nlines", b"data: two\ndata: lines\n\n"),
        ("a\r\nb\rc\n", b"data: a\ndata: b\ndata: c\ndata: \n\n"),
        ({"data": {"a": "ü"}}, 'data: {"a": "ü"}\n\n'.encode()),
        ({"data": 1}, b"data: 1\n\n"),
        ({"data": None}, b"data: null\n\n"),
        ({"event": "done", "id": 7, "retry": 1000, "data": "x"}, b"event: done\nid: 7\nretry: 1000\ndata: x\n\n"),
        ({"id": ""}, b"id: \n\n"),
        ({"comment": "one\ntwo"}, b": one\n: two\n\n"),
        ({}, b"\n"),
    ],
)
def test_events_as_they_are_sent(event: Any, encoded: bytes) -> None:
    assert encode_event(event) == encoded


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b"bytes", TypeError),
        (None, TypeError),
        ({"daat": "x"}, ValueError),
        ({"event": "a\nb"}, ValueError),
        ({"id": "a\rb"}, ValueError),
        ({"id": "a\0b"}, ValueError),
        ({"id": 1.5}, TypeError),
        ({"event": True}, TypeError),
        ({"retry": "10"}, ValueError),
        ({"retry": -1}, ValueError),
        ({"data": object()}, TypeError),
    ],
)
def test_what_is_no_event(event: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_event(event)


ANY_TEXT = st.text(st.characters(codec="utf-8"))
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))


@given(st.lists(st.tuples(ANY_TEXT, LINE, LINE)))
def test_what_a_reader_makes_of_them_is_what_was_said(said: list[tuple[str, str, str]]) -> None:
    sent = b"".join(encode_event({"data": data, "event": kind, "id": id}) for data, kind, id in said)
    ends = str.maketrans({"\r": "\n"})
    expected = [Read(kind or "message", data.replace("\r\n", "\n").translate(ends), id) for data, kind, id in said]
    assert read(sent.decode())[0] == expected


def ask(handler: Any) -> TestResponse:
    with TestClient(stream_handler(handler)) as client:
        return client.request("GET", "/")


async def two() -> AsyncIterator[Any]:
    yield "one"
    yield {"data": "two", "retry": 5}


def test_a_response_of_events() -> None:
    async def handler(request: Request) -> Response:
        return sse(two())

    response = ask(handler)
    assert response.headers.raw == (
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    )
    assert read(response.text) == ([Read("message", "one", ""), Read("message", "two", "")], 5)


def test_headers_and_status_are_the_handlers_where_it_says_so() -> None:
    async def handler(request: Request) -> Response:
        return sse(two(), status=201, headers={"Cache-Control": "no-store", "x-a": "1"})

    response = ask(handler)
    assert response.status == 201
    assert [name for name, _ in response.headers.raw] == [
        b"cache-control",
        b"x-a",
        b"content-type",
        b"x-accel-buffering",
    ]
    assert response.headers["cache-control"] == "no-store"


def test_a_quiet_time_has_comments_and_events_come_at_once() -> None:
    go = asyncio.Event()

    async def events() -> AsyncIterator[str]:
        await go.wait()
        yield "late"

    async def handler(request: Request) -> Response:
        asyncio.get_running_loop().call_later(0.5, go.set)
        return sse(events(), keep_alive=0.1)

    with TestClient(stream_handler(handler)) as client, client.stream("GET", "/") as response:
        pieces = list(response)
    assert pieces.pop() == b"data: late\n\n"
    assert 2 <= len(pieces) <= 5 and set(pieces) == {b": keep-alive\n\n"}


def test_without_keep_alive_a_quiet_time_is_quiet() -> None:
    async def events() -> AsyncIterator[str]:
        await asyncio.sleep(0.2)
        yield "late"

    async def handler(request: Request) -> Response:
        return sse(events(), keep_alive=None)

    assert ask(handler).body == b"data: late\n\n"


@pytest.mark.parametrize("is_async", [True, False])
def test_code_that_blocks_has_quiet_times_too(is_async: bool) -> None:
    later: queue.Queue[str | None] = queue.Queue()
    closed_in: list[threading.Thread] = []
    threads: list[threading.Thread] = []

    def events() -> Iterator[str]:
        threads.append(threading.current_thread())
        try:
            while (event := later.get(timeout=TIMEOUT)) is not None:
                yield event
        finally:
            closed_in.append(threading.current_thread())

    def handler(request: SyncRequest) -> Response:
        return sse(events(), keep_alive=0.05)

    async def async_handler(request: Request) -> Response:
        return sse(events(), keep_alive=0.05)

    with TestClient(stream_handler(async_handler if is_async else handler)) as client:
        with client.stream("GET", "/") as response:
            pieces = iter(response)
            assert next(pieces) == b": keep-alive\n\n"
            later.put("event")
            later.put(None)
            assert b"data: event\n\n" in list(pieces)
    assert closed_in == threads


def test_the_events_are_produced_in_one_task_and_closed_when_the_client_leaves() -> None:
    tasks: list[Any] = []
    closed = threading.Event()

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                tasks.append(asyncio.current_task())
                yield "tick"
        finally:
            tasks.append(asyncio.current_task())
            closed.set()

    async def handler(request: Request) -> Response:
        return sse(events())

    with TestClient(stream_handler(handler)) as client:
        with client.stream("GET", "/") as response:
            next(iter(response))
            time.sleep(0.1)
        assert closed.wait(TIMEOUT)
    assert len(set(tasks)) == 1


def test_events_that_nobody_takes_are_not_produced() -> None:
    produced = 0

    async def events() -> AsyncIterator[str]:
        nonlocal produced
        while True:
            produced += 1
            yield "x" * 65_536

    async def handler(request: Request) -> Response:
        return sse(events())

    with TestClient(stream_handler(handler)) as client, client.stream("GET", "/") as response:
        next(iter(response))
        time.sleep(0.2)
        assert produced < 20


def test_a_wrong_event_is_an_error_of_the_handler(caplog: pytest.LogCaptureFixture) -> None:
    async def events() -> AsyncIterator[Any]:
        yield "good"
        await asyncio.sleep(0.05)
        yield 7

    async def handler(request: Request) -> Response:
        return sse(events())

    with pytest.raises(BrokenResponse):
        ask(handler)
    assert "an event is a str or a mapping, not int" in caplog.text


@pytest.mark.parametrize("keep_alive", [0, -1])
def test_keep_alive_is_a_time(keep_alive: float) -> None:
    with pytest.raises(ValueError, match="keep_alive"):
        sse(two(), keep_alive=keep_alive)


@pytest.mark.parametrize("events", ["text", b"bytes", {"data": "x"}, 7, two])
def test_what_holds_no_events(events: Any) -> None:
    with pytest.raises(TypeError, match="an iterator or async iterator of events"):
        sse(events)
