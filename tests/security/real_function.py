"""A Function URL before real environments: `lambda_client` as it is deployed, each in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from lambda_client.handler import StreamHandler
from lambda_client.testing import TestContext, TestEnvironment
from tests.gateway.environment_fake import LOOPBACK


class Deployed:
    """One environment: its invocations run one after the other, in its own thread."""

    def __init__(self, handler: StreamHandler[Any], variables: Mapping[str, str], seconds: float = 60) -> None:
        """`seconds`: that each invocation has."""
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="environment")
        self._environment = TestEnvironment(handler.runner(), handler.concurrency, handler.lifespan, variables)

    async def invoke(self, event: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._environment.invoke, event, TestContext(self._seconds))

    def close(self) -> None:
        self._thread.submit(self._environment.close).result(10)
        self._thread.shutdown()


class RealFunction:
    """Begins and ends with `serving`. `deploy` updates its configuration: later invocations get new environments."""

    def __init__(
        self,
        handler: StreamHandler[Any],
        variables: Mapping[str, str],
        tls: ssl.SSLContext | None = None,
        seconds: float = 60,
    ) -> None:
        self.url = ""
        self.tokens: list[str] = []
        """What was POSTed, of whatever worth."""
        self.answers: list[Any] = []
        self._handler = handler
        self._variables = variables
        self._tls = tls
        self._seconds = seconds
        self._idle: list[Deployed] = []
        self._all: list[Deployed] = []

    def deploy(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._idle = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[RealFunction]:
        server = web.Server(self._handle, access_log=None)
        listener = await asyncio.get_running_loop().create_server(server, LOOPBACK, 0, ssl=self._tls)
        scheme, host = ("https", "localhost") if self._tls else ("http", LOOPBACK)
        self.url = f"{scheme}://{host}:{listener.sockets[0].getsockname()[1]}/"
        try:
            yield self
        finally:
            listener.close()
            await server.shutdown(0.1)
            for environment in self._all:
                await asyncio.to_thread(environment.close)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.text()
        self.tokens.append(body)
        variables, idle = self._variables, self._idle
        if idle:
            environment = idle.pop()
        else:
            environment = Deployed(self._handler, variables, self._seconds)
            self._all.append(environment)
        event = {
            "version": "2.0",
            "rawPath": request.path,
            "rawQueryString": request.query_string,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "requestContext": {"http": {"method": request.method, "path": request.path, "sourceIp": LOOPBACK}},
            "body": body,
            "isBase64Encoded": False,
        }
        returned = await environment.invoke(event)
        idle.append(environment)
        self.answers.append(returned)
        if isinstance(returned, dict) and "statusCode" in returned:
            return web.Response(status=returned["statusCode"], text=returned["body"], headers=returned["headers"])
        return web.json_response(returned)
