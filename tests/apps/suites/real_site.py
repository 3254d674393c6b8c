"""An app object behind a real gateway, all in this process: what an app made inside a test function can be served by.

The gateway is `gateway.server.Gateway` with its listener, the function `asgi_handler`'s environment; between them is
the real link over a real socket. Only Lambda is not there: its Function URL is a handler of aiohttp's, which calls the
environment in a thread of its own, and no runtime client freezes that between invocations.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from gateway.config import Config, FunctionConfig, LimitsConfig
from gateway.keys import Address, Secret
from gateway.server import Gateway
from lambda_client import asgi_handler
from lambda_client.testing import TestContext, TestEnvironment

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
T = TypeVar("T")

LOOPBACK = "127.0.0.1"
SECRET = "a secret of thirty-two bytes or more"
CALL = b"x-call"
"""A field by which a request names the call of the app; the app does not see it."""
LIFESPAN = b"lifespan"
PATIENCE = 10.0
"""Seconds for what should take none."""


class Gateways:
    """The thread of all gateways, and the one Function URL that they call: `/N` is the Nth site's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._sites: dict[str, Site] = {}
        self._numbers = itertools.count(1)
        threading.Thread(target=self._loop.run_forever, name="gateways", daemon=True).start()
        self._port = self.run(self._listen())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def start(self, site: Site) -> Gateway:
        """A gateway whose only function is this site's."""
        path = f"/{next(self._numbers)}"
        self._sites[path] = site
        function = FunctionConfig(
            name="function",
            url=f"http://{LOOPBACK}:{self._port}{path}",
            secret=Secret(SECRET),
            limits=LimitsConfig(max_invocations=1),  # one environment, as there is one app
        )
        config = Config(
            functions={"function": function},
            listen=Address(LOOPBACK, 0),
            admin=None,
            trusted_proxies=(ip_network(LOOPBACK),),  # the tests say by it that they came over https
        )
        return self.run(self._start(config))

    def stop(self, gateway: Gateway) -> None:
        self.run(gateway.stop(0))

    async def _start(self, config: Config) -> Gateway:
        gateway = Gateway(config, log=structlog.get_logger("test"))
        await gateway.start()
        return gateway

    async def _listen(self) -> int:
        listener = await self._loop.create_server(web.Server(self._invoke, access_log=None), LOOPBACK, 0)
        return int(listener.sockets[0].getsockname()[1])

    async def _invoke(self, request: web.BaseRequest) -> web.StreamResponse:
        site, event = self._sites[request.path], await request.json()
        return web.json_response(await asyncio.wrap_future(site.invoke(event)))


class Site:
    """One app, its environment and its gateway. Begins with the constructor, ends with `close`."""

    gateways: Gateways | None = None

    def __init__(self, app: App, *, root_path: str, has_lifespan: bool) -> None:
        """With a lifespan the app's startup has run. Raises what that has raised."""
        self._app = app
        self._running: set[bytes] = set()  # calls of the app, by their names
        self._failures: dict[bytes, BaseException] = {}  # what they have raised
        self._changed = threading.Condition()
        Site.gateways = Site.gateways or Gateways()
        self._gateways = Site.gateways
        self._gateway = self._gateways.start(self)
        self.address = (LOOPBACK, urlsplit(self._gateway.url).port or 0)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="environment")
        lifespan = "on" if has_lifespan else "off"
        handler = asgi_handler(self._watch, root_path=root_path, lifespan=lifespan)  # type: ignore[arg-type]
        variables = {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": self._gateway.url.replace("http", "ws", 1)}
        self._environment = TestEnvironment(handler.runner(), handler.concurrency, handler.lifespan, variables)
        try:
            if has_lifespan:
                self._thread.submit(self._environment._enter).result(PATIENCE)  # else before the first request
        except BaseException:
            self.close()
            self.over(LIFESPAN)
            raise

    @property
    def state(self) -> Any:
        """What the lifespan has put there."""
        return self._environment.state

    def invoke(self, event: Any) -> Any:
        """One invocation, as a future of its answer."""
        return self._thread.submit(self._environment.invoke, event, TestContext(900))

    def over(self, call: bytes, *, is_raised: bool = True) -> None:
        """Wait for a call of the app to end, background tasks included, and raise what it has raised."""
        with self._changed:
            assert self._changed.wait_for(lambda: call not in self._running, PATIENCE), "the app goes on"
            failure = self._failures.pop(call, None)
        if failure is not None and is_raised:
            raise failure

    def close(self) -> None:
        """Ends the app's lifespan too."""
        self._gateways.stop(self._gateway)
        try:
            self._thread.submit(self._environment.close).result(PATIENCE)
        finally:
            self._thread.shutdown()

    async def _watch(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        call = next((value for name, value in scope.get("headers", ()) if name == CALL), LIFESPAN)
        if call is not LIFESPAN:
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != CALL]
            self._running.add(call)
        failure = None
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._changed:
                self._running.discard(call)
                if failure is not None:
                    self._failures[call] = failure
                self._changed.notify_all()
