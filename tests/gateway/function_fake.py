"""The function's side of an exchange, played by a test: streams that remember, and a pool that opens them.

Everything on the client's side is real: sockets, aiohttp's parser, our connection, our exchange.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.client_request import Destination
from gateway.client_server import ClientServer
from gateway.errors import PoolRefusal, Problem
from gateway.exchange import Exchange, RequestHead
from gateway.forwarding import Forwarding
from gateway.ingress import Ingress, InternalHandler
from gateway.limits import HttpLimits
from gateway.request_log import log_exchange
from gateway.terms import Terms
from protocol.frames import Code, Headers


@dataclass
class FakeStream:
    """A stream of a link that is not there; `told` has what the gateway did, in order."""

    exchange: Exchange
    id: int = 1
    is_writable: bool = True
    body: bytearray = field(default_factory=bytearray)
    told: list[str] = field(default_factory=list)
    credit: int = 0
    messages: list[str | bytes] = field(default_factory=list)
    taken: int = 0
    """Messages for which credit was given."""
    has_ended: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, data: bytes, end: bool) -> None:
        self.body += data
        self.has_ended |= end
        self.changed.set()

    def send_trailers(self, headers: Headers) -> None:
        raise AssertionError("aiohttp has no request trailers to send")

    def send_message(self, data: bytes, text: bool) -> None:
        self.messages.append(data.decode() if text else data)
        self.changed.set()

    def send_close(self, code: int, reason: bytes) -> None:
        self._tell(f"close {code} {reason.decode()}".rstrip())

    def consumed(self, size: int) -> None:
        self.credit += size
        self.changed.set()

    def consumed_message(self) -> None:
        self.taken += 1
        self.changed.set()

    def cancel(self, code: Code) -> None:
        self._tell(f"cancel {code.name}")

    def stop(self, code: Code) -> None:
        self._tell(f"stop {code.name}")

    def reset(self, code: Code) -> None:
        self._tell(f"reset {code.name}")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the gateway does to this stream."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()


Function = Callable[[Exchange, FakeStream], None]


def answer(
    body: bytes = b"ok",
    *,
    status: int = 200,
    headers: Headers = (),
    length: bool = False,
    trailers: Headers | None = None,
    whole: bool = False,
) -> Function:
    """A function that answers as soon as it is asked; `whole`: head and body come at once."""

    def function(exchange: Exchange, stream: FakeStream) -> None:
        fields = [*headers, (b"content-length", b"%d" % len(body))] if length else headers
        if whole:
            exchange.response(status, fields, True, body)
            return
        exchange.response(status, fields, end=not body and trailers is None)
        if body:
            exchange.data(body, end=trailers is None)
        if trailers is not None:
            exchange.trailers(trailers)

    return function


class FakePool:
    """Opens a stream at once, or as the test says; three for one request at most, as the real one's budget has it."""

    name = "fake"

    def __init__(self, function: Function | None = None, terms: Terms | None = None) -> None:
        self.function = function
        self.terms = terms or Terms()
        self.refusal: Problem | None = None
        self.gate: asyncio.Event | None = None
        """Set: open waits for it."""
        self.opened: asyncio.Queue[FakeStream] = asyncio.Queue()
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        """Somebody who waited was cancelled."""

    def __call__(self, head: RequestHead) -> Destination:
        return Destination(self, self.terms)

    def open_now(self, exchange: Exchange) -> bool:
        self._enter(exchange)
        if self.gate is None:
            self._open(exchange)
        return self.gate is None

    async def open(self, exchange: Exchange) -> None:
        if exchange.given_back is not None:
            exchange.retries += 1
            if exchange.retries > 2:
                raise PoolRefusal(exchange.given_back.problem)
            self._enter(exchange)
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.left.set()
                raise
        self._open(exchange)

    def _enter(self, exchange: Exchange) -> None:
        exchange.queued()
        self.entered.set()

    def _open(self, exchange: Exchange) -> None:
        if self.refusal is not None:
            raise PoolRefusal(self.refusal)
        stream = FakeStream(exchange)
        exchange.stream_opened(stream)
        self.opened.put_nowait(stream)
        if self.function is not None:
            self.function(exchange, stream)


@dataclass
class Front:
    """A listening ingress; `ended` has its exchanges as they end."""

    pool: FakePool
    ingress: Ingress
    server: ClientServer
    port: int
    ended: asyncio.Queue[Exchange]
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        """A client, closed at the latest with the gateway."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> bytes:
        """Everything that comes back until the gateway closes."""
        client = await self.connect()
        try:
            client.writer.write(request)
            return await client.rest()
        finally:
            await client.close()


@dataclass
class Client:
    """Raw bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """One head, to its blank line."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


async def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Let others run until it holds, for so long at most."""
    async with asyncio.timeout(seconds):
        for _ in iter(condition, True):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def listening(
    pool: FakePool,
    *,
    limits: HttpLimits | None = None,
    forwarding: Forwarding | None = None,
    internal: dict[bytes, InternalHandler] | None = None,
    log: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Front]:
    """A gateway's front on a port of its own; `log`: ended exchanges go to the log, not to `Front.ended`."""
    ended: asyncio.Queue[Exchange] = asyncio.Queue()
    on_end = log_exchange if log else ended.put_nowait
    ingress = Ingress(pool, limits=limits, internal=internal, forwarding=forwarding, on_end=on_end)
    server = ingress.server()
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=tls)
    try:
        yield (front := Front(pool, ingress, server, listener.sockets[0].getsockname()[1], ended))
    finally:
        for client in front.clients:
            await client.close()
        listener.close()
        await server.shutdown(0.1)
        await listener.wait_closed()
