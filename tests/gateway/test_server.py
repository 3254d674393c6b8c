"""The gateway as a whole: it binds or leaves nothing, drains what it can, ends the rest, and leaves no task behind."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession
from websockets.exceptions import InvalidStatus

from gateway import link_socket, server
from gateway.config import Config, FunctionConfig, SessionConfig, TimeoutsConfig
from gateway.keys import Address, Secret
from gateway.server import Gateway
from tests.gateway.environment_fake import LOOPBACK, SECRET, Environment, first_dial, leave_it, open_socket
from tests.gateway.raw_link import Raw, lease
from tests.gateway.whole_gateway import Whole, first_stream, silent, until_later, url_of, whole

GRACE = 10.0  # seconds; a test that waits for all of it has failed


def config(*, listen: int = 0, admin: int = 0) -> Config:
    function = FunctionConfig(name="function", url="http://127.0.0.1:9/", secret=Secret(SECRET))
    return Config(functions={"function": function}, listen=Address(LOOPBACK, listen), admin=Address(LOOPBACK, admin))


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No task and no open file more than before."""

    def files() -> list[str]:
        found = []
        for number in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{number}"))
            except OSError:
                continue  # the listing's own
        return sorted(name for name in found if name.startswith("socket:"))

    tasks, before = asyncio.all_tasks(), files()
    yield
    gc.collect()
    left = [task for task in asyncio.all_tasks() - tasks if not task.done()]
    assert not left, left
    assert set(files()) <= set(before)


async def test_a_gateway_starts_and_stops_and_says_where_it_is() -> None:
    async with nothing_left():
        gateway = Gateway(config(), log=structlog.get_logger("test"))
        await gateway.stop(0)  # before it began: nothing to do
        await gateway.start()
        async with ClientSession() as client:
            for path, text in {"/healthz": "ok\n", "/readyz": "ready\n"}.items():
                async with client.get(gateway.admin_url + path) as response:
                    assert (response.status, await response.text()) == (200, text)
            async with client.get(gateway.url + "/healthz") as response:
                assert response.status == 502, "the private paths are on the private listener alone"
        await gateway.stop(GRACE)
        await gateway.stop(GRACE)
        with pytest.raises(OSError):
            await asyncio.open_connection(LOOPBACK, int(gateway.url.rpartition(":")[2]))


@pytest.mark.parametrize("taken", ["listen", "admin"])
async def test_a_port_that_is_taken_leaves_nothing_open(taken: str) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        async with nothing_left():
            gateway = Gateway(config(**{taken: other.getsockname()[1]}), log=structlog.get_logger("test"))
            with pytest.raises(OSError):
                await gateway.start()


async def test_open_requests_end_in_their_own_time_and_new_ones_are_refused() -> None:
    environment = Environment(leave_it, places=2)
    async with whole(url_of(environment), linger=60) as it:
        asked = asyncio.create_task(it.client.get(it.gateway.url))
        stream = await first_stream(environment)
        stream.respond(b"begun ", end=False)
        response = await asked
        idle = await Raw.connect(it.gateway)
        stopping = asyncio.create_task(it.gateway.stop(GRACE))
        async with it.client.get(it.gateway.admin_url + "/readyz") as ready:
            assert (ready.status, await ready.text()) == (503, "draining\n"), "while the listener is open still"
        assert await it.problem() == (503, "draining")
        stream.send(b"and over", end=True)
        assert await response.read() == b"begun and over"
        await asyncio.wait_for(stopping, GRACE / 2)
        await asyncio.wait_for(it.url.ended.wait(), 2)  # its minute of linger is not billed
        await idle.close()
        with pytest.raises(ClientConnectionError):
            await it.get()


async def test_what_waits_in_the_queue_is_served_while_the_gateway_drains() -> None:
    """The listener was closed first, so that no function could dial in for what waited."""
    environment = Environment()
    environment.may_dial.clear()
    async with whole(url_of(environment), linger=60) as it:
        asked = it.asking("/waiting")
        await it.until_waiting(1)
        stopping = asyncio.create_task(it.gateway.stop(GRACE))
        assert await it.problem() == (503, "draining")
        environment.may_dial.set()
        assert (await asked)[1].endswith(" /waiting")
        await asyncio.wait_for(stopping, GRACE / 2)
        await asyncio.wait_for(it.url.ended.wait(), 2)


async def test_an_environment_that_nobody_waits_for_is_let_go_as_the_gateway_begins_to_drain() -> None:
    busy, idle = Environment(leave_it), Environment()
    async with whole(url_of(busy, idle), linger=60) as it:
        asked = it.asking("/busy")
        stream = await first_stream(busy)
        await it.get("/idle")
        stopping = asyncio.create_task(it.gateway.stop(GRACE))
        await asyncio.wait_for(idle.parked.wait(), 5)
        stream.respond(b"busy")
        assert await asked == (200, "busy")
        await asyncio.wait_for(stopping, GRACE / 2)


async def test_a_function_that_dials_for_nobody_is_refused_while_the_gateway_drains() -> None:
    busy, late = Environment(leave_it), Environment()
    late.may_dial.clear()
    async with whole(url_of(busy, late)) as it:
        asked = it.asking("/busy")
        stream = await first_stream(busy)
        leaving = it.asking("/leaving")
        await it.until_waiting(1)
        _, token = [await asyncio.wait_for(it.url.invited.get(), 5) for _ in range(2)]
        it.gateway._closed_one.clear()
        leaving.cancel()
        await it.gateway._closed_one.wait()
        stopping = asyncio.create_task(it.gateway.stop(GRACE))
        assert await it.problem() == (503, "draining")
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(it.gateway, first_dial(token).to_headers())
        assert refused.value.response.headers["Dialback-Reason"] == "draining"
        stream.respond(b"busy")
        assert await asked == (200, "busy")
        await asyncio.wait_for(stopping, GRACE / 2)


async def test_a_link_may_come_back_while_the_gateway_drains() -> None:
    environment = Environment(leave_it)
    async with whole(url_of(environment)) as it:
        asked = it.asking()
        stream = await first_stream(environment)
        stopping = asyncio.create_task(it.gateway.stop(GRACE))
        assert await it.problem() == (503, "draining")
        environment.cut()
        stream.respond(b"resumed")
        assert await asked == (200, "resumed")
        await asyncio.wait_for(stopping, GRACE / 2)


async def test_a_second_stop_cuts_what_the_first_one_waits_for() -> None:
    """The first stop had taken the listener away, and the second did nothing."""
    environment = Environment(leave_it)
    async with nothing_left(), whole(url_of(environment)) as it:
        asked = it.asking()
        await first_stream(environment)
        first = asyncio.create_task(it.gateway.stop(600))
        assert await it.problem() == (503, "draining")
        first.cancel()
        await asyncio.wait({first})
        await asyncio.wait_for(it.gateway.stop(0), GRACE)
        status, text = await asked
        assert (status, json.loads(text)["type"]) == (502, "urn:dialback:error:function-lost")
        with pytest.raises(OSError):
            await asyncio.open_connection(LOOPBACK, int(it.gateway.url.rpartition(":")[2]))


async def test_a_stop_in_the_midst_of_everything_leaves_nothing() -> None:
    """Requests that wait, run, upload and download; links leased, parked, lost and half dialled; invocations on their
    way."""
    async with nothing_left():
        running, parked, lost = Environment(leave_it, places=2), Environment(), Environment(leave_it)
        late = Environment()
        late.may_dial.clear()
        url = url_of(parked, running, lost, late)
        timeouts = TimeoutsConfig(dial_back=60, queue_wait=60)
        async with whole(url, linger=0, timeouts=timeouts, session=SessionConfig(grace=600)) as it:
            await it.get("/parked")
            await asyncio.wait_for(parked.parked.wait(), 5)
            url.idle.clear()
            download = asyncio.create_task(it.client.get(it.gateway.url))
            (await first_stream(running)).respond(bytes(1 << 20), end=False)
            response = await download
            upload = it.asking("/upload", bytes(1 << 20))
            await first_stream(running)
            cut = it.asking("/lost")
            await first_stream(lost)
            lost.may_dial.clear()
            lost.cut()
            waiting = it.asking("/waiting")
            await it.until_waiting(1)
            idle, half = [await Raw.connect(it.gateway) for _ in range(2)]
            half.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
            await asyncio.wait_for(it.gateway.stop(0), GRACE)
            assert (await upload)[0] == (await cut)[0] == 502
            assert (await waiting)[0] == 503
            with pytest.raises(ClientPayloadError):
                await response.read()
            assert it.endpoint.links == 0 and not it.pool.starts._tasks and not it.pool._leases
            for raw in (idle, half):
                await raw.close()
            lost.may_dial.set()
            late.may_dial.set()


async def responding(it: Whole, environment: Environment, size: int) -> tuple[socket.socket, bytes]:
    """A client that has asked and does not read, and the whole response that is on its way to it."""
    body = os.urandom(size)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (LOOPBACK, int(it.gateway.url.rpartition(":")[2])))
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    (await first_stream(environment)).respond(body)
    return client, body


async def received(client: socket.socket) -> bytes:
    """All that still comes."""
    answer = bytearray()
    try:
        while part := await asyncio.get_running_loop().sock_recv(client, 1 << 16):
            answer += part
    except ConnectionError:
        pass
    client.close()
    return bytes(answer)


async def test_a_slow_client_gets_its_response_within_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is with the transport, the exchange is over, and the gateway waits all the same."""
    monkeypatch.setattr(server, "END_GRACE", 0.05)
    environment = Environment(leave_it)
    async with whole(url_of(environment)) as it:
        client, body = await responding(it, environment, 320 << 10)
        await it.gateway._closed_one.wait()
        stopping = asyncio.create_task(it.gateway.stop(GRACE))
        await until_later(0.3)
        assert not stopping.done()
        answer = await received(client)
        assert answer.endswith(b"\r\n0\r\n\r\n") and len(answer) > len(body)
        await asyncio.wait_for(stopping, GRACE / 2)


async def test_a_client_that_does_not_take_its_response_is_cut_off_after_the_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "END_GRACE", 0.05)
    environment = Environment(leave_it)
    async with nothing_left(), whole(url_of(environment)) as it:
        client, body = await responding(it, environment, 320 << 10)
        await it.gateway._closed_one.wait()
        await asyncio.wait_for(it.gateway.stop(0.2), 6)
        assert 0 < len(await received(client)) < len(body)


async def test_a_function_is_told_that_its_session_is_over_and_does_not_dial_again() -> None:
    environment = Environment(leave_it)
    async with whole(url_of(environment)) as it:
        asked = it.asking()
        await first_stream(environment)
        await it.gateway.stop(0)
        assert (await asked)[0] == 502
        await asyncio.wait_for(it.url.ended.wait(), 5)
        assert environment.close_code == 4002


async def test_a_peer_that_does_not_close_holds_a_stop_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_socket, "CLOSE_TIMEOUT", 0.2)
    url, end = silent()
    async with nothing_left(), whole(url) as it:
        asked = it.asking()
        raw = await Raw.connect(it.gateway)
        token = await asyncio.wait_for(url.invited.get(), 5)
        await raw.dial(first_dial(token))
        raw.send(lease(token))
        for _ in range(3):
            await raw.message()
        await asyncio.wait_for(it.gateway.stop(0), 4)
        assert (await asked)[0] == 502
        end.set()
        await raw.close()


async def test_retired_links_serve_what_they_have_and_new_requests_get_new_environments() -> None:
    old, new = Environment(leave_it), Environment()
    async with whole(url_of(old, new), linger=60) as it:
        asked = it.asking("/old")
        stream = await first_stream(old)
        it.gateway.retire_links()
        assert (await it.get("/new"))[1].endswith(" /new")
        stream.respond(b"old")
        assert await asked == (200, "old")
