"""`healthy=`: an environment that says no refuses what no code has seen, serves what it has, and is over."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lambda_client import Request, asgi_handler, stream_handler, streamify_response, wsgi_handler
from lambda_client.testing import TestClient, WebSocketRefused
from tests.lambda_client.conftest import Function
from tests.lambda_client.loopback_gateway import SECRET, LoopbackGateway
from tests.lambda_client.test_link import body_of, head_of

Make = Callable[..., Function]
ROOT = Path(__file__).resolve().parents[2]
UNHEALTHY = {"dialback": 1, "lease": None, "outcome": "unhealthy"}


class Health:
    """What an environment says of itself: each answer once, the last for ever. An exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return bool(answer)


@pytest.mark.parametrize("no", [False, OSError("the pool is broken")], ids=["it returns false", "it raises"])
def test_it_is_asked_before_each_request_and_after_a_no_never_again(
    gateway: LoopbackGateway, function: Make, caplog: pytest.LogCaptureFixture, no: object
) -> None:
    """The first answer is the invocation's: one that is unwell before it dials would dial for nothing."""
    health, begun, go_on = Health(True, True, no), threading.Event(), threading.Event()
    served: list[str] = []

    @stream_handler(concurrency=3, healthy=health)
    async def handler(request: Request) -> AsyncIterator[str]:
        served.append(request.path)
        yield "before, "
        begun.set()
        await asyncio.to_thread(go_on.wait, 10)
        yield "and after"

    neighbour = gateway.ask("GET", "/neighbour")
    running = function(handler, gateway).invoke(gateway.invite())
    assert begun.wait(10)
    refused = [gateway.ask("POST", "/refused", end=False) for _ in range(2)]
    for exchange in refused:
        exchange.upload([b"nobody's"])
        assert exchange.next_news() == ("refused", "the handler's side ended it: REFUSED")
    assert (health.asked, served) == (3, ["/neighbour"])
    go_on.set()
    head_of(neighbour)
    assert body_of(neighbour) == b"before, and after"
    assert running.result(10) == {"dialback": 1, "lease": 1, "outcome": "unhealthy"}
    (line,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert line.getMessage().startswith("`healthy` says no: the environment takes no more requests")
    assert (line.exc_info or (None, None))[1] is (None if no is False else no)


def test_an_invitation_to_one_that_is_unhealthy_is_not_dialled(gateway: LoopbackGateway, function: Make) -> None:
    """Fallen ill while it was frozen, or before its first request; after `lifespan`, which may make what is asked."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        seen.append("lifespan")
        yield

    def healthy() -> bool:
        seen.append("asked")
        return False

    @stream_handler(lifespan=lifespan, healthy=healthy)
    async def handler(request: Request) -> str:
        return "never"

    lambda_ = function(handler, gateway)
    gateway.ask()
    for _ in range(2):
        assert lambda_.invoke(gateway.invite()).result(10) == UNHEALTHY
    assert (seen, gateway.dials) == (["lifespan", "asked"], [])


CHILD = """
import json, sys
from lambda_client import stream_handler
from lambda_client.testing import TestContext

@stream_handler(healthy=lambda: HEALTHY)
async def handler(request):
    return "never"

kept = []
for line in sys.stdin:
    said = handler(json.loads(line), TestContext(60))
    print(json.dumps(said), flush=True)
    if KEEPS:
        kept.append(said)
    said = None
    print("the next event", flush=True)
"""


@pytest.mark.parametrize("keeps", [False, True], ids=["sent and let go", "kept"])
@pytest.mark.parametrize("is_lambda", [True, False], ids=["lambda", "called by hand"])
@pytest.mark.parametrize("healthy", ["False", "1 / 0"], ids=["says no", "raises"])
def test_the_process_ends_between_its_answer_and_the_next_event(
    gateway: LoopbackGateway, keeps: bool, is_lambda: bool, healthy: str
) -> None:
    """As AWS's client lets go of an answer; where something keeps it, the next invitation is answered at once. Whoever
    calls a handler by hand keeps the process."""
    variables = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"} if is_lambda else {}
    variables |= {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": gateway.address, "PYTHONPATH": str(ROOT)}
    events = "".join(json.dumps(gateway.invite()) + "\n" for _ in range(2))
    code = CHILD.replace("KEEPS", str(keeps)).replace("HEALTHY", healthy)
    done = subprocess.run(
        [sys.executable, "-c", code], input=events, env=variables, capture_output=True, timeout=30, text=True
    )
    ends = is_lambda and not keeps
    assert done.returncode == is_lambda
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [{**answer, "awake": 0} for answer in answers] == [{**UNHEALTHY, "awake": 0}] * (1 if ends else 2)
    assert done.stdout.count("the next event") == (0 if ends else 2)
    assert gateway.dials == []


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no code may see the request")


def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise AssertionError("no code may see the request")


def wrap(kind: str, healthy: Any) -> Any:
    if kind == "asgi":
        return asgi_handler(asgi_app, lifespan="off", healthy=healthy)
    if kind == "wsgi":
        return wsgi_handler(wsgi_app, healthy=healthy)
    if kind == "native":
        return streamify_response(healthy=healthy)(lambda event, response_stream, context: 1 / 0)
    if kind == "event":
        return stream_handler(healthy=healthy)(lambda event, context: 1 / 0)
    return stream_handler(healthy=healthy)(lambda request: 1 / 0)


@pytest.mark.parametrize("kind", ["request", "event", "asgi", "wsgi", "native"])
@pytest.mark.parametrize("answers", [(False,), (True, False)], ids=["before it is invoked", "before the request"])
def test_every_kind_of_handler_has_it_and_a_test_sees_503(kind: str, answers: tuple[bool, ...]) -> None:
    with TestClient(wrap(kind, Health(*answers))) as client:
        for _ in range(2):
            assert client.request("POST", "/", content=b"an upload").status == 503
        with pytest.raises(WebSocketRefused, match="503"), client.websocket("/"):
            pass


@pytest.mark.parametrize("kind", ["request", "event", "asgi", "wsgi", "native"])
def test_what_cannot_be_asked_is_refused(kind: str) -> None:
    """An `async def` would be true whatever it returns."""

    async def healthy() -> bool:
        return False

    for wrong in (healthy, True):
        with pytest.raises(TypeError, match="healthy is a `def` without parameters"):
            wrap(kind, wrong)
