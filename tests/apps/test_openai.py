"""OpenAI's own client, sync and async, before a FastAPI app that speaks its API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

import openai

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

FUNCTIONS = Path(__file__).parent / "functions"
MODEL = "slow-1"
ENVIRONMENTS = 3
PLACES = 4
"""Streams of one environment."""
INTERVAL = 0.2
AT_ONCE = 0.05
"""Seconds from making a token to having it, besides what the machine adds."""


@pytest.fixture(scope="module")
def stack(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("openai_app.py:handler", root=FUNCTIONS, environments=ENVIRONMENTS)


@pytest.fixture
def client(stack: Stack) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="a-key", max_retries=0) as client:
        client.models.list()  # an environment is there
        yield client


def prompt(text: str, **options: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **options}


class Arrivals:
    """The tokens of one answer, each with when it was made and how much later it was here."""

    def __init__(self) -> None:
        self.made: list[float] = []
        self.late: list[float] = []
        self.server = ""
        self.finish = ""

    def take(self, chunk: Any) -> None:
        self.server = chunk.system_fingerprint
        for choice in chunk.choices:
            self.finish = choice.finish_reason or self.finish
            if choice.delta.content:
                number, made = choice.delta.content.split("@")
                assert int(number) == len(self.made)
                self.late.append(time.time() - float(made))
                self.made.append(float(made))


def test_the_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_each_token_is_here_when_it_is_made(client: Any, lag: Lag) -> None:
    arrivals, usage = Arrivals(), []
    options = {"stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 6}
    for chunk in client.chat.completions.create(**prompt("in time", **options)):
        arrivals.take(chunk)
        usage += [chunk.usage.completion_tokens] if chunk.usage else []
    assert (len(arrivals.made), arrivals.finish, usage) == (6, "stop", [6])
    assert max(arrivals.late) < lag.allow(AT_ONCE)
    assert arrivals.made[-1] - arrivals.made[0] >= 5 * INTERVAL - 0.01


def test_the_clients_own_stream_helper(client: Any) -> None:
    with client.chat.completions.stream(**prompt("helper", max_completion_tokens=2)) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        message = stream.get_final_completion().choices[0].message
    assert len(deltas) == 1 + 2, "the role comes with an empty one"
    assert message.content == "".join(deltas) and message.content.count("@") == 2


def test_an_answer_that_is_not_streamed(client: Any) -> None:
    answer = client.chat.completions.create(**prompt("whole", max_completion_tokens=3))
    assert answer.choices[0].message.content.count("@") == 3


def test_errors_have_its_shape(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**prompt("x"), "model": "none"}, stream=True)
    assert (missing.value.code, missing.value.type) == ("model_not_found", "invalid_request_error")
    assert "`none`" in missing.value.message and missing.value.request_id, "the gateway's x-request-id is the client's"
    with pytest.raises(openai.AuthenticationError, match="API key"):
        client.with_options(api_key="another").models.list()


def test_a_stream_that_is_broken_off_is_missed_within_100_ms(client: Any, stack: Stack, lag: Lag) -> None:
    delays = []
    for number in range(3):
        name = f"left-{number}"
        chunks = client.chat.completions.create(**prompt(name, stream=True, max_completion_tokens=1000))
        for _ in range(3):
            next(chunks)
        left = time.time()
        chunks.close()
        wait_for(lambda name=name: stack.executions(name))  # type: ignore[misc]
        delays.append(float(stack.executions(name)[0]) - left)
    assert sorted(delays)[1] < lag.allow(0.1), delays


async def test_many_at_once_and_one_that_is_cancelled(client: Any, stack: Stack, lag: Lag) -> None:
    """As many as there are places in all: each has a steady stream, whoever leaves beside it."""

    arrivals = [Arrivals() for _ in range(ENVIRONMENTS * PLACES)]
    all_run = asyncio.Event()

    async def read(asynchronous: Any, number: int) -> None:
        # Long enough that all of them run at the same time, on environments that have to be started too.
        options = {"stream": True, "max_completion_tokens": 25}
        async for chunk in await asynchronous.chat.completions.create(**prompt(f"many-{number}", **options)):
            arrivals[number].take(chunk)
            if all(one.made for one in arrivals):
                all_run.set()

    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="a-key", max_retries=0) as asynchronous:
        leaving = asyncio.create_task(read(asynchronous, 0))
        staying = [asyncio.create_task(read(asynchronous, number)) for number in range(1, len(arrivals))]
        await asyncio.wait_for(all_run.wait(), 30)
        left = time.time()
        leaving.cancel()
        await asyncio.gather(*staying)
    assert float(stack.executions("many-0")[0]) - left < lag.allow(0.1)
    assert not any(stack.executions(f"many-{number}") for number in range(1, len(arrivals)))
    assert all((len(one.made), one.finish) == (25, "stop") for one in arrivals[1:])
    assert len({one.server for one in arrivals}) == ENVIRONMENTS
    lateness = sorted(late for one in arrivals for late in one.late)
    assert lateness[len(lateness) // 2] < lag.allow(AT_ONCE)
