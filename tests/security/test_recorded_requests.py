"""Recorded smuggling shapes and malformed requests, sent raw: each is refused, or has one meaning, in any pieces."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from gateway.exchange import Exchange, RequestHead
from gateway.limits import HttpLimits
from tests.gateway.environment_fake import Environment, FunctionUrl, Served
from tests.gateway.function_fake import FakePool, FakeStream, Front, answer, listening
from tests.gateway.whole_gateway import gateway_for
from tests.security.recorded import NEXT, Case, cases

CASES = cases()
LIMITS = HttpLimits(linger=0.2, drain=0.2)
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
PIECES = 200  # in which a case is sent at most


class Function:
    """Sees whole requests, in their order, and answers each."""

    def __init__(self) -> None:
        self.saw: list[str] = []
        self.heads: list[RequestHead] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange, stream: FakeStream) -> None:
        exchange.credit()
        task = asyncio.ensure_future(self._serve(exchange, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, exchange: Exchange, stream: FakeStream) -> None:
        head = exchange.head
        await stream.until(lambda: stream.has_ended or not head.has_body or bool(stream.told))
        if stream.told:
            return  # it never was whole
        self.saw.append(shown(head.method, head.target, bytes(stream.body)))
        self.heads.append(head)
        answer(length=True)(exchange, stream)


def shown(method: bytes, target: bytes, body: bytes) -> str:
    """As the corpus writes it."""
    return b"%b %b %b".__mod__((method, target, body)).decode("latin-1")


def final_statuses(response: bytes) -> list[int]:
    """Of every response but 100 Continue."""
    return [int(status) for status in STATUS.findall(response) if status != b"100"]


async def exchanged(port: int, case: Case, piece: int = 1 << 20) -> bytes:
    """Everything that comes back until the gateway closes."""
    data = case.sent + NEXT
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    received = bytearray()

    async def receive() -> None:
        try:
            while some := await reader.read(1 << 20):
                received.extend(some)
        except ConnectionResetError:
            assert case.closes  # it still sent when the gateway had closed, as had been agreed

    receiving = asyncio.ensure_future(receive())
    try:
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await asyncio.sleep(0)  # so that it is read alone, as a rule
        if case.waits:
            writer.write_eof()
        async with asyncio.timeout(5):
            await receiving
        return bytes(received)
    finally:
        receiving.cancel()
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


def judge(case: Case, response: bytes, saw: list[str]) -> None:
    """Compare what happened with what must."""
    statuses = final_statuses(response)
    if case.together and not saw:
        assert statuses in ([400], [501]), response
        return
    assert saw == case.saw + ["GET /next "] * case.is_followed, response
    assert statuses[: len(saw)] == [200] * len(saw)
    if case.statuses:
        assert len(statuses) == len(saw) + 1
        assert statuses[-1] in case.statuses, response
        document = json.loads(response.rpartition(b"\r\n\r\n")[2])
        assert document["status"] == statuses[-1]
        assert document["instance"].startswith("urn:dialback:request:")
        assert b"Traceback" not in response
    else:
        assert len(statuses) == len(saw)


async def tried(front: Front, function: Function, case: Case, piece: int = 1 << 20) -> None:
    response = await exchanged(front.port, case, piece)
    judge(case, response, function.saw)
    if function.heads and (case.has or case.lacks):
        fields = dict(function.heads[0].headers)
        assert len(fields) == len(function.heads[0].headers)
        for name, value in case.has.items():
            assert fields[name.encode()] == value.encode("latin-1")
        assert not {name.encode() for name in case.lacks} & set(fields)


def test_the_corpus_is_what_it_says() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len({case.sent for case in CASES}) == len(CASES)
    assert all(case.rule.startswith(("RFC ", "DESIGN ")) for case in CASES)
    assert all(case.statuses or case.saw or case.waits for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_refused_or_one_meaning(case: Case) -> None:
    function = Function()
    async with listening(FakePool(function), limits=LIMITS) as front:
        await tried(front, function, case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_same_when_it_comes_in_pieces(case: Case) -> None:
    function = Function()
    async with listening(FakePool(function), limits=LIMITS) as front:
        await tried(front, function, case, max(1, len(case.sent) // PIECES))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gateway that does not listen long to those whom it refused."""
    monkeypatch.setattr("gateway.config.ClientConfig.limits", lambda self: LIMITS)
    yield


async def test_the_same_through_a_whole_gateway(quick: None) -> None:
    saw: list[str] = []

    def serve(stream: Served) -> None:
        stream.session.start_reading(stream.number)
        if stream.has_ended and not stream.has_answered:
            request = stream.request
            saw.append(shown(request.method, request.target, bytes(stream.body)))
            stream.has_answered = True
            stream.session.send_response(stream.number, 200, [(b"content-length", b"2")])
            stream.send(b"ok", end=True)

    url = FunctionUrl(lambda: Environment(serve, places=10))
    async with url.serving(), gateway_for(url, linger=5) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        for case in CASES:
            saw.clear()
            response = await exchanged(port, case)
            try:
                judge(case, response, saw)
            except AssertionError as error:
                raise AssertionError(f"{case.name}: {error}") from None
