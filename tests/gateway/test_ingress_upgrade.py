"""The gateway's own WebSocket path: the socket changes hands in the step that accepts it, and the server forgets it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import cast

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.errors import GatewayError, Problem
from gateway.limits import HttpLimits
from gateway.received_request import ReceivedRequest
from gateway.upgrade import accept_websocket, reply
from tests.gateway.function_fake import FakePool, Front, answer, eventually, listening
from tests.gateway.test_ingress_malformed import UPGRADE, get, parsed

PATH = b"/_dialback/v1/connect"
RACES = 200


class Echo(asyncio.Protocol):
    """The link's place: from the 101 on it has the socket, and sends each message back."""

    def __init__(self) -> None:
        # The sans-I/O half of websockets, told that the handshake is over.
        self.frames = ServerProtocol(state=State.OPEN)
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.frames.send_binary(b"welcome")
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.frames.receive_data(data)
        for frame in self.frames.events_received():
            if frame.opcode is Opcode.BINARY:  # type: ignore[union-attr]
                self.frames.send_binary(frame.data)  # type: ignore[union-attr]
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)

    def _flush(self) -> None:
        assert self.transport is not None
        for data in self.frames.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()


class Links:
    """The dial-back endpoint, and what it accepted."""

    def __init__(self) -> None:
        self.accepted: list[Echo] = []

    def __call__(self, request: ReceivedRequest) -> None:
        echo = Echo()
        accept_websocket(request, echo, [(b"dialback-node", b"7")])
        self.accepted.append(echo)


def dial(front: Front, path: str = PATH.decode()) -> connect:
    return connect(f"ws://127.0.0.1:{front.port}{path}", compression=None)


async def test_a_link_talks_and_the_server_forgets_it() -> None:
    links = Links()
    async with listening(FakePool(answer()), internal={PATH: links}) as front:
        async with dial(front, PATH.decode() + "/some/route?x") as link:
            assert link.response is not None
            assert link.response.headers["dialback-node"] == "7"
            assert await link.recv() == b"welcome"
            await link.send(bytes(1 << 20))
            assert await link.recv() == bytes(1 << 20)
            assert front.server.connections == set()
            await front.server.shutdown(1)  # is not its business any more
            await link.send(b"still here")
            assert await link.recv() == b"still here"
        await links.accepted[0].lost
    assert front.ended.empty()


async def test_frames_right_behind_the_101_are_not_lost() -> None:
    links = Links()

    async def race(front: Front) -> None:
        class Eager(ClientConnection):
            """Sends in the very call that brings the 101."""

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if not hasattr(self, "was_eager"):
                    self.was_eager = True
                    self.protocol.send_binary(b"eager")
                    self.send_data()

        async with connect(
            f"ws://127.0.0.1:{front.port}{PATH.decode()}", compression=None, create_connection=Eager
        ) as link:
            assert {await link.recv(), await link.recv()} == {b"welcome", b"eager"}

    async with listening(FakePool(), internal={PATH: links}) as front:
        for _ in range(RACES):
            await race(front)
    assert len(links.accepted) == RACES


async def test_nothing_of_a_connection_is_left_behind() -> None:
    links = Links()
    async with listening(FakePool(), internal={PATH: links}) as front:
        connections: list[weakref.ref[object]] = []
        inner = links.__call__

        def remembering(request: ReceivedRequest) -> None:
            connections.append(weakref.ref(request.connection))
            inner(request)

        front.ingress._internal[PATH] = remembering
        tasks = len(asyncio.all_tasks())
        async with dial(front), dial(front):
            gc.collect()
            assert [reference() for reference in connections] == [None, None]
            gateway_tasks = [task for task in asyncio.all_tasks() if "gateway" in str(task.get_coro())]
            assert gateway_tasks == []
        assert len(asyncio.all_tasks()) == tasks


HANDSHAKES = {
    "no upgrade": b"",
    "another upgrade": UPGRADE.replace(b"websocket", b"h2c"),
    "Connection does not name it": UPGRADE.replace(b"Connection: Upgrade", b"Connection: keep-alive"),
    "version 8": UPGRADE.replace(b"Version: 13", b"Version: 8"),
    "no version": UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
    "short key": UPGRADE.replace(b"A" * 22 + b"==", b"AAAA"),
    "key that is not Base64": UPGRADE.replace(b"A" * 22 + b"==", b"?" * 24),
}


@pytest.mark.parametrize("case", HANDSHAKES)
async def test_a_handshake_that_is_none(case: str) -> None:
    links = Links()
    async with listening(FakePool(), internal={PATH: links}, limits=HttpLimits(linger=0.3)) as front:
        response = await front.ask(get(b"GET " + PATH + b" HTTP/1.1", HANDSHAKES[case]))
    assert parsed(response)[0] == (426 if "version" in case else 400)
    assert links.accepted == []


async def test_a_post_is_no_handshake() -> None:
    async with listening(FakePool(), internal={PATH: Links()}, limits=HttpLimits(linger=0.3)) as front:
        assert parsed(await front.ask(get(b"POST " + PATH + b" HTTP/1.1", UPGRADE)))[0] == 400


async def test_bytes_before_the_101_are_refused() -> None:
    async with listening(FakePool(), internal={PATH: Links()}, limits=HttpLimits(linger=0.3)) as front:
        assert parsed(await front.ask(get(b"GET " + PATH + b" HTTP/1.1", UPGRADE) + b"\x82\x80abcd"))[0] == 400


async def test_a_refused_dial_says_why() -> None:
    def refusing(request: ReceivedRequest) -> None:
        reply(request, 409, [(b"dialback-reason", b"superseded")], b"no\n")

    async with listening(FakePool(), internal={PATH: refusing}) as front:
        with pytest.raises(InvalidStatus) as refusal:
            async with dial(front):
                pass
    response = refusal.value.response
    assert (response.status_code, response.headers["dialback-reason"], response.body) == (409, "superseded", b"no\n")
    assert "server" not in response.headers


def raising(error: Callable[[], Exception]) -> Callable[[ReceivedRequest], None]:
    def handler(request: ReceivedRequest) -> None:
        raise error()

    return handler


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lambda: GatewayError(Problem("draining")), 503),
        (lambda: ZeroDivisionError("secret"), 500),
        (TimeoutError, 500),
    ],
)
async def test_a_handler_that_fails(error: Callable[[], Exception], status: int) -> None:
    async with listening(FakePool(), internal={PATH: raising(error)}, limits=HttpLimits(linger=0.3)) as front:
        response = await front.ask(get(b"GET " + PATH + b" HTTP/1.1"))
        assert parsed(response)[0] == status
        assert b"secret" not in response


async def test_a_protocol_that_fails_at_once_leaves_no_socket() -> None:
    class Broken(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raise ZeroDivisionError

    def handler(request: ReceivedRequest) -> None:
        accept_websocket(request, Broken())

    async with listening(FakePool(), internal={PATH: handler}) as front:
        response = await front.ask(get(b"GET " + PATH + b" HTTP/1.1", UPGRADE))
    assert response.startswith(b"HTTP/1.1 101 ")


async def test_a_client_that_has_left_before_its_handshake_is_accepted() -> None:
    asked: list[ReceivedRequest] = []
    async with listening(FakePool(), internal={PATH: asked.append}) as front:
        client = await front.connect()
        client.send(get(b"GET " + PATH + b" HTTP/1.1", UPGRADE))
        await eventually(lambda: bool(asked))
        await client.close()
        await eventually(lambda: asked[0].connection.transport is None)
        with pytest.raises(ConnectionResetError):
            accept_websocket(asked[0], Echo())
        assert front.server.connections == set()
        other = await front.connect()
        other.send(get(b"GET /_dialback/other HTTP/1.1"))
        assert parsed(await other.rest())[0] == 404
