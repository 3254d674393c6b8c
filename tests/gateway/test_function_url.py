"""A Function URL that is invoked: what each of its answers means, and that nothing else of it is believed."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from gateway.invoke import function_url
from gateway.invoke.answer import Answer, Outcome
from gateway.invoke.function_url import LONGEST_RETRY_AFTER, MAX_ANSWER, FunctionUrl
from tests.gateway.certificate import Authority

Behave = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OURS = {"dialback": 1, "lease": 1, "outcome": "parked"}


@asynccontextmanager
async def serving(behave: Behave) -> AsyncIterator[str]:
    server = web.Server(behave, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    finally:
        listener.close()
        await server.shutdown(0.1)


async def invoke(url: str, tls: ssl.SSLContext | None = None) -> Answer:
    invoker = FunctionUrl(url, tls=tls)
    try:
        return await asyncio.wait_for(invoker.invoke("TOKEN"), 5)
    finally:
        await invoker.close()
        await invoker.close()


async def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    async with serving(behave) as url:
        return await invoke(url)


REFUSED = {"type": "urn:dialback:invitation-refused", "title": "…", "status": 403, "detail": "signature"}


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (200, OURS, Outcome.ANSWERED),
        (200, {"dialback": 1}, Outcome.ANSWERED),
        (200, {"dialback": 1, "outcome": "refused: used"}, Outcome.ANSWERED),
        (200, {"dialback": 1, "outcome": "unhealthy"}, Outcome.UNHEALTHY),
        (502, {"dialback": 1, "outcome": "unhealthy"}, Outcome.UNHEALTHY),
        (502, {"dialback": 1, "outcome": "parked"}, Outcome.ERROR),
        (200, {"dialback": 2}, Outcome.FOREIGN),
        (200, {"hello": "world"}, Outcome.FOREIGN),
        (200, "hello", Outcome.FOREIGN),
        (200, None, Outcome.FOREIGN),
        (204, None, Outcome.FOREIGN),
        (301, None, Outcome.FOREIGN),
        (400, OURS, Outcome.FOREIGN),
        (403, REFUSED, Outcome.REFUSED),
        (403, {"Message": "Forbidden"}, Outcome.FORBIDDEN),
        (404, None, Outcome.FOREIGN),
        (413, None, Outcome.FOREIGN),
        (429, {"Message": "Rate Exceeded."}, Outcome.THROTTLED),
        (503, None, Outcome.THROTTLED),
        (500, None, Outcome.ERROR),
        (502, None, Outcome.ERROR),
        (504, None, Outcome.ERROR),
    ],
)
async def test_each_answer_has_its_meaning(status: int, document: object, outcome: Outcome) -> None:
    assert (await answer(status, json.dumps(document).encode())).outcome is outcome


async def test_the_invitation_is_posted_as_the_protocol_says() -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.method, request.headers["Content-Type"], await request.read()))
        assert "Cookie" not in request.headers
        return web.json_response(OURS, headers={"Set-Cookie": "a=b"})

    async with serving(behave) as url:
        invoker = FunctionUrl(url)
        for _ in range(2):
            assert (await invoker.invoke("TOKEN")).outcome is Outcome.ANSWERED
        await invoker.close()
    posted = ("POST", "application/vnd.dialback.invitation+json", b'{"dialback-invitation": "TOKEN"}')
    assert seen == [posted, posted]


async def test_what_is_wrong_is_said_for_the_log() -> None:
    assert "signature" in (await answer(403, json.dumps(REFUSED).encode())).detail
    assert "404" in (await answer(404)).detail
    long = json.dumps({"dialback": 1, "outcome": "x" * 5000}).encode()
    assert len((await answer(200, long)).detail) == 200


async def test_an_answer_in_pieces_is_read_to_its_end() -> None:
    """What came first was taken for the whole, and was no JSON."""

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in json.dumps(OURS).encode():
            await response.write(bytes((byte,)))
            await asyncio.sleep(0)
        return response

    async with serving(behave) as url:
        assert (await invoke(url)).outcome is Outcome.ANSWERED


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(MAX_ANSWER))

    async with serving(behave) as url:
        assert (await invoke(url)).outcome is Outcome.FOREIGN


async def test_redirects_are_not_followed() -> None:
    seen: list[str] = []

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with serving(behave) as url:
        assert (await invoke(url)).outcome is Outcome.FOREIGN
    assert seen == ["/"]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"", Outcome.BROKEN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", Outcome.BROKEN),
        (b"HTTP/1.1 ", Outcome.BROKEN),
        (b"not HTTP at all\r\n\r\n", Outcome.FOREIGN),
    ],
)
async def test_a_connection_that_breaks_has_its_own_meaning(said: bytes, outcome: Outcome) -> None:
    """Something may have run."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        answer = await invoke(f"http://127.0.0.1:{port}/")
    assert answer.outcome is outcome
    assert answer.detail


async def test_nobody_there_is_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = await invoke(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert answer.outcome is Outcome.CONNECTION_REFUSED


async def test_no_way_there_is_unreachable() -> None:
    """A broadcast address: the kernel refuses to connect."""
    assert (await invoke("http://255.255.255.255:9/")).outcome is Outcome.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "headers", "outcome", "seconds"),
    [
        (429, {"Retry-After": "7"}, Outcome.THROTTLED, 7.0),
        (503, {"Retry-After": "99999999"}, Outcome.THROTTLED, LONGEST_RETRY_AFTER),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, Outcome.THROTTLED, 0.0),
        (429, {"Retry-After": "Wed, 21 Oct 2999 07:28:00 GMT"}, Outcome.THROTTLED, LONGEST_RETRY_AFTER),
        (429, {"Retry-After": "-1"}, Outcome.THROTTLED, 0.0),
        (429, {"Retry-After": "soon"}, Outcome.THROTTLED, 0.0),
        (400, {"x-amzn-ErrorType": "ThrottlingException"}, Outcome.THROTTLED, 0.0),
        (400, {"x-amzn-ErrorType": "SerializationException"}, Outcome.FOREIGN, 0.0),
        (200, {"X-Amz-Function-Error": "Unhandled"}, Outcome.ERROR, 0.0),
    ],
)
async def test_headers_say_more(status: int, headers: dict[str, str], outcome: Outcome, seconds: float) -> None:
    said = await answer(status, json.dumps(OURS).encode(), headers)
    assert (said.outcome, said.retry_after) == (outcome, seconds)


def refuse_handshake(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Send the alert, and read the rest: else the reset of what was not read may overtake it."""
    connection, _ = listener.accept()
    with connection.dup() as plain:
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(1000):
            pass


@pytest.mark.parametrize("shown", [None, "another"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_function_url_that_refuses_our_certificate(
    shown: str | None, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """In TLS 1.3 it says so when the handshake is over for us (RFC 8446, section 4.4.2.4), in place of an answer."""
    ours, others = Authority(tmp_path), Authority(tmp_path, "others")
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours.ca)
    theirs.verify_mode, theirs.maximum_version, pair = ssl.CERT_REQUIRED, version, ours.issue()
    theirs.load_cert_chain(pair.cert, pair.key)
    calling = ssl.create_default_context(cafile=ours.ca)
    if shown is not None:
        pair = others.issue("gateway")
        calling.load_cert_chain(pair.cert, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse_handshake, listener, theirs))
        said = await invoke(f"https://localhost:{listener.getsockname()[1]}/", calling)
        await asyncio.wait_for(refusing, 5)
    assert said.outcome is Outcome.TLS, said.detail


async def test_a_function_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_url, "ANSWER_TIMEOUT", 0.1)
    end = asyncio.Event()

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        await end.wait()
        return web.Response()

    async with serving(behave) as url:
        assert (await invoke(url)).outcome is Outcome.TIMEOUT
        end.set()


async def test_an_invocation_can_be_cancelled() -> None:
    """And its connection goes with it."""
    came, gone = asyncio.Event(), asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        came.set()
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        invoker = FunctionUrl(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        task = asyncio.create_task(invoker.invoke("TOKEN"))
        await came.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        await asyncio.wait_for(gone.wait(), 5)
        await invoker.close()


async def test_as_many_run_at_once_as_it_has_connections() -> None:
    """aiohttp's own limit of 100 would have them wait for each other."""
    running = asyncio.Semaphore(0)
    end = asyncio.Event()

    async def behave(request: web.BaseRequest) -> web.StreamResponse:
        running.release()
        await end.wait()
        return web.json_response(OURS)

    async with serving(behave) as url:
        invoker = FunctionUrl(url)
        tasks = [asyncio.create_task(invoker.invoke("TOKEN")) for _ in range(120)]
        for _ in tasks:
            await asyncio.wait_for(running.acquire(), 5)
        end.set()
        assert {answer.outcome for answer in await asyncio.gather(*tasks)} == {Outcome.ANSWERED}
        await invoker.close()
