"""Links on real sockets: they resume, stay quiet when they should, end when nobody is there, and confine mistakes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from websockets.frames import Opcode

from gateway import link_socket, retention
from gateway.config import LimitsConfig, RetryConfig, SessionConfig
from gateway.dialback import Link
from gateway.exchange import Exchange
from gateway.link_socket import NOTSENT_LOWAT, UNSENT_MOST, LinkSocket
from gateway.pool import Pool
from protocol.codec import encode
from protocol.frames import DATA_SIZE, Code, Credit, Data, Park, Response
from tests.gateway.environment_fake import Environment, FunctionUrl, Served, first_dial, leave_it, name_it
from tests.gateway.raw_link import Raw, lease
from tests.gateway.whole_gateway import Whole, first_stream, silent, until_later, url_of, whole

RESPONSE_HEADERS = [(b"content-type", b"text/plain")]
WELCOME, LEASED, PARKED, REQUEST = 0x01, 0x04, 0x07, 0x10
NOT_AGAIN = RetryConfig(count=0)


async def leased(it: Whole) -> tuple[Raw, int, asyncio.Task[tuple[int, str]]]:
    """A function by hand: dialled in, leased, with one open stream of a request that is being asked."""
    asked = it.asking("/by-hand")
    raw = await Raw.connect(it.gateway)
    token = await asyncio.wait_for(it.url.invited.get(), 5)
    assert (await raw.dial(first_dial(token))).startswith(b"HTTP/1.1 101 ")
    raw.send(lease(token))
    assert (await raw.message())[0] == WELCOME
    kind, number, *_ = await raw.message()
    assert (kind, (await raw.message())[0]) == (REQUEST, LEASED)
    return raw, number, asked


# Resuming


@pytest.mark.parametrize("seed", range(3))
async def test_a_response_goes_on_where_it_was_over_many_sockets(seed: int) -> None:
    body = random.Random(seed).randbytes(3_000_000)
    environment = Environment(leave_it)
    async with whole(url_of(environment), linger=5) as it:
        async with asyncio.timeout(20):
            asked = asyncio.create_task(it.client.get(it.gateway.url))
            stream = await first_stream(environment)
            stream.respond(body)
            response = await asked
            got = bytearray()
            while len(got) < len(body):
                before = len(got)
                while len(got) < min(len(body), before + 400_000):
                    got += await response.content.readany()
                environment.cut()
            assert got == body
            assert environment.session is not None and environment.session.epoch > 3


async def test_an_upload_goes_on_where_it_was_over_many_sockets() -> None:
    body = random.Random(1).randbytes(3_000_000)
    cuts = [800_000, 1_500_000, 2_500_000]

    def serve(stream: Served) -> None:
        if cuts and len(stream.body) > cuts[0]:
            cuts.pop(0)
            stream.environment.cut()
        elif stream.has_ended and not stream.has_answered:
            stream.respond(b"all" if stream.body == body else b"something else")

    async with whole(url_of(Environment(serve)), linger=5) as it:
        assert await asyncio.wait_for(it.get("/", body), 20) == (200, "all")
        assert not cuts


async def test_a_link_that_does_not_come_back_loses_its_streams_when_the_grace_is_over() -> None:
    environment = Environment(leave_it, places=2)
    async with whole(url_of(environment), session=SessionConfig(grace=0.2), retry=NOT_AGAIN) as it:
        begun = asyncio.create_task(it.client.get(it.gateway.url))
        (await first_stream(environment)).respond(b"begun", end=False)
        waiting = it.asking()
        await first_stream(environment)
        response = await begun
        environment.may_dial.clear()
        environment.cut()
        status, text = await asyncio.wait_for(waiting, 5)
        assert (status, json.loads(text)["type"]) == (502, "urn:dialback:error:function-lost")
        with pytest.raises(ClientPayloadError):
            await response.read()
        assert it.endpoint.links == 0


async def test_the_answer_of_its_invocation_ends_a_silent_link() -> None:
    """The process was killed, and its kernel says nothing."""
    url, end = silent()
    async with whole(url, session=SessionConfig(grace=600)) as it:
        raw, _, asked = await leased(it)
        end.set()
        assert (await asyncio.wait_for(asked, 5))[0] == 502
        assert it.endpoint.links == 0
        await raw.close()


async def test_a_function_that_closes_its_half_has_left() -> None:
    url, end = silent()
    async with whole(url, session=SessionConfig(grace=0.1), retry=NOT_AGAIN) as it:
        raw, _, asked = await leased(it)
        raw.writer.write_eof()
        assert (await asyncio.wait_for(asked, 5))[0] == 502
        assert await raw.reader.read() is not None
        end.set()
        await raw.close()


# Signs of life


async def test_a_leased_link_is_pinged_and_a_parked_one_is_left_in_peace() -> None:
    url, end = silent()
    async with whole(url, session=SessionConfig(ping_interval=0.1)) as it:
        raw, number, asked = await leased(it)
        while (await asyncio.wait_for(raw.frame(), 5))[0] != Opcode.PING:
            pass
        raw.send(encode(Response(number, 204, [], {"end": True})))
        assert (await asked)[0] == 204
        raw.send(encode(Park(1, number, 2)))
        while (await raw.message())[0] != PARKED:
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(raw.frame(), 0.4)
        assert it.endpoint.links == 1
        end.set()
        await raw.close()


async def test_a_socket_that_stays_silent_is_given_up_and_its_session_is_not() -> None:
    """It answers no ping. A new socket of the session is welcome, and has the stream."""
    environment = Environment(leave_it)
    async with whole(url_of(environment), session=SessionConfig(ping_interval=0.1)) as it:
        asked = it.asking()
        stream = await first_stream(environment)
        assert environment._socket is not None and it.link._socket is not None
        gone = it.link._socket.gone
        environment._socket.transport.pause_reading()  # frozen, without having parked
        await asyncio.wait_for(gone, 5)
        stream.respond(b"thawed")
        environment._socket.transport.abort()
        assert await asyncio.wait_for(asked, 5) == (200, "thawed")


async def test_an_environment_that_is_no_more_is_forgotten_although_it_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reaped environment's kernel sends no FIN: its parked link stayed for ever."""
    monkeypatch.setattr(retention, "PARKED_TIMEOUT", 0.1)
    async with whole(FunctionUrl(), linger=0) as it:
        await it.get()
        link = it.link
        assert link._socket is not None
        await asyncio.wait_for(link._socket.gone, 5)
        assert it.endpoint.links == 0
        assert (await it.get())[0] == 200, "the same environment dials anew"


async def test_a_link_that_offers_no_lease_is_ended() -> None:
    url, end = silent()
    async with whole(url, session=SessionConfig(grace=0.1)) as it:
        asked = it.asking()
        raw = await Raw.connect(it.gateway)
        await raw.dial(first_dial(await url.invited.get()))
        assert (await raw.message())[0] == WELCOME
        opcode, payload = await asyncio.wait_for(raw.frame(), 5)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (Opcode.CLOSE, 4002)
        assert it.endpoint.links == 0
        end.set()
        assert (await asked)[0] == 502
        await raw.close()


async def test_a_parked_link_is_ended_without_waiting_for_its_frozen_environment() -> None:
    """Every stop of a gateway took 2 s: its close frame waited for an answer that a frozen process cannot give."""
    url, end = silent()
    async with whole(url) as it:
        raw, number, asked = await leased(it)
        raw.send(encode(Response(number, 204, [], {"end": True})))
        assert (await asked)[0] == 204
        raw.send(encode(Park(1, number, 2)))
        while (await raw.message())[0] != PARKED:
            pass
        socket = it.link._socket
        assert socket is not None
        it.link.end("a test")
        await asyncio.wait_for(socket.gone, link_socket.CLOSE_TIMEOUT / 4)
        end.set()
        await raw.close()


async def test_a_close_that_nobody_answers_is_over_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_socket, "CLOSE_TIMEOUT", 0.1)
    url, end = silent()
    async with whole(url, retry=NOT_AGAIN) as it:
        raw, _, asked = await leased(it)
        socket = it.link._socket
        assert socket is not None
        it.link.end("a test")
        await asyncio.wait_for(socket.gone, 5)
        assert (await asked)[0] == 502
        end.set()
        await raw.close()


# Bounds


@asynccontextmanager
async def flooded() -> AsyncIterator[tuple[Whole, Raw]]:
    """A function by hand that grants credit for an upload, and does not read it: the gateway's side is full."""

    async def upload() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    async def ask(it: Whole) -> None:
        async with it.client.post(it.gateway.url + "/upload", data=upload()) as response:
            await response.read()

    url, end = silent()
    async with whole(url, session=SessionConfig(ping_interval=300)) as it:
        asked = asyncio.create_task(ask(it))
        raw = await Raw.connect(it.gateway)
        try:
            raw.writer.transport.set_write_buffer_limits(1 << 20)
            token = await asyncio.wait_for(it.url.invited.get(), 5)
            await raw.dial(first_dial(token))
            raw.send(lease(token))
            assert [(await raw.message())[0] for _ in range(3)][0] == WELCOME
            raw.reader._transport.pause_reading()  # type: ignore[attr-defined]
            socket = it.link._socket
            assert socket is not None
            full = asyncio.Event()
            pause = socket.pause_writing

            def paused() -> None:
                pause()
                full.set()

            socket.pause_writing = paused  # type: ignore[method-assign]
            raw.send(encode(Credit(1, 8 << 20)))
            await asyncio.wait_for(full.wait(), 5)
            yield it, raw
        finally:  # also when a test fails: else its client is waited for
            asked.cancel()
            await raw.close()
            end.set()


async def test_little_lies_below_the_scheduler_when_a_function_does_not_read() -> None:
    async with flooded() as (it, _):
        socket = it.link._socket
        assert socket is not None and socket._transport is not None
        assert socket.room == 0
        assert 0 < socket._transport.get_write_buffer_size() <= UNSENT_MOST + DATA_SIZE + 64
        assert UNSENT_MOST + DATA_SIZE + 64 + NOTSENT_LOWAT <= 256 << 10, "docs/protocol.md §2.6"


async def test_what_is_due_and_cannot_leave_makes_no_busy_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An acknowledgement was due, the socket full: the timer fired in every turn of the loop."""
    fired = 0
    timeout = Link._timeout

    def counted(self: Link) -> None:
        nonlocal fired
        fired += 1
        timeout(self)

    monkeypatch.setattr(Link, "_timeout", counted)
    async with flooded() as (_, raw):
        raw.send(encode(Response(1, 200, RESPONSE_HEADERS)))
        await until_later(0.5)
        assert 0 < fired <= 12, fired


async def test_a_full_socket_goes_on_when_it_is_read_again() -> None:
    async with flooded() as (_, raw):
        raw.reader._transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        async with asyncio.timeout(10):
            while got < 4 << 20:
                _, payload = await raw.frame()
                got += len(payload)


def test_a_socket_that_breaks_when_it_has_room_again_ends_once() -> None:
    """asyncio's transport ended twice, with a traceback in the log, when a write inside `resume_writing` failed."""

    class Breaking(socket.socket):
        """Takes a byte, then all that is left of the first write, then nothing."""

        takes = [1, 2 * UNSENT_MOST]

        def send(self, data: Any, *_: Any) -> int:
            if not self.takes:
                raise BrokenPipeError
            return min(len(data), self.takes.pop(0))

    class Owner:
        lost = 0

        def writable(self) -> None:
            link_socket.send([bytes(UNSENT_MOST + 10)])

        def socket_lost(self, reason: str) -> None:
            self.lost += 1

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        nonlocal link_socket
        link_socket = LinkSocket(owner)  # type: ignore[arg-type]
        await asyncio.get_running_loop().create_connection(lambda: link_socket, sock=Breaking(fileno=near.detach()))
        await asyncio.wait_for(link_socket.gone, 5)
        await asyncio.sleep(0)

    near, far = socket.socketpair()
    faults: list[dict[str, Any]] = []
    link_socket: LinkSocket
    owner = Owner()
    with far:
        asyncio.run(run())
    assert (owner.lost, faults) == (1, [])


async def test_what_waits_for_a_lease_leaves_with_welcome_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[list[int]] = []
    send = LinkSocket.send

    def recorded(self: LinkSocket, messages: list[bytes]) -> None:
        writes.append([message[1] for message in messages])
        send(self, messages)

    monkeypatch.setattr(LinkSocket, "send", recorded)
    environment = Environment(places=3)
    environment.may_dial.clear()
    async with whole(url_of(environment), limits=LimitsConfig(max_invocations=1)) as it:
        asked = [it.asking() for _ in range(3)]
        await it.until_waiting(3)
        environment.may_dial.set()
        await asyncio.gather(*asked)
        assert writes[0] == [WELCOME, REQUEST, REQUEST, REQUEST, LEASED]


# Ends of streams


async def test_a_client_that_leaves_ends_the_functions_stream() -> None:
    environment = Environment(leave_it)
    async with whole(url_of(environment), linger=5) as it:
        asked = it.asking()
        stream = await first_stream(environment)
        asked.cancel()
        await asyncio.wait_for(stream.until(lambda stream: stream.stopped is not None), 5)
        assert stream.stopped == Code.CANCELLED
        stream.reset(Code.CANCELLED)
        environment._serve = name_it
        assert (await it.get("/next"))[1].endswith(" /next"), "its place is free again"


async def test_a_place_is_free_only_when_the_code_has_stopped() -> None:
    environment = Environment(leave_it)
    async with whole(url_of(environment), linger=5, limits=LimitsConfig(max_invocations=1)) as it:
        asked = it.asking()
        stream = await first_stream(environment)
        asked.cancel()
        await asyncio.wait_for(stream.until(lambda stream: stream.stopped is not None), 5)
        second = it.asking("/second")
        await it.until_waiting(1)
        assert environment.streams.empty()
        stream.reset(Code.CANCELLED)
        (await first_stream(environment)).respond(b"second")
        assert await second == (200, "second")


# Mistakes of our own


def mistaken(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """This method of an exchange raises when its request is for /mistake."""
    genuine = getattr(Exchange, method)

    def broken(self: Exchange, *arguments: Any, **named: Any) -> Any:
        if self.head.target == b"/mistake":
            raise ZeroDivisionError(method)
        return genuine(self, *arguments, **named)

    monkeypatch.setattr(Exchange, method, broken)


@pytest.mark.interpreted("replaces methods of Exchange")
@pytest.mark.parametrize("method", ["stream_opened", "response", "data"])
async def test_a_mistake_with_one_exchange_ends_that_one_alone(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """It closed the link's socket, and lost what else had come with the same bytes."""
    environment = Environment(leave_it, places=2)
    async with whole(url_of(environment), linger=5) as it:
        asked = asyncio.create_task(it.client.get(it.gateway.url + "/good"))
        good = await first_stream(environment)
        good.respond(b"begun ", end=False)
        response = await asked
        mistaken(monkeypatch, method)
        bad = it.asking("/mistake")
        if method != "stream_opened":
            (await first_stream(environment)).respond(b"never seen", end=method == "response")
            good.send(b"and not ")  # in the same write
        if method == "data":
            with pytest.raises(ClientPayloadError):
                await bad
        else:
            status, text = await bad
            assert (status, json.loads(text)["type"]) == (500, "urn:dialback:error:internal")
        good.send(b"over", end=True)
        assert (await response.read()).endswith(b"over")
        assert environment.session is not None and environment.session.epoch == 1


@pytest.mark.interpreted("replaces methods of Exchange")
async def test_a_mistake_at_the_end_of_a_link_leaves_no_other_exchange_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment(leave_it, places=2)
    async with whole(url_of(environment), linger=5, retry=NOT_AGAIN) as it:
        mistaken(monkeypatch, "lost")
        asked = [it.asking("/mistake"), it.asking("/other")]
        for _ in asked:
            await first_stream(environment)
        it.link.end("a test")
        answers = await asyncio.wait_for(asyncio.gather(*asked), 5)
        assert [status for status, _ in answers] == [500, 502]
        assert it.endpoint.links == 0


async def test_a_mistake_with_a_lease_ends_its_link_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function would have waited for an answer for ever."""

    def broken(self: Pool, link: Link, offer: Any) -> None:
        raise ZeroDivisionError

    environment = Environment()
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "lease_offered", broken)
        async with whole(url_of(environment, Environment()), retry=NOT_AGAIN) as it:
            assert (await asyncio.wait_for(it.get(), 5))[0] == 502
            await asyncio.wait_for(it.url.ended.wait(), 5)
            assert environment.close_code == 4002
            patch.undo()
            assert (await it.get())[0] == 200


async def test_a_lease_over_open_streams_must_be_good() -> None:
    url, end = silent()
    async with whole(url) as it:
        raw, _, asked = await leased(it)
        raw.send(lease("not a token", 2))
        while (frame := await asyncio.wait_for(raw.frame(), 5))[0] != Opcode.CLOSE:
            pass
        assert int.from_bytes(frame[1][:2], "big") == 1002
        end.set()
        assert (await asked)[0] == 502
        await raw.close()


async def test_a_new_lease_over_open_streams_takes_the_place_of_the_old() -> None:
    url, end = silent()
    async with whole(url, linger=0) as it:
        raw, number, asked = await leased(it)
        other = it.asking("/other")
        raw.send(lease(await asyncio.wait_for(url.invited.get(), 5), 2))
        assert (await raw.message())[0] == LEASED, "there is one place, and it is taken"
        raw.send(encode(Response(number, 200, RESPONSE_HEADERS)), encode(Data(number, b"one", True)))
        assert await asked == (200, "one")
        while (fields := await raw.message())[0] != REQUEST:
            pass
        raw.send(encode(Response(fields[1], 200, RESPONSE_HEADERS)), encode(Data(fields[1], b"two", True)))
        assert await other == (200, "two")
        end.set()
        await raw.close()


async def test_many_streams_at_once_on_one_link_are_not_mixed_up() -> None:
    async with whole(url_of(Environment(places=50)), linger=5) as it:
        bodies = {f"/{number}": os.urandom(100 * number) for number in range(50)}
        answers = await asyncio.gather(*(it.get(path, body) for path, body in bodies.items()))
        assert [text.split()[1] for _, text in answers] == list(bodies)
        assert it.endpoint.links == 1
