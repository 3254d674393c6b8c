"""A response as it goes: piece by piece, ended, broken, cancelled; and what the handler's code sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from lambda_client import Request, Response, SyncRequest, stream_handler
from lambda_client.link import Link
from lambda_client.testing import BrokenResponse, TestClient
from lambda_client.testing_gateway import MemorySocket


def ask(handler: Any, *arguments: Any, **options: Any) -> Any:
    with TestClient(handler if hasattr(handler, "runner") else stream_handler(handler)) as client:
        return client.request(*arguments, **options)


# Every form of body


async def returns_response(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        for number in range(3):
            yield f"Chunk {number}\n"

    return Response(body())


async def is_async_generator(request: Request) -> AsyncIterator[str]:
    for number in range(3):
        yield f"Chunk {number}\n"


async def returns_sync_iterator(request: Request) -> Iterator[str]:
    return (f"Chunk {number}\n" for number in range(3))


def is_generator(request: SyncRequest) -> Iterator[str]:
    for number in range(3):
        yield f"Chunk {number}\n"


def returns_list_iterator(request: SyncRequest) -> Iterator[str]:
    return iter([f"Chunk {number}\n" for number in range(3)])


def returns_async_iterator(request: SyncRequest) -> AsyncIterator[str]:
    return is_async_generator(request)  # type: ignore[arg-type]


def returns_text_file(request: SyncRequest) -> Any:
    return io.StringIO("Chunk 0\nChunk 1\nChunk 2\n")


def takes_event(event: Any, context: Any) -> Iterator[str]:
    yield from is_generator(event)


FORMS = [
    returns_response,
    is_async_generator,
    returns_sync_iterator,
    is_generator,
    returns_list_iterator,
    returns_async_iterator,
    returns_text_file,
    takes_event,
]


@pytest.mark.parametrize("handler", FORMS)
def test_every_iterator_streams_and_is_typed_by_its_first_piece(handler: Any) -> None:
    response = ask(handler, "GET", "/")
    assert response.text == "Chunk 0\nChunk 1\nChunk 2\n"
    assert response.status == 200
    assert dict(response.headers) == {"content-type": "text/plain; charset=utf-8"}


def test_an_empty_iterator_is_an_empty_body() -> None:
    async def nothing(request: Request) -> AsyncIterator[bytes]:
        return
        yield b""

    response = ask(nothing, "GET", "/")
    assert (response.status, response.body, response.headers["content-type"]) == (200, b"", "application/octet-stream")


def test_bytes_iterators_are_octets_and_empty_pieces_are_nothing() -> None:
    def pieces(request: SyncRequest) -> Iterator[bytes]:
        yield from (b"", b"a", bytearray(b"b"), b"", memoryview(b"c"))  # type: ignore[misc]

    response = ask(pieces, "GET", "/")
    assert (response.body, response.headers["content-type"]) == (b"abc", "application/octet-stream")


def test_trailers_are_read_when_the_body_has_ended() -> None:
    def handler(request: SyncRequest) -> Response:
        trailers: dict[str, str] = {}

        def body() -> Iterator[str]:
            yield "a"
            trailers["x-sum"] = "1"

        return Response(body(), trailers=trailers)

    with TestClient(stream_handler(handler)) as client:
        with client.stream("GET", "/") as response:
            assert response.body == b"a"
            assert response.trailers["x-sum"] == "1"
    whole = ask(lambda request: Response("a", trailers=[("x-sum", "2")]), "GET", "/")
    assert (whole.body, whole.trailers["x-sum"], "content-length" in whole.headers) == (b"a", "2", False)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_by_its_nature_has_none_and_stops_its_producer(method: str, status: int) -> None:
    closed = threading.Event()

    async def handler(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            try:
                while True:
                    yield "x"
            finally:
                closed.set()

        return Response(body(), status)

    response = ask(handler, method, "/")
    assert (response.status, response.body) == (status, b"")
    assert closed.is_set() or status != 200  # a generator that was never begun has nothing to close


def test_head_has_the_headers_of_get() -> None:
    def handler(request: SyncRequest) -> Response:
        return Response("hello", headers={"x-a": "1"})

    with TestClient(stream_handler(handler)) as client:
        got, head = client.request("GET", "/"), client.request("HEAD", "/")
    assert dict(head.headers) == dict(got.headers)
    assert (head.body, head.headers["content-length"]) == (b"", "5")


# Time


def test_each_piece_leaves_when_it_is_yielded() -> None:
    gates: queue.SimpleQueue[str] = queue.SimpleQueue()

    def sync_body(request: SyncRequest) -> Iterator[str]:
        while (piece := gates.get(timeout=10)) != "end":
            yield piece

    with TestClient(stream_handler(sync_body)) as client:
        gates.put("first")
        with client.stream("GET", "/") as response:
            pieces = iter(response)
            assert next(pieces) == b"first"
            for number in range(5):
                gates.put(str(number))
                assert next(pieces) == str(number).encode()
            gates.put("end")
            assert list(pieces) == []


def test_a_head_with_its_own_type_leaves_before_the_first_piece() -> None:
    gate = threading.Event()

    def handler(request: SyncRequest) -> Response:
        def body() -> Iterator[str]:
            assert gate.wait(10)
            yield "data: 1\n\n"

        return Response(body(), headers={"content-type": "text/event-stream"})

    with TestClient(stream_handler(handler)) as client, client.stream("GET", "/") as response:
        assert response.headers["content-type"] == "text/event-stream"
        gate.set()
        assert response.body == b"data: 1\n\n"


def test_full_duplex_answers_each_piece_before_the_next_is_sent() -> None:
    @stream_handler
    async def echo(request: Request) -> AsyncIterator[bytes]:
        async for piece in request.body:
            yield piece.upper()

    answered: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def content() -> Iterator[str]:
        yield "a"
        for letter in "bcd":
            assert answered.get(timeout=10) == chr(ord(letter) - 1).upper().encode()
            yield letter

    with TestClient(echo) as client, client.stream("POST", "/", content=content()) as response:
        for piece in response:
            answered.put(piece)
        assert answered.get(timeout=10) == b"D"


def test_what_is_ready_in_one_turn_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    flush = Link._flush

    def counting(link: Link) -> None:
        socket = link._socket
        if socket is not None and link.session.has_frames_to_send:
            send = socket.send

            def count(messages: list[bytes]) -> None:
                sent.append(len(messages))
                send(messages)

            monkeypatch.setattr(socket, "send", count)
            flush(link)
            monkeypatch.setattr(socket, "send", send)
        else:
            flush(link)

    monkeypatch.setattr(Link, "_flush", counting)

    async def three_at_once(request: Request) -> AsyncIterator[str]:
        yield "a"
        yield "b"
        yield "c"

    assert ask(three_at_once, "GET", "/").text == "abc"
    # LEASE went with the dial. Head, "abc" and end; PARK
    assert len(sent) == 2, sent


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_hundred_thousand_pieces_of_one_byte_arrive(kind: str) -> None:
    async def handler(request: Request) -> AsyncIterator[bytes]:
        for number in range(100_000):
            yield b"%d" % (number % 10)

    def sync_handler(request: SyncRequest) -> Iterator[bytes]:
        for number in range(100_000):
            yield b"%d" % (number % 10)

    assert ask(handler if kind == "async" else sync_handler, "GET", "/").body == b"0123456789" * 10_000


# Backpressure


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_producer_is_held_back_by_a_reader_that_does_not_read(kind: str) -> None:
    made = 0

    async def handler(request: Request) -> AsyncIterator[bytes]:
        for piece in sync_handler(request):  # type: ignore[arg-type]
            yield piece

    def sync_handler(request: SyncRequest) -> Iterator[bytes]:
        nonlocal made
        if request.path == "/neighbour":
            yield b"neighbour"
            return
        for _ in range(1000):
            made += 16_384
            yield bytes(16_384)

    decorate = stream_handler(concurrency=2)
    decorated: Any = decorate(handler) if kind == "async" else decorate(sync_handler)
    with TestClient(decorated) as client, client.stream("GET", "/") as response:
        pieces = iter(response)
        read = len(next(pieces))
        for _ in range(100):  # the neighbour is served all the while, and the loop turns
            assert client.request("GET", "/neighbour").text == "neighbour"
        assert made <= 512 << 10, "the credit, the session's queue, what a thread may have handed over"
        assert read + sum(map(len, pieces)) == made == 16_384_000


def test_an_upload_that_is_not_read_is_held_back_and_stopped_at_the_end() -> None:
    taken = 0

    def content() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 65_536
            yield bytes(65_536)

    async def handler(request: Request) -> str:
        return "enough"

    assert ask(handler, "POST", "/", content=content()).text == "enough"
    assert taken < 1000 * 65_536


def test_an_acknowledgement_that_finds_no_room_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    on_timer = Link._on_timer

    def counting(link: Link) -> None:
        looks.append(link.loop.time())
        on_timer(link)

    monkeypatch.setattr(Link, "_on_timer", counting)
    sockets: list[MemorySocket] = []
    made = MemorySocket.__init__

    def remember(socket: MemorySocket, *arguments: Any) -> None:
        made(socket, *arguments)
        sockets.append(socket)

    monkeypatch.setattr(MemorySocket, "__init__", remember)

    async def handler(request: Request) -> str:
        sockets[0].room = 0
        body = await request.read()  # which leaves an acknowledgement due
        await asyncio.sleep(0.3)
        sockets[0].room = 1 << 18
        current_link.wake()
        return str(len(body))

    current_link: Any = None
    opened = Link.opened

    def remember_link(link: Link, socket: Any) -> None:
        nonlocal current_link
        current_link = link
        opened(link, socket)

    monkeypatch.setattr(Link, "opened", remember_link)
    assert ask(handler, "POST", "/", content=b"abc").text == "3"
    assert 1 <= len(looks) <= 10


# Failures


class Broken(Exception):
    pass


async def raises_at_once(request: Request) -> str:
    raise Broken("secret detail")


async def raises_before_the_first_piece(request: Request) -> AsyncIterator[str]:
    raise Broken("secret detail")
    yield ""


def raises_in_a_thread(request: SyncRequest) -> str:
    raise Broken("secret detail")


def raises_stop_iteration(request: SyncRequest) -> str:
    raise StopIteration


async def returns_nonsense(request: Request) -> Any:
    return object()


async def returns_bad_header(request: Request) -> Response:
    return Response(headers={"x": "a\nb"})


async def returns_large_head(request: Request) -> Response:
    return Response(headers={"x": "a" * 70_000})


@pytest.mark.parametrize(
    "handler",
    [
        raises_at_once,
        raises_before_the_first_piece,
        raises_in_a_thread,
        raises_stop_iteration,
        returns_nonsense,
        returns_bad_header,
        returns_large_head,
    ],
)
def test_what_fails_before_the_first_byte_is_a_502_and_the_log_says_why(
    handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(stream_handler(handler)) as client:
        response = client.request("GET", "/")
        assert response.status == 502
        assert "secret" not in response.text and "INTERNAL" in response.text
        assert client.request("GET", "/").status == 502, "the environment goes on"
    failures = [record for record in caplog.records if record.name == "dialback"]
    assert len(failures) == 2
    assert all(record.exc_info for record in failures)


async def raises_after_a_piece(request: Request) -> AsyncIterator[str]:
    yield "begun"
    await request.read()
    raise Broken("secret detail")


def raises_after_a_piece_in_a_thread(request: SyncRequest) -> Iterator[str]:
    yield "begun"
    request.read()
    raise Broken("secret detail")


async def yields_nonsense(request: Request) -> AsyncIterator[Any]:
    yield "begun"
    await request.read()
    yield 7


async def has_large_trailers(request: Request) -> Response:
    return Response(is_async_generator(request), trailers={"x": "a" * 70_000})


@pytest.mark.parametrize("handler", [raises_after_a_piece, raises_after_a_piece_in_a_thread, yields_nonsense])
def test_what_fails_after_the_first_piece_breaks_the_response(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    has_come = threading.Event()

    def content() -> Iterator[bytes]:
        assert has_come.wait(10)
        yield b"go on"

    with TestClient(stream_handler(handler)) as client:
        with client.stream("POST", "/", content=content()) as response:
            with pytest.raises(BrokenResponse, match="INTERNAL"):
                for piece in response:
                    assert piece == b"begun"
                    has_come.set()
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_what_fails_in_the_turn_of_its_first_piece_is_still_a_502() -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        yield "nothing of this has left"
        raise Broken

    assert ask(handler, "GET", "/").status == 502


def test_trailers_that_are_too_large_break_the_response() -> None:
    with TestClient(stream_handler(has_large_trailers)) as client:
        response = client.request("GET", "/")
        assert (response.status, "INTERNAL" in response.text) == (502, True)


@pytest.mark.parametrize(
    ("body", "declared"),
    [("hello", 4), ("hello", 6), (["he", "llo"], 4), (["he", "llo"], 6), ([], 1), (None, 1), ("", 1)],
)
def test_a_body_that_differs_from_its_content_length_never_looks_whole(body: Any, declared: int) -> None:
    def handler(request: SyncRequest) -> Response:
        content = iter(body) if isinstance(body, list) else body
        return Response(content, headers={"content-length": declared, "content-type": "text/plain"})

    with TestClient(stream_handler(handler)) as client, client.stream("GET", "/") as response:
        if response.status == 502:
            assert "MISMATCH" in response.text
        else:
            with pytest.raises(BrokenResponse, match="MISMATCH"):
                list(response)


def test_code_that_cancels_itself_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> str:
        raise asyncio.CancelledError

    assert ask(handler, "GET", "/").status == 502
    assert "cancelled from within" in caplog.text


# The environment


def test_lifespan_is_entered_once_and_its_yield_is_the_state() -> None:
    seen: list[Any] = []

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[dict[str, int]]:
        seen.append(asyncio.get_running_loop())
        yield {"calls": 0}
        seen.append("left")

    @stream_handler(lifespan=lifespan)
    async def handler(request: Request) -> str:
        request.state["calls"] += 1
        seen.append(asyncio.get_running_loop())
        return str(request.state["calls"])

    with TestClient(handler) as client:
        assert [client.request("GET", "/").text for _ in range(3)] == ["1", "2", "3"]
    assert len(set(map(id, seen[:4]))) == 1, "one loop for the environment's life"
    assert seen[4:] == ["left"]


def test_a_lifespan_that_fails_fails_the_invocation_and_is_tried_again() -> None:
    tries = 0

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Broken("no database")
        yield "state"

    @stream_handler(lifespan=lifespan)
    def handler(request: SyncRequest) -> str:
        return str(request.state)

    with TestClient(handler) as client:
        with pytest.raises(Broken):
            client.request("GET", "/")
        assert client.request("GET", "/").text == "state"


def test_tasks_of_one_invocation_see_the_next_on_the_same_loop() -> None:
    queue_: asyncio.Queue[str] | None = None

    async def handler(request: Request) -> str:
        nonlocal queue_
        if queue_ is None:
            queue_ = asyncio.Queue()
        queue_.put_nowait(request.path)
        return await queue_.get()

    with TestClient(stream_handler(handler)) as client:
        assert [client.request("GET", path).text for path in ("/a", "/b")] == ["/a", "/b"]
