"""A handler that is stopped before its end: the client leaves, or the invocation's time is up. What each form of code
sees of it, what the client does, and whose place is free when."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lambda_client import ClientDisconnected, Request, Response, SyncRequest, current_request, stream_handler
from lambda_client.testing import BrokenResponse, TestClient


class Watch:
    """What a handler's code went through."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.seen: list[str] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Round the handler's code: notes how it was ended, and what `request.cancelled` said then."""
        try:
            yield
            self.seen.append("returned")
        except BaseException as error:
            self.seen.append(type(error).__name__)
            raise
        finally:
            self.seen.append(f"cancelled={current_request().cancelled}")
            self.ended.set()


def leave(handler: Any, watch: Watch, *, content: Any = None) -> list[str]:
    """Ask, leave when the code has begun, and wait for its end: what it has seen."""
    with TestClient(stream_handler(handler)) as client:
        leaver = threading.Thread(target=lambda: (watch.begun.wait(10), client.disconnect()))
        leaver.start()
        with contextlib.suppress(BrokenResponse):
            client.request("GET" if content is None else "POST", "/", content=content)
        leaver.join()
        assert watch.ended.wait(10)
    return watch.seen


def endless(watch: Watch) -> Iterator[bytes]:
    """An upload that has begun and does not end before the code has."""
    yield b"a"
    watch.ended.wait(10)


# Code on the loop


def test_a_coroutine_is_cancelled() -> None:
    watch = Watch()

    async def handler(request: Request) -> str:
        with watch():
            watch.begun.set()
            await asyncio.Event().wait()
        return ""

    assert leave(handler, watch) == ["CancelledError", "cancelled=True"]


def test_an_event_handlers_coroutine_is_cancelled() -> None:
    watch = Watch()

    async def handler(event: Any, context: Any) -> str:
        with watch():
            watch.begun.set()
            await asyncio.Event().wait()
        return ""

    assert leave(handler, watch) == ["CancelledError", "cancelled=True"]


def test_an_async_generator_that_waits_is_cancelled_there() -> None:
    watch = Watch()

    async def handler(request: Request) -> AsyncIterator[str]:
        with watch():
            yield "a"
            watch.begun.set()
            await asyncio.Event().wait()

    assert leave(handler, watch) == ["CancelledError", "cancelled=True"]


def test_an_async_generator_that_reads_is_cancelled_there() -> None:
    watch = Watch()

    async def handler(request: Request) -> AsyncIterator[str]:
        with watch():
            watch.begun.set()
            async for piece in request.body:
                yield piece.decode()

    assert leave(handler, watch, content=endless(watch)) == ["CancelledError", "cancelled=True"]


def test_an_async_generator_that_produces_is_closed_at_its_next_yield() -> None:
    watch = Watch()

    async def handler(request: Request) -> AsyncIterator[bytes]:
        with watch():
            while True:
                yield bytes(65_536)
                watch.begun.set()

    assert leave(handler, watch) == ["GeneratorExit", "cancelled=True"]


def test_an_async_generator_that_takes_no_notice_is_closed_at_its_next_yield() -> None:
    watch = Watch()

    async def handler(request: Request) -> AsyncIterator[str]:
        with watch():
            while True:
                yield "a"
                watch.begun.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

    assert leave(handler, watch) == ["GeneratorExit", "cancelled=True"]


def test_code_that_takes_no_notice_cannot_read_on() -> None:
    watch = Watch()

    async def handler(request: Request) -> str:
        with watch():
            watch.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return await request.text()
        return ""

    assert leave(handler, watch, content=endless(watch)) == ["ClientDisconnected", "cancelled=True"]


def test_a_finally_that_takes_its_time_holds_the_place() -> None:
    order: list[str] = []

    async def handler(request: Request) -> AsyncIterator[str]:
        if request.path == "/next":
            order.append("next")
            yield "next"
            return
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            order.append("cleaned up")

    with TestClient(stream_handler(handler)) as client:
        with client.stream("GET", "/") as response:
            next(iter(response))
        assert client.request("GET", "/next").text == "next"
    assert order == ["cleaned up", "next"]


def test_a_client_that_leaves_the_last_bytes_unread_leaves_the_place_free() -> None:
    """The code has ended; what it has sent waits for credit that will not come."""
    ended = threading.Event()

    async def handler(request: Request) -> bytes | str:
        if request.path == "/next":
            return "next"
        asyncio.get_running_loop().call_later(0.05, ended.set)
        return bytes(100_000)  # of which the first credit lets 64 KiB through

    with TestClient(stream_handler(handler)) as client:
        with client.stream("GET", "/"):
            assert ended.wait(10)
        assert client.request("GET", "/next").text == "next"


# Code in a thread


@pytest.mark.parametrize(
    "read",
    [
        lambda request: request.read(),
        lambda request: request.text(),
        lambda request: list(request.body),
        lambda request: request.file.read(),
        lambda request: request.file.readline(),
    ],
    ids=["read", "text", "body", "file.read", "file.readline"],
)
def test_a_thread_that_waits_for_the_body_gets_client_disconnected(read: Callable[[SyncRequest], object]) -> None:
    watch = Watch()

    def handler(request: SyncRequest) -> str:
        with watch():
            watch.begun.set()
            read(request)
        return ""

    assert leave(handler, watch, content=endless(watch)) == ["ClientDisconnected", "cancelled=True"]


def test_client_disconnected_is_an_os_error_that_says_why() -> None:
    watch = Watch()

    def handler(request: SyncRequest) -> str:
        try:
            with watch():
                watch.begun.set()
                request.read()
        except OSError as error:
            watch.seen.append(str(error))
            assert isinstance(error, ClientDisconnected)
        return ""

    seen = leave(handler, watch, content=endless(watch))
    assert seen[2:] == ["the client is gone, or the gateway has given the request up"]


@pytest.mark.parametrize("form", ["request", "event"])
def test_code_in_a_thread_sees_that_it_is_cancelled(form: str) -> None:
    watch = Watch()

    def handle() -> str:
        with watch():
            watch.begun.set()
            while not current_request().cancelled:
                time.sleep(0.001)
        return ""

    def handler(request: SyncRequest) -> str:
        return handle()

    def event_handler(event: Any, context: Any) -> str:
        return handle()

    assert leave(handler if form == "request" else event_handler, watch) == ["returned", "cancelled=True"]


def test_a_generator_that_is_held_back_is_closed_where_it_is() -> None:
    watch = Watch()

    def handler(request: SyncRequest) -> Iterator[bytes]:
        with watch():
            for number in range(1000):
                if number == 20:  # more than credit and queues take, and nobody reads
                    watch.begun.set()
                yield bytes(65_536)

    with TestClient(stream_handler(handler)) as client, client.stream("GET", "/"):
        time.sleep(0.1)
        client.disconnect()
        assert watch.ended.wait(10)
    assert watch.seen == ["GeneratorExit", "cancelled=True"]
    assert not watch.begun.is_set()


def test_a_generator_of_a_coroutine_is_closed_in_its_thread() -> None:
    watch = Watch()
    threads = set()

    def pieces() -> Iterator[str]:
        with watch():
            try:
                while True:
                    threads.add(threading.get_ident())
                    yield "a"
                    watch.begun.set()
            finally:
                threads.add(threading.get_ident())

    async def handler(request: Request) -> Iterator[str]:
        return pieces()

    assert leave(handler, watch) == ["GeneratorExit", "cancelled=True"]
    assert len(threads) == 1


def test_an_async_generator_of_a_thread_is_cancelled() -> None:
    watch = Watch()

    async def pieces() -> AsyncIterator[str]:
        with watch():
            yield "a"
            watch.begun.set()
            await asyncio.Event().wait()

    def handler(request: SyncRequest) -> AsyncIterator[str]:
        return pieces()

    assert leave(handler, watch) == ["CancelledError", "cancelled=True"]


def test_a_file_that_is_being_sent_is_closed() -> None:
    watch = Watch()

    class File(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            watch.begun.set()
            return bytes(size)

        def close(self) -> None:
            watch.ended.set()

    def handler(request: SyncRequest) -> Response:
        return Response(File())

    leave(handler, watch)


def test_a_generator_that_has_not_begun_does_not() -> None:
    begun, release, returned = threading.Event(), threading.Event(), threading.Event()
    seen: list[str] = []

    def pieces() -> Iterator[str]:
        seen.append("begun")
        yield "a"

    def handler(request: SyncRequest) -> Iterator[str]:
        begun.set()
        assert release.wait(10)
        returned.set()
        return pieces()

    def leave_then_release() -> None:
        assert begun.wait(10)
        client.disconnect()
        time.sleep(0.1)
        release.set()

    with TestClient(stream_handler(handler)) as client:
        leaver = threading.Thread(target=leave_then_release)
        leaver.start()
        client.request("GET", "/")
        leaver.join()
    assert returned.is_set() and not seen


@pytest.mark.parametrize("form", ["generator", "function"])
def test_a_thread_holds_its_place_until_its_code_has_stopped(form: str) -> None:
    watch, release = Watch(), threading.Event()

    def work(request: SyncRequest) -> None:
        watch.begun.set()
        assert release.wait(10)
        watch.seen.append(f"cancelled={request.cancelled}")

    def generator(request: SyncRequest) -> Iterator[str]:
        if request.path == "/next":
            yield "next"
            return
        try:
            yield "a"
            work(request)
            yield "b"
            watch.seen.append("after")
        finally:
            watch.ended.set()

    def function(request: SyncRequest) -> str:
        if request.path == "/next":
            return "next"
        work(request)
        watch.ended.set()
        return ""

    with TestClient(stream_handler(generator if form == "generator" else function)) as client:
        leaver = threading.Thread(target=lambda: (watch.begun.wait(10), client.disconnect()))
        leaver.start()
        with contextlib.suppress(BrokenResponse):
            client.request("GET", "/")
        leaver.join()
        answers: list[Any] = []
        asker = threading.Thread(target=lambda: answers.append(client.request("GET", "/next")))
        asker.start()
        asker.join(0.2)
        assert not answers and not watch.ended.is_set(), "the only place is taken until the code has stopped"
        release.set()
        asker.join()
        assert answers[0].text == "next"
    assert watch.seen == ["cancelled=True"]


# The invocation's time is up

TIME = 1.2
"""Seconds of an invocation, of which the last quarter is the margin in which code is stopped."""


def outlast(handler: Any, **options: Any) -> tuple[int, bytes, str]:
    """Ask for what takes longer than there is: status, body and how the response ended; then that the next goes on."""
    with TestClient(stream_handler(handler), timeout=TIME) as client:
        with client.stream("GET", "/", **options) as response:
            sessions = list(client._ends)
            body, failure = b"", ""
            try:
                for piece in response:
                    body += piece
            except BrokenResponse as broken:
                failure = str(broken)
        assert client.request("GET", "/next").text == "next"
        assert list(client._ends) == sessions, "the link was parked, not lost"
    return response.status, body, failure


TIMED_OUT = "the handler's side ended it: TIMEOUT"


@pytest.mark.parametrize("in_thread", [False, True])
def test_the_remaining_time_counts_down_to_the_moment_at_which_code_is_stopped(in_thread: bool) -> None:
    planned: list[float] = []
    ended: list[float] = []

    async def handler(request: Request) -> str:
        if request.path == "/next":
            return "next"
        planned.append(request.remaining_time())
        await asyncio.sleep(0.1)
        planned.append(request.remaining_time())
        began = time.monotonic()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(time.monotonic() - began)
            planned.append(request.remaining_time())
        return ""

    def in_a_thread(request: SyncRequest) -> str:
        if request.path == "/next":
            return "next"
        planned.append(request.remaining_time())
        time.sleep(0.1)
        planned.append(request.remaining_time())
        began = time.monotonic()
        while not request.cancelled:
            time.sleep(0.001)
        ended.append(time.monotonic() - began)
        planned.append(request.remaining_time())
        return ""

    outlast(in_a_thread if in_thread else handler)
    first, second, last = planned
    assert first <= 0.75 * TIME and second <= first - 0.09 and last == 0.0
    assert second - 0.05 <= ended[0] <= second + 0.25


def test_what_has_not_answered_is_ended_by_its_code() -> None:
    async def handler(request: Request) -> str:
        if request.path != "/next":
            await asyncio.Event().wait()
        return "next"

    assert outlast(handler) == (504, TIMED_OUT.encode() + b"\n", "")


def test_an_answer_that_is_given_for_want_of_time_is_whole() -> None:
    async def handler(request: Request) -> str:
        if request.path == "/next":
            return "next"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "as far as I came"
        return ""

    assert outlast(handler) == (200, b"as far as I came", "")


@pytest.mark.parametrize("then", ["return", "raise", "go on"])
def test_an_async_generator_may_say_a_last_word(then: str) -> None:
    async def handler(request: Request) -> AsyncIterator[str]:
        if request.path == "/next":
            yield "next"
            return
        try:
            yield "a"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "last"
            if then == "raise":
                raise
            if then == "go on":
                await asyncio.Event().wait()

    assert outlast(handler) == (200, b"alast", "" if then == "return" else TIMED_OUT)


def test_a_generator_that_waits_in_its_thread_is_cut_and_closed_at_its_next_yield() -> None:
    watch, release = Watch(), threading.Event()

    def handler(request: SyncRequest) -> Iterator[str]:
        if request.path == "/next":
            yield "next"
            release.set()
            return
        with watch():
            yield "a"
            assert release.wait(10)
            yield "nobody"

    assert outlast(handler) == (200, b"a", TIMED_OUT)
    assert watch.ended.wait(10) and watch.seen == ["GeneratorExit", "cancelled=True"]


def test_a_thread_that_waits_for_the_body_is_told_that_time_is_up() -> None:
    said: list[str] = []
    ended = threading.Event()

    def handler(request: SyncRequest) -> str:
        if request.path == "/next":
            return "next"
        try:
            request.read()
        except ClientDisconnected as error:
            said.append(str(error))
            raise
        finally:
            ended.set()
        return ""

    def content() -> Iterator[bytes]:
        yield b"a"
        assert ended.wait(10)

    assert outlast(handler, content=content())[:2] == (504, TIMED_OUT.encode() + b"\n")
    assert said == ["the invocation's time is up"]


def test_a_client_that_leaves_when_time_is_up_is_sent_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()

    async def handler(request: Request) -> AsyncIterator[str]:
        with watch():
            yield "a"
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                client.disconnect()
                while True:
                    yield "more"

    with TestClient(stream_handler(handler), timeout=2 * TIME) as client:
        with client.stream("GET", "/") as response, contextlib.suppress(BrokenResponse):
            list(response)
        assert watch.ended.wait(10)
    assert watch.seen == ["GeneratorExit", "cancelled=True"]
    assert "did not stop" not in caplog.text
