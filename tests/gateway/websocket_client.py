"""A WebSocket client of raw bytes, for a front whose function the test plays."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.limits import HttpLimits
from gateway.terms import Terms
from gateway.websocket_exchange import WebSocketExchange
from tests.gateway.function_fake import Client, FakePool, FakeStream, Front, listening
from tests.gateway.test_ingress_malformed import UPGRADE, get
from tests.gateway.test_websocket import frame

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Talk:
    """One accepted WebSocket: the client's end and the function's."""

    def __init__(self, front: Front, client: Client, stream: FakeStream) -> None:
        self.front = front
        self.client = client
        self.stream = stream
        assert isinstance(stream.exchange, WebSocketExchange)
        self.exchange: WebSocketExchange = stream.exchange

    def send(self, opcode: int, payload: bytes = b"", *, final: bool = True) -> None:
        self.client.send(frame(opcode, payload, final=final))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame. Raises `asyncio.IncompleteReadError` at the connection's end."""
        reader = self.client.reader
        first, size = await reader.readexactly(2)
        assert first & 0xF0 == 0x80 and size < 128, "final, without reserved bits, not masked"
        if size == 126:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await reader.readexactly(8))
        return first & 0x0F, await reader.readexactly(size)

    async def closed(self) -> tuple[int, str]:
        """The close frame that comes next, answered; then the connection's end."""
        opcode, payload = await self.receive()
        assert opcode == CLOSE, (opcode, payload[:100])
        self.send(CLOSE, payload[:2])
        assert await self.client.rest() == b""
        return int.from_bytes(payload[:2], "big") if payload else 1005, payload[2:].decode()

    def function_closes(self, code: int = 1000, reason: bytes = b"") -> None:
        self.exchange.function_closes(code, reason)
        self.exchange.data(b"", True)


@asynccontextmanager
async def talking(limits: HttpLimits | None = None, terms: Terms | None = None) -> AsyncIterator[Talk]:
    """An accepted WebSocket, within 20 s."""
    limits = limits or HttpLimits(linger=0.2, websocket_close=0.3)
    async with asyncio.timeout(20), listening(FakePool(terms=terms), limits=limits) as front:
        client = await front.connect()
        client.send(get(b"GET /ws?token HTTP/1.1", UPGRADE))
        stream = await front.pool.opened.get()
        stream.exchange.response(101, ())
        assert (await client.head()).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        yield Talk(front, client, stream)
