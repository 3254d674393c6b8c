"""Clients that leave while nothing is read from them: seen within a second all the same."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.certificate import localhost_pair
from tests.gateway.function_fake import FakePool, FakeStream, Front, listening
from tests.gateway.test_ingress_malformed import get

SEEN_WITHIN = 1.0  # seconds, from leaving to the function's being told
UPLOAD = b"Content-Length: 100000000\r\n"


def close(connection: socket.socket) -> None:
    connection.close()


def close_half(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def held_back(front: Front, connection: socket.socket, fields: bytes = b"") -> FakeStream:
    """A request whose upload the function does not take, so that the gateway has stopped reading."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    await loop.sock_connect(connection, ("127.0.0.1", front.port))
    await loop.sock_sendall(connection, get(b"POST / HTTP/1.1", UPLOAD + fields))
    stream = await front.pool.opened.get()
    stream.is_writable = False
    if fields:
        stream.exchange.credit()
        assert b" 100 " in await loop.sock_recv(connection, 1000)
    [client] = front.server.connections
    while not client.is_blind:  # type: ignore[attr-defined]
        await loop.sock_sendall(connection, bytes(64 << 10))
        await asyncio.sleep(0)
    return stream


async def seen_after(stream: FakeStream) -> float:
    """Seconds until the function is told."""
    began = time.monotonic()
    async with asyncio.timeout(5):
        await stream.until(lambda: bool(stream.told))
    assert stream.told == ["cancel CANCELLED"]
    return time.monotonic() - began


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("leave", [close, close_half, reset])
async def test_a_client_leaves_while_its_upload_is_held_back(
    leave: Callable[[socket.socket], None], has_begun: bool
) -> None:
    async with listening(FakePool()) as front:
        with socket.socket() as connection:
            stream = await held_back(front, connection)
            if has_begun:
                stream.exchange.response(200, ())
            leave(connection)
            assert await seen_after(stream) < SEEN_WITHIN
            exchange = await front.ended.get()
    assert (exchange.state, exchange.reason) == ("cancelled", "client left")


async def test_it_is_seen_within_a_second_each_time() -> None:
    async with listening(FakePool()) as front:
        for _ in range(5):
            with socket.socket() as connection:
                stream = await held_back(front, connection)
                connection.close()
                assert await seen_after(stream) < SEEN_WITHIN
            await front.ended.get()


@pytest.mark.parametrize("leave", [close, reset])
async def test_a_reset_is_seen_whatever_was_not_sent_yet_and_a_close_when_the_client_waited_for_100_continue(
    leave: Callable[[socket.socket], None],
) -> None:
    async with listening(FakePool()) as front:
        with socket.socket() as connection:
            fields = b"" if leave is reset else b"Expect: 100-continue\r\n"
            stream = await held_back(front, connection, fields)
            try:
                while True:
                    connection.send(bytes(1 << 20))  # until no kernel takes any more
            except BlockingIOError:
                pass
            leave(connection)
            assert await seen_after(stream) < SEEN_WITHIN


async def test_who_waited_for_100_continue_may_be_sent_more_of_them() -> None:
    async with listening(FakePool()) as front:
        with socket.socket() as connection:
            stream = await held_back(front, connection, b"Expect: 100-continue\r\n")
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(connection, 1000)).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert stream.exchange.state == "opened"
            stream.exchange.response(200, [(b"content-length", b"2")])
            stream.exchange.data(b"ok", True)
            response = b""
            while not response.endswith(b"\r\n\r\nok"):
                response += await loop.sock_recv(connection, 1000)
            assert b" 200 " in response


async def test_under_tls(tmp_path: Path) -> None:
    server, trusting = localhost_pair(tmp_path)
    async with listening(FakePool(), tls=server) as front:
        _, writer = await asyncio.open_connection("localhost", front.port, ssl=trusting)
        writer.write(get(b"POST / HTTP/1.1", UPLOAD))
        stream = await front.pool.opened.get()
        stream.is_writable = False
        [client] = front.server.connections
        while not client.is_blind:  # type: ignore[attr-defined]
            writer.write(bytes(16 << 10))
            await writer.drain()
            await asyncio.sleep(0)
        writer.transport.abort()
        assert await seen_after(stream) < SEEN_WITHIN


async def test_a_client_that_stays_is_not_taken_for_gone() -> None:
    async with listening(FakePool()) as front:
        with socket.socket() as connection:
            stream = await held_back(front, connection)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.until(lambda: bool(stream.told)), 0.7)  # more than two looks
