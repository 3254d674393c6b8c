"""An environment between two invocations: frozen, its sockets with it; and its way out, verified and encrypted."""

from __future__ import annotations

import json
import queue
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lambda_client import Request, SyncRequest, stream_handler
from protocol.events import CreditGranted
from tests.lambda_client.conftest import Function
from tests.lambda_client.loopback_gateway import SECRET, LoopbackGateway

Make = Callable[..., Function]
ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import json, sys
from lambda_client import stream_handler
from lambda_client.testing import TestContext

@stream_handler
async def handler(request):
    return f"hello from {request.path}"

for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), TestContext(60))), flush=True)
"""


class Child:
    """A function in a process of its own, that can be frozen."""

    def __init__(self, gateway: LoopbackGateway) -> None:
        variables = {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": gateway.address, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True
        )

    def invoke(self, event: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(event) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer.pop("awake") >= 0
        return answer

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.communicate(timeout=10)


@pytest.fixture
def child(gateway: LoopbackGateway) -> Iterator[Child]:
    made = Child(gateway)
    yield made
    made.close()


FREEZE = 0.5  # seconds; longer than a recycled socket may stay silent


def test_a_frozen_environment_keeps_its_socket(gateway: LoopbackGateway, child: Child) -> None:
    for number in range(1, 4):
        gateway.ask("GET", f"/{number}")
        assert child.invoke(gateway.invite()) == {"dialback": 1, "lease": number, "outcome": "parked"}
        child.process.send_signal(signal.SIGSTOP)
        threading.Event().wait(FREEZE)
        child.process.send_signal(signal.SIGCONT)
    assert [dial.epoch for dial in gateway.dials] == [1]


def test_a_socket_that_died_in_the_freeze_is_noticed_at_the_thaw(gateway: LoopbackGateway, child: Child) -> None:
    gateway.ask()
    child.invoke(gateway.invite())
    child.process.send_signal(signal.SIGSTOP)
    gateway.cut()
    child.process.send_signal(signal.SIGCONT)
    exchange = gateway.ask("GET", "/thawed")
    assert child.invoke(gateway.invite())["outcome"] == "parked"
    assert exchange.next_news()[0] == "head"
    assert exchange.next_news() == ("data", b"hello from /thawed")
    assert len({dial.session for dial in gateway.dials}) == 2


# wss://


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, pem = folder / "key.pem", folder / "certificate.pem"
    names = "subjectAltName=IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gateway"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", pem, "-addext", names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl command to make a certificate with")
    return key, pem


@pytest.fixture
def secure_gateway(certificate: tuple[Path, Path]) -> Iterator[LoopbackGateway]:
    key, pem = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    running = LoopbackGateway(tls=context, scheme="wss").start()
    yield running
    running.stop()


@stream_handler
async def count(request: Request) -> str:
    size = 0
    async for piece in request.body:
        size += len(piece)
    return str(size)


def test_a_link_over_tls_is_kept_and_carries_large_bodies(
    secure_gateway: LoopbackGateway,
    certificate: tuple[Path, Path],
    function: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DIALBACK_CA_FILE", str(certificate[1]))
    lambda_ = function(count, secure_gateway)
    for number in range(1, 3):
        exchange = secure_gateway.ask("POST", "/", end=False)
        uploader = threading.Thread(target=exchange.upload, args=([bytes(50_000)] * 40,))
        uploader.start()
        assert lambda_.invoke(secure_gateway.invite()).result(10)["lease"] == number
        uploader.join()
        assert exchange.next_news()[0] == "head"
        assert exchange.next_news() == ("data", b"2000000")
    assert len(secure_gateway.dials) == 1
    secure_gateway.cut()
    secure_gateway.ask()
    assert lambda_.invoke(secure_gateway.invite()).result(10) == {"dialback": 1, "lease": 1, "outcome": "parked"}


@pytest.mark.parametrize("fault", ["unknown authority", "another name"])
def test_a_certificate_that_is_not_the_gateways_is_not_dialled(
    secure_gateway: LoopbackGateway,
    certificate: tuple[Path, Path],
    function: Make,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.setattr("lambda_client.link.FIRST_DIAL_PATIENCE", 0.2)
    url = secure_gateway.url
    if fault == "another name":
        monkeypatch.setenv("DIALBACK_CA_FILE", str(certificate[1]))
        url = url.replace("127.0.0.1", "localhost")
    lambda_ = function(count, secure_gateway, DIALBACK_GATEWAY=url)
    answer = lambda_.invoke(secure_gateway.invite(url=url)).result(10)
    assert answer["lease"] is None
    assert "SSLCertVerificationError" in answer["outcome"]
    assert not secure_gateway.dials


# Expect: 100-continue


def test_the_first_read_asks_for_a_body_that_waits_to_be_asked_for(gateway: LoopbackGateway, function: Make) -> None:
    read = threading.Event()

    @stream_handler
    def handler(request: SyncRequest) -> str:
        assert read.wait(10)
        return str(len(request.read()))

    exchange = gateway.ask("POST", "/", end=False, expect=True)
    running = function(handler, gateway).invoke(gateway.invite())
    assert exchange.opened.wait(10)
    credit: queue.SimpleQueue[int] = queue.SimpleQueue()
    end = exchange.end
    assert end is not None
    handle = end._handle

    def watch(events: Any) -> None:
        for event in events:
            if isinstance(event, CreditGranted):
                credit.put(event.stream)
        handle(events)

    end._handle = watch  # type: ignore[method-assign]
    assert credit.empty()
    read.set()
    assert credit.get(timeout=10) == exchange.number
    exchange.upload([bytes(1000)])
    assert exchange.next_news()[0] == "head"
    assert exchange.next_news() == ("data", b"1000")
    assert running.result(10)["outcome"] == "parked"
