"""Invocations of AWS's own Function URLs are signed, and the signature is the one that AWS would compute."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from aiohttp import abc, web
from botocore.credentials import RefreshableCredentials

from gateway.invoke.answer import Outcome
from gateway.invoke.function_url import FunctionUrl
from gateway.invoke.sigv4 import Signer

HOST = "abc123.lambda-url.eu-central-1.on.aws"
KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


class ToLoopback(abc.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None: ...


async def invoke_once() -> tuple[Outcome, web.BaseRequest, bytes]:
    seen: list[tuple[web.BaseRequest, bytes]] = []

    async def function(request: web.BaseRequest) -> web.Response:
        seen.append((request, await request.read()))
        return web.json_response({"dialback": 1, "lease": None, "outcome": "unneeded"})

    listener = await asyncio.get_running_loop().create_server(web.Server(function), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    invoker = FunctionUrl(f"http://{HOST}:{port}/", resolver=ToLoopback())
    try:
        answer = await invoker.invoke("token")
    finally:
        await invoker.close()
        listener.close()
        await listener.wait_closed()
    return answer.outcome, *seen[0]


def signature_of(request: web.BaseRequest, body: bytes) -> str:
    """The signature that these headers ought to have (AWS: "Create a signed AWS API request")."""
    _, credential, names, _ = request.headers["Authorization"].replace(",", "").split(" ")
    _, date, region, service, _ = credential.removeprefix("Credential=").split("/")
    signed = names.removeprefix("SignedHeaders=").split(";")
    fields = "".join(f"{name}:{request.headers[name].strip()}\n" for name in signed)
    canonical = "\n".join(("POST", "/", "", fields, ";".join(signed), hashlib.sha256(body).hexdigest()))
    scope = f"{date}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", request.headers["X-Amz-Date"], scope, digest))
    key = f"AWS4{SECRET}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    return monkeypatch


async def test_an_invocation_is_signed_for_the_region_of_its_url(no_credentials: pytest.MonkeyPatch) -> None:
    no_credentials.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    no_credentials.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    no_credentials.setenv("AWS_SESSION_TOKEN", "session-token")
    outcome, request, body = await invoke_once()
    assert outcome is Outcome.ANSWERED
    authorization = request.headers["Authorization"]
    assert f"Credential={KEY_ID}/" in authorization and "/eu-central-1/lambda/aws4_request" in authorization
    assert request.headers["X-Amz-Security-Token"] == "session-token"
    assert authorization.endswith(f"Signature={signature_of(request, body)}")


async def test_without_credentials_nothing_is_signed(no_credentials: pytest.MonkeyPatch) -> None:
    outcome, request, _ = await invoke_once()
    assert outcome is Outcome.ANSWERED
    assert "Authorization" not in request.headers


async def test_credentials_that_cannot_be_had_are_a_class_of_their_own_without_a_traceback(
    no_credentials: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile that is nowhere, and a container's service that nobody serves."""
    for variables in (
        {"AWS_PROFILE": "nobodys"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "1"},
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            invoker = FunctionUrl(f"http://{HOST}/", resolver=ToLoopback())
            try:
                answer = await invoker.invoke("token")
            finally:
                await invoker.close()
        assert answer.outcome is Outcome.UNSIGNED
        assert answer.detail.startswith("no AWS credentials: ") and "\n" not in answer.detail
    assert "Traceback" not in capsys.readouterr().err


async def test_only_what_may_have_to_be_asked_for_is_left_to_a_thread(no_credentials: pytest.MonkeyPatch) -> None:
    """A metadata service may block for seconds; a thread for each signature costs as much as the signature."""
    threads = 0
    to_thread = asyncio.to_thread

    async def counted(*arguments: Any) -> Any:
        nonlocal threads
        threads += 1
        return await to_thread(*arguments)

    async def signed(signer: Signer) -> int:
        before = threads
        assert "Authorization" in await signer.sign(f"https://{HOST}/", {}, b"body")
        return threads - before

    no_credentials.setattr(asyncio, "to_thread", counted)
    no_credentials.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    no_credentials.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    signer = Signer("eu-central-1")
    assert [await signed(signer) for _ in range(3)] == [1, 0, 0]

    def renewed() -> dict[str, str]:
        until = datetime.now(timezone.utc) + timedelta(hours=1)
        return {"access_key": KEY_ID, "secret_key": SECRET, "token": "token", "expiry_time": until.isoformat()}

    old = {**renewed(), "expiry_time": datetime.now(timezone.utc).isoformat()}
    signer._credentials = RefreshableCredentials.create_from_metadata(old, renewed, "test")
    assert [await signed(signer) for _ in range(3)] == [1, 0, 0]


async def test_a_search_that_found_nothing_is_not_repeated_for_each_invocation(
    no_credentials: pytest.MonkeyPatch,
) -> None:
    signer = Signer("eu-central-1")
    assert await signer.sign(f"https://{HOST}/", {"a": "b"}, b"body") == {"a": "b"}
    assert signer._is_at_hand


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/", "https://on.aws/", "https://abc.lambda-url.eu-central-1.on.aws.example.com/"]
)
def test_no_other_host_gets_a_signature(url: str) -> None:
    assert Signer.for_url(url) is None
