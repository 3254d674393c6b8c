"""TLS on every way: verified without exception, by authorities that may be private, in both directions."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog

from gateway.config import Config, FunctionConfig, InvokeConfig, TimeoutsConfig, TlsConfig
from gateway.keys import Address, Secret
from gateway.server import Gateway
from lambda_client import Request, stream_handler
from lambda_client.dial import TLS_FILES
from tests.gateway.certificate import Authority, Pair
from tests.gateway.environment_fake import SECRET
from tests.security.real_function import RealFunction

RESET = "Connection reset|the connection was closed"
"""In TLS 1.3 who is refused has sent its request already, which may overtake the alert: then only the end is seen."""


@stream_handler
async def handler(request: Request) -> str:
    return f"hello {request.path}"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("others"), "others")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that has something wrong dials for eight seconds."""
    monkeypatch.setattr("lambda_client.link.FIRST_DIAL_PATIENCE", 0.2)
    monkeypatch.setattr("gateway.tls._refusals._events", {})
    for name in TLS_FILES:
        monkeypatch.delenv(name, raising=False)


@asynccontextmanager
async def gateway_before(
    function: RealFunction, *, tls: TlsConfig | None = None, invoke: InvokeConfig | None = None
) -> AsyncIterator[Gateway]:
    """A whole gateway on localhost, and the function behind it, which trusts its name."""
    async with function.serving():
        config = Config(
            functions={
                "function": FunctionConfig(
                    name="function",
                    url=function.url,
                    secret=Secret(SECRET),
                    linger=0,
                    invoke=invoke or InvokeConfig(),
                    timeouts=TimeoutsConfig(dial_back=5),
                )
            },
            listen=Address("localhost", 0),
            admin=None,
            tls=tls,
        )
        gateway = Gateway(config, log=structlog.get_logger("test"))
        await gateway.start()
        address = gateway.url.replace("http", "ws", 1)
        function.deploy({"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": address})
        try:
            yield gateway
        finally:
            await gateway.stop(0)


async def get(gateway: Gateway, trusting: ssl.SSLContext | bool = True) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client:
        async with client.get(gateway.url + "/x", ssl=trusting) as response:
            return response.status, await response.text()


def serving_with(pair: Pair, client_ca: Path | None = None) -> ssl.SSLContext:
    """A Function URL's side; `client_ca`: it demands a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(pair.cert, pair.key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


# The gateway calls a Function URL


async def test_an_invocation_over_a_private_authority(ours: Authority) -> None:
    function = RealFunction(handler, {}, serving_with(ours.issue()))
    async with gateway_before(function, invoke=InvokeConfig(ca=ours.ca)) as gateway:
        assert await get(gateway) == (200, "hello /x")


async def test_an_invocation_with_a_certificate_of_the_gateways(ours: Authority) -> None:
    function = RealFunction(handler, {}, serving_with(ours.issue(), client_ca=ours.ca))
    pair = ours.issue("gateway")
    async with gateway_before(function, invoke=InvokeConfig(ca=ours.ca, cert=pair.cert, key=pair.key)) as gateway:
        assert await get(gateway) == (200, "hello /x")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("system's authorities", "self-signed certificate in certificate chain|unable to get local issuer certificate"),
        ("another authority", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("another name", "Hostname mismatch"),
        ("no certificate of ours", f"CERTIFICATE_REQUIRED|{RESET}"),
        ("a certificate of another authority", f"UNKNOWN_CA|{RESET}"),
    ],
)
async def test_an_invocation_that_must_not_be_sent(
    ours: Authority, others: Authority, fault: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke = InvokeConfig(ca=ours.ca)
    client_ca = None
    pair = ours.issue()
    match fault:
        case "system's authorities":
            invoke = InvokeConfig()
        case "another authority":
            invoke = InvokeConfig(ca=others.ca)
        case "expired":
            pair = ours.issue(days=-1)
        case "another name":
            pair = ours.issue("elsewhere.example")
        case "no certificate of ours":
            client_ca = ours.ca
        case _:
            client_ca, theirs = ours.ca, others.issue("gateway")
            invoke = InvokeConfig(ca=ours.ca, cert=theirs.cert, key=theirs.key)
    function = RealFunction(handler, {}, serving_with(pair, client_ca))
    async with gateway_before(function, invoke=invoke) as gateway:
        status, text = await get(gateway)
    assert (status, "invoke-failed" in text) == (502, True)
    assert not function.tokens, "an invitation was sent to whom nobody knows"
    lines = [line for line in capsys.readouterr().out.splitlines() if "invocation.failed" in line]
    assert lines and all(any(words in line for words in said.split("|")) for line in lines), lines
    assert not any(words in text for words in said.split("|"))


# A function dials the gateway


async def test_a_dial_over_a_private_authority(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ours.issue()
    monkeypatch.setenv("DIALBACK_CA_FILE", str(ours.ca))
    async with gateway_before(RealFunction(handler, {}), tls=TlsConfig(pair.cert, pair.key)) as gateway:
        assert await get(gateway, ssl.create_default_context(cafile=ours.ca)) == (200, "hello /x")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("the system's authorities", "unable to get local issuer certificate"),
        ("another authority", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("another name", "Hostname mismatch"),
        ("no such file", "DIALBACK_CA_FILE=/nowhere/ca.pem cannot be used: [Errno 2] No such file"),
    ],
)
async def test_a_gateway_that_must_not_be_dialled(
    ours: Authority,
    others: Authority,
    fault: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pair = ours.issue()
    monkeypatch.setenv("DIALBACK_CA_FILE", str(ours.ca))
    match fault:
        case "the system's authorities":
            monkeypatch.delenv("DIALBACK_CA_FILE")
        case "another authority":
            monkeypatch.setenv("DIALBACK_CA_FILE", str(others.ca))
        case "expired":
            pair = ours.issue(days=-1)
        case "another name":
            pair = ours.issue("elsewhere.example")
        case _:
            monkeypatch.setenv("DIALBACK_CA_FILE", "/nowhere/ca.pem")
    function = RealFunction(handler, {})
    async with gateway_before(function, tls=TlsConfig(pair.cert, pair.key)) as gateway:
        assert (await get(gateway, False))[0] == 502
    assert "failed: " in caplog.text and said in caplog.text
    assert said in function.answers[0]["outcome"]


# The gateway wants functions to show a certificate


@asynccontextmanager
async def demanding(ours: Authority) -> AsyncIterator[tuple[Gateway, RealFunction]]:
    """A gateway that wants certificates of functions."""
    pair, function = ours.issue(), RealFunction(handler, {})
    async with gateway_before(function, tls=TlsConfig(pair.cert, pair.key, ours.ca)) as gateway:
        yield gateway, function


async def test_a_function_with_a_certificate_dials_in_and_clients_need_none(
    ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ours.issue("function")
    for name, file in zip(TLS_FILES, (ours.ca, pair.cert, pair.key), strict=True):
        monkeypatch.setenv(name, str(file))
    async with demanding(ours) as (gateway, _):
        trusting = ssl.create_default_context(cafile=ours.ca)
        assert await get(gateway, trusting) == (200, "hello /x")
        trusting.load_cert_chain(pair.cert, pair.key)
        assert await get(gateway, trusting) == (200, "hello /x"), "who has one may be a client as well"


@pytest.mark.parametrize(
    ("fault", "at_the_function", "at_the_gateway"),
    [
        ("none", "refused: certificate", "reason=certificate"),
        (
            "another authority's",
            f"before it answered: see its log|{RESET}",
            "reason='unable to get local issuer certificate'",
        ),
        ("expired", f"before it answered: see its log|{RESET}", "reason='certificate has expired'"),
        ("no such file", "DIALBACK_KEY_FILE=/nowhere/key.pem cannot be used", ""),
        ("no key", "DIALBACK_CERT_FILE=", ""),
    ],
)
async def test_a_function_without_a_good_certificate_does_not_dial_in(
    ours: Authority,
    others: Authority,
    fault: str,
    at_the_function: str,
    at_the_gateway: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files: tuple[Path | str, ...] = (ours.ca,)
    match fault:
        case "another authority's":
            pair = others.issue("function")
            files = (ours.ca, pair.cert, pair.key)
        case "expired":
            pair = ours.issue("function", days=-1)
            files = (ours.ca, pair.cert, pair.key)
        case "no such file":
            files = (ours.ca, ours.issue("function").cert, "/nowhere/key.pem")
        case "no key":
            files = (ours.ca, ours.issue("function").cert)
    for name, file in zip(TLS_FILES, files, strict=False):
        monkeypatch.setenv(name, str(file))
    async with demanding(ours) as (gateway, function):
        assert (await get(gateway, ssl.create_default_context(cafile=ours.ca)))[0] == 502
    assert any(words in function.answers[0]["outcome"] for words in at_the_function.split("|")), function.answers
    said = capsys.readouterr().out
    assert at_the_gateway in said
    assert "PRIVATE KEY" not in said


async def test_a_client_with_anothers_certificate_is_cut_and_the_log_says_why(
    ours: Authority, others: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    async with demanding(ours) as (gateway, _):
        pair, trusting = others.issue("stranger"), ssl.create_default_context(cafile=ours.ca)
        trusting.load_cert_chain(pair.cert, pair.key)
        for _ in range(20):
            with pytest.raises(aiohttp.ClientError):
                await get(gateway, trusting)
    assert capsys.readouterr().out.count("tls.client_certificate_refused") == 5, "a line for each, at a bounded rate"


def test_no_key_of_the_configuration_turns_verification_off(ours: Authority) -> None:
    pair = ours.issue()
    asking = TlsConfig(pair.cert, pair.key, ours.ca).context()
    calling = InvokeConfig(ca=ours.ca).context()
    assert calling is not None and (calling.verify_mode, calling.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert asking.verify_mode is ssl.CERT_OPTIONAL
    assert len(asking.get_ca_certs()) == len(calling.get_ca_certs()) == 1, "nobody's but the one that was named"
    assert min(asking.minimum_version, calling.minimum_version) >= ssl.TLSVersion.TLSv1_2
