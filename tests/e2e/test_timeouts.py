"""Each wait has a key, and its own error: what a client gets when it is over. (The end of a lease: test_lease_end.)"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from gateway.deadlines import RATE_SPAN
from tests.e2e.patience import PATIENCE
from tests.e2e.stack import Stack
from tests.e2e.trap import Trap
from tests.e2e.wire import Connection, WireResponse

#: Seconds. The idle times are ten of the pauses below: who is late on a busy machine has not stopped.
KEYS = {
    "timeouts.request_idle": 1.0,
    "timeouts.response_idle": 1.0,
    "timeouts.response_start": 1.2,
    "timeouts.exchange": 2.5,
    "client.head_timeout": 0.6,
}
DIAL_BACK = QUEUE_WAIT = 0.5
PAUSE = 0.1


@pytest.fixture(scope="module")
def stack(trap: Trap, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One function with short times, and two that nobody dials in for: under /silent the start is what takes too long,
    under /full the queue."""

    def config(url: str) -> str:
        lines = [f"{key} = {value}" for key, value in KEYS.items()]
        functions = {
            "usual": [f'url = "{url}"'],
            "silent": [f'url = "{trap.url}"', f"timeouts.dial_back = {DIAL_BACK}"],
            "full": [f'url = "{trap.url}"', f"timeouts.queue_wait = {QUEUE_WAIT}", "timeouts.dial_back = 30"],
        }
        for name, settings in functions.items():
            lines += [f"[functions.{name}]", *settings]
            lines += ["[[routes]]", f'path = "{"/" if name == "usual" else f"/{name}"}"', f'function = "{name}"']
        return "\n".join(lines)

    stack = Stack("paths.py:one", tmp_path_factory.mktemp("notes"), config=config)
    stack.get("/hello")
    yield stack
    trap.answer_all()
    stack.stop()


class Ends(AbstractContextManager[None]):
    """What is inside must take at least so many seconds, and not many more."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._began = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        took = time.monotonic() - self._began
        assert kind is not None or 0.9 * self._after < took < self._after + PATIENCE, f"it took {took:.2f} s"


def refused(connection: Connection, status: int, name: str) -> WireResponse:
    response = connection.response()
    assert (response.status, response.failure) == (status, None)
    assert response.value(b"content-type") == b"application/problem+json"
    assert json.loads(response.body)["type"] == f"urn:dialback:error:{name}"
    return response


def test_a_head_that_does_not_come(stack: Stack) -> None:
    with stack.connect() as connection, Ends(KEYS["client.head_timeout"]):
        connection.send(b"GET / HTTP/1.1\r\nHost: te")
        refused(connection, 408, "request-head-timeout")


def test_a_request_body_that_stops(stack: Stack) -> None:
    with stack.connect() as connection, Ends(KEYS["timeouts.request_idle"]):
        connection.request("POST", "/heard", "Content-Length: 100")
        connection.send(b"hello")
        refused(connection, 408, "request-idle")


@pytest.mark.slow
def test_a_request_body_that_is_too_slow(fresh_stack: Callable[..., Stack]) -> None:
    """The rate is taken over ten seconds, which the other keys here leave no time for."""
    stack = fresh_stack("paths.py:one", serve={"client-body-rate": 1000})
    with stack.connect() as connection, Ends(RATE_SPAN):
        connection.request("POST", "/heard", "Content-Length: 100000")
        for _ in range(48):
            connection.send(b"slow")
            time.sleep(0.2)
        refused(connection, 408, "request-too-slow")


def test_no_place_in_the_queue_s_time(stack: Stack) -> None:
    with stack.connect() as connection, Ends(QUEUE_WAIT):
        connection.request("GET", "/full")
        assert refused(connection, 503, "queue-timeout").value(b"retry-after")


def test_a_function_that_does_not_dial(stack: Stack) -> None:
    with stack.connect() as connection, Ends(DIAL_BACK):
        connection.request("GET", "/silent")
        refused(connection, 504, "dial-back-timeout")


def test_a_response_that_does_not_begin(stack: Stack) -> None:
    with stack.connect() as connection, Ends(KEYS["timeouts.response_start"]):
        connection.request("GET", "/waits?note=start")
        refused(connection, 504, "response-timeout")


def test_a_response_that_stops(stack: Stack) -> None:
    with stack.connect() as connection, Ends(KEYS["timeouts.response_idle"]):
        connection.request("GET", "/slow_start?wait=60")
        response = connection.response()
        assert response.status == 200 and response.failure


def test_an_exchange_that_goes_on_and_on(stack: Stack) -> None:
    with stack.connect() as connection, Ends(KEYS["timeouts.exchange"]):
        connection.request("GET", f"/ticks?count=1000&interval={PAUSE}")
        response = connection.response()
        assert response.status == 200 and len(response.chunks) > 1 and response.failure


def test_an_exchange_whose_request_goes_on_and_on(stack: Stack) -> None:
    with stack.connect() as connection, Ends(KEYS["timeouts.exchange"]):
        connection.request("POST", "/heard?note=on", "Content-Length: 100000")
        for _ in range(int(KEYS["timeouts.exchange"] / PAUSE)):
            connection.send(b"on")
            time.sleep(PAUSE)
        refused(connection, 504, "exchange-timeout")
