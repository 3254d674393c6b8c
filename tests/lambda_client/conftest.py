"""What several tests of the function side need: a loopback gateway, and a function invoked as Lambda invokes it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from lambda_client.handler import StreamHandler
from lambda_client.testing import TestContext, TestEnvironment
from tests.lambda_client.loopback_gateway import SECRET, LoopbackGateway

THREADS = ("lambda", "dialback-watchdog")
"""What environments run in. Threads of code that does not stop are left behind on purpose."""
LEFT_PATIENCE = 3.0
"""Seconds that an environment's threads get to end in."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whose environment outlives its test is named here, with what it waits for, and not by the tests after it."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + LEFT_PATIENCE
    while left := [each for each in threading.enumerate() if each.name.startswith(THREADS) and each not in before]:
        if time.monotonic() > until:
            pytest.fail("\n\n".join(map(_whereabouts, left)))
        time.sleep(0.01)


def _whereabouts(thread: threading.Thread) -> str:
    """Where a thread is, and the tasks of the loop that it runs."""
    frame = sys._current_frames().get(thread.ident or 0)
    said = [f"{thread.name} was left behind:\n", *traceback.format_stack(frame)]
    while frame is not None and not isinstance(loop := frame.f_locals.get("self"), asyncio.AbstractEventLoop):
        frame = frame.f_back
    return "".join(said) + ("" if frame is None else "\n".join(map(repr, asyncio.all_tasks(loop))))


@pytest.fixture
def gateway() -> Iterator[LoopbackGateway]:
    running = LoopbackGateway().start()
    yield running
    running.stop()


class Function:
    """One environment of a function: invocations run one after the other, in one thread, as in Lambda."""

    def __init__(self, handler: StreamHandler[Any], variables: dict[str, str]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lambda")
        self.environment = TestEnvironment(
            handler.runner(), handler.concurrency, handler.lifespan, variables, handler.healthy
        )

    def invoke(self, event: Any, *, timeout: float = 900.0) -> Future[Any]:
        return self._thread.submit(self._invoke, event, TestContext(timeout))

    def _invoke(self, event: Any, context: TestContext) -> Any:
        """What the handler returned, without how long it took."""
        began = time.monotonic()
        answer = self.environment.invoke(event, context)
        if isinstance(answer, dict) and "dialback" in answer:
            assert 0 <= answer.pop("awake") <= (time.monotonic() - began) * 1000 + 1
        return answer

    def close(self) -> None:
        self._thread.submit(self.environment.close).result(10)
        self._thread.shutdown()


@pytest.fixture
def function() -> Iterator[Callable[..., Function]]:
    """`function(handler, gateway)`: an environment that trusts the gateway."""
    made: list[Function] = []

    def make(handler: StreamHandler[Any], *gateways: LoopbackGateway, **variables: str) -> Function:
        known = {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": ",".join(gateway.address for gateway in gateways)}
        made.append(Function(handler, {**known, **variables}))
        return made[-1]

    yield make
    for each in made:
        each.close()
