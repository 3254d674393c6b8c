"""The WebSocket clients that people use: each holds the same conversation, and tells what it has seen."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from websockets.asyncio.client import connect as connect_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_sync

from tests.clients.programs import NODE, node, node_major

PATIENCE = 20.0
"""Seconds."""


@dataclass(frozen=True)
class Orders:
    """What a client does: say it all, hear so many messages, and then close, vanish, or wait for the close."""

    url: str
    says: list[str | bytes] = field(default_factory=list)
    replies: int = 0
    subprotocols: list[str] = field(default_factory=list)
    code: int | None = None
    """The client closes with this one; None: it waits to be closed."""
    reason: str = ""
    vanishes: bool = False


@dataclass
class Heard:
    """What came of it."""

    protocol: str = ""
    said: list[str | bytes] = field(default_factory=list)
    code: int = 0
    reason: str = ""
    refused: int = 0
    """The status of the refusal, as far as the client shows it."""


class WebSocketClient(Protocol):
    shows_refusal: bool

    def talk(self, orders: Orders) -> Heard: ...


class WebsocketsSync:
    shows_refusal = True

    def talk(self, orders: Orders) -> Heard:
        heard = Heard()
        try:
            with connect_sync(orders.url, subprotocols=orders.subprotocols or None) as client:  # type: ignore[arg-type]
                heard.protocol = client.subprotocol or ""
                for message in orders.says:
                    client.send(message)
                heard.said = [client.recv(timeout=PATIENCE) for _ in range(orders.replies)]
                if orders.vanishes:
                    client.socket.shutdown(socket.SHUT_RDWR)
                elif orders.code:
                    client.close(orders.code, orders.reason)
                else:
                    client.recv(timeout=PATIENCE)
        except InvalidStatus as refusal:
            heard.refused = refusal.response.status_code
        except ConnectionClosed as closed:
            heard.code, heard.reason = closed.rcvd.code, closed.rcvd.reason  # type: ignore[union-attr]
        return heard


class WebsocketsAsyncio:
    shows_refusal = True

    def talk(self, orders: Orders) -> Heard:
        return asyncio.run(self._talk(orders))

    async def _talk(self, orders: Orders) -> Heard:
        heard = Heard()
        try:
            async with (
                asyncio.timeout(PATIENCE),
                connect_asyncio(orders.url, subprotocols=orders.subprotocols or None) as client,  # type: ignore[arg-type]
            ):
                heard.protocol = client.subprotocol or ""
                for message in orders.says:
                    await client.send(message)
                heard.said = [await client.recv() for _ in range(orders.replies)]
                if orders.vanishes:
                    client.transport.abort()
                elif orders.code:
                    await client.close(orders.code, orders.reason)
                else:
                    await client.recv()
        except InvalidStatus as refusal:
            heard.refused = refusal.response.status_code
        except ConnectionClosed as closed:
            heard.code, heard.reason = closed.rcvd.code, closed.rcvd.reason  # type: ignore[union-attr]
        return heard


class Aiohttp:
    shows_refusal = True

    def talk(self, orders: Orders) -> Heard:
        return asyncio.run(self._talk(orders))

    async def _talk(self, orders: Orders) -> Heard:
        heard = Heard()
        try:
            async with (
                asyncio.timeout(PATIENCE),
                aiohttp.ClientSession() as session,
                session.ws_connect(orders.url, protocols=orders.subprotocols, compress=15) as client,
            ):
                heard.protocol = client.protocol or ""
                for message in orders.says:
                    await (client.send_str(message) if isinstance(message, str) else client.send_bytes(message))
                heard.said = [(await client.receive()).data for _ in range(orders.replies)]
                if orders.vanishes:
                    client._response.close()  # it has no public way
                elif orders.code:
                    await client.close(code=orders.code, message=orders.reason.encode())
                else:
                    close = await client.receive()
                    heard.code, heard.reason = close.data, close.extra or ""
        except aiohttp.WSServerHandshakeError as refusal:
            heard.refused = refusal.status
        return heard


class NodeWebSocket:
    """Node's own, or with `modules`, a folder in which npm has installed it, the package `ws`."""

    def __init__(self, modules: Path | None = None) -> None:
        self.shows_refusal = modules is not None
        self._modules = modules

    def talk(self, orders: Orders) -> Heard:
        program = node()
        flags = ["--experimental-websocket"] if self._modules is None and node_major(program) < 22 else []
        kind = ["own"] if self._modules is None else ["ws", f"{self._modules}/"]
        said: dict[str, Any] = {**vars(orders), "says": [packed(message) for message in orders.says]}
        done = subprocess.run(
            [program, *flags, str(NODE / "websocket.mjs"), *kind],
            input=json.dumps(said),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        if orders.vanishes:
            return Heard()
        seen = json.loads(done.stdout)
        return Heard(**{**seen, "said": [unpacked(*message) for message in seen["said"]]})


def packed(message: str | bytes) -> tuple[str, str]:
    return ("text", message) if isinstance(message, str) else ("binary", base64.b64encode(message).decode())


def unpacked(kind: str, data: str) -> str | bytes:
    return data if kind == "text" else base64.b64decode(data)
