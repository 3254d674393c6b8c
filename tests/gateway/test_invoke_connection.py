"""The connections that invocations go over: kept, one POST after the other, given up where they are not understood."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.invoke import function_url
from gateway.invoke.answer import Answer, Outcome
from gateway.invoke.connection import Connection
from gateway.invoke.function_url import FunctionUrl

OURS = json.dumps({"dialback": 1, "outcome": "parked"}).encode()
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(OURS), OURS)


class Raw:
    """A server that says to each request on a connection the next of `says`, then closes it."""

    def __init__(self, says: Sequence[bytes]) -> None:
        self.tasks: list[asyncio.Task[None]] = []  # one for each connection
        self._says = says

    @property
    def connections(self) -> int:
        return len(self.tasks)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for said in self._says:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(said)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def calling(says: Sequence[bytes], host: str = "127.0.0.1") -> AsyncIterator[tuple[Raw, FunctionUrl]]:
    raw = Raw(says)
    server = await asyncio.start_server(raw.connected, "127.0.0.1", 0)
    async with server:
        invoker = FunctionUrl(f"http://{host}:{server.sockets[0].getsockname()[1]}/")
        yield raw, invoker
        await invoker.close()
        await asyncio.wait_for(asyncio.gather(*raw.tasks), 5)


async def invoke(invoker: FunctionUrl) -> Answer:
    return await asyncio.wait_for(invoker.invoke("TOKEN"), 5)


async def test_one_connection_carries_a_post_after_the_other_and_a_second_one_those_beside() -> None:
    async with calling([WHOLE] * 9) as (raw, invoker):
        for _ in range(4):
            assert (await invoke(invoker)).outcome is Outcome.ANSWERED
        assert raw.connections == 1
        for _ in range(2):
            both = await asyncio.gather(invoke(invoker), invoke(invoker))
            assert {answer.outcome for answer in both} == {Outcome.ANSWERED}
        assert raw.connections == 2


async def test_one_that_the_server_has_closed_is_not_used_again() -> None:
    async with calling([WHOLE]) as (raw, invoker):
        for number in (1, 2):
            assert (await invoke(invoker)).outcome is Outcome.ANSWERED
            assert raw.connections == number
            await asyncio.sleep(0.1)  # its FIN comes


async def test_one_that_has_idled_for_long_is_neither_used_nor_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_url, "IDLE_TIMEOUT", 0.1)
    async with calling([WHOLE] * 9) as (raw, invoker):
        await invoke(invoker)
        await asyncio.sleep(0.5)
        assert not invoker._idle
        assert (await invoke(invoker)).outcome is Outcome.ANSWERED
        assert raw.connections == 2


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + WHOLE,
        b"HTTP/1.0 200 OK\r\n\r\n" + OURS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in OURS + b" " * 30_000)
        + b"0\r\n\r\n",
    ],
    ids=["after an interim one", "up to the connection's end", "in chunks of one byte"],
)
async def test_an_answer_in_another_form_is_an_answer(said: bytes) -> None:
    async with calling([said]) as (_, invoker):
        assert (await invoke(invoker)).outcome is Outcome.ANSWERED


@pytest.mark.parametrize(
    "said",
    [
        WHOLE + WHOLE,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    ],
    ids=["two answers", "an upgrade", "a malformed chunk", "two lengths", "too many fields"],
)
async def test_what_is_not_one_answer_is_foreign_and_its_connection_is_given_up(said: bytes) -> None:
    async with calling([said] * 2) as (raw, invoker):
        for number in (1, 2):
            assert (await invoke(invoker)).outcome is Outcome.FOREIGN
            assert raw.connections == number


async def test_what_nobody_asked_for_is_not_the_next_answer() -> None:
    async with calling([WHOLE, WHOLE]) as (raw, invoker):
        assert (await invoke(invoker)).outcome is Outcome.ANSWERED
        invoker._idle[0].data_received(WHOLE.replace(b"200", b"500"))
        assert (await invoke(invoker)).outcome is Outcome.ANSWERED
        assert raw.connections == 2


async def test_one_that_was_refused_behind_its_handshake_is_broken_before_anything_is_sent() -> None:
    connection = Connection(asyncio.get_running_loop())  # without a transport, as it is when that was lost
    with pytest.raises(ConnectionResetError):
        await connection.post(b"POST / HTTP/1.1\r\n\r\n", 1)


async def test_a_host_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of connections that nobody accepts is full: the kernel drops what comes."""
    monkeypatch.setattr(function_url, "CONNECT_TIMEOUT", 0.3)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        invoker = FunctionUrl(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        answer = await invoke(invoker)
        await invoker.close()
    assert (answer.outcome, answer.detail) == (Outcome.TIMEOUT, "TimeoutError: no connection in 0.3 s")


class Nowhere(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        raise OSError("no such name")

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_name_without_an_address_has_its_own_meaning() -> None:
    invoker = FunctionUrl("http://function.test/", resolver=Nowhere())
    assert (await invoke(invoker)).outcome is Outcome.DNS
    await invoker.close()


async def test_every_address_of_a_name_is_tried() -> None:
    """`localhost` may be ::1 first, where nobody listens."""
    async with calling([WHOLE], host="localhost") as (_, invoker):
        assert (await invoke(invoker)).outcome is Outcome.ANSWERED
