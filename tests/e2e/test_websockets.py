"""WebSockets on the real stack: every way that a conversation ends. Other clients than these: tests/clients."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import Connection


@pytest.fixture
def talkative(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("conversations.py:handler", environments=1, serve={"websocket-close-timeout": 3})


def dial(stack: Stack, path: str = "/", **options: Any) -> ClientConnection:
    return connect(f"ws://{stack.authority}{path}", max_size=None, **options)


def close_of(client: ClientConnection) -> tuple[int, str]:
    """How the gateway closes it."""
    with pytest.raises(ConnectionClosed) as end:
        client.recv(timeout=20)
    assert end.value.rcvd is not None, "no close frame came"
    return end.value.rcvd.code, end.value.rcvd.reason


def test_open_ones_are_counted_by_function(fresh_stack: Callable[..., Stack]) -> None:
    def config(url: str) -> str:
        routes = "".join(f'[functions.{name}]\nurl = "{url}"\n' for name in ("one", "two"))
        return routes + "".join(f'[[routes]]\npath = "/{name}"\nfunction = "{name}"\n' for name in ("one", "two"))

    stack = fresh_stack("conversations.py:handler", environments=2, config=config)
    with ExitStack() as clients:
        for path in ("/one", "/one", "/two"):
            clients.enter_context(dial(stack, path))
        with Connection(("127.0.0.1", stack.admin_port)) as connection:
            connection.request("GET", "/metrics")
            text = connection.response().body.decode()
        assert 'dialback_open_websockets{function="one"} 2.0' in text
        assert 'dialback_open_websockets{function="two"} 1.0' in text
    wait_for(lambda: stack.gauge("open_websockets") == 0)


@pytest.mark.parametrize("message", ["", "grüße 🎉", b"", os.urandom(1 << 20), "ü" * (1 << 19)], ids=len)
def test_messages_come_back_whole(talkative: Stack, message: str | bytes) -> None:
    with dial(talkative) as client:
        for _ in range(3):
            client.send(message)
        assert [client.recv(timeout=20) for _ in range(3)] == [message] * 3


def test_fragments_come_back_as_one(talkative: Stack) -> None:
    with dial(talkative) as client:
        client.send(["one, ", "two, ", "three"])
        assert client.recv(timeout=20) == "one, two, three"


def test_subprotocols_and_headers(talkative: Stack) -> None:
    with dial(talkative, subprotocols=["a", "b"]) as client:
        assert client.subprotocol == "a"
        assert client.response is not None and int(client.response.headers["x-environment"]) == talkative.environment
        assert "sec-websocket-extensions" not in client.response.headers, "nothing is compressed"


def test_a_refusal_is_the_functions_own(talkative: Stack) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(talkative, "/refused")
    response = refused.value.response
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Basic")
    assert response.body == b"members only\n"


def test_the_function_closes(talkative: Stack) -> None:
    with dial(talkative, "/closes") as client:
        client.send("go")
        assert close_of(client) == (4321, "schön war’s")


def test_a_function_that_raises(talkative: Stack) -> None:
    with pytest.raises((ConnectionClosed, InvalidStatus)) as end, dial(talkative, "/raises") as client:
        client.recv(timeout=20)
    if isinstance(end.value, InvalidStatus):  # it failed before its 101 had left
        assert end.value.response.status_code == 502
    else:
        assert end.value.rcvd is not None and end.value.rcvd.code == 1011


@pytest.mark.parametrize(("code", "reason"), [(1000, "bye"), (1001, ""), (4999, "ü")])
def test_the_client_closes(talkative: Stack, code: int, reason: str) -> None:
    key = f"close{code}"
    with dial(talkative, f"/?key={key}") as client:
        client.close(code, reason)
    wait_for(lambda: talkative.executions(f"{key}-closed"))
    heard = talkative.executions(f"{key}-closed")[0]
    assert heard == str(code) if code == 4999 else str(code) in heard


def test_a_client_that_dies_is_1006(talkative: Stack) -> None:
    with dial(talkative, "/?key=died") as client:
        client.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: talkative.executions("died-closed") == ["1006"])


def test_a_client_that_does_not_read_holds_the_function_back(talkative: Stack) -> None:
    with dial(talkative, "/flood?key=held", max_queue=1) as client:
        wait_for(lambda: talkative.executions("held"))
        sizes = [0, 1]
        while sizes[-1] != sizes[-2]:
            time.sleep(0.5)
            sizes.append(len(talkative.executions("held")))
        assert sizes[-1] < 500, "of 1000 messages of 64 KiB"
        assert sum(len(client.recv(timeout=20)) for _ in range(1000)) == 1000 << 16
        assert close_of(client) == (1000, "")


def test_a_function_that_does_not_read_holds_the_client_back(talkative: Stack) -> None:
    with dial(talkative, "/deaf?key=deaf") as client:
        sent = 0

        def send() -> None:
            nonlocal sent
            for _ in range(1000):
                client.send(bytes(64 << 10))
                sent += 1

        with ThreadPoolExecutor(1) as thread:
            sending = thread.submit(send)
            seen = -1
            while seen != sent:
                seen = sent
                time.sleep(0.5)
            assert 1 <= sent < 500
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.shutdown(socket.SHUT_WR)
            client.socket.close()
            assert isinstance(sending.exception(20), (ConnectionClosed, OSError))
    wait_for(lambda: talkative.executions("deaf-cancelled") == ["1006"], 20)


def test_the_end_of_the_lease_is_1012(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("conversations.py:handler", environments=1, timeout=3)
    with dial(stack, "/?key=end") as client:
        client.send("still here")
        assert client.recv(timeout=20) == "still here"
        assert close_of(client) == (1012, "")
    wait_for(lambda: stack.executions("end-cancelled") == ["1012"])
    with dial(stack) as client:
        client.send("again")
        assert client.recv(timeout=20) == "again"


def test_an_environment_that_dies_is_1012(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("conversations.py:handler", environments=1, serve={"session-grace": 1})
    with dial(stack) as client:
        client.send("x")
        client.recv(timeout=20)
        os.kill(stack.environment, signal.SIGKILL)
        assert close_of(client) == (1012, "")


def test_a_gateway_that_stops_says_1001(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("conversations.py:handler", environments=1)
    with dial(stack, "/?key=stopped") as client:
        client.send("x")
        client.recv(timeout=20)
        began = time.monotonic()
        stack.gateway.signal(signal.SIGTERM)
        assert close_of(client) == (1001, "the gateway is stopping")
        wait_for(lambda: stack.gateway.exit_code is not None)
        assert time.monotonic() - began < 10, "it waited for what is quiet"
    assert stack.executions("stopped-closed") == ["1001"]


def test_an_idle_one_lives_by_its_pongs(fresh_stack: Callable[..., Stack]) -> None:
    flags = {"websocket-ping-interval": 0.2, "websocket-ping-timeout": 5, "timeouts-response-idle": 0.5}
    stack = fresh_stack("conversations.py:handler", environments=1, serve=flags)
    with dial(stack, ping_interval=None) as client:
        time.sleep(2)
        client.send("still here")
        assert client.recv(timeout=20) == "still here"


def test_several_environments_where_each_serves_one(fresh_stack: Callable[..., Stack]) -> None:
    stack = fresh_stack("conversations.py:alone", environments=3)
    with ExitStack() as opened:
        clients = [opened.enter_context(dial(stack)) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(str(number))
        assert [client.recv(timeout=20) for client in clients] == ["0", "1", "2"]
        assert len(stack.environments) == 3


async def test_many_talk_at_once(talkative: Stack) -> None:
    async def one(session: aiohttp.ClientSession, number: int) -> None:
        async with session.ws_connect(f"http://{talkative.authority}/") as ws:
            for turn in range(20):
                await ws.send_str(f"{number} {turn}")
                assert await ws.receive_str() == f"{number} {turn}"

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one(session, number) for number in range(200)))
    wait_for(lambda: talkative.gauge("open_streams") == 0)
