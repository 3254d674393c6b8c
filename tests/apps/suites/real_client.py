"""A pytest plugin: `starlette.testclient.TestClient` as a real client of a real gateway, for Starlette's own tests.

It keeps that client's promises, by which those tests are written: an exception of the app is raised where its client
waits; a request is over when the app has returned. What cannot be kept on any wire makes a test inapplicable: those are
listed, each with its reason, in the file that `--suite` names; one that passes after all is an error.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx
import pytest
import starlette.testclient
import structlog
import tomllib
from real_site import CALL, LIFESPAN, PATIENCE, Site
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import connect

TIMEOUTS = {name: PATIENCE for name in ("connect", "read", "write", "pool")}
NOT_SENT = 1006
"""RFC 6455, section 7.1.5: a handshake that was refused has no close code."""
HANDSHAKE = {"host", "connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol"}
NOT_THE_APPS = {"date", "upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "x-request-id"}
"""Fields of the 101: the handshake's, and the gateway's."""


class RealClient(starlette.testclient.TestClient):
    """Opens its site with its first request, or where it is entered."""

    opened: list[RealClient] = []
    exchanges = 0
    """Requests of all of them, since the plugin began."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._given = self._transport
        self._transport = RealTransport(self)
        self._site: Site | None = None

    def site(self, *, has_lifespan: bool = False) -> Site:
        if self._site is None:
            self._site = Site(self.app, root_path=self._given.root_path, has_lifespan=has_lifespan)
            RealClient.opened.append(self)
        return self._site

    def over(self, site: Site, call: bytes) -> None:
        """A request is: raises what the app has raised."""
        site.over(call, is_raised=self._given.raise_server_exceptions)

    def shut(self) -> None:
        """Idempotent."""
        if self._site is not None:
            site, self._site = self._site, None
            RealClient.opened.remove(self)
            try:
                site.close()
            except BaseException:
                site.over(LIFESPAN)
                raise

    def __enter__(self) -> RealClient:
        self.shut()
        self.app_state.update(self.site(has_lifespan=True).state)
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()


class RealTransport(httpx.BaseTransport):
    """To the gateway, whatever host the URL names."""

    def __init__(self, client: RealClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        RealClient.exchanges += 1
        site = self._client.site()
        call = b"%d" % RealClient.exchanges
        headers = [*request.headers.multi_items(), (CALL.decode(), call.decode())]
        if request.url.scheme in ("https", "wss"):
            headers.append(("x-forwarded-proto", "https"))
        if request.url.scheme in ("ws", "wss"):
            raise starlette.testclient._Upgrade(RealWebSocket(site, call, str(request.url), headers))
        host, port = site.address
        wire = httpx.HTTPTransport()
        sent = httpx.Request(
            request.method,
            request.url.copy_with(scheme="http", host=host, port=port),
            headers=headers,
            stream=request.stream,
            extensions={**request.extensions, "timeout": TIMEOUTS},
        )
        try:
            response = wire.handle_request(sent)
        except httpx.TransportError:
            wire.close()
            self._client.over(site, call)
            raise
        response.stream = RealBody(response.stream, wire, lambda: self._client.over(site, call))
        return response


class RealBody(httpx.SyncByteStream):
    def __init__(self, stream: Any, wire: httpx.HTTPTransport, over: Callable[[], None]) -> None:
        self._stream, self._wire, self._over = stream, wire, over
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except httpx.TransportError:  # a response that was cut, because the app has raised
            self._end()
            raise
        self._end()

    def close(self) -> None:
        self._stream.close()
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._wire.close()
            self._over()


class RealWebSocket(starlette.testclient.WebSocketTestSession):
    """Begins and ends with its `with`."""

    def __init__(self, site: Site, call: bytes, url: str, headers: list[tuple[str, str]]) -> None:
        self._site, self._call = site, call
        self._url = url.replace("wss:", "ws:", 1)
        self._offered = [
            part.strip() for name, value in headers if name == "sec-websocket-protocol" for part in value.split(",")
        ]
        self._headers = [(name, value) for name, value in headers if name not in HANDSHAKE]

    def __enter__(self) -> RealWebSocket:
        try:
            self._opened = connect(
                self._url,
                sock=socket.create_connection(self._site.address),
                additional_headers=self._headers,
                subprotocols=self._offered or None,  # type: ignore[arg-type]
                compression=None,
                user_agent_header=None,
                ping_interval=None,
                max_size=None,
                open_timeout=PATIENCE,
                close_timeout=PATIENCE,
                proxy=None,
            )
            self._connection = self._opened.__enter__()
        except InvalidHandshake as refusal:
            self._site.over(self._call)
            if not isinstance(refusal, InvalidStatus):
                raise
            status, body = refusal.response.status_code, bytes(refusal.response.body or b"")
            if status == 403 and not body:
                raise WebSocketDisconnect(NOT_SENT) from None
            headers = list(refusal.response.headers.raw_items())
            denial = starlette.testclient.WebSocketDenialResponse(status_code=status, headers=headers, content=body)
            raise denial from None
        self.accepted_subprotocol = self._connection.subprotocol
        assert self._connection.response is not None
        fields = ((name.lower(), value) for name, value in self._connection.response.headers.raw_items())
        self.extra_headers = [(name.encode(), value.encode()) for name, value in fields if name not in NOT_THE_APPS]
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__(None, None, None)
        self._site.over(self._call)

    def send(self, message: Any) -> None:
        if message["type"] == "websocket.disconnect":
            self._connection.close(message.get("code", 1000), message.get("reason") or "")
        else:
            text = message.get("text")
            with suppress(ConnectionClosed):
                self._connection.send(message["bytes"] if text is None else text)

    def receive(self) -> Any:
        try:
            data = self._connection.recv(PATIENCE)
        except ConnectionClosed as closed:
            close = closed.rcvd
            code, reason = (NOT_SENT, "") if close is None else (close.code, close.reason)
            return {"type": "websocket.close", "code": code, "reason": reason}
        return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}


starlette.testclient.TestClient = RealClient  # type: ignore[misc]

# What an app raises is the test's to look at. A log of it would format its traceback in another thread at the same
# time, which Python 3.11 does not survive (python/cpython#106905).
logging.getLogger("dialback").setLevel(logging.CRITICAL + 1)
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _same(value: Any) -> Any:
    return value


# FastAPI's tests compare with `snapshot(value)`, which is the value unless that library is asked to rewrite them.
sys.modules["inline_snapshot"] = SimpleNamespace(snapshot=_same, Is=_same)  # type: ignore[assignment]


# What pytest calls


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group: of pytest-xdist, which is not here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", type=Path, help="TOML: which tests do not apply, and why")
    parser.addoption("--outcomes", type=Path, help="where to write, as JSON, what became of each test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = tomllib.loads(config.getoption("suite").read_text())["inapplicable"]
    wanted = {test: group for group in groups for test in group["tests"]}
    for item in items:
        if group := wanted.pop(item.nodeid, None):
            item.add_marker(pytest.mark.xfail(reason=group["reason"], strict=group.get("is_certain", True)))
    if wanted:
        raise pytest.UsageError(f"there are no such tests: {list(wanted)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    before = RealClient.exchanges
    result = yield
    while RealClient.opened:
        RealClient.opened[-1].shut()
    item.config.stash.setdefault(OUTCOMES, {}).setdefault(item.nodeid, {})["exchanges"] = RealClient.exchanges - before
    return result


OUTCOMES = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    kept = item.config.stash.setdefault(OUTCOMES, {}).setdefault(item.nodeid, {})
    if report.when == "call" or report.outcome != "passed":
        kept["outcome"] = "inapplicable" if hasattr(report, "wasxfail") and report.skipped else report.outcome
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    if file := config.getoption("outcomes"):
        file.write_text(json.dumps(config.stash.get(OUTCOMES, {}), indent=1))
