"""A link by hand: frames as bytes, dials that do not wait, and a function that says what a test wants it to say."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from gateway.server import Gateway
from protocol.codec import encode
from protocol.dial import Dial
from protocol.dial_reader import CONNECT_PATH
from protocol.frames import Lease
from tests.gateway.environment_fake import LOOPBACK


def frames(messages: list[bytes], opcode: Opcode = Opcode.BINARY) -> bytes:
    """Masked frames, as one piece of bytes."""
    return b"".join(Frame(opcode, message).serialize(mask=True) for message in messages)


def lease(token: str, number: int = 1, *, places: int = 1) -> bytes:
    return encode(Lease(number, token, places, 60_000, 0))


async def close_code(socket: ClientConnection) -> int | None:
    """The code that the gateway closes with, whatever it sends before."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await asyncio.wait_for(socket.recv(), 5)
    return closed.value.rcvd.code if closed.value.rcvd else None


async def welcome(socket: ClientConnection) -> list[Any]:
    message = await asyncio.wait_for(socket.recv(), 5)
    assert isinstance(message, bytes)
    fields: list[Any] = msgpack.unpackb(message)
    assert fields[0] == 1, "the gateway speaks first, and says WELCOME"
    return fields


UPGRADE = (
    f"GET {CONNECT_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
)


def upgrade(dial: Dial) -> bytes:
    return "".join((UPGRADE, *(f"{name}: {value}\r\n" for name, value in dial.to_headers()), "\r\n")).encode()


@dataclass
class Raw:
    """A client that does not wait for what it should."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, gateway: Gateway) -> Raw:
        return cls(*await asyncio.open_connection(LOOPBACK, int(gateway.url.rpartition(":")[2])))

    async def dial(self, dial: Dial) -> bytes:
        """The answer's head."""
        self.writer.write(upgrade(dial))
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    def send(self, *messages: bytes) -> None:
        """Binary messages."""
        self.writer.write(frames(list(messages)))

    async def message(self) -> list[Any]:
        """The fields of the next frame that is none of the WebSocket's own."""
        while True:
            opcode, payload = await asyncio.wait_for(self.frame(), 5)
            if opcode == Opcode.BINARY:
                fields: list[Any] = msgpack.unpackb(payload)
                return fields

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame of the WebSocket."""
        first, size = await self.reader.readexactly(2)
        if size >= 126:
            wide = 2 if size == 126 else 8
            size = int.from_bytes(await self.reader.readexactly(wide), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def close(self) -> None:
        """At once, without a word."""
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass
