"""No secret, invitation, proof, nonce or session key is printed by anybody at any level, nor in a URL.

Two whole ones: in this process with everything at DEBUG, the libraries too, and on the stack as people run it. What is
looked for is read off the wire between the two sides, where it must be.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog

from gateway.config import Config, FunctionConfig, SessionConfig
from gateway.invoke.sigv4 import Signer
from gateway.keys import Address, Secret
from gateway.server import Gateway
from lambda_client import Request, stream_handler
from protocol.invitation import INVITATION_KEY, Invitation, key_id, read, session_key, sign
from tests.e2e.stack import Stack
from tests.faults.proxy import Connection, Fault, FaultProxy
from tests.gateway.environment_fake import LOOPBACK
from tests.security.real_function import RealFunction

SECRET = "the-secret-of-these-tests-0123456789"
TOKEN = re.compile(rb'"dialback-invitation": ?"([^"]+)"')
PROOF = re.compile(rb"Dialback-Resume ([0-9a-f]{64})", re.IGNORECASE)
DIALLED = re.compile(rb"GET (\S+) HTTP/1.1\r\n.*?Dialback-Session: ([0-9a-f]{32})", re.IGNORECASE | re.DOTALL)


class Tap(FaultProxy):
    """Passes everything on, and keeps what went through it towards its target."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.heard = b""
        tap = self

        class Listen(Fault):
            async def before(self, connection: Connection, data: bytes) -> list[bytes]:
                tap.heard += data
                return [data]

        super().__init__(target, Listen)


class Secrets:
    """All forms of all that must not be said, read off the wire."""

    def __init__(self, secret: str, invoked: bytes, dialled: bytes) -> None:
        tokens = {token.decode() for token in TOKEN.findall(invoked)}
        proofs = {proof.decode() for proof in PROOF.findall(dialled)}
        assert tokens and proofs, "a stream was begun and resumed"
        self.targets = {target for target, _ in DIALLED.findall(dialled)}
        raw = [secret.encode()]
        for token in tokens:
            invitation, body, mac = read(token)
            raw += [invitation.nonce, mac, body]
            for _, session in DIALLED.findall(dialled):
                raw.append(session_key(secret.encode(), invitation.nonce, bytes.fromhex(session.decode())))
        raw += [bytes.fromhex(proof) for proof in proofs]
        self.forms = {secret, *tokens, *proofs}
        for value in raw:
            plain, web = base64.b64encode(value).decode(), base64.urlsafe_b64encode(value).decode()
            self.forms |= {value.hex(), repr(value)[2:-1], plain.rstrip("="), web.rstrip("=")}

    def said_in(self, text: str) -> list[str]:
        """Those of which sixteen characters in a row are in the text: a line that is cut may not say half of one."""
        return [form for form in self.forms if any(form[at : at + 16] in text for at in range(max(1, len(form) - 15)))]


def test_the_search_finds_what_is_said() -> None:
    key = SECRET.encode()
    token = sign(Invitation(key_id(key), b"n" * 16, "f", "b", "ws://h/", 1), key)
    wire = b"GET /x HTTP/1.1\r\nDialback-Session: %b\r\nAuthorization: Dialback-Resume %b\r\n" % (b"0" * 32, b"ab" * 32)
    secrets = Secrets(SECRET, b'{"dialback-invitation": "%b"}' % token.encode(), wire)
    assert not secrets.said_in("nothing of it")
    for form in (SECRET, token, token[5:40], "ab" * 32, (b"n" * 16).hex(), base64.b64encode(b"n" * 16).decode()):
        assert secrets.said_in(f"x {form} y"), form


@stream_handler(concurrency=3)
async def handler(request: Request) -> AsyncIterator[str]:
    for _ in range(10):
        yield "tick "
        await asyncio.sleep(0.05)


@asynccontextmanager
async def everything_said(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """At DEBUG: ours, aiohttp's (its access log too), websockets', asyncio's (with its debug mode), botocore's."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # asyncio then prints every callback
    names = (
        "",
        "dialback",
        "aiohttp",
        "aiohttp.access",
        "asyncio",
        "websockets",
        "websockets.client",
        "botocore",
        "boto3",
    )
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    caplog.handler.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        loop.set_debug(False)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


async def test_in_one_process_with_everything_at_debug(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    function = RealFunction(handler, {})
    async with everything_said(caplog), function.serving():
        port = int(function.url.rpartition(":")[2].strip("/"))
        invoking, dialling = Tap((LOOPBACK, port)), Tap((LOOPBACK, 0))
        await invoking.start()
        await dialling.start()
        url = f"http://{LOOPBACK}:{invoking.port}/"
        config = Config(
            functions={"function": FunctionConfig(name="function", url=url, secret=Secret(SECRET))},
            listen=Address(LOOPBACK, 0),
            admin=None,
            dial_address=f"ws://{LOOPBACK}:{dialling.port}",
            session=SessionConfig(grace=5),
        )
        gateway = Gateway(config, log=structlog.get_logger("test"))
        await gateway.start()
        dialling.target = (LOOPBACK, int(gateway.url.rpartition(":")[2]))
        function.deploy({"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": f"ws://{LOOPBACK}:{dialling.port}"})
        async with aiohttp.ClientSession() as client:
            async with client.get(gateway.url) as response:
                await response.content.readexactly(5)
                dialling.cut_all()  # it resumes, by a proof
                assert await response.read() == b"tick " * 9
            await refusals(gateway, function)
        secrets = Secrets(SECRET, invoking.heard, dialling.heard)
        await gateway.stop(1)
        await invoking.stop()
        await dialling.stop()
        # What signs an invocation for AWS, over the same body.
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-aws-secret")
        body = json.dumps({INVITATION_KEY: TOKEN.findall(invoking.heard)[0].decode()}).encode()
        await Signer("eu-central-1").sign("https://x.lambda-url.eu-central-1.on.aws/", {}, body)
    captured = capsys.readouterr()
    said = caplog.text + captured.out + captured.err
    assert not secrets.said_in(said)
    assert "aws-secret" not in said
    assert secrets.targets == {b"/_dialback/v1/connect"}, "nothing but the path"
    for speaker in ("link.dialled", "dialback", "asyncio", "botocore"):
        assert speaker in said, f"{speaker} was to say something"


async def refusals(gateway: Gateway, function: RealFunction) -> None:
    """What is refused is logged too."""
    token = TOKEN.findall(function.tokens[0].encode())[0].decode()
    headers = {"Authorization": f"Dialback-Invitation {token}", "Upgrade": "websocket", "Connection": "upgrade"}
    key = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode()}
    dial = {
        "Dialback-Version": "1",
        "Dialback-Session": "0" * 32,
        "Dialback-Epoch": "1",
        "Dialback-Received": "0",
        "Dialback-Limits": "credit=65536, unacked=8388608, frames=8192",
    }
    async with aiohttp.ClientSession() as client:
        for more, status in (({}, 426), (key, 426), ({**key, **dial}, 403)):
            async with client.get(gateway.url + "/_dialback/v1/connect", headers={**headers, **more}) as response:
                assert response.status == status
                assert token not in await response.text()
        body = json.dumps({INVITATION_KEY: token[:-4] + "AAAA"})
        kind = {"Content-Type": "application/vnd.dialback.invitation+json"}
        async with client.post(function.url, data=body, headers=kind) as response:
            assert response.status == 403 and token[:20] not in await response.text()


async def test_on_the_stack_as_people_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway at its DEBUG, the function with every logger at DEBUG, and asyncio's debug mode in both."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    invoking, dialling = Tap((LOOPBACK, 0)), Tap((LOOPBACK, 0))
    await invoking.start()
    await dialling.start()

    def config(url: str) -> str:
        invoking.target = (LOOPBACK, int(url.rpartition(":")[2].strip("/")))
        tapped = f"http://{LOOPBACK}:{invoking.port}/"
        return f'function_url = "{tapped}"\ndial_address = "ws://{LOOPBACK}:{dialling.port}"\nlog.level = "debug"\n'

    gateways = (f"ws://{LOOPBACK}:{dialling.port}",)
    root = Path(__file__).parent / "handlers"
    stack = Stack("talkative.py:handler", tmp_path, root=root, config=config, gateways=gateways)
    try:
        dialling.target = (LOOPBACK, stack.port)
        async with aiohttp.ClientSession() as client:
            async with client.get(stack.url) as response:
                await response.content.readexactly(5)
                dialling.cut_all()
                assert await response.read() == b"tick " * 9
    finally:
        await asyncio.to_thread(stack.stop)
        await invoking.stop()
        await dialling.stop()
    said = stack.gateway.output + stack.function.output
    assert not Secrets(stack.secret, invoking.heard, dialling.heard).said_in(said)
    assert "link.dialled" in stack.gateway.output and "DEBUG" in stack.function.output, "they were to say much"
