"""What several tests of the function side need: a loopback gateway, and a function invoked as Lambda invokes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from lambda_client.environment import Environment
from lambda_client.handler import StreamHandler
from lambda_client.testing import TestContext
from tests.lambda_client.loopback_gateway import SECRET, LoopbackGateway


@pytest.fixture
def gateway() -> Iterator[LoopbackGateway]:
    running = LoopbackGateway().start()
    yield running
    running.stop()


class Function:
    """One environment of a function: invocations run one after the other, in one thread, as in Lambda."""

    def __init__(self, handler: StreamHandler[Any], variables: dict[str, str]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lambda")
        self.environment = Environment(handler.runner(), handler.concurrency, handler.lifespan, variables)

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
