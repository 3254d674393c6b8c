"""The function's side of a gateway, played by a test: a Function URL that starts environments, which dial in.

The session is the real one (`protocol.FunctionSession`), the WebSocket is that of `websockets`, the gateway is whole.
Nothing of `lambda_client` is here: the gateway takes the protocol from a peer, no matter whose it is.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from gateway.server import Gateway
from protocol import events as ev
from protocol.dial import FINAL_CLOSES, Dial, Limits
from protocol.frames import Code, Request
from protocol.function_session import FunctionSession
from protocol.invitation import INVITATION_KEY, Keyring, read, resume_proof, session_key

SECRET = "s" * 32
KEYRING = Keyring.parse(SECRET)
LOOPBACK = "127.0.0.1"


async def open_socket(gateway: Gateway, headers: list[tuple[str, str]]) -> ClientConnection:
    """Dial in with these headers. Raises websockets' InvalidStatus when refused."""
    url = gateway.url.replace("http", "ws", 1) + "/_dialback/v1/connect"
    return await connect(
        url, additional_headers=headers, compression=None, ping_interval=None, proxy=None, max_size=1 << 20
    )


def first_dial(token: str, session: bytes | None = None, *, epoch: int = 1, received: int = 0) -> Dial:
    """A new session's dial."""
    return Dial(session or os.urandom(16), epoch, received, Limits(), invitation=token)


def later_dial(dial: Dial, epoch: int, *, received: int = 0) -> Dial:
    """The next dial of a first dial's session, which was not welcomed yet."""
    key = session_key(KEYRING.signing, read(dial.invitation)[0].nonce, dial.session)
    proof = resume_proof(key, dial.session, epoch, received)
    return replace(dial, epoch=epoch, received=received, proof=proof)


@dataclass(eq=False)
class Served:
    """One stream at the function, as far as it has come."""

    environment: Environment
    number: int
    request: Request
    body: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    """The request."""
    has_answered: bool = False
    stopped: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def session(self) -> FunctionSession:
        assert self.environment.session is not None
        return self.environment.session

    def respond(self, body: bytes = b"", *, status: int = 200, end: bool = True) -> None:
        """The head and a first piece of the body."""
        self.has_answered = True
        self.session.send_response(self.number, status, [(b"content-type", b"text/plain")])
        self.send(body, end=end)

    def send(self, body: bytes, *, end: bool = False) -> None:
        self.session.send_data(self.number, body, end=end)
        self.environment.wake()

    def reset(self, code: Code = Code.INTERNAL) -> None:
        self.session.reset(self.number, code)
        self.session.stop(self.number, code)
        self.environment.wake()

    async def until(self, condition: Callable[[Served], bool]) -> None:
        """Wait for something that comes on this stream."""
        while not condition(self):
            self.changed.clear()
            await self.changed.wait()


Serve = Callable[[Served], None]


def name_it(stream: Served) -> None:
    """Answer, once the request is whole, with its id and its target."""
    if stream.has_ended and not stream.has_answered:
        stream.respond(b"%b %b" % (stream.request.exchange.hex().encode(), stream.request.target))


def leave_it(stream: Served) -> None:
    """The test does it."""


class Environment:
    """One environment. Its link stays between invocations; so does its socket, which nobody reads meanwhile."""

    def __init__(
        self, serve: Serve = name_it, *, places: int = 1, remaining: float = 60.0, awake: int | None = None
    ) -> None:
        """`serve`: called whenever something of a stream came. `remaining`: seconds of each lease. `awake`:
        milliseconds that it says it was."""
        self.session: FunctionSession | None = None
        self.streams: asyncio.Queue[Served] = asyncio.Queue()
        """Every stream, in the order in which they were opened."""
        self.parked = asyncio.Event()
        self.granted = asyncio.Event()
        self.pings = 0
        self.close_code: int | None = None
        """With which the gateway closed the socket."""
        self.may_dial = asyncio.Event()
        """Cleared: it waits before it dials again."""
        self.may_dial.set()
        self._serve = serve
        self._places = places
        self._remaining = remaining
        self._awake = awake
        self._socket: ClientConnection | None = None
        self._open: dict[int, Served] = {}
        self._linger = 0.0
        self._idle_since = 0.0
        self._woken = asyncio.Event()

    async def invoke(self, gateway: Gateway, token: str) -> dict[str, object]:
        """One invocation, from its invitation to what the handler returns."""
        now = time.monotonic()
        if self._socket is not None and self._socket.state is not State.OPEN:
            self.session = None  # what a function finds out when it has thawed
        if self.session is None or self.session.is_ended:
            invitation = read(token)[0]
            session_id = os.urandom(16)
            key = session_key(KEYRING.signing, invitation.nonce, session_id)
            self.session = FunctionSession(session_id, key, token)
            self._socket = None
        self.parked.clear()
        self.granted.clear()
        self._linger = 0.0
        lease = self.session.offer_lease(token, self._places, self._remaining, now)
        while not self.parked.is_set() and not self.session.is_ended:
            if self._socket is None:
                await self.may_dial.wait()
                self._socket = await open_socket(gateway, self.session.dial(time.monotonic()).to_headers())
            await self._turn(self._socket)
        said = {"dialback": 1, "lease": lease, "outcome": "parked" if self.parked.is_set() else "lost"}
        return said if self._awake is None else {**said, "awake": self._awake}

    def wake(self) -> None:
        """Send what is ready."""
        self._woken.set()

    def cut(self) -> None:
        """Lose the socket, without a word."""
        assert self._socket is not None
        self._socket.transport.abort()

    async def close(self) -> None:
        """The environment is no more."""
        if self._socket is not None:
            self._socket.transport.abort()
            await self._socket.wait_closed()

    async def _turn(self, socket: ClientConnection) -> None:
        """Send, wait for something, deal with it."""
        session = self.session
        assert session is not None
        now = time.monotonic()
        self._woken.clear()
        if session.can_park and now >= self._idle_since + self._linger:
            session.park(now)
        try:
            while frames := session.frames_to_send(1 << 20, now):
                for frame in frames:
                    await socket.send(frame)
            self._handle(session.pending_events())
            times = [session.next_timeout(), self._idle_since + self._linger if session.can_park else None]
            until = min((at for at in times if at is not None), default=now + 60)
            message = await _first(socket.recv(), self._woken.wait(), max(0.001, until - time.monotonic()))
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd is not None else None
            self._socket = None
            self._handle(session.socket_lost(time.monotonic()))
            if self.close_code in FINAL_CLOSES:
                self._handle(session.end("closed"))
            return
        if isinstance(message, bytes):
            self._handle(session.receive(message, time.monotonic()))
        self._handle(session.handle_timeout(time.monotonic()))

    def _handle(self, events: list[ev.Event]) -> None:
        session = self.session
        assert session is not None
        for event in events:
            match event:
                case ev.LeaseGranted():
                    self._linger, self._idle_since = event.linger, time.monotonic()
                    self.granted.set()
                case ev.LeaseReleased():
                    self._linger = 0.0
                case ev.Parked():
                    self.parked.set()
                case ev.StreamOpened():
                    stream = self._open[event.stream] = Served(self, event.stream, event.request)
                    stream.has_ended = bool(event.request.options.get("end"))
                    self.streams.put_nowait(stream)
                    self._serve(stream)
                case ev.DataReceived():
                    stream = self._open[event.stream]
                    stream.body += event.data
                    stream.has_ended |= event.end
                    session.consume(event.stream, len(event.data), time.monotonic())
                    self._tell(stream)
                case ev.StreamStopped():
                    self._open[event.stream].stopped = event.code
                    self._tell(self._open[event.stream])
                case ev.StreamClosed():
                    self._idle_since = time.monotonic()
                    self._open.pop(event.stream).changed.set()

    def _tell(self, stream: Served) -> None:
        stream.changed.set()
        self._serve(stream)


async def _first(receiving: Awaitable[Any], waking: Awaitable[Any], seconds: float) -> Any:
    """What is received, or None when woken or too late."""
    tasks = [asyncio.ensure_future(receiving), asyncio.ensure_future(waking)]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Behave = Callable[[str], Awaitable[web.StreamResponse]]


class FunctionUrl:
    """A Function URL: begins and ends with `serving`. Environments are used again, the last one first."""

    def __init__(
        self, make: Callable[[], Environment] = Environment, *, most: int = 10, behave: Behave | None = None
    ) -> None:
        """`most`: environments; beyond them it answers 429. `behave`: what it does in place of starting them."""
        self.url = ""
        self.gateway: Gateway | None = None
        self.environments: list[Environment] = []
        self.invited: asyncio.Queue[str] = asyncio.Queue()
        """Every token."""
        self.throttled = 0
        self.ended = asyncio.Event()
        """An invocation has ended."""
        self.idle: list[Environment] = []
        self._make = make
        self._most = most
        self._behave = behave

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FunctionUrl]:
        server = web.Server(self._handle, access_log=None)
        listener = await asyncio.get_running_loop().create_server(server, LOOPBACK, 0)
        self.url = f"http://{LOOPBACK}:{listener.sockets[0].getsockname()[1]}/"
        try:
            yield self
        finally:
            listener.close()
            for environment in self.environments:
                await environment.close()
            await server.shutdown(0.1)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        token = (await request.json())[INVITATION_KEY]
        self.invited.put_nowait(token)
        if self._behave is not None:
            return await self._behave(token)
        if self.idle:
            environment = self.idle.pop()
        elif len(self.environments) < self._most:
            environment = self._make()
            self.environments.append(environment)
        else:
            self.throttled += 1
            return web.json_response({"Message": "Rate Exceeded."}, status=429)
        assert self.gateway is not None
        try:
            return web.json_response(await environment.invoke(self.gateway, token))
        finally:
            self.ended.set()
            if environment.parked.is_set():
                self.idle.append(environment)
