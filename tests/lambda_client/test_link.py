"""A link over real sockets: dialled, kept over invocations, lost and resumed, refused, run out of time."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from websockets.asyncio.server import ServerConnection

from lambda_client import Request, Response, SyncRequest, stream_handler
from lambda_client.change import Change
from lambda_client.testing_gateway import Exchange, GatewayEnd
from protocol.codec import decode, encode
from protocol.frames import Ack, Park, Welcome
from protocol.gateway_session import SessionOptions
from tests.lambda_client.conftest import Function
from tests.lambda_client.loopback_gateway import LoopbackGateway

Make = Callable[..., Function]


def head_of(exchange: Exchange) -> tuple[int, dict[bytes, bytes]]:
    kind, value = exchange.next_news()
    assert kind == "head", (kind, value)
    return value[0], dict(value[1])


def body_of(exchange: Exchange) -> bytes:
    pieces = []
    while True:
        kind, value = exchange.next_news()
        if kind == "end":
            return b"".join(pieces)
        assert kind == "data", (kind, value)
        pieces.append(value)


@stream_handler
async def hello(request: Request) -> str:
    return f"hello from {request.path}"


def test_one_request_is_served_and_the_invocation_returns(gateway: LoopbackGateway, function: Make) -> None:
    exchange = gateway.ask("GET", "/a")
    answer = function(hello, gateway).invoke(gateway.invite()).result(10)
    assert answer == {"dialback": 1, "lease": 1, "outcome": "parked"}
    assert head_of(exchange) == (200, {b"content-type": b"text/plain; charset=utf-8", b"content-length": b"13"})
    assert body_of(exchange) == b"hello from /a"


def test_a_link_is_kept_over_invocations_on_one_socket(gateway: LoopbackGateway, function: Make) -> None:
    lambda_ = function(hello, gateway)
    for number in range(1, 4):
        exchange = gateway.ask("GET", f"/{number}")
        answer = lambda_.invoke(gateway.invite()).result(10)
        assert answer == {"dialback": 1, "lease": number, "outcome": "parked"}
        head_of(exchange)
        assert body_of(exchange) == f"hello from /{number}".encode()
    assert [dial.epoch for dial in gateway.dials] == [1]


def test_an_invitation_that_nobody_needs_any_more_returns_normally(gateway: LoopbackGateway, function: Make) -> None:
    lambda_ = function(hello, gateway)
    assert lambda_.invoke(gateway.invite()).result(10) == {"dialback": 1, "lease": None, "outcome": "unneeded"}
    gateway.ask()
    assert lambda_.invoke(gateway.invite()).result(10)["outcome"] == "parked"
    assert len(gateway.dials) == 1


def test_requests_within_the_linger_need_no_invocation(function: Make) -> None:
    gateway = LoopbackGateway(linger=0.5).start()
    try:
        first = gateway.ask("GET", "/1")
        running = function(hello, gateway).invoke(gateway.invite())
        head_of(first)
        second = gateway.ask("GET", "/2")
        head_of(second)
        assert not running.done()
        gateway.loop.call_soon_threadsafe(
            lambda: [(end.session.release(), end.wake()) for end in gateway.ends.values()]
        )
        started = time.monotonic()
        assert running.result(10)["outcome"] == "parked"
        assert time.monotonic() - started < 0.4, "a released lease lingers no more"
    finally:
        gateway.stop()


def test_the_linger_begins_anew_with_each_request_and_only_its_end_wakes_the_policy(
    function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    tell = Change.tell

    def counted(change: Change) -> None:
        told.append(time.monotonic())
        tell(change)

    monkeypatch.setattr(Change, "tell", counted)
    gateway = LoopbackGateway(linger=1.0).start()
    try:
        first = gateway.ask("GET", "/")
        running = function(hello, gateway).invoke(gateway.invite())
        head_of(first)
        assert body_of(first) == b"hello from /"
        before = len(told)
        for _ in range(40):
            exchange = gateway.ask("GET", "/")
            head_of(exchange)
            assert body_of(exchange) == b"hello from /"
        last = time.monotonic()
        assert len(told) - before < 10, "not by each of forty requests"
        assert running.result(30)["outcome"] == "parked"
        assert time.monotonic() - last > 0.9
    finally:
        gateway.stop()


def test_a_socket_that_died_while_parked_is_replaced_with_the_same_invitation(
    gateway: LoopbackGateway, function: Make
) -> None:
    lambda_ = function(hello, gateway)
    gateway.ask()
    lambda_.invoke(gateway.invite()).result(10)
    gateway.cut()
    exchange = gateway.ask("GET", "/again")
    assert lambda_.invoke(gateway.invite()).result(10) == {"dialback": 1, "lease": 1, "outcome": "parked"}
    head_of(exchange)
    assert body_of(exchange) == b"hello from /again"
    assert len({dial.session for dial in gateway.dials}) == 2


def test_a_recycled_socket_that_stays_silent_is_replaced_in_200_ms(gateway: LoopbackGateway, function: Make) -> None:
    lambda_ = function(hello, gateway)
    gateway.ask()
    lambda_.invoke(gateway.invite()).result(10)
    for end in gateway.ends.values():
        end.received = lambda message: None  # type: ignore[method-assign]  # a socket that swallows what it gets
    gateway.ask()
    started = time.monotonic()
    assert lambda_.invoke(gateway.invite()).result(10)["outcome"] == "parked"
    assert 0.2 <= time.monotonic() - started < 2
    assert [dial.epoch for dial in gateway.dials] == [1, 1]


def test_an_offer_to_a_session_that_the_gateway_knows_no_more_is_made_by_a_new_one(
    gateway: LoopbackGateway, function: Make
) -> None:
    """Its LEASE was lost with the socket, and what was parked ended with it: the invocation went for nothing."""
    lambda_ = function(hello, gateway)
    gateway.ask()
    lambda_.invoke(gateway.invite()).result(10)
    (end,) = gateway.ends.values()

    def acknowledge_alone(message: bytes) -> None:
        assert end._send is not None
        end._send(encode(Ack(end.session._receiver.state())))  # so that the socket does not count as dead
        acknowledged.set()

    acknowledged = threading.Event()
    end.received = acknowledge_alone  # type: ignore[method-assign]
    exchange = gateway.ask("GET", "/again")
    running = lambda_.invoke(gateway.invite())
    assert acknowledged.wait(10)
    time.sleep(0.05)
    gateway.refuse.append((404, {"Dialback-Reason": "unknown"}))
    gateway.cut()
    assert running.result(10)["outcome"] == "parked"
    assert head_of(exchange)[0] == 200
    assert body_of(exchange) == b"hello from /again"
    assert len({dial.session for dial in gateway.dials}) == 2


@pytest.mark.parametrize("reason", ["used", "expired", "draining", "wrong-node", "version", "proof"])
def test_a_refused_dial_returns_normally_and_is_not_repeated(
    gateway: LoopbackGateway, function: Make, reason: str
) -> None:
    gateway.refuse.append((403, {"Dialback-Reason": reason}))
    answer = function(hello, gateway).invoke(gateway.invite()).result(10)
    assert answer == {"dialback": 1, "lease": None, "outcome": f"refused: {reason}"}
    assert not gateway.dials and not gateway.refuse


def test_a_busy_gateway_is_dialled_again(gateway: LoopbackGateway, function: Make) -> None:
    gateway.refuse.extend([(502, {}), (503, {})])
    exchange = gateway.ask()
    assert function(hello, gateway).invoke(gateway.invite()).result(10)["outcome"] == "parked"
    assert head_of(exchange)[0] == 200
    assert [dial.epoch for dial in gateway.dials] == [3]


def test_a_redirect_is_not_followed(gateway: LoopbackGateway, function: Make) -> None:
    gateway.refuse.append((307, {"Location": gateway.url}))
    answer = function(hello, gateway).invoke(gateway.invite()).result(10)
    assert answer == {"dialback": 1, "lease": None, "outcome": "unreachable: HTTP 307"}
    assert not gateway.dials


def test_a_gateway_that_is_not_there_is_given_up_in_time(
    gateway: LoopbackGateway, function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_client.link.FIRST_DIAL_PATIENCE", 0.3)
    url = "ws://127.0.0.1:1/_dialback/v1/connect"
    lambda_ = function(hello, gateway, DIALBACK_GATEWAY="ws://127.0.0.1:1")
    answer = lambda_.invoke(gateway.invite(url=url)).result(10)
    assert answer["outcome"].startswith("unreachable: ConnectionRefusedError")


SIZE = 6 << 20
RANDOM = random.Random(1).randbytes(SIZE)


@stream_handler
async def mirror(request: Request) -> AsyncIterator[bytes]:
    """Answers each piece before it takes the next."""
    async for piece in request.body:
        yield piece


def test_a_stream_goes_on_over_cut_sockets_and_loses_no_byte(gateway: LoopbackGateway, function: Make) -> None:
    exchange = gateway.ask("POST", "/", end=False)
    running = function(mirror, gateway).invoke(gateway.invite())
    pieces = [RANDOM[at : at + 50_000] for at in range(0, SIZE, 50_000)]
    uploader = threading.Thread(target=exchange.upload, args=(pieces,))
    uploader.start()
    assert head_of(exchange)[0] == 200
    received = bytearray()
    cuts = 0
    while True:
        kind, value = exchange.next_news()
        if kind == "end":
            break
        assert kind == "data", value
        received += value
        if len(received) > (cuts + 1) * SIZE // 6:
            cuts += 1
            gateway.cut()
    uploader.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(RANDOM).digest()
    assert running.result(10)["outcome"] == "parked"
    assert cuts == 5
    assert [dial.epoch for dial in gateway.dials] == list(range(1, len(gateway.dials) + 1))
    assert len({dial.session for dial in gateway.dials}) == 1


@pytest.mark.parametrize(
    ("code", "is_final"),
    [(code, True) for code in (1000, 1002, 1003, 1009, 4002)]
    + [(code, False) for code in (1001, 1005, 1011, 1012, 1014, 3000, 4001, 4999)],
)
def test_a_close_ends_the_session_unless_a_proxy_may_have_said_it(
    gateway: LoopbackGateway, function: Make, code: int, is_final: bool
) -> None:
    """One that restarts says 1001 or 1012 in the gateway's name, or closes without a code (1005)."""
    go_on = threading.Event()

    @stream_handler
    def handler(request: SyncRequest) -> Iterator[str]:
        yield "before, "
        assert go_on.wait(10)
        yield "and after"

    exchange = gateway.ask()
    running = function(handler, gateway).invoke(gateway.invite())
    head_of(exchange)
    gateway.close(code)
    if is_final:
        go_on.set()
        assert running.result(10)["outcome"] == f"lost: the socket was closed: {code}"
        assert len(gateway.dials) == 1
    else:
        gateway.wait_for_dials(2)
        go_on.set()
        assert body_of(exchange) == b"before, and after"
        assert running.result(10)["outcome"] == "parked"
        assert len({dial.session for dial in gateway.dials}) == 1


def test_a_session_that_the_gateway_has_forgotten_cancels_its_streams(gateway: LoopbackGateway, function: Make) -> None:
    stopped = threading.Event()

    @stream_handler
    async def endless(request: Request) -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    exchange = gateway.ask()
    running = function(endless, gateway).invoke(gateway.invite())
    head_of(exchange)
    gateway.refuse.append((404, {"Dialback-Reason": "unknown"}))
    gateway.cut()
    answer = running.result(10)
    assert answer == {"dialback": 1, "lease": 1, "outcome": "refused: unknown"}
    assert stopped.is_set()


def test_time_that_runs_out_stops_the_code_and_parks_the_link(gateway: LoopbackGateway, function: Make) -> None:
    stopped = threading.Event()

    @stream_handler
    async def endless(request: Request) -> AsyncIterator[str]:
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            stopped.set()

    lambda_ = function(endless, gateway)
    exchange = gateway.ask()
    started = time.monotonic()
    answer = lambda_.invoke(gateway.invite(), timeout=2).result(10)
    assert answer == {"dialback": 1, "lease": 1, "outcome": "timed out"}
    assert 1.4 <= time.monotonic() - started < 2, "a quarter of the time at most is kept for the end"
    assert stopped.is_set()
    head_of(exchange)
    assert exchange.next_news() == ("data", b"begun")
    assert exchange.next_news() == ("timeout", "the handler's side ended it: TIMEOUT")
    gateway.ask()
    assert lambda_.invoke(gateway.invite(), timeout=1).result(10)["lease"] == 2, "the link was parked, not lost"


def test_code_that_does_not_stop_is_left_behind_in_time(
    gateway: LoopbackGateway, function: Make, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    @stream_handler
    def deaf(request: SyncRequest) -> Iterator[str]:
        if request.path == "/next":
            yield "next"
            return
        yield "begun"
        release.wait(10)

    lambda_ = function(deaf, gateway)
    exchange = gateway.ask()
    started = time.monotonic()
    try:
        answer = lambda_.invoke(gateway.invite(), timeout=2).result(10)
        assert answer["outcome"] == "timed out"
        assert time.monotonic() - started < 2
        head_of(exchange)
        assert exchange.next_news() == ("data", b"begun")
        assert exchange.next_news() == ("timeout", "the handler's side ended it: TIMEOUT")
        assert any("did not stop" in record.getMessage() for record in caplog.records)
        exchange = gateway.ask("GET", "/next")
        lambda_.invoke(gateway.invite())
        head_of(exchange)
        assert body_of(exchange) == b"next", "a thread that was left behind takes no other's place"
    finally:
        release.set()


def test_threads_that_do_not_stop_end_the_environment_before_there_are_more_than_twice_its_places(
    gateway: LoopbackGateway, function: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os._exit", sys.exit)
    release = threading.Event()

    @stream_handler
    def deaf(request: SyncRequest) -> str:
        release.wait(20)
        return ""

    lambda_ = function(deaf, gateway)
    try:
        for _ in range(2):
            gateway.ask()
            assert lambda_.invoke(gateway.invite(), timeout=1).result(10)["outcome"] == "timed out"
        with pytest.raises(SystemExit):
            lambda_.invoke(gateway.invite()).result(10)
        assert caplog.records[-1].getMessage().startswith("2 threads are left whose code did not stop")
    finally:
        release.set()
    gateway.ask("GET", "/again")
    while any(thread.name.startswith("dialback_") for thread in threading.enumerate()):
        time.sleep(0.01)
    assert lambda_.invoke(gateway.invite()).result(10)["lease"], "they have ended since"


# Silence


def test_a_park_that_nobody_answers_is_given_up_after_a_second(gateway: LoopbackGateway, function: Make) -> None:
    exchange = gateway.ask()
    lambda_ = function(hello, gateway)
    parked: list[bytes] = []

    def deaf_to_park(end: GatewayEnd) -> None:
        receive = end.received

        def filtered(message: bytes) -> None:
            if type(decode(message)) is Park:
                parked.append(message)
            else:
                receive(message)

        end.received = filtered  # type: ignore[method-assign]

    gateway.on_end = deaf_to_park
    started = time.monotonic()
    answer = lambda_.invoke(gateway.invite()).result(10)
    assert answer == {"dialback": 1, "lease": 1, "outcome": "lost: PARK was not answered"}
    assert 1 <= time.monotonic() - started < 2
    assert len(parked) == 1
    assert head_of(exchange)[0] == 200


def test_a_socket_that_falls_silent_while_leased_is_replaced_and_the_stream_goes_on(function: Make) -> None:
    # This gateway sends no pings, so a stream that says nothing is three intervals of silence.
    gateway = LoopbackGateway(options=SessionOptions(grace=5, ping=0.1)).start()
    try:
        go_on = threading.Event()

        @stream_handler
        def handler(request: SyncRequest) -> Iterator[str]:
            yield "before"
            assert go_on.wait(10)
            yield "after"

        exchange = gateway.ask()
        running = function(handler, gateway).invoke(gateway.invite())
        head_of(exchange)
        assert exchange.next_news() == ("data", b"before")
        gateway.wait_for_dials(2)
        go_on.set()
        assert body_of(exchange) == b"after"
        assert running.result(10)["outcome"] == "parked"
        assert len({dial.session for dial in gateway.dials}) == 1
    finally:
        gateway.stop()


def test_a_gateway_that_never_answers_the_upgrade_is_given_up(
    gateway: LoopbackGateway, function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_client.link.DIAL_TIMEOUT", 0.2)
    monkeypatch.setattr("lambda_client.link.FIRST_DIAL_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"ws://127.0.0.1:{mute.getsockname()[1]}"
        lambda_ = function(hello, gateway, DIALBACK_GATEWAY=address)
        answer = lambda_.invoke(gateway.invite(url=f"{address}/x")).result(10)
    assert answer == {"dialback": 1, "lease": None, "outcome": "unreachable: TimeoutError"}


def test_a_gateway_that_never_welcomes_is_given_up(
    gateway: LoopbackGateway, function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambda_client.link.DIAL_TIMEOUT", 0.2)
    monkeypatch.setattr("lambda_client.link.FIRST_DIAL_PATIENCE", 0.3)

    async def mute(connection: ServerConnection) -> None:
        await connection.wait_closed()

    gateway.on_dial = mute
    answer = function(hello, gateway).invoke(gateway.invite()).result(10)
    assert answer == {"dialback": 1, "lease": None, "outcome": "unreachable: TimeoutError"}
    assert [dial.epoch for dial in gateway.dials] == [1, 2], "with the same invitation, in the same session"


def test_a_session_whose_grace_is_over_cancels_its_streams(function: Make) -> None:
    gateway = LoopbackGateway(options=SessionOptions(grace=0.2, ping=10)).start()
    try:
        stopped = threading.Event()

        @stream_handler
        async def endless(request: Request) -> AsyncIterator[str]:
            try:
                yield "x"
                await asyncio.Event().wait()
            finally:
                stopped.set()

        exchange = gateway.ask()
        running = function(endless, gateway).invoke(gateway.invite())
        head_of(exchange)
        gateway.refuse.extend([(503, {})] * 20)
        gateway.cut()
        assert running.result(10) == {"dialback": 1, "lease": 1, "outcome": "lost: the grace is over"}
        assert stopped.is_set()
    finally:
        gateway.stop()


def test_the_end_of_the_grace_is_the_end_of_a_dial(function: Make) -> None:
    """The invocation went on, and was billed, until a dial that nobody answered was given up: 5 s."""
    gateway = LoopbackGateway(options=SessionOptions(grace=0.3, ping=10)).start()
    try:

        @stream_handler
        async def endless(request: Request) -> AsyncIterator[str]:
            yield "x"
            await asyncio.Event().wait()

        class Mute(deque[tuple[int, dict[str, str]]]):
            """The gateway stands still while it would answer."""

            def popleft(self) -> tuple[int, dict[str, str]]:
                time.sleep(3)
                return super().popleft()

        exchange = gateway.ask()
        running = function(endless, gateway).invoke(gateway.invite())
        head_of(exchange)
        gateway.refuse = Mute([(503, {})])
        lost_at = time.monotonic()
        gateway.cut()
        assert running.result(10)["outcome"].startswith("lost: ")
        assert 0.25 < time.monotonic() - lost_at < 2.5
    finally:
        gateway.stop()


class RefusingUntil(deque[tuple[int, dict[str, str]]]):
    """Each dial is answered 503, up to a time."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at
        self.times: list[float] = []

    def __bool__(self) -> bool:
        return time.monotonic() < self.at

    def popleft(self) -> tuple[int, dict[str, str]]:
        self.times.append(time.monotonic())
        return 503, {}


def test_a_gateway_that_is_back_shortly_before_the_grace_is_over_is_found(
    function: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backoff had grown longer than what was left of the grace: nobody dialled while there was time."""
    monkeypatch.setattr("lambda_client.link.random.uniform", lambda low, high: high)
    gateway = LoopbackGateway(options=SessionOptions(grace=1.0, ping=10)).start()
    try:
        go_on = threading.Event()

        @stream_handler
        def handler(request: SyncRequest) -> Iterator[str]:
            yield "before, "
            assert go_on.wait(10)
            yield "and after"

        exchange = gateway.ask()
        running = function(handler, gateway).invoke(gateway.invite())
        head_of(exchange)
        lost_at = time.monotonic()
        gateway.refuse = refusing = RefusingUntil(lost_at + 0.8)
        gateway.cut()
        gateway.wait_for_dials(2)
        go_on.set()
        assert body_of(exchange) == b"before, and after"
        assert running.result(10)["outcome"] == "parked"
        assert len(refusing.times) <= 10, "and it made no haste"
    finally:
        gateway.stop()


def test_a_socket_that_is_cut_as_soon_as_it_is_welcome_is_not_dialled_again_and_again(
    gateway: LoopbackGateway, function: Make
) -> None:
    """Each WELCOME had put the backoff back to nothing: a hundred dials a second, for as long as it went on."""
    go_on = threading.Event()

    @stream_handler
    def handler(request: SyncRequest) -> Iterator[str]:
        yield "before, "
        assert go_on.wait(10)
        yield "and after"

    exchange = gateway.ask()
    running = function(handler, gateway).invoke(gateway.invite())
    head_of(exchange)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        gateway.cut()
        time.sleep(0.005)
    dials = len(gateway.dials)
    go_on.set()
    assert body_of(exchange) == b"before, and after"
    assert running.result(10)["outcome"] == "parked"
    assert 3 < dials < 12


# Rules that a gateway breaks


async def speaks_text(connection: ServerConnection) -> None:
    await connection.send("text")
    await connection.wait_closed()
    assert connection.close_code == 1003


async def speaks_garbage(connection: ServerConnection) -> None:
    await connection.send(b"\xc1garbage")
    await connection.wait_closed()
    assert connection.close_code == 1002


async def speaks_too_early(connection: ServerConnection) -> None:
    await connection.send(encode(Ack(7)))
    await connection.wait_closed()
    assert connection.close_code == 1002


async def speaks_too_much(connection: ServerConnection) -> None:
    await connection.send(bytes((1 << 20) + 1))
    await connection.wait_closed()
    assert connection.close_code == 1009


async def counts_what_was_never_sent(connection: ServerConnection) -> None:
    limits = {"grace": 1000, "ping": 1000, "credit": 65536, "unacked": 8 << 20, "frames": 8192, "features": []}
    await connection.send(encode(Welcome(99, 1, limits)))
    await connection.wait_closed()
    assert connection.close_code == 1002


@pytest.mark.parametrize(
    "behave", [speaks_text, speaks_garbage, speaks_too_early, speaks_too_much, counts_what_was_never_sent]
)
def test_a_gateway_that_breaks_the_rules_ends_the_session_and_nothing_else(
    gateway: LoopbackGateway, function: Make, behave: Callable[[ServerConnection], object]
) -> None:
    behaved = []

    async def on_dial(connection: ServerConnection) -> None:
        await behave(connection)  # type: ignore[misc]
        behaved.append(True)

    lambda_ = function(hello, gateway)
    gateway.on_dial = on_dial
    gateway.ask()
    answer = lambda_.invoke(gateway.invite()).result(10)
    assert answer["lease"] is None and answer["outcome"].startswith(("unreachable:", "lost:")), answer
    gateway.on_dial = None
    assert lambda_.invoke(gateway.invite()).result(10)["outcome"] == "parked"
    assert behaved == [True]


def test_only_a_few_nodes_links_are_kept(function: Make) -> None:
    gateways = [LoopbackGateway().start() for _ in range(6)]
    try:
        lambda_ = function(hello, *gateways)
        for gateway in (*gateways, *gateways):
            gateway.ask()
            assert lambda_.invoke(gateway.invite()).result(10)["outcome"] == "parked"
        # Four are kept: each of the six was the oldest when its turn came again.
        assert [len(gateway.dials) for gateway in gateways] == [2] * 6
        for gateway in gateways[-4:]:
            gateway.ask()
            lambda_.invoke(gateway.invite()).result(10)
        assert [len(gateway.dials) for gateway in gateways] == [2] * 6
    finally:
        for gateway in gateways:
            gateway.stop()


def test_places_are_served_at_once_and_keep_their_bodies_apart(gateway: LoopbackGateway, function: Make) -> None:
    @stream_handler(concurrency=8)
    async def echo(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield request.query_string * 100
                await asyncio.sleep(0)

        return Response(body(), headers={"x-id": request.id})

    exchanges = [gateway.ask("GET", f"/?{number}") for number in range(40)]
    running = function(echo, gateway).invoke(gateway.invite())
    for number, exchange in enumerate(exchanges):
        status, headers = head_of(exchange)
        assert (status, headers[b"x-id"]) == (200, exchange.id.hex().encode())
        assert body_of(exchange) == str(number).encode() * 2000
    assert running.result(10)["outcome"] == "parked"
