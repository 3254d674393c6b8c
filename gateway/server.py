"""The gateway as a whole: the one file that builds everything and knows everyone.

`start` binds the listeners, `stop` drains and ends what is left; both belong to whoever runs the event loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from aiohttp import http_parser, web

from gateway.client_request import Destination
from gateway.config import Config
from gateway.descriptors import files_for, open_files, room_for_clients
from gateway.endpoint import Endpoint
from gateway.exchange import Exchange, RequestHead
from gateway.forwarding import Forwarding
from gateway.ingress import Ingress
from gateway.invitations import Invitations
from gateway.invoke.function_url import FunctionUrl
from gateway.keys import Address
from gateway.limits import HttpLimits
from gateway.metrics import Metrics
from gateway.pool import Pool
from gateway.received_request import ReceivedRequest
from gateway.request_log import log_exchange
from gateway.routes import Routes
from gateway.starts import Start
from protocol.dial import Limits
from protocol.dial_reader import CONNECT_PATH
from protocol.gateway_session import SessionOptions
from protocol.invitation import Keyring

BACKLOG: Final = 1024  # connections that the kernel holds until they are accepted
ACCEPTED_AT_ONCE: Final = 16  # connections; in one turn of the loop, in which nothing else happens
END_GRACE: Final = 1.0  # seconds for the answers to those who were cut off to leave


class Gateway:
    """One process's gateway. Begins with `start`, ends with `stop`."""

    def __init__(self, config: Config, *, log: Any) -> None:
        self._config = config
        self._log = log
        self._routes: Routes[Destination] = Routes(())  # until the pools are there
        self._ingress = Ingress(
            self._route,
            internal={CONNECT_PATH.encode(): self._dial},
            limits=self._limits(),
            forwarding=Forwarding(config.trusted_proxies),
            on_end=self._ended,
        )
        self._server = self._ingress.server()
        self._pools: dict[str, Pool] = {}
        self._endpoint: Endpoint | None = None
        self._metrics = Metrics(self._pools, self._server.websockets)
        self._listener: asyncio.Server | None = None
        self._admin: web.AppRunner | None = None
        self._open = 0  # exchanges
        self._is_awake = False
        self._closed_one = asyncio.Event()
        self.url = ""
        """Where clients connect, once started."""
        self.admin_url = ""
        """Where health and metrics are, once started; empty without an admin listener."""

    async def start(self, *, wake: bool = True) -> None:
        """Bind the listeners, and `wake`, unless that is to come: until then requests wait.

        Raises OSError, with nothing left open, when one can not be bound, and RuntimeError where aiohttp's parser is
        the one in Python, which is less strict."""
        if not hasattr(http_parser, "HttpRequestParserC"):
            raise RuntimeError("aiohttp runs without its C parser: unset AIOHTTP_NO_EXTENSIONS, or install it anew")
        config = self._config
        tls = config.tls.context() if config.tls else None
        listen = config.listen
        self._listener = await asyncio.get_running_loop().create_server(
            self._server,
            listen.host,
            listen.port,
            ssl=tls,
            backlog=ACCEPTED_AT_ONCE,
            start_serving=False,
            ssl_handshake_timeout=config.client.head_timeout if tls else None,
        )
        try:
            port = self._listener.sockets[0].getsockname()[1]
            self.url = f"{'https' if tls else 'http'}://{Address(listen.host, port)}"
            self._build(port)
            for pool in self._pools.values():
                pool.starts.is_held = True
            await self._start_admin()
            await self._listener.start_serving()
            if wake:
                self.wake()
            for bound in self._listener.sockets:  # asyncio has one number for both, and a storm would stop all streams
                with bound.dup() as raw:
                    raw.listen(BACKLOG)
        except BaseException:
            await self.stop(0)
            raise

    def wake(self) -> None:
        """Functions can be invoked: for what waits, and `min_leased`."""
        self._is_awake = True
        for pool in self._pools.values():
            pool.starts.is_held = False
            pool.starts_changed()

    async def stop(self, grace: float) -> None:
        """Take no new request, give open ones `grace` seconds, end the rest. Idempotent; a call that was cancelled can
        be repeated with less grace.

        Until the open ones have ended the listener stays: what waits needs functions that dial in.
        """
        if self._listener is None:
            return
        self._ingress.is_draining = True
        self._server.close_idle()
        if self._endpoint is not None:
            self._endpoint.drain()
        for pool in self._pools.values():
            pool.drain()
        until = asyncio.get_running_loop().time() + grace
        await self._drained(grace)
        await self._end(self._listener, until)

    def retire_links(self) -> None:
        """New requests get environments that are invoked from now on: the code behind them has changed."""
        for pool in self._pools.values():
            pool.retire_links()

    # inside

    def _limits(self) -> HttpLimits:
        limits = self._config.websocket.added_to(self._config.client.limits())
        invocations = sum(function.limits.max_invocations for function in self._config.functions.values())
        files = open_files(files_for(limits.max_connections, invocations))
        most = room_for_clients(limits.max_connections, invocations, files)
        if most < limits.max_connections:
            self._log.warning(
                "the open-file limit is low: fewer clients can connect (ulimit -n)",
                limit=files,
                connections=most,
                wanted=limits.max_connections,
            )
        return replace(limits, max_connections=most)

    def _build(self, port: int) -> None:
        config = self._config
        invitations: Invitations[Start] = Invitations(config.dial_address_at(port) + CONNECT_PATH)
        keyrings: dict[str, Keyring] = {}
        for name, function in config.functions.items():
            keyrings[name] = Keyring.parse(function.secret.reveal())
            invoker = FunctionUrl(function.url, tls=function.invoke.context())
            self._pools[name] = Pool(function, keyrings[name], invoker, invitations)
        self._routes = Routes(
            (route, Destination(self._pools[route.function], config.functions[route.function].terms(route)))
            for route in config.routes
        )
        options = SessionOptions(
            grace=config.session.grace, ping=config.session.ping_interval, limits=Limits(credit=config.body.window)
        )
        wants_certificate = config.tls is not None and config.tls.client_ca is not None
        self._endpoint = Endpoint(
            self._pools,
            keyrings,
            invitations,
            options,
            dialled=self._metrics.dialled,
            wants_certificate=wants_certificate,
        )

    async def _drained(self, grace: float) -> None:
        try:
            async with asyncio.timeout(grace):
                while self._open:
                    self._closed_one.clear()
                    await self._closed_one.wait()
        except TimeoutError:
            self._log.warning("requests were cut off", open=self._open)

    async def _end(self, listener: asyncio.Server, until: float) -> None:
        """Step by step towards the outside; each may be repeated."""
        loop = asyncio.get_running_loop()
        # Asked before `close`, or Python 3.11 does not wait at all.
        closed = asyncio.ensure_future(listener.wait_closed())
        try:
            await asyncio.sleep(0)
            listener.close()
            for pool in self._pools.values():
                await pool.stop()
            if self._endpoint is not None:
                await self._endpoint.stop()
            await self._server.shutdown(max(END_GRACE, until - loop.time()))
            await asyncio.wait({closed}, timeout=max(END_GRACE, until - loop.time()))
            self._server.abort()  # clients that have not taken their response in time
            await asyncio.wait({closed}, timeout=END_GRACE)
        finally:
            closed.cancel()
            await asyncio.gather(closed, return_exceptions=True)
        if self._admin is not None:
            await self._admin.cleanup()

    def _dial(self, request: ReceivedRequest) -> None:
        assert self._endpoint is not None, "nothing is accepted before it is built"
        self._endpoint.handle(request)

    def _route(self, head: RequestHead) -> Destination | None:
        self._open += 1
        for name, value in head.headers:
            if name == b"host":
                return self._routes.find(value.decode("latin-1"), head.target)
        return self._routes.find("", head.target)

    def _ended(self, exchange: Exchange) -> None:
        self._open -= 1
        self._closed_one.set()
        self._metrics.ended(exchange)
        log_exchange(exchange)

    async def _start_admin(self) -> None:
        if self._config.admin is None:
            return
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self._healthz), web.get("/readyz", self._readyz), web.get("/metrics", self._show)]
        )
        self._admin = web.AppRunner(app, access_log=None, shutdown_timeout=END_GRACE)
        await self._admin.setup()
        site = web.TCPSite(self._admin, self._config.admin.host, self._config.admin.port)
        await site.start()
        bound = self._admin.addresses[0]
        self.admin_url = f"http://{Address(bound[0], bound[1])}"

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        state = "draining" if self._ingress.is_draining else "ready" if self._is_awake else "starting"
        return web.Response(text=f"{state}\n", status=200 if state == "ready" else 503)

    async def _show(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
