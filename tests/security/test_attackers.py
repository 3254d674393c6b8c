"""The attacker's list: each of it is tried on a running gateway or function, and refused with the documented answer.

A stream of another function goes on meanwhile (`scene`), and must arrive whole.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from websockets.asyncio.client import ClientConnection

from protocol.dial import Dial, Limits
from protocol.dial_reader import CONNECT_PATH
from protocol.invitation import (
    Invitation,
    key_id,
    read,
    resume_proof,
    session_key,
    sign,
)
from tests.gateway.environment_fake import KEYRING, first_dial, later_dial, open_socket
from tests.gateway.raw_link import UPGRADE, Raw, close_code, lease, upgrade, welcome
from tests.gateway.test_endpoint import Scene, scene, without

KEY = KEYRING.signing
STRANGERS = b"x" * 32
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
REASON = re.compile(rb"\r\ndialback-reason: ([a-z-]+)\r\n", re.IGNORECASE)


async def answered(it: Scene, request: bytes) -> tuple[int, str]:
    """Status and `Dialback-Reason` of what comes back for these bytes."""
    raw = await Raw.connect(it.gateway)
    try:
        raw.writer.write(request)
        head = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 5)
    finally:
        await raw.close()
    status, reason = STATUS.match(head), REASON.search(head)
    assert status is not None, head
    return int(status[1]), reason[1].decode() if reason else ""


# Invitations


def armoured(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


async def test_an_invitation_with_any_byte_altered() -> None:
    async with scene() as it:
        token = await it.token()
        raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        for at in range(len(raw)):
            flipped = armoured(raw[:at] + bytes((raw[at] ^ 1 << at % 8,)) + raw[at + 1 :])
            assert await answered(it, upgrade(first_dial(flipped))) == (403, "proof"), at
        for at in range(len(token)):
            other = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
            assert await answered(it, upgrade(first_dial(other))) == (403, "proof"), at
            assert await answered(it, upgrade(first_dial(token[:at] or "A"))) == (403, "proof"), at
        for longer in (token + "A", token + "=", token + "==", " " + token, token * 2):
            assert await answered(it, upgrade(first_dial(longer))) == (403, "proof"), longer
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)  # none of them consumed it


Forge = Callable[[Invitation], str]
FORGED: dict[str, tuple[Forge, tuple[int, str]]] = {
    "its own key and id": (lambda said: sign(replace(said, kid=key_id(STRANGERS)), STRANGERS), (403, "proof")),
    "a stranger's key, our key's id": (lambda said: sign(said, STRANGERS), (403, "proof")),
    "an unknown key's id": (lambda said: sign(replace(said, kid="00000000"), KEY), (403, "proof")),
    "another function": (lambda said: sign(replace(said, function="healthy"), KEY), (403, "used")),
    "no function": (lambda said: sign(replace(said, function="none"), KEY), (403, "proof")),
    "another boot": (lambda said: sign(replace(said, boot="0" * 16), KEY), (421, "wrong-node")),
    "a nonce of its own": (lambda said: sign(replace(said, nonce=os.urandom(16)), KEY), (403, "used")),
}
"""What a thief of the secret may sign opens nothing either: a nonce is good while it is out, for its function."""


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_invitation(case: str) -> None:
    forge, refusal = FORGED[case]
    async with scene() as it:
        token = await it.token()
        assert await answered(it, upgrade(first_dial(forge(read(token)[0])))) == refusal
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)


async def test_an_invitation_of_another_function_with_another_secret() -> None:
    """Each function has a keyring of its own: the other's key proves nothing, whatever the token says."""
    async with scene() as it:
        said = read(await it.token())[0]
        it.endpoint._keyrings = {**it.endpoint._keyrings, "healthy": type(KEYRING)([STRANGERS])}
        for function in ("healthy", "trap"):
            forged = sign(replace(said, function=function, kid=key_id(STRANGERS)), STRANGERS)
            refusal = {"healthy": (403, "used"), "trap": (403, "proof")}[function]
            assert await answered(it, upgrade(first_dial(forged))) == refusal


async def test_a_recorded_dial_is_worth_nothing() -> None:
    """Every byte of it: while its socket lives, when that has gone, when its lease was taken, when it is all over."""
    async with scene() as it:
        token = await it.token()
        dial = first_dial(token)
        async with await open_socket(it.gateway, dial.to_headers()) as socket:
            await welcome(socket)
            assert await answered(it, upgrade(dial)) == (403, "proof"), "its session is known"
            await socket.send(lease(token))
            await socket.recv()
            assert await answered(it, upgrade(dial)) == (403, "proof")
            await (await socket.ping())
        link = it.link(dial.session)
        if link is not None:
            link.end("the test")
        assert await answered(it, upgrade(dial)) == (403, "used")


async def test_an_invitation_that_comes_too_late() -> None:
    async with scene() as it:
        token = await it.token()
        (issued,) = (out for out in it.endpoint._invitations._out.values() if out.nonce == read(token)[0].nonce)
        issued.expires = int(time.time()) - 1
        assert await answered(it, upgrade(first_dial(token))) == (403, "expired")


async def test_a_first_dial_with_an_impossible_count_consumes_nothing() -> None:
    """The session had been made, and owned the invitation, when the count was looked at."""
    async with scene() as it:
        token = await it.token()
        assert await answered(it, upgrade(first_dial(token, received=1))) == (403, "proof")
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)


async def test_a_nonce_that_a_second_session_presents() -> None:
    async with scene() as it:
        token = await it.token()
        async with await open_socket(it.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)
            for epoch in (1, 2, 1 << 62):
                assert await answered(it, upgrade(first_dial(token, epoch=epoch))) == (403, "used")
            await (await socket.ping())


@pytest.mark.parametrize(
    "where",
    [
        "?invitation=TOKEN",
        "/TOKEN",
        "\r\nDialback-Invitation: TOKEN",
        "\r\nAuthorization: Bearer TOKEN",
        "\r\nAuthorization: TOKEN",
        "\r\nAuthorization: dialback-invitation TOKEN",
        "\r\nProxy-Authorization: Dialback-Invitation TOKEN",
        "\r\nSec-WebSocket-Protocol: TOKEN",
        "\r\nCookie: Authorization=Dialback-Invitation TOKEN",
    ],
)
async def test_an_invitation_in_the_url_or_in_another_header(
    where: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with scene() as it:
        token = await it.token()
        kept = without(first_dial("x").to_headers(), "Authorization")
        fields = "".join(f"{name}: {value}\r\n" for name, value in kept)
        target, _, header = where.replace("TOKEN", token).partition("\r\n")
        start = UPGRADE.replace(CONNECT_PATH, CONNECT_PATH + target)
        request = f"{start}{fields}{header + chr(13) + chr(10) if header else ''}\r\n"
        assert await answered(it, request.encode()) == (403, "proof")
    assert token not in caplog.text + capsys.readouterr().out


# Resumes


@asynccontextmanager
async def live(it: Scene) -> AsyncIterator[tuple[ClientConnection, Dial, bytes]]:
    """A session with a socket that must live on: (socket, a good resume, the session's key)."""
    token = await it.token()
    first = first_dial(token, epoch=5)
    async with await open_socket(it.gateway, first.to_headers()) as socket:
        await welcome(socket)
        key = session_key(KEY, read(token)[0].nonce, first.session)
        proof = resume_proof(key, first.session, 6, 0)
        yield socket, Dial(first.session, 6, 0, Limits(), proof=proof), key
        await (await socket.ping())


async def test_a_resume_without_the_right_proof() -> None:
    async with scene() as it, live(it) as (_, resume, key), live(it) as (_, other, other_key):
        session = resume.session
        wrong = {
            "zeros": replace(resume, proof=bytes(32)),
            "nothing much": replace(resume, proof=b"\0"),
            "a longer one": replace(resume, proof=resume.proof + b"\0"),
            "a shorter one": replace(resume, proof=resume.proof[:-1]),
            "of the secret itself": replace(resume, proof=resume_proof(KEY, session, 6, 0)),
            "of another session's key": replace(resume, proof=resume_proof(other_key, session, 6, 0)),
            "of another session": replace(resume, session=other.session),
            "of another epoch": replace(resume, epoch=7),
            "of another count": replace(resume, received=1),
            "of the fields in other places": replace(resume, epoch=6 << 8, proof=resume_proof(key, session, 6, 0)),
        }
        for what, dial in wrong.items():
            assert await answered(it, upgrade(dial)) == (403, "proof"), what
        for at in range(32):
            proof = resume.proof[:at] + bytes((resume.proof[at] ^ 1 << at % 8,)) + resume.proof[at + 1 :]
            assert await answered(it, upgrade(replace(resume, proof=proof))) == (403, "proof"), at


async def test_a_resume_of_an_epoch_that_was() -> None:
    async with scene() as it, live(it) as (_, resume, key):
        for epoch in (5, 4, 1):
            proof = resume_proof(key, resume.session, epoch, 0)
            assert await answered(it, upgrade(replace(resume, epoch=epoch, proof=proof))) == (409, "superseded")


async def test_a_resume_of_a_session_that_nobody_knows() -> None:
    async with scene() as it, live(it) as (_, resume, key):
        stranger = os.urandom(16)
        proof = resume_proof(key, stranger, 6, 0)
        assert await answered(it, upgrade(replace(resume, session=stranger, proof=proof))) == (404, "unknown")
        assert await answered(it, upgrade(replace(resume, session=bytes(16)))) == (404, "unknown")


async def test_a_session_of_anothers_with_an_invitation_of_ones_own() -> None:
    async with scene() as it, live(it) as (_, resume, _key):
        token = await it.token()
        for epoch in (1, 6, 7):
            dial = first_dial(token, resume.session, epoch=epoch)
            assert await answered(it, upgrade(dial)) == (403, "proof")


async def test_a_socket_that_was_fenced_off_is_not_heard_any_more() -> None:
    """A second socket with the proof takes over; what the first still sends changes nothing."""
    async with scene() as it:
        token = await it.token()
        first = first_dial(token)
        raw = await Raw.connect(it.gateway)
        assert STATUS.match(await raw.dial(first))
        await raw.message()
        key = session_key(KEY, read(token)[0].nonce, first.session)
        resume = replace(first, epoch=2, invitation="", proof=resume_proof(key, first.session, 2, 0))
        async with await open_socket(it.gateway, resume.to_headers()) as second:
            assert (await welcome(second))[2] == 2
            raw.send(lease(token))  # on the socket that is over
            raw.send(b"\x91\x42")  # and what would have ended the session
            assert await answered(it, upgrade(resume)) == (409, "superseded"), "it was recorded, and replayed"
            await (await second.ping())
            link = it.link(first.session)
            assert link is not None and not link.session.is_leased
            await second.send(lease(token))
            kinds = [(await second.recv())[1] for _ in range(2)]
            assert kinds == [0x10, 0x04], "the request that waited, and LEASED"
        await raw.close()


async def test_who_sends_on_after_4001_is_cut() -> None:
    async with scene() as it:
        first = first_dial(await it.token())
        async with await open_socket(it.gateway, first.to_headers()) as socket:
            await welcome(socket)
            async with await open_socket(it.gateway, later_dial(first, 2).to_headers()) as second:
                await welcome(second)
                assert await close_code(socket) == 4001


# Bombs at the dial's address

BOMBS: dict[str, tuple[bytes, int]] = {
    "ten thousand fields": (b"X: y\r\n" * 10_000, 431),
    "one field too many": (b"".join(b"X%d: y\r\n" % number for number in range(300)), 431),
    "a field of a megabyte": (b"X: " + b"y" * (1 << 20) + b"\r\n", 431),
    "a name of a megabyte": (b"X" * (1 << 20) + b": y\r\n", 431),
    "a head of large fields": (b"".join(b"X%d: %b\r\n" % (number, b"y" * 8000) for number in range(20)), 431),
    "an authorization of 15 KiB": (b"Authorization: Dialback-Invitation " + b"A" * 15_000 + b"\r\n", 403),
    "a proof of 15 KiB": (b"Authorization: Dialback-Resume " + b"ab" * 7_500 + b"\r\n", 403),
    "a lease of 15 KiB": (b"Dialback-Lease: " + b"lwMB" * 3_750 + b"\r\n", 403),
    "features without end": (b"Dialback-Features: " + b"a," * 7_500 + b"\r\n", 403),
    "limits without end": (b"Dialback-Limits: " + b"credit=1," * 1_600 + b"\r\n", 403),
    "a number of 15 000 digits": (b"Dialback-Remaining: " + b"9" * 15_000 + b"\r\n", 403),
    "each of our fields, two hundred times": (b"Dialback-Epoch: 1\r\nDialback-Version: 1\r\n" * 100, 403),
}


@pytest.mark.parametrize("case", BOMBS)
async def test_a_header_bomb(case: str) -> None:
    bomb, status = BOMBS[case]
    async with scene() as it:
        fields = "".join(f"{name}: {value}\r\n" for name, value in first_dial("x").to_headers())
        kept = re.sub(r"Authorization: .*\r\n", "", fields) if b"Authorization" in bomb else fields
        began = time.monotonic()
        raw = await Raw.connect(it.gateway)
        raw.writer.write(UPGRADE.encode() + bomb + kept.encode() + b"\r\n")
        head = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        assert time.monotonic() - began < 2
        await raw.close()
        assert it.endpoint.links == 1, "the neighbour's"
