"""Who may not ask a function to dial, and where it may not be sent: refused with 403, and its code has not run."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from lambda_client import Request, stream_handler
from protocol.invitation import INVITATION_CONTENT_TYPE, INVITATION_KEY, Invitation, key_id, sign
from tests.gateway.environment_fake import KEYRING, LOOPBACK, SECRET
from tests.security.real_function import Deployed, RealFunction

KEY = KEYRING.signing
STRANGERS = b"x" * 32


class Evil:
    """A listener that no function may come to, and one that it may."""

    def __init__(self) -> None:
        self.visits = 0
        self.answer = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        if self.answer:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def listener(visitor: Evil) -> AsyncIterator[int]:
    server = await asyncio.start_server(visitor, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


runs: list[Request] = []


@stream_handler
async def handler(request: Request) -> str:
    runs.append(request)
    return "it ran"


@pytest.fixture(autouse=True)
def nobody_ran() -> None:
    runs.clear()


def invited(url: str, key: bytes = KEY, **said: Any) -> str:
    invitation = Invitation(key_id(key), os.urandom(16), "f", "b007", url, int(time.time()) + 60)
    return sign(replace(invitation, **said), key)


async def posted(function: RealFunction, body: str, content_type: str = INVITATION_CONTENT_TYPE) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client:
        headers = {"Content-Type": content_type}
        async with client.post(function.url, data=body.encode(), headers=headers) as response:
            return response.status, await response.text()


ELSEWHERE = [
    "ws://127.0.0.1:{evil}/",
    "ws://localhost:{evil}/",
    "ws://[::1]:{good}/",
    "ws://127.0.0.1:{good}@127.0.0.1:{evil}/",
    "ws://127.0.0.1@127.0.0.1:{evil}/",
    "ws://127.0.0.1:{good}:{evil}/",
    "ws://127.0.0.1:{evil}/127.0.0.1:{good}",
    "ws://127.0.0.1:{evil}#@127.0.0.1:{good}/",
    "ws://127.0.0.1:{evil}\\@127.0.0.1:{good}/",
    "ws://127.0.0.1:{evil}/?ws://127.0.0.1:{good}",
    "ws://127.0.0.1.evil.example:{good}/",
    "ws://0.0.0.0:{good}/",
    "ws://2130706433:{good}/",
    "ws://127.1:{good}/",
    "ws://0:{evil}/",
    "ws:127.0.0.1:{evil}/",
    "ws:///127.0.0.1:{evil}/",
    "//127.0.0.1:{good}/",
    "wss://127.0.0.1:{good}/",
    "http://127.0.0.1:{good}/",
    "WS+unix://127.0.0.1:{good}/",
    "ws://127.0.0.1:{good}\r\nHost: evil/",
    "ws://127.0.0.1:{good}/\u2028",
    "ws://127.0.0.1:0{good}0/",
    "ws://127.0.0.1:-{good}/",
    "ws://127.0.0.1:0/",
    "ws://127.0.0.1/",
    "",
]


async def test_an_invitation_to_another_host() -> None:
    """With a good signature: a gateway that was broken into may not send functions where it likes."""
    evil, good = Evil(), Evil()
    async with listener(evil) as evil_port, listener(good) as good_port:
        allowed = {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": f"ws://127.0.0.1:{good_port}"}
        function = RealFunction(handler, allowed)
        async with function.serving():
            for url in ELSEWHERE:
                url = url.format(evil=evil_port, good=good_port)
                status, text = await posted(function, f'{{"{INVITATION_KEY}": "{invited(url)}"}}')
                assert (status, '"address"' in text) == (403, True), url
    assert (evil.visits, good.visits, runs) == (0, 0, [])


async def test_an_unencrypted_address_beyond_this_machine() -> None:
    address = "ws://gateway.example:80"
    function = RealFunction(handler, {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": address})
    async with function.serving():
        status, text = await posted(function, f'{{"{INVITATION_KEY}": "{invited(address + "/")}"}}')
        assert (status, '"address"' in text) == (403, True)
    assert not runs


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_a_dial(status: int) -> None:
    evil, good = Evil(), Evil()
    async with listener(evil) as evil_port, listener(good) as good_port:
        good.answer = b"HTTP/1.1 %d Over There\r\nLocation: ws://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % (
            status,
            evil_port,
        )
        address = f"ws://127.0.0.1:{good_port}"
        function = RealFunction(handler, {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": address})
        async with function.serving():
            answer = await posted(function, f'{{"{INVITATION_KEY}": "{invited(address + "/x")}"}}')
        said = json.loads(answer[1])
        assert (answer[0], said["lease"], said["outcome"]) == (200, None, f"unreachable: HTTP {status}")
    assert (evil.visits, good.visits, runs) == (0, 1, [])


URL = "ws://127.0.0.1:1/_dialback/v1/connect"
UNSIGNED: dict[str, str] = {
    "nothing": "",
    "no JSON": "invitation please",
    "JSON without an end": "[" * 200_000,
    "a number without an end": "9" * 10_000,
    "another document": "{}",
    "no object": f'["{INVITATION_KEY}"]',
    "no text": f'{{"{INVITATION_KEY}": {{"{INVITATION_KEY}": 1}}}}',
    "null": f'{{"{INVITATION_KEY}": null}}',
    "an empty token": f'{{"{INVITATION_KEY}": ""}}',
    "no token": f'{{"{INVITATION_KEY}": "echo-me-not"}}',
    "a token of half a megabyte": f'{{"{INVITATION_KEY}": "{"A" * (1 << 19)}"}}',
    "a token in another alphabet": f'{{"{INVITATION_KEY}": "{chr(0x430) * 100}"}}',
    "a body without a signature": f'{{"{INVITATION_KEY}": "{invited(URL)[:-43]}"}}',
    "a signature that is nothing": f'{{"{INVITATION_KEY}": "{invited(URL)[:-43] + "A" * 43}"}}',
    "a stranger's": f'{{"{INVITATION_KEY}": "{invited(URL, STRANGERS)}"}}',
    "a stranger's with our key's id": f'{{"{INVITATION_KEY}": "{invited(URL, STRANGERS, kid=key_id(KEY))}"}}',
    "an old one": f'{{"{INVITATION_KEY}": "{invited(URL, expires=int(time.time()) - 61)}"}}',
}
TRUSTING = {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": "ws://127.0.0.1:1"}


@pytest.mark.parametrize("case", UNSIGNED)
async def test_an_invitation_that_nobody_signed_by_its_content_type(case: str) -> None:
    for content_type in (INVITATION_CONTENT_TYPE, INVITATION_CONTENT_TYPE.upper() + " ;charset=utf-8"):
        function = RealFunction(handler, TRUSTING)
        async with function.serving():
            status, text = await posted(function, UNSIGNED[case], content_type)
        assert status == 403
        assert "urn:dialback:invitation-refused" in text and "it ran" not in text
    assert not runs


@pytest.mark.parametrize("token", ["", None, 1, {}, ["x"], "echo-me-not", "A" * (1 << 20), invited(URL, STRANGERS)])
async def test_an_invitation_that_nobody_signed_by_the_reserved_key(token: Any) -> None:
    """Beside a whole HTTP event, which must not be answered in its place."""
    http = {"version": "2.0", "rawPath": "/", "headers": {}, "requestContext": {"http": {"method": "GET", "path": "/"}}}
    deployed = Deployed(handler, TRUSTING)
    try:
        for event in ({INVITATION_KEY: token}, {**http, INVITATION_KEY: token}):
            answer = await deployed.invoke(event)
            assert answer["statusCode"] == 403 and "it ran" not in answer["body"]
        assert not runs
        assert (await deployed.invoke(http))["body"] == "it ran", "the control"
    finally:
        deployed.close()


async def test_a_function_that_knows_no_secret_or_no_gateway() -> None:
    for missing in TRUSTING:
        function = RealFunction(handler, {name: value for name, value in TRUSTING.items() if name != missing})
        async with function.serving():
            assert (await posted(function, f'{{"{INVITATION_KEY}": "{invited(URL)}"}}'))[0] == 403
    assert not runs
