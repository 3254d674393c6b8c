"""One app, one list of behaviours, and each WebSocket client that people use."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.conversation import (
    Aiohttp,
    NodeWebSocket,
    Orders,
    WebSocketClient,
    WebsocketsAsyncio,
    WebsocketsSync,
)
from tests.clients.programs import NODE, node
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

LARGE = os.urandom(1 << 20)
"""As large as a message may be."""


@pytest.fixture(scope="session")
def ws_package(pytestconfig: pytest.Config) -> Path:
    """The folder in which npm has installed `ws`; once, in pytest's cache. Skips the test where that cannot be."""
    node()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm")
    lock = NODE / "package-lock.json"
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"ws-{zlib.crc32(lock.read_bytes()):08x}")
    if not (folder / "node_modules" / "ws" / "package.json").exists():
        for name in ("package.json", lock.name):
            shutil.copy(NODE / name, folder)
        flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--omit-lockfile-registry-resolved")
        done = subprocess.run([npm, "ci", *flags], cwd=folder, capture_output=True, text=True, timeout=90, check=False)
        if "EINTEGRITY" in done.stderr:
            pytest.fail(done.stderr)
        if done.returncode:
            pytest.skip(f"npm could not install ws: {done.stderr.strip().splitlines()[:1]}")
    return folder


@pytest.fixture(params=["websockets.sync", "websockets.asyncio", "aiohttp", "node", "ws"])
def client(request: pytest.FixtureRequest) -> WebSocketClient:
    if request.param == "ws":
        return NodeWebSocket(request.getfixturevalue("ws_package"))
    makers: dict[str, Callable[[], WebSocketClient]] = {
        "websockets.sync": WebsocketsSync,
        "websockets.asyncio": WebsocketsAsyncio,
        "aiohttp": Aiohttp,
        "node": NodeWebSocket,
    }
    return makers[request.param]()


@pytest.fixture
def talkative(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("conversations.py:handler", environments=1)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A name that no other test notes under."""
    return request.node.name.replace("[", "-").rstrip("]")


def orders(stack: Stack, target: str = "/", says: list[str | bytes] | None = None, **more: object) -> Orders:
    return Orders(f"ws://{stack.authority}{target}", says or [], **more)  # type: ignore[arg-type]


def test_messages_come_back_whole(client: WebSocketClient, talkative: Stack) -> None:
    said: list[str | bytes] = ["grüße 🎉", "", b"", bytes(range(256)), LARGE, "ü" * (1 << 19), "last"]
    heard = client.talk(orders(talkative, says=said, replies=len(said), code=1000))
    assert heard.said == said


def test_a_subprotocol_is_agreed_on(client: WebSocketClient, talkative: Stack) -> None:
    asked = orders(talkative, says=["x"], replies=1, subprotocols=["graphql-ws", "b"], code=1000)
    assert client.talk(asked).protocol == "graphql-ws"


def test_the_function_hears_the_clients_close(client: WebSocketClient, talkative: Stack, key: str) -> None:
    client.talk(orders(talkative, f"/?key={key}", ["x"], replies=1, code=4001, reason="enough"))
    wait_for(lambda: talkative.executions(f"{key}-closed") == ["4001"])


def test_the_client_hears_the_functions_close(client: WebSocketClient, talkative: Stack) -> None:
    heard = client.talk(orders(talkative, "/closes", ["go"]))
    assert (heard.code, heard.reason) == (4321, "schön war’s")


def test_the_function_hears_that_the_client_has_vanished(client: WebSocketClient, talkative: Stack, key: str) -> None:
    client.talk(orders(talkative, f"/?key={key}", ["x"], replies=1, vanishes=True))
    wait_for(lambda: talkative.executions(f"{key}-closed") == ["1006"])


def test_a_refusal_is_the_functions_own(client: WebSocketClient, talkative: Stack) -> None:
    heard = client.talk(orders(talkative, "/refused"))
    assert heard.refused == (401 if client.shows_refusal else 0) and not heard.said
    assert client.shows_refusal or heard.code in (0, 1006)  # Node 20 tells of an error alone
