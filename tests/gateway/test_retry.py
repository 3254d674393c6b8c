"""What becomes of requests whose invocations fail, and how often a function that fails is asked: real servers, real
sockets, counted where they are asked."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from structlog.testing import capture_logs

from gateway import retry
from gateway.breaker import Circuit
from gateway.config import BreakerConfig, RetryConfig, SessionConfig, TimeoutsConfig
from gateway.invoke import function_url
from gateway.invoke.answer import Outcome
from gateway.link_socket import LinkSocket
from protocol.frames import Code
from tests.gateway.certificate import Authority
from tests.gateway.environment_fake import (
    LOOPBACK,
    Environment,
    FunctionUrl,
    Served,
    first_dial,
    leave_it,
    name_it,
    open_socket,
)
from tests.gateway.function_fake import eventually
from tests.gateway.raw_link import close_code, welcome
from tests.gateway.whole_gateway import Whole, first_stream, gateway_for, url_of, whole

BAD_GATEWAY = {"status": 502, "headers": {"x-amzn-requestid": "11-22", "x-amzn-errortype": "Runtime.ImportModuleError"}}
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def failing(times: int, environment: Environment | None = None, **response: Any) -> FunctionUrl:
    """A Function URL that answers so, as often, and then has an environment."""
    made = environment or Environment()

    async def behave(token: str) -> web.StreamResponse:
        if url.invited.qsize() <= times:
            return web.json_response(None, **(response or BAD_GATEWAY))
        assert url.gateway is not None
        return web.json_response(await made.invoke(url.gateway, token))

    url = FunctionUrl(behave=behave)
    url.environments.append(made)  # closed with it
    return url


def always(**response: Any) -> FunctionUrl:
    return failing(1 << 30, **response)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer(FunctionUrl):
    """Bytes in place of HTTP; `asked` counts its connections."""

    def __init__(self, serve: Serve) -> None:
        super().__init__()
        self.asked = 0
        self._serve = serve

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FunctionUrl]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.asked += 1
            await self._serve(reader, writer)
            writer.close()

        async with await asyncio.start_server(accept, LOOPBACK, 0) as server:
            self.url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/"
            yield self


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request, and break the connection."""
    await reader.readuntil(b"}")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


@asynccontextmanager
async def behind(address: str, **options: Any) -> AsyncIterator[Whole]:
    """A gateway before this Function URL, whatever is there."""
    url = FunctionUrl()
    url.url = address
    async with gateway_for(url, **options) as gateway, ClientSession() as client:
        yield Whole(gateway, url, client)


def ended(it: Whole) -> dict[Outcome, int]:
    """How often each class of failure was seen."""
    return {outcome: count for outcome, count in it.pool.starts.outcomes.items() if count}


# One request


async def test_what_never_left_for_a_function_is_no_retry_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session ended with its requests in the gateway: those beyond the function's budget were answered 503."""
    lost, other = Environment(leave_it, places=40), Environment(places=40)
    async with whole(url_of(lost, other), linger=5) as it:
        asked = it.asking()
        (await first_stream(lost)).respond()
        await asked
        monkeypatch.setattr(LinkSocket, "room", 0)
        waiting = [it.asking(f"/{number}", b"" if number % 2 else None) for number in range(40)]
        await eventually(lambda: it.link.open_streams == 40)
        monkeypatch.undo()
        it.link.end("a test")
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert [status for status, _ in answers] == [200] * 40
        assert it.pool.retries.granted == it.pool.retries.denied == 0


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_failed_invocation_is_tried_again_unseen_by_the_client(status: int) -> None:
    async with whole(failing(2, status=status)) as it:
        status_seen, text = await it.get("/x", b"a body")
        assert status_seen == 200 and text.endswith(" /x")
        assert ended(it) == {Outcome.ERROR: 2} and it.pool.retries.granted == 2


@pytest.mark.parametrize(("count", "invocations"), [(0, 1), (1, 2), (2, 3)])
async def test_a_request_is_tried_again_as_often_as_the_configuration_says(count: int, invocations: int) -> None:
    async with whole(always(), retry=RetryConfig(count=count)) as it:
        assert await it.problem() == (502, "function-error")
        assert it.url.invited.qsize() == invocations


async def test_a_request_is_not_tried_again_after_its_time() -> None:
    async with whole(always(), retry=RetryConfig(count=10, time=0)) as it:
        assert await it.problem() == (502, "function-error")
        assert it.url.invited.qsize() == 1


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (403, {"type": "urn:dialback:invitation-refused", "detail": "signature"}, Outcome.REFUSED),
        (403, {"Message": "Forbidden"}, Outcome.FORBIDDEN),
        (404, None, Outcome.FOREIGN),
        (200, {"hello": "world"}, Outcome.FOREIGN),
    ],
)
async def test_what_would_be_answered_the_same_again_is_not_tried_again(
    status: int, document: object, outcome: Outcome
) -> None:
    async def behave(token: str) -> web.StreamResponse:
        return web.json_response(document, status=status)

    async with whole(FunctionUrl(behave=behave)) as it:
        assert await it.problem() == (502, "invoke-failed")
        assert it.url.invited.qsize() == 1 and ended(it) == {outcome: 1}


async def test_the_log_names_class_and_cause_and_the_client_gets_neither() -> None:
    with capture_logs() as lines:
        async with whole(always(), retry=RetryConfig(count=0)) as it:
            async with it.client.get(it.gateway.url + "/") as response:
                text, request_id = await response.text(), response.headers["x-request-id"]
    (line,) = [line for line in lines if line["event"] == "invocation.failed"]
    assert (line["outcome"], line["request"]) == ("error", request_id)
    assert line["detail"] == "status 502, x-amzn-requestid 11-22, x-amzn-errortype Runtime.ImportModuleError"
    assert json.loads(text)["instance"].endswith(request_id)
    assert "11-22" not in text and "Runtime" not in text


async def test_a_session_that_ends_before_its_lease_holds_nobody_up() -> None:
    """It had presented its invitation and sent text; its invocation goes on, and nobody waits for that one any more."""
    environment, goes_on = Environment(), asyncio.Event()

    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        if url.invited.qsize() > 1:
            return web.json_response(await environment.invoke(url.gateway, token))
        async with await open_socket(url.gateway, first_dial(token).to_headers()) as socket:
            await socket.send("hello")
            assert await close_code(socket) == 1003
        await goes_on.wait()
        return web.json_response({"dialback": 1})

    url = FunctionUrl(behave=behave)
    url.environments.append(environment)
    with capture_logs() as lines:
        async with whole(url, timeouts=TimeoutsConfig(dial_back=300, queue_wait=300)) as it:
            status, _ = await asyncio.wait_for(it.get(), 60)
            assert (status, it.url.invited.qsize(), it.pool.starts.running) == (200, 2, 2)
            goes_on.set()
    (line,) = [line for line in lines if line["event"] == "invocation.failed"]
    assert line["outcome"] == "link-ended" and line["detail"].endswith(
        "before its lease: protocol error (a text message)"
    )


async def test_sessions_that_all_end_before_their_leases_are_a_502() -> None:
    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        async with await open_socket(url.gateway, first_dial(token).to_headers()) as socket:
            await welcome(socket)
            await socket.close(1000)
        await goes_on.wait()
        return web.json_response({"dialback": 1})

    goes_on, url = asyncio.Event(), FunctionUrl(behave=behave)
    async with whole(url, timeouts=TimeoutsConfig(dial_back=300, queue_wait=300), retry=RetryConfig(count=1)) as it:
        assert await asyncio.wait_for(it.problem(), 60) == (502, "invoke-failed")
        assert it.url.invited.qsize() == 2 and it.pool.starts.coming == 0
        goes_on.set()


# Ways to fail before HTTP


async def test_a_refused_port_is_tried_again_and_no_more() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        async with behind(f"http://{LOOPBACK}:{taken.getsockname()[1]}/") as it:
            assert await it.problem() == (502, "invoke-failed")
            assert ended(it) == {Outcome.CONNECTION_REFUSED: 3}


async def test_a_function_whose_port_opens_in_time_is_reached() -> None:
    url = FunctionUrl()
    async with url.serving():
        pass  # its address is known, and nobody is there
    async with gateway_for(url, retry=RetryConfig(count=10)) as gateway, ClientSession() as client:
        it = Whole(gateway, url, client)
        asked = it.asking()
        await eventually(lambda: bool(ended(it)))
        server = web.Server(url._handle, access_log=None)
        host, port = LOOPBACK, int(url.url.rstrip("/").rpartition(":")[2])
        async with await asyncio.get_running_loop().create_server(server, host, port):
            assert (await asked)[0] == 200
            for environment in url.environments:
                await environment.close()
            await server.shutdown(0.1)


async def test_a_host_without_an_address_is_a_502() -> None:
    async with behind("http://no-such-host.invalid/", retry=RetryConfig(count=1)) as it:
        assert await it.problem() == (502, "invoke-failed")
        assert ended(it) == {Outcome.DNS: 2}


async def test_a_certificate_that_nobody_vouches_for_is_not_tried_again(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("IP:127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)
    handshakes = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal handshakes
        handshakes += 1
        writer.close()

    async with await asyncio.start_server(accept, LOOPBACK, 0, ssl=context) as server:
        async with behind(f"https://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/") as it:
            assert await it.problem() == (502, "invoke-failed")
            assert ended(it) == {Outcome.TLS: 1} and handshakes == 0


async def test_a_server_that_speaks_no_tls_is_not_tried_again() -> None:
    url = RawServer(lambda reader, writer: _say(writer, b"220 a mail server\r\n"))
    async with url.serving():
        async with behind(url.url.replace("http:", "https:")) as it:
            assert await it.problem() == (502, "invoke-failed")
            assert ended(it) == {Outcome.TLS: 1} and url.asked == 1


async def _say(writer: asyncio.StreamWriter, text: bytes) -> None:
    writer.write(text)
    await writer.drain()


async def test_a_server_that_does_not_accept_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_url, "CONNECT_TIMEOUT", 0.1)
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(4)]  # the backlog: what comes later is not even refused
        try:
            for one in fill:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            await asyncio.sleep(0.05)
            async with behind(f"http://{LOOPBACK}:{listener.getsockname()[1]}/", retry=RetryConfig(count=1)) as it:
                assert await it.problem() == (502, "invoke-failed")
                assert ended(it) == {Outcome.TIMEOUT: 2}
        finally:
            for one in fill:
                one.close()


async def test_a_connection_that_is_reset_after_the_request_is_tried_again_and_no_more() -> None:
    async with whole(RawServer(reset)) as it:
        assert await it.problem() == (502, "invoke-failed")
        assert isinstance(it.url, RawServer) and it.url.asked == 3
        assert ended(it) == {Outcome.BROKEN: 3}


# Streams that never began


def refuse(stream: Served) -> None:
    if stream.stopped is None and not stream.has_answered:
        stream.has_answered = True
        stream.reset(Code.REFUSED)


async def test_what_one_environment_refuses_goes_elsewhere_however_much_it_is() -> None:
    """Nothing has run: a function is not spared by a client's 503."""
    many = int(2 * retry.RESERVE)
    unwell, well = Environment(refuse, places=many), Environment(places=many)
    async with whole(url_of(unwell, well), linger=1, retry=RetryConfig(share=0)) as it:
        asked = [it.asking(f"/{number}") for number in range(many)]
        assert [status for status, _ in await asyncio.wait_for(asyncio.gather(*asked), 20)] == [200] * many
        assert unwell.streams.qsize() == many


async def test_a_function_that_refuses_every_stream_is_asked_no_more_often_than_the_budget_says() -> None:
    environment = Environment(refuse, places=2)
    async with whole(url_of(environment), linger=1) as it:
        assert await it.problem() == (503, "unhealthy")
        assert environment.streams.qsize() == 3


async def lose(it: Whole, environment: Environment) -> None:
    """The process is no more."""
    assert environment.session is not None
    environment.session.end("the process is no more")
    await environment.close()
    environment.wake()


async def test_a_request_that_may_be_repeated_survives_an_environment_that_never_answered() -> None:
    lost, other = Environment(leave_it), Environment()
    async with whole(url_of(lost, other)) as it:
        asked = it.asking("/again")
        await first_stream(lost)
        await lose(it, lost)
        status, text = await asyncio.wait_for(asked, 5)
        assert status == 200 and text.endswith(" /again")


async def test_what_had_left_of_a_body_goes_to_the_next_environment_too() -> None:
    lost, other = Environment(leave_it), Environment()
    async with whole(url_of(lost, other), session=SessionConfig(grace=30)) as it:
        asked = asyncio.ensure_future(it.client.request("PUT", it.gateway.url + "/", data=b"data"))
        await (await first_stream(lost)).until(lambda served: served.has_ended)
        await lose(it, lost)
        assert (await asyncio.wait_for(asked, 5)).status == 200
        assert (await first_stream(other)).body == b"data"


@pytest.mark.parametrize("case", ["it may not be repeated", "it has read its body", "the function had spoken"])
async def test_a_request_that_the_function_may_have_seen_is_not_repeated(case: str) -> None:
    lost, other = Environment(leave_it), Environment()
    method = "POST" if case == "it may not be repeated" else "PUT"
    body = bytes(1 << 20) if case == "it has read its body" else None
    async with whole(url_of(lost, other), session=SessionConfig(grace=30)) as it:
        asked = asyncio.ensure_future(it.client.request(method, it.gateway.url + "/", data=body))
        stream = await first_stream(lost)
        if body:
            await stream.until(lambda served: served.has_ended)
        elif case == "the function had spoken":
            stream.session.send_informational(stream.number, 103, [])
            lost.wake()
            await asyncio.sleep(0.1)
        await lose(it, lost)
        response = await asyncio.wait_for(asked, 5)
        assert (response.status, (await response.json())["type"]) == (502, "urn:dialback:error:function-lost")
        assert other.streams.empty()


async def test_a_request_that_kills_its_environment_is_not_repeated_for_ever() -> None:
    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        environment = Environment(leave_it)
        url.environments.append(environment)
        serving = asyncio.ensure_future(environment.invoke(url.gateway, token))
        await environment.streams.get()
        await lose(it, environment)
        await asyncio.wait((serving,))
        return web.json_response(None, status=502)

    url = FunctionUrl(behave=behave)
    async with whole(url) as it:
        assert await it.problem() == (502, "function-lost")
        assert url.invited.qsize() == 3


# Storms


async def test_a_storm_of_refusals_by_the_platform_neither_opens_the_circuit_nor_costs_a_retry() -> None:
    async with whole(FunctionUrl(most=2), breaker=BreakerConfig(failures=2)) as it:
        answers = await asyncio.gather(*(it.get(f"/{number}") for number in range(100)))
        assert [status for status, _ in answers] == [200] * 100
        assert it.url.throttled > 2 and it.pool.starts.breaker.openings == 0
        assert it.pool.retries.granted == 0


async def test_the_platform_is_not_asked_again_before_it_said() -> None:
    url = always(status=429, headers={"Retry-After": "30"})
    async with whole(url, timeouts=TimeoutsConfig(dial_back=5, queue_wait=0.8)) as it:
        assert await it.problem() == (503, "invoke-throttled")
        assert url.invited.qsize() == 1  # without it there would be three


async def test_a_storm_of_errors_is_bounded_by_the_circuit_breaker() -> None:
    """300 requests with two retries each would be 900 invocations."""
    async with whole(always(), breaker=BreakerConfig(failures=5, pause=60)) as it:
        with capture_logs() as lines:
            answers = await asyncio.gather(*(it.get(f"/{number}") for number in range(300)))
        names = Counter(json.loads(text)["type"].rpartition(":")[2] for _, text in answers)
        assert {status for status, _ in answers} <= {502, 503} and set(names) <= {"function-error", "circuit-open"}
        # Five that fail, and what was on its way by then: a batch where the machine is idle.
        assert it.url.invited.qsize() <= 100
        assert names["circuit-open"] >= 200
        assert [line["event"] for line in lines if line["event"].startswith("circuit.")] == ["circuit.opened"]
        asked = it.url.invited.qsize()
        async with it.client.get(it.gateway.url + "/") as response:
            assert response.status == 503 and 55 <= int(response.headers["Retry-After"]) <= 60
        assert it.url.invited.qsize() == asked


async def test_all_retries_together_stay_below_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RESERVE", 4.0)
    monkeypatch.setattr(retry, "TRICKLE", 0.0)
    monkeypatch.setattr(retry, "FIRST_BACKOFF", 0.01)
    async with whole(always(), breaker=BreakerConfig(failures=0), retry=RetryConfig(share=10)) as it:
        for _ in range(40):
            assert await it.problem() == (502, "function-error")
        assert 40 + 4 <= it.url.invited.qsize() <= 40 + 4 + 40 * 0.1
        assert it.pool.retries.denied >= 30


async def test_a_function_that_flaps_serves_everybody_and_is_not_left_alone() -> None:
    """Every other invocation fails."""
    environment = Environment()

    async def behave(token: str) -> web.StreamResponse:
        if url.invited.qsize() % 2:
            return web.json_response(None, status=502)
        assert url.gateway is not None
        return web.json_response(await environment.invoke(url.gateway, token))

    url = FunctionUrl(behave=behave)
    url.environments.append(environment)
    async with whole(url, linger=0, breaker=BreakerConfig(failures=3)) as it:
        for _ in range(10):
            assert (await it.get())[0] == 200
            await asyncio.wait_for(environment.parked.wait(), 5)
        assert url.invited.qsize() == 20 and it.pool.starts.breaker.openings == 0


# The circuit breaker


async def test_an_environment_that_cannot_begin_does_not_keep_requests_from_one_that_is_warm() -> None:
    warm = Environment(places=1)

    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        if url.invited.qsize() > 1:
            return web.json_response(None, status=502)
        return web.json_response(await warm.invoke(url.gateway, token))

    url = FunctionUrl(behave=behave)
    url.environments.append(warm)
    options = {"breaker": BreakerConfig(failures=2, pause=60), "retry": RetryConfig(count=1)}
    async with whole(url, linger=5, **options) as it:
        assert (await it.get())[0] == 200
        warm._serve = leave_it
        first = it.asking("/first")
        stream = await first_stream(warm)
        while stream.request.target != b"/first":
            stream = await first_stream(warm)
        assert await it.problem("/cold") == (502, "function-error")
        assert it.pool.starts.breaker.circuit is Circuit.OPEN
        waiting = it.asking("/warm")
        await it.until_waiting(1)
        warm._serve = name_it
        stream.respond(b"first")
        assert await first == (200, "first")
        assert (await waiting)[1].endswith(" /warm")
        assert url.invited.qsize() == 3


async def test_what_waits_when_the_last_warm_environment_goes_is_refused_at_once() -> None:
    lost = Environment(leave_it)

    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        if url.invited.qsize() > 1:
            return web.json_response(None, status=502)
        return web.json_response(await lost.invoke(url.gateway, token))

    url = FunctionUrl(behave=behave)
    url.environments.append(lost)
    options = {"breaker": BreakerConfig(failures=1, pause=60), "retry": RetryConfig(count=0)}
    async with whole(url, **options) as it:
        first = it.asking("/first", b"body")
        await first_stream(lost)
        assert await it.problem() == (502, "function-error")
        waiting = asyncio.create_task(it.problem())
        await it.until_waiting(1)
        await lose(it, lost)
        assert await asyncio.wait_for(waiting, 5) == (503, "circuit-open")
        assert (await first)[0] == 502


async def test_one_invocation_is_tried_after_the_pause_and_closes_the_circuit_when_it_works() -> None:
    url = failing(3, Environment(places=50))
    options = {"breaker": BreakerConfig(failures=2, pause=0.3), "retry": RetryConfig(count=0)}
    async with whole(url, linger=5, **options) as it:
        breaker = it.pool.starts.breaker
        for _ in range(2):
            assert await it.problem() == (502, "function-error")
        assert await it.problem() == (503, "circuit-open")
        await eventually(lambda: not breaker.is_open)
        # One trial, however many come; it fails, and the pause doubles.
        names = Counter([name for _, name in await asyncio.gather(*(it.problem() for _ in range(20)))])
        assert names == {"function-error": 1, "circuit-open": 19} and url.invited.qsize() == 3
        assert (breaker._pause, breaker.openings) == (0.6, 2)
        await eventually(lambda: not breaker.is_open)
        assert (await it.get())[0] == 200
        assert breaker.circuit is Circuit.CLOSED and url.invited.qsize() == 4
        answers = await asyncio.gather(*(it.get() for _ in range(20)))
        assert {status for status, _ in answers} == {200}


async def test_refusals_by_our_handler_open_the_circuit() -> None:
    async def behave(token: str) -> web.StreamResponse:
        return web.json_response({"type": "urn:dialback:invitation-refused", "detail": "signature"}, status=403)

    async with whole(FunctionUrl(behave=behave), breaker=BreakerConfig(failures=3, pause=60)) as it:
        assert [await it.problem() for _ in range(4)] == [(502, "invoke-failed")] * 3 + [(503, "circuit-open")]


async def test_clients_that_leave_do_not_open_the_circuit() -> None:
    environment = Environment()
    environment.may_dial.clear()
    async with whole(url_of(environment), linger=0, breaker=BreakerConfig(failures=1)) as it:
        asked = it.asking()
        await it.url.invited.get()
        ended_one = it.gateway._closed_one
        ended_one.clear()
        asked.cancel()
        await asyncio.wait_for(ended_one.wait(), 5)
        environment.may_dial.set()
        await asyncio.wait_for(environment.parked.wait(), 5)
        assert (await it.get())[0] == 200 and it.pool.starts.breaker.openings == 0


async def test_new_code_closes_the_circuit() -> None:
    async with whole(failing(1), breaker=BreakerConfig(failures=1, pause=60), retry=RetryConfig(count=0)) as it:
        assert await it.problem() == (502, "function-error")
        assert await it.problem() == (503, "circuit-open")
        it.gateway.retire_links()
        assert (await it.get())[0] == 200
