"""A gateway on a loopback socket for the function side's tests: `websockets`' server before `protocol.GatewaySession`.

It is another WebSocket implementation than the gateway's own, and does to the function what a gateway may: refuse, cut,
speak garbage. It runs in a thread of its own, as a gateway runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from lambda_client.testing_gateway import Exchange, GatewayEnd
from protocol.dial import Dial
from protocol.dial_reader import is_proved, read_dial
from protocol.errors import REFUSALS, DialRefused
from protocol.gateway_session import SessionOptions
from protocol.invitation import Invitation, key_id, read, session_key, sign

SECRET = "a secret of thirty-two bytes or more"
T = TypeVar("T")


class LoopbackGateway:
    """Begins with `start`, ends with `stop`."""

    def __init__(
        self, *, linger: float = 0.0, tls: Any = None, scheme: str = "ws", options: SessionOptions | None = None
    ) -> None:
        self.boot = os.urandom(4).hex()
        self.linger = linger
        self.options = options
        self.dials: list[Dial] = []
        self.refuse: deque[tuple[int, dict[str, str]]] = deque()  # answers to the coming dials
        self.on_end: Callable[[GatewayEnd], None] | None = None
        self.on_dial: Callable[[ServerConnection], Coroutine[Any, Any, None]] | None = None
        self.waiting: deque[Exchange] = deque()
        self.ends: dict[bytes, GatewayEnd] = {}
        self.loop = asyncio.new_event_loop()
        self._tls = tls
        self._scheme = scheme
        self._keys: dict[bytes, bytes] = {}
        self._sockets: list[ServerConnection] = []
        self._server: Server | None = None
        self._dialled = threading.Condition()
        self._thread = threading.Thread(target=self.loop.run_forever, name="gateway", daemon=True)

    def start(self) -> LoopbackGateway:
        self._thread.start()
        self._server = self.call(self._serve())
        return self

    def stop(self) -> None:
        assert self._server is not None
        self.cut()  # a frozen function would not answer a goodbye
        self.loop.call_soon_threadsafe(self._server.close)
        self.call(self._server.wait_closed())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def address(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.address}/_dialback/v1/connect"

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def invite(self, *, url: str | None = None, expires: float = 60, secret: str = SECRET) -> dict[str, str]:
        """The event of an Invoke."""
        key = secret.encode()
        nonce = os.urandom(16)
        invitation = Invitation(key_id(key), nonce, "f", self.boot, url or self.url, int(time.time() + expires))
        self._keys[nonce] = key
        return {"dialback-invitation": sign(invitation, key)}

    def ask(self, method: str = "GET", target: str = "/", **options: Any) -> Exchange:
        """A request that waits for the next lease."""
        options.setdefault("end", True)
        exchange = Exchange(self.loop, (method.encode(), target.encode(), [(b"host", b"h")], options))
        self.waiting.append(exchange)
        self.loop.call_soon_threadsafe(lambda: [end.open_waiting() for end in self.ends.values()])
        return exchange

    def wait_for_dials(self, count: int) -> None:
        with self._dialled:
            assert self._dialled.wait_for(lambda: len(self.dials) >= count, 10)

    def cut(self) -> None:
        """Every socket breaks, without a goodbye."""

        async def abort() -> None:
            for socket in self._sockets:
                socket.transport.abort()
            self._sockets.clear()

        self.call(abort())

    def close(self, code: int) -> None:
        """Every socket is closed with this code, 1005: without one; what a proxy may do as well."""
        payload = b"" if code == 1005 else code.to_bytes(2, "big")

        async def send() -> None:
            for socket in self._sockets:
                socket.transport.write(Frame(Opcode.CLOSE, payload).serialize(mask=False))
            self._sockets.clear()

        self.call(send())

    async def _serve(self) -> Server:
        return await serve(
            self._run,
            "127.0.0.1",
            0,
            process_request=self._answer,
            compression=None,
            ping_interval=None,
            open_timeout=5,  # seconds: a function that froze in its dial leaves the handshake open
            max_size=1 << 20,
            ssl=self._tls,
        )

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if self.refuse:
            status, headers = self.refuse.popleft()
            response = connection.respond(status, "no\n")
            for name, value in headers.items():
                response.headers[name] = value
            return response
        try:
            dial = read_dial({name.lower(): value for name, value in request.headers.raw_items()})
            self._check(dial)
        except DialRefused as refusal:
            response = connection.respond(REFUSALS[refusal.reason], "no\n")
            response.headers["Dialback-Reason"] = refusal.reason
            return response
        with self._dialled:
            self.dials.append(dial)
            self._dialled.notify_all()
        connection.dial = dial  # type: ignore[attr-defined]
        return None

    def _check(self, dial: Dial) -> None:
        if dial.session in self.ends and not self.ends[dial.session].session.is_ended:
            if not is_proved(dial, self._keys[dial.session]):
                raise DialRefused("proof")
        elif not dial.invitation:
            raise DialRefused("unknown")
        else:
            invitation, _, _ = read(dial.invitation)
            key = self._keys.get(invitation.nonce)
            if key is None:
                raise DialRefused("used")
            self._keys[dial.session] = session_key(key, invitation.nonce, dial.session)

    async def _run(self, connection: ServerConnection) -> None:
        if self.on_dial is not None:
            await self.on_dial(connection)
            return
        dial: Dial = connection.dial  # type: ignore[attr-defined]
        end = self.ends.get(dial.session)
        if end is None:
            end = self.ends[dial.session] = GatewayEnd(dial.session, self.waiting, self.linger, self.options)
            if self.on_end is not None:
                self.on_end(end)
        elif end.session.is_attached:
            end.lost()
        outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._sockets.append(connection)
        end.attach(dial, outgoing.put_nowait)
        writer = asyncio.create_task(self._write(connection, outgoing))
        try:
            async for message in connection:
                assert isinstance(message, bytes)
                end.received(message)
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            if end.session.epoch == dial.epoch:
                end.lost()

    @staticmethod
    async def _write(connection: ServerConnection, outgoing: asyncio.Queue[bytes]) -> None:
        try:
            while True:
                await connection.send(await outgoing.get())
        except ConnectionClosed:
            pass
