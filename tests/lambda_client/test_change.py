"""What a link's policy waits for, and what its socket puts on the wire."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from lambda_client.change import Change
from lambda_client.dial import Listener, WebSocketDial
from lambda_client.trust import Endpoint

ENDPOINT = Endpoint("ws", "127.0.0.1", 1, "/", "")


class Watched:
    """A change, and how often whoever waits for it was woken."""

    def __init__(self, until: float) -> None:
        self.change = Change()
        self.woken = 0
        self._until = asyncio.get_running_loop().time() + until
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await self.change.wait(self._until)
            self.woken += 1
            self._until += 1000.0


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_waits_is_woken_once_by_what_happens_in_one_turn() -> None:
    watched = Watched(100.0)
    await settle()
    watched.change.tell()
    watched.change.tell()
    await settle()
    assert watched.woken == 1
    watched.task.cancel()


async def test_what_happens_before_the_wait_is_not_missed() -> None:
    watched = Watched(100.0)
    watched.change.tell()
    await settle()
    assert watched.woken == 1
    watched.task.cancel()


async def test_who_looks_soon_enough_is_left_in_peace() -> None:
    watched = Watched(100.0)
    await settle()
    now = asyncio.get_running_loop().time()
    watched.change.tell_before(now + 101.0)
    await settle()
    assert watched.woken == 0
    watched.change.tell_before(now + 99.0)
    await settle()
    assert watched.woken == 1
    watched.task.cancel()


async def test_time_ends_a_wait() -> None:
    watched = Watched(0.01)
    for _ in range(1000):
        if watched.woken:
            break
        await asyncio.sleep(0.01)
    assert watched.woken == 1
    watched.task.cancel()


class Transport:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_over = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.is_over


@pytest.mark.parametrize("sizes", [[0], [1, 125], [126, 127], [65535, 65536], [(1 << 20) - 1, 3]])
async def test_messages_leave_as_masked_frames_in_one_write(sizes: list[int]) -> None:
    """Read back by websockets' own parser."""
    socket = WebSocketDial(ENDPOINT, [], cast(Listener, None))
    transport = Transport()
    socket._transport = cast(asyncio.Transport, transport)
    messages = [bytes(range(256)) * (size // 256) + bytes(size % 256) for size in sizes]
    socket.send(messages)
    (written,) = transport.written
    reader = StreamReader()
    reader.feed_data(written)
    reader.feed_eof()
    for message in messages:
        parser = Frame.parse(reader.read_exact, mask=True)
        with pytest.raises(StopIteration) as parsed:
            next(parser)
        frame = parsed.value.value
        assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.BINARY, True, message)
    transport.is_over = True
    socket.send(messages)
    assert len(transport.written) == 1
    socket.answered.cancel()
