"""The end of a `TestClient` whose handler's code does not end: it says where that is."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from lambda_client import Request, SyncRequest, stream_handler, testing, testing_gateway
from lambda_client.testing import TestClient


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (testing, testing_gateway):
        monkeypatch.setattr(module, "TIMEOUT", 0.5)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Set when the test is over, so that nothing outlives it."""
    event = threading.Event()
    yield event
    event.set()


def assert_told(client: TestClient, name: str, released: threading.Event) -> None:
    with pytest.raises(TimeoutError, match=rf"did not end in 0.5 s, at \S+test_closing\.py:\d+ in {name}\b"):
        client.close()
    released.set()
    client._thread.join(10)
    assert not client._thread.is_alive()
    client.close()


def test_a_task_that_does_not_let_itself_be_cancelled_is_named(released: threading.Event) -> None:
    async def stubborn(request: Request) -> str:
        while not released.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return "done"

    client = TestClient(stream_handler(stubborn))
    with pytest.raises(TimeoutError), client.stream("GET", "/"):
        pass
    assert_told(client, "stubborn", released)


def test_a_thread_that_does_not_look_is_named(released: threading.Event) -> None:
    def blocks(request: SyncRequest) -> Iterator[str]:
        yield "begun"
        released.wait()

    client = TestClient(stream_handler(blocks))
    with client.stream("GET", "/") as response:
        assert next(iter(response)) == b"begun"
    assert_told(client, "blocks", released)


def test_a_lifespan_that_is_not_left_is_named(released: threading.Event) -> None:
    class Held(AbstractAsyncContextManager[None]):
        async def __aexit__(self, *_: object) -> None:
            while not released.is_set():  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.05)

    async def answers(request: Request) -> str:
        return "yes"

    client = TestClient(stream_handler(lifespan=Held)(answers))
    assert client.request("GET", "/").text == "yes"
    assert_told(client, "__aexit__", released)


def test_an_interrupt_in_a_handler_is_the_tests_own_and_nothing_else_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def interrupted(request: Request) -> str:
        raise KeyboardInterrupt

    client = TestClient(stream_handler(interrupted))
    with pytest.raises(KeyboardInterrupt):
        client.request("GET", "/")
    client.close()
    del client
    gc.collect()
    assert not caplog.records  # "Task exception was never retrieved"
