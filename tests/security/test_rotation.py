"""A key is changed while requests come all the time, in the order of docs/security.md, and none of them fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import structlog

from gateway.config import Config, FunctionConfig
from gateway.keys import Address, Secret
from gateway.server import Gateway
from lambda_client import Request, stream_handler
from protocol.invitation import INVITATION_KEY, key_id, read
from tests.gateway.environment_fake import LOOPBACK
from tests.security.real_function import RealFunction

OLD, NEW = "o" * 32, "n" * 32
ASKING = 4  # clients that ask one request after the other
DEREGISTRATION = 0.1  # seconds from the last new request to the signal to stop, as balancers have it
STEP = 0.4  # seconds that each step lasts


@stream_handler(concurrency=ASKING)
async def handler(request: Request) -> str:
    await asyncio.sleep(0.02)
    return "served"


class Rotation:
    """Gateways one after the other before one function, and clients that ask whichever serves."""

    def __init__(self, function: RealFunction) -> None:
        self.function = function
        self.answers: Counter[int | str] = Counter()
        self.gateway: Gateway | None = None
        self._known: list[str] = []
        self._secrets = OLD

    async def replace_gateway(self, secret: str) -> None:
        """A rolling update: the new one serves, and the old one ends what it has begun."""
        old = self.gateway
        function = FunctionConfig(name="function", url=self.function.url, secret=Secret(secret), linger=0.02)
        config = Config(functions={"function": function}, listen=Address(LOOPBACK, 0), admin=None)
        new = Gateway(config, log=structlog.get_logger("test"))
        await new.start()
        self._known.append(new.url.replace("http", "ws", 1))
        self.deploy(self._secrets)
        self.gateway = new
        if old is not None:
            await asyncio.sleep(DEREGISTRATION)
            await old.stop(10)

    def deploy(self, secrets: str) -> None:
        """The function's variables change. It knows every gateway: behind a balancer they had one address."""
        self._secrets = secrets
        self.function.deploy({"DIALBACK_SECRET": secrets, "DIALBACK_GATEWAY": ",".join(self._known)})

    async def ask(self) -> None:
        async with aiohttp.ClientSession() as client:
            while True:
                assert self.gateway is not None
                try:
                    async with client.get(self.gateway.url) as response:
                        is_whole = response.status != 200 or await response.text() == "served"
                        self.answers[response.status if is_whole else "another"] += 1
                except aiohttp.ClientError as error:
                    self.answers[repr(error)] += 1

    def kids(self) -> set[str]:
        """Of the keys that have signed since last asked."""
        signed = {read(json.loads(body)[INVITATION_KEY])[0].kid for body in self.function.tokens}
        self.function.tokens.clear()
        return signed


@asynccontextmanager
async def rotation() -> AsyncIterator[Rotation]:
    function = RealFunction(handler, {}, seconds=STEP)  # or one invocation served all of the test
    async with function.serving():
        it = Rotation(function)
        await it.replace_gateway(OLD)
        asking = [asyncio.create_task(it.ask()) for _ in range(ASKING)]
        try:
            await asyncio.sleep(STEP)
            yield it
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            assert it.gateway is not None
            await it.gateway.stop(1)


@pytest.mark.parametrize("gateways", [(f"{NEW},{OLD}", NEW), (NEW,)], ids=["by way of both", "at once"])
async def test_no_request_fails_while_a_key_is_changed(gateways: tuple[str, ...]) -> None:
    async with rotation() as it:
        assert it.kids() == {key_id(OLD.encode())}
        it.deploy(f"{OLD},{NEW}")
        await asyncio.sleep(STEP)
        assert it.kids() == {key_id(OLD.encode())}
        for secret in gateways:
            await it.replace_gateway(secret)
            it.kids()
            await asyncio.sleep(STEP)
            assert it.kids() == {key_id(NEW.encode())}
        it.deploy(NEW)
        await asyncio.sleep(STEP)
    assert set(it.answers) == {200} and it.answers[200] > 50, it.answers


async def test_in_another_order_requests_fail_so_that_the_test_can() -> None:
    async with rotation() as it:
        it.deploy(NEW)
        await asyncio.sleep(STEP)
    assert it.answers[502] > 0


async def test_the_function_accepts_whichever_key_of_its_list() -> None:
    for secrets in (f"{OLD},{NEW}", f"{NEW} , {OLD}"):
        async with rotation() as it:
            it.deploy(secrets)
            await asyncio.sleep(STEP / 2)
        assert set(it.answers) == {200}
