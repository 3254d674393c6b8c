"""A response whose body travels in its RESPONSE is told to its exchange in one call; any other as it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.frames import Opcode

from gateway.exchange import Exchange
from protocol.codec import encode
from protocol.frames import Data, Informational, Reset, Response, Trailers
from tests.gateway.environment_fake import Environment, first_dial
from tests.gateway.raw_link import Raw, frames, lease
from tests.gateway.whole_gateway import Whole, url_of, whole

TEXT = [(b"content-type", b"text/plain")]
LONG = [(b"content-length", b"5")]
REQUEST = 0x10


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What links tell exchanges of their responses, in order: which call, with which bytes of body."""
    calls: list[tuple[str, bytes]] = []
    response, data = Exchange.response, Exchange.data

    def heard_response(self: Exchange, status: int, headers: Any, end: bool = False, body: Any = b"") -> None:
        calls.append((f"response {self.head.target.decode()}", bytes(body)))
        response(self, status, headers, end, body)

    def heard_data(self: Exchange, payload: Any, end: bool = False) -> None:
        calls.append((f"data {self.head.target.decode()}", bytes(payload)))
        data(self, payload, end)

    monkeypatch.setattr(Exchange, "response", heard_response)
    monkeypatch.setattr(Exchange, "data", heard_data)
    return calls


async def leased(it: Whole, *paths: str) -> tuple[Raw, list[int], list[asyncio.Task[tuple[int, str]]]]:
    """A function by hand, with a place for each of the requests, and their streams."""
    asked = [it.asking(path) for path in paths]
    return *await opened(it, *paths), asked


async def opened(it: Whole, *paths: str) -> tuple[Raw, list[int]]:
    """The same for what is being asked."""
    await it.until_waiting(len(paths))
    raw = await Raw.connect(it.gateway)
    token = await asyncio.wait_for(it.url.invited.get(), 5)
    await raw.dial(first_dial(token))
    raw.send(lease(token, places=len(paths)))
    numbers: dict[str, int] = {}
    while len(numbers) < len(paths):
        kind, number, *rest = await raw.message()
        if kind == REQUEST:
            numbers[rest[2].decode()] = number
    return raw, [numbers[path] for path in paths]


@pytest.mark.interpreted("replaces methods of Exchange")
async def test_a_body_in_its_response_is_told_with_it(told: list[tuple[str, bytes]]) -> None:
    async with whole(url_of(Environment())) as it:
        raw, (one, two, three), asked = await leased(it, "/1", "/2", "/3")
        raw.send(
            encode(Response(one, 200, TEXT, {"body": b"of 1"})),
            encode(Response(three, 200, TEXT)),
            encode(Response(two, 200, LONG, {"body": b"of 2\n"})),
            encode(Data(three, b"of")),
            encode(Data(three, b" 3", True)),
        )
        assert [(await each)[1] for each in asked] == ["of 1", "of 2\n", "of 3"]
        assert told == [
            ("response /1", b"of 1"),
            ("response /3", b""),
            ("response /2", b"of 2\n"),
            ("data /3", b"of"),
            ("data /3", b" 3"),
        ]
        await raw.close()


@pytest.mark.interpreted("replaces methods of Exchange")
@pytest.mark.parametrize("body", [b"shrt", b"longer"])
async def test_one_that_is_not_of_its_length_is_no_response(told: list[tuple[str, bytes]], body: bytes) -> None:
    async with whole(url_of(Environment())) as it:
        raw, (number,), (asked,) = await leased(it, "/1")
        raw.send(encode(Response(number, 200, LONG, {"body": body})))
        await asyncio.wait((asked,), timeout=5)
        assert told == [("response /1", body)] and (asked.exception() is not None or asked.result()[0] == 502)
        await raw.close()


@pytest.mark.interpreted("replaces methods of Exchange")
async def test_a_head_does_not_wait_for_what_the_next_read_brings(told: list[tuple[str, bytes]]) -> None:
    async with whole(url_of(Environment())) as it:
        asked = asyncio.create_task(it.client.get(it.gateway.url + "/1"))
        raw, (number,) = await opened(it, "/1")
        raw.send(encode(Response(number, 200, TEXT)))
        response = await asyncio.wait_for(asked, 5)
        raw.send(encode(Data(number, b"later", True)))
        assert await response.read() == b"later"
        assert told == [("response /1", b""), ("data /1", b"later")]
        await raw.close()


@pytest.mark.interpreted("replaces methods of Exchange")
@pytest.mark.parametrize(
    "rest",
    [
        lambda number: [encode(Data(number, b"", True))],
        lambda number: [encode(Trailers(number, [(b"x", b"y")]))],
        lambda number: [encode(Data(number, b"a piece")), encode(Reset(number, 3))],
        lambda number: [encode(Reset(number, 3))],
        lambda number: [b"no frame"],
    ],
    ids=["an empty body", "trailers", "a reset after data", "a reset", "what is no frame"],
)
async def test_a_head_comes_before_whatever_follows_it(told: list[tuple[str, bytes]], rest: Any) -> None:
    async with whole(url_of(Environment())) as it:
        raw, (number,), (asked,) = await leased(it, "/1")
        raw.send(encode(Response(number, 200, TEXT)), *rest(number))
        await asyncio.wait((asked,), timeout=5)
        assert told[0] == ("response /1", b"")
        if asked.exception() is None:
            assert asked.result() == (200, "")
        await raw.close()


@pytest.mark.interpreted("replaces methods of Exchange")
async def test_a_head_is_told_where_the_same_read_closes_the_socket(told: list[tuple[str, bytes]]) -> None:
    async with whole(url_of(Environment())) as it:
        raw, (number,), (asked,) = await leased(it, "/1")
        raw.writer.write(frames([encode(Response(number, 200, TEXT))]) + frames([b"\x03\xe8"], Opcode.CLOSE))
        await asyncio.wait((asked,), timeout=5)
        assert told == [("response /1", b"")] and asked.exception() is not None
        await raw.close()


@pytest.mark.interpreted("replaces methods of Exchange")
async def test_interim_responses_stay_before_the_head(told: list[tuple[str, bytes]]) -> None:
    async with whole(url_of(Environment())) as it:
        raw, (number,), (asked,) = await leased(it, "/1")
        hints = encode(Informational(number, 103, [(b"link", b"</x>; rel=preload")]))
        raw.send(hints, encode(Response(number, 200, TEXT, {"body": b"whole"})))
        assert (await asked)[1] == "whole" and told == [("response /1", b"whole")]
        await raw.close()
