"""Who dials in without the right is refused with the documented reason, who sends garbage is closed with the documented
code, and a healthy stream of the same gateway goes on through all of it."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pytest
from aiohttp import ClientSession, web
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.speedups import apply_mask

from gateway.dialback import Link
from gateway.endpoint import Endpoint
from gateway.server import Gateway
from gateway.websocket import NO_STATUS
from protocol.dial import FINAL_CLOSES, Dial, Limits
from protocol.dial_reader import CONNECT_PATH
from protocol.frames import MAX_FRAME_SIZE
from protocol.invitation import Invitation, key_id, read, resume_proof, session_key, sign
from tests.gateway.environment_fake import (
    KEYRING,
    Environment,
    FunctionUrl,
    first_dial,
    later_dial,
    leave_it,
    open_socket,
)
from tests.gateway.raw_link import Raw, close_code, frames, lease, upgrade, welcome
from tests.gateway.whole_gateway import gateway_for

Headers = list[tuple[str, str]]


class Trap:
    """A function whose invitations a test gets, and whose invocations last until the end of the test."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.url = FunctionUrl(behave=self._behave)

    async def _behave(self, token: str) -> web.StreamResponse:
        await self.end.wait()
        return web.json_response({"dialback": 1, "lease": None, "outcome": "the test is over"})


@dataclass
class Scene:
    """A gateway with a healthy function, whose stream is open, and a trapped one."""

    gateway: Gateway
    trap: Trap
    client: ClientSession
    healthy: Environment
    _asking: set[asyncio.Task[Any]]

    @property
    def endpoint(self) -> Endpoint:
        assert self.gateway._endpoint is not None
        return self.gateway._endpoint

    async def token(self) -> str:
        """A new, genuine invitation; its request waits in the queue."""
        self._asking.add(asyncio.create_task(self._ask()))
        return await asyncio.wait_for(self.trap.url.invited.get(), 5)

    async def _ask(self) -> None:
        async with self.client.get(self.gateway.url + "/trap") as response:
            await response.read()

    async def refusal(self, headers: Headers) -> tuple[int, str | None]:
        """Status and reason of a dial that must be refused."""
        with pytest.raises(InvalidStatus) as refused:
            await open_socket(self.gateway, headers)
        response = refused.value.response
        assert response.headers["Dialback-Version"] == "1"
        assert "Server" not in response.headers
        return response.status_code, response.headers.get("Dialback-Reason")

    def link(self, session: bytes) -> Link | None:
        return self.endpoint._links.get(session)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """While a test does its worst, a stream goes on and must arrive whole."""
    trap, healthy = Trap(), Environment(leave_it)
    url = FunctionUrl(lambda: healthy)
    asking: set[asyncio.Task[Any]] = set()
    async with url.serving(), trap.url.serving(), ClientSession() as client:
        async with gateway_for({"healthy": url, "trap": trap.url}, linger=60) as gateway:
            it = Scene(gateway, trap, client, healthy, asking)
            async with _going_on(it):
                yield it
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            trap.end.set()


@asynccontextmanager
async def _going_on(it: Scene) -> AsyncIterator[None]:
    """A stream that sends all the time, and must arrive whole."""
    request = asyncio.create_task(it.client.get(it.gateway.url + "/healthy"))
    stream = await asyncio.wait_for(it.healthy.streams.get(), 5)
    stream.respond(b"", end=False)
    response = await request
    sent = bytearray()
    done = asyncio.Event()

    async def produce() -> None:
        while not done.is_set():
            piece = os.urandom(100)
            sent.extend(piece)
            stream.send(piece)
            assert await response.content.readexactly(len(piece)) == piece

    producing = asyncio.create_task(produce())
    try:
        yield
    finally:
        done.set()
        await asyncio.wait_for(producing, 5)
        size = len(sent)
        assert size > 0
        stream.send(b"end", end=True)
        assert await response.read() == b"end"


def without(headers: Headers, name: str) -> Headers:
    return [pair for pair in headers if pair[0] != name]


def altered(headers: Headers, name: str, value: str) -> Headers:
    return [*without(headers, name), (name, value)]


# Who has no right


async def test_a_dial_without_a_token_is_refused() -> None:
    async with scene() as it:
        headers = first_dial("token").to_headers()
        assert await it.refusal([]) == (426, "version")
        assert await it.refusal(altered(headers, "Dialback-Version", "2")) == (426, "version")
        assert await it.refusal(without(headers, "Authorization")) == (403, "proof")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer token"),
        ("Authorization", "Dialback-Invitation "),
        ("Authorization", "Dialback-Resume zz"),
        ("Dialback-Session", "12"),
        ("Dialback-Session", "z" * 32),
        ("Dialback-Epoch", "0"),
        ("Dialback-Epoch", "-1"),
        ("Dialback-Epoch", "9" * 30),
        ("Dialback-Received", "many"),
        ("Dialback-Limits", ""),
        ("Dialback-Limits", "credit=1, unacked=1, frames=1"),
        ("Dialback-Features", ",".join(f"x{number}" for number in range(40))),
    ],
)
async def test_a_malformed_dial_is_refused_and_consumes_nothing(name: str, value: str) -> None:
    async with scene() as it:
        token = await it.token()
        assert await it.refusal(altered(first_dial(token).to_headers(), name, value)) == (403, "proof")
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)


async def test_forged_tokens_are_refused() -> None:
    async with scene() as it:
        genuine = await it.token()
        said = read(genuine)[0]
        mine, others = KEYRING.signing, b"x" * 32
        forged = {
            "not a token": "echo-me-not",
            "one letter changed": genuine[:20] + ("A" if genuine[20] != "A" else "B") + genuine[21:],
            "cut": genuine[:-4],
            "another's key": sign(replace(said, kid=key_id(others)), others),
            "another's key, our key's id": sign(replace(said, kid=key_id(mine)), others),
            "a function that is none": sign(replace(said, function="none"), mine),
        }
        for what, token in forged.items():
            assert await it.refusal(first_dial(token).to_headers()) == (403, "proof"), what
        # A good signature alone opens nothing.
        invented = sign(replace(said, nonce=os.urandom(16)), mine)
        assert await it.refusal(first_dial(invented).to_headers()) == (403, "used")
        another = sign(replace(said, function="healthy"), mine)
        assert await it.refusal(first_dial(another).to_headers()) == (403, "used")
        assert await it.refusal(first_dial(sign(replace(said, boot="0" * 16), mine)).to_headers()) == (
            421,
            "wrong-node",
        )


async def test_what_links_may_hold_has_one_bound_for_the_process() -> None:
    """Each session has a budget for its windows within the gateway's, and all share one for what they keep."""
    async with scene() as it:
        token = await it.token()
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)
            sessions = [link.session for link in it.endpoint._links.values()]
            assert len(sessions) == 2
            one, other = sessions
            one._budget.lend(1000)
            one._sender._budget.lend(100)  # type: ignore[union-attr]
            assert (one._budget.lent, other._budget.lent) == (1000, 0)
            assert other._budget.within is it.endpoint._windows and it.endpoint._windows.lent == 1000
            assert other._sender._budget is it.endpoint._replay and it.endpoint._replay.lent == 100
        it.trap.end.set()


async def test_old_tokens_are_refused() -> None:
    async with scene() as it:
        used, late, consumed = [await it.token() for _ in range(3)]
        invitations = it.endpoint._invitations
        for issued in invitations._out.values():
            if issued.nonce == read(late)[0].nonce:
                issued.expires = 0
        assert await it.refusal(first_dial(late).to_headers()) == (403, "expired")
        async with await open_socket(it.gateway, first_dial(used).to_headers()):
            assert await it.refusal(first_dial(used).to_headers()) == (403, "used")
        dial = first_dial(consumed)
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            await socket.send(lease(consumed))
            await socket.recv()
            again = replace(dial, epoch=2)
            assert await it.refusal(again.to_headers()) == (403, "proof"), "a session that is known"
            assert await it.refusal(first_dial(consumed).to_headers()) == (403, "used"), "its LEASE came"
        it.trap.end.set()
        await asyncio.gather(*it._asking)
        assert await it.refusal(first_dial(used).to_headers()) == (403, "used"), "its invocation is over"


async def test_a_session_that_was_never_welcomed_dials_again_with_a_proof() -> None:
    """WELCOME was lost: the session dials again, and its invitation's expiry is over."""
    async with scene() as it:
        token = await it.token()
        dial = first_dial(token)
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            (issued,) = it.endpoint._invitations._out.values()
            issued.expires = 0
            assert await it.refusal(replace(dial, epoch=2).to_headers()) == (403, "proof")
            async with await open_socket(it.gateway, later_dial(dial, 2).to_headers()) as second:
                assert (await welcome(second))[2] == 2
                assert await close_code(socket) == 4001


async def test_resumes_of_unknown_sessions_and_with_false_proofs_are_refused() -> None:
    async with scene() as it:
        stranger = Dial(os.urandom(16), 2, 0, Limits(), proof=bytes(32), remaining=10)
        assert await it.refusal(stranger.to_headers()) == (404, "unknown")
        first = first_dial(await it.token())
        async with await open_socket(it.gateway, first.to_headers()) as socket:
            await welcome(socket)
            assert await it.refusal(replace(stranger, session=first.session).to_headers()) == (403, "proof")
            healthy = it.healthy.session
            assert healthy is not None
            assert await it.refusal(replace(stranger, session=healthy.id, epoch=9).to_headers()) == (403, "proof")
            await (await socket.ping())  # the live one is untouched


async def test_nobody_enters_a_session_through_the_invitation_of_another_function() -> None:
    """A good invitation of one function, and the session id of another's link: the link was given to whoever came."""
    async with scene() as it:
        healthy = it.healthy.session
        assert healthy is not None
        token = await it.token()
        thief = first_dial(token, healthy.id, epoch=healthy.epoch + 1)
        assert await it.refusal(thief.to_headers()) == (403, "proof")
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)


async def test_a_superseded_dial_leaves_the_live_socket_alone() -> None:
    async with scene() as it:
        first = first_dial(await it.token(), epoch=5)
        async with await open_socket(it.gateway, first.to_headers()) as socket:
            await welcome(socket)
            for epoch in (5, 4, 1):
                assert await it.refusal(later_dial(first, epoch).to_headers()) == (409, "superseded")
            await (await socket.ping())
            async with await open_socket(it.gateway, later_dial(first, 6).to_headers()) as second:
                await welcome(second)
                assert await close_code(socket) == 4001
                await (await second.ping())


async def test_a_count_that_cannot_be_ends_the_session() -> None:
    async with scene() as it:
        token = await it.token()
        dial = first_dial(token)
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            assert await it.refusal(later_dial(dial, 2, received=7).to_headers()) == (404, "unknown")
            assert await close_code(socket) == 1002
            assert it.link(dial.session) is None


async def test_first_dials_are_refused_while_the_gateway_stops_unless_a_request_waits_for_them() -> None:
    async with scene() as it:
        token = await it.token()
        it.endpoint.drain()
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)
        other = await it.token()
        for task in it._asking:
            task.cancel()
        pool = it.gateway._pools["trap"]
        while pool.waiting:
            it.gateway._closed_one.clear()
            await it.gateway._closed_one.wait()
            await asyncio.sleep(0)
        assert await it.refusal(first_dial(other).to_headers()) == (503, "draining")


async def test_what_is_no_websocket_is_refused_as_http() -> None:
    async with scene() as it:
        dial = first_dial(await it.token())
        headers = dict(dial.to_headers())
        for sent in (headers, {}):
            async with it.client.get(it.gateway.url + CONNECT_PATH, headers=sent) as response:
                assert response.status == 400
                assert response.content_type == "application/problem+json"
        assert it.link(dial.session) is None


# Who sends garbage

GARBAGE: dict[str, tuple[bytes, int]] = {
    "nothing": (frames([b""]), 1002),
    "random bytes in a frame": (frames([bytes(range(256))]), 1002),
    "not an array": (frames([b"\x81\xa1a\x01"]), 1002),
    "an unknown type": (frames([b"\x91\x42"]), 1002),
    "a field too many": (frames([b"\x93\x02\x00\x00"]), 1002),
    "a field of another type": (frames([b"\x92\x02\xa1a"]), 1002),
    "two arrays": (frames([b"\x92\x02\x00\x92\x02\x00"]), 1002),
    "a count that was never sent": (frames([b"\x92\x02\xcd\x03\xe8"]), 1002),
    "the gateway's own frame": (frames([b"\x94\x01\x00\x01\x80"]), 1002),
    "data of a stream that was never opened": (
        frames([struct.pack(">BBBIBI", 0x93, 0x14, 0xCE, 7, 0xC6, 1) + b"x"]),
        1002,
    ),
    "data that says another length": (frames([struct.pack(">BBBIBI", 0x93, 0x14, 0xCE, 7, 0xC6, 99) + b"x"]), 1002),
    "a park without a lease": (frames([b"\x94\x06\x00\x00\x00"]), 1002),
    "text": (frames([b"hello"], Opcode.TEXT), 1003),
    "a message above 1 MiB": (frames([bytes(MAX_FRAME_SIZE + 1)]), 1009),
    "a frame that is not masked": (Frame(Opcode.BINARY, b"x").serialize(mask=False), 1002),
    "a compressed frame": (b"\xc2\x81" + b"mask" + apply_mask(b"x", b"mask"), 1002),
    "a continuation of nothing": (frames([b"x"], Opcode.CONT), 1002),
    "no frame at all": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "nothing but ones": (b"\xff" * 4000, 1002),
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_garbage_ends_its_link_with_the_documented_code(case: str) -> None:
    data, code = GARBAGE[case]
    async with scene() as it:
        dial = first_dial(await it.token())
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            socket.transport.write(data)
            assert await close_code(socket) == code
            assert it.link(dial.session) is None, "its session lives on"


@pytest.mark.parametrize("code", sorted(FINAL_CLOSES))
async def test_a_final_close_ends_the_session_at_once(code: int) -> None:
    """It waited for a grace in which nobody would come."""
    async with scene() as it:
        dial = first_dial(await it.token())
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            await socket.close(code)
            assert it.link(dial.session) is None


@pytest.mark.parametrize("code", [1001, NO_STATUS, 1011, 1012, 1014, 3000, 4001, 4999])
async def test_after_another_close_the_session_may_be_resumed(code: int) -> None:
    """A proxy that restarts says 1001 or 1012 in the function's name, or closes without a code."""
    async with scene() as it:
        token = await it.token()
        dial = first_dial(token)
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            payload = b"" if code == NO_STATUS else code.to_bytes(2, "big")
            socket.transport.write(frames([payload], Opcode.CLOSE))
            await asyncio.wait_for(socket.wait_closed(), 5)
        async with await open_socket(it.gateway, later_dial(dial, 2).to_headers()) as socket:
            assert (await welcome(socket))[2] == 2


# Changing hands


async def test_two_hundred_frames_right_after_the_101_are_not_lost() -> None:
    """In one write with the 101's arrival; the last of them is the LEASE, whose answer says that all were read."""
    async with scene() as it:
        token = await it.token()
        raw = await Raw.connect(it.gateway)
        raw.writer.write(upgrade(first_dial(token)))
        head = await raw.reader.readuntil(b"\r\n\r\n")
        pings = [b"%d" % number for number in range(199)]
        raw.writer.write(frames(pings, Opcode.PING) + frames([lease(token)]))
        assert head.startswith(b"HTTP/1.1 101 ")
        pongs, kinds = [], []
        while not kinds or kinds[-1] != 4:  # LEASED
            opcode, payload = await asyncio.wait_for(raw.frame(), 5)
            if opcode == Opcode.PONG:
                pongs.append(payload)
            else:
                kinds.append(msgpack.unpackb(payload)[0])
        assert kinds == [1, 0x10, 4], "WELCOME, the REQUEST that waited, LEASED"
        assert pongs == pings
        await raw.close()


async def test_bytes_before_the_101_are_a_protocol_error() -> None:
    async with scene() as it:
        token = await it.token()
        dial = first_dial(token)
        raw = await Raw.connect(it.gateway)
        raw.writer.write(upgrade(dial) + frames([lease(token)]))
        answer = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert it.link(dial.session) is None
        await raw.close()


async def test_a_function_that_is_gone_before_the_101_leaves_no_link_for_ever() -> None:
    async with scene() as it:
        dials = [first_dial(await it.token()) for _ in range(5)]
        for dial in dials:
            raw = await Raw.connect(it.gateway)
            raw.writer.write(upgrade(dial))
            await raw.close()
        # Whatever came of it: a new dial of each is as good as the first.
        for dial in dials:
            async with await open_socket(it.gateway, later_dial(dial, 2).to_headers()) as socket:
                await welcome(socket)


async def test_secrets_are_in_no_log_line(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    async with scene() as it:
        token = await it.token()
        dial = first_dial(token)
        await it.refusal(first_dial(token[:-4]).to_headers())
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            link = it.link(dial.session)
            assert link is not None
            key = link.key
            assert key == session_key(KEYRING.signing, read(token)[0].nonce, dial.session)
            proof = resume_proof(key, dial.session, 2, 0)
            resumed = replace(dial, epoch=2, invitation="", proof=proof, remaining=1)
            async with await open_socket(it.gateway, resumed.to_headers()) as second:
                await welcome(second)
                await second.send(b"\x91\x42")
                assert await close_code(second) == 1002
            texts = [repr(link), repr(it.endpoint), repr(dial), repr(resumed)]
    said = caplog.text + capsys.readouterr().out + "".join(texts)
    for secret in (token, KEYRING.signing.decode(), key.hex(), proof.hex(), repr(key)):
        assert secret not in said
    assert dial.session.hex() in said, "then something was said"


def test_an_invitation_names_no_request() -> None:
    assert [field for field in Invitation.__slots__] == ["kid", "nonce", "function", "boot", "url", "expires"]
