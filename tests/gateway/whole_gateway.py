"""A whole gateway with in-test functions behind it and a client before it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import ClientSession, TCPConnector, web

from gateway.config import (
    BreakerConfig,
    Config,
    FunctionConfig,
    LimitsConfig,
    RetryConfig,
    SessionConfig,
    TimeoutsConfig,
)
from gateway.dialback import Link
from gateway.endpoint import Endpoint
from gateway.exchange import Exchange
from gateway.keys import Address, Secret
from gateway.pool import Pool
from gateway.queue import Queue, Waiter
from gateway.routes import Route
from gateway.server import Gateway
from tests.gateway.environment_fake import LOOPBACK, SECRET, Environment, FunctionUrl, Served


@asynccontextmanager
async def gateway_for(
    urls: FunctionUrl | Mapping[str, FunctionUrl],
    *,
    linger: float = 0.1,
    lease_share: int = 50,
    min_leased: int = 0,
    limits: LimitsConfig | None = None,
    timeouts: TimeoutsConfig | None = None,
    session: SessionConfig | None = None,
    retry: RetryConfig | None = None,
    breaker: BreakerConfig | None = None,
    on_disconnect: str = "cancel",
    **options: Any,
) -> AsyncIterator[Gateway]:
    """A whole gateway; of several functions each has the path of its name."""
    named = {"function": urls} if isinstance(urls, FunctionUrl) else urls
    functions = {
        name: FunctionConfig(
            name=name,
            url=url.url,
            secret=Secret(SECRET),
            linger=linger,
            lease_share=lease_share,
            min_leased=min_leased,
            limits=limits or LimitsConfig(),
            timeouts=timeouts or TimeoutsConfig(dial_back=5, queue_wait=10),
            retry=retry or RetryConfig(),
            breaker=breaker or BreakerConfig(),
            on_disconnect=on_disconnect,
            **options,
        )
        for name, url in named.items()
    }
    config = Config(
        functions=functions,
        routes=tuple(Route(name, path=f"/{name}") for name in named) if len(named) > 1 else (),
        listen=Address(LOOPBACK, 0),
        admin=Address(LOOPBACK, 0),
        session=session or SessionConfig(),
    )
    gateway = Gateway(config, log=structlog.get_logger("test"))
    for url in named.values():
        url.gateway = gateway
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop(0)


class WatchedQueue(Queue):
    """A queue that a test can wait for."""

    def __init__(self, rested: Callable[[], None]) -> None:
        super().__init__(rested)
        self.grew = asyncio.Event()

    def add(self, exchange: Exchange) -> Waiter:
        self.grew.set()
        return super().add(exchange)


@dataclass
class Whole:
    """A gateway, its only function, and a client."""

    gateway: Gateway
    url: FunctionUrl
    client: ClientSession

    @property
    def pool(self) -> Pool:
        (pool,) = self.gateway._pools.values()
        return pool

    @property
    def endpoint(self) -> Endpoint:
        assert self.gateway._endpoint is not None
        return self.gateway._endpoint

    @property
    def link(self) -> Link:
        """The only one."""
        (link,) = self.endpoint._links.values()
        return link

    async def until_waiting(self, number: int) -> None:
        """Until so many requests are in the queue."""
        queue = self.pool._queue
        assert isinstance(queue, WatchedQueue)
        while len(queue) < number:
            queue.grew.clear()
            await queue.grew.wait()

    async def get(self, path: str = "/", body: bytes | None = None) -> tuple[int, str]:
        method = "GET" if body is None else "POST"
        data = None if body is None else io.BytesIO(body)
        async with self.client.request(method, self.gateway.url + path, data=data) as response:
            return response.status, await response.text()

    def asking(self, path: str = "/", body: bytes | None = None) -> asyncio.Task[tuple[int, str]]:
        return asyncio.create_task(self.get(path, body))

    async def problem(self, path: str = "/") -> tuple[int, str]:
        """Status and the problem's name."""
        status, text = await self.get(path)
        return status, json.loads(text)["type"].rpartition(":")[2]


@asynccontextmanager
async def whole(url: FunctionUrl, **options: Any) -> AsyncIterator[Whole]:
    async with url.serving(), gateway_for(url, **options) as gateway:
        async with ClientSession(connector=TCPConnector(limit=0)) as client:
            it = Whole(gateway, url, client)
            it.pool._queue = WatchedQueue(it.pool.starts_changed)
            yield it


def url_of(*environments: Environment, most: int | None = None) -> FunctionUrl:
    """A Function URL that starts these, one after the other."""
    left = iter(environments)
    return FunctionUrl(lambda: next(left), most=len(environments) if most is None else most)


def silent() -> tuple[FunctionUrl, asyncio.Event]:
    """A function that is invoked and does nothing, until the event."""
    end = asyncio.Event()

    async def behave(token: str) -> web.StreamResponse:
        await end.wait()
        return web.json_response({"dialback": 1, "lease": None, "outcome": "nothing"})

    return FunctionUrl(behave=behave), end


async def first_stream(environment: Environment) -> Served:
    """The next stream that is opened there."""
    return await asyncio.wait_for(environment.streams.get(), 5)


async def until_later(seconds: float) -> None:
    """Let time pass, where time is what is tested."""
    loop = asyncio.get_running_loop()
    later = loop.create_future()
    loop.call_later(seconds, later.set_result, None)
    await later
