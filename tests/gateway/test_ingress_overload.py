"""More than there is room for: refused at once, and those who are served notice nothing."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.limits import HttpLimits
from gateway.received_request import ReceivedRequest
from gateway.terms import Terms
from gateway.upgrade import reply
from tests.gateway.function_fake import FakePool, answer, listening
from tests.gateway.test_ingress_malformed import get, parsed

CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize(
    ("limits", "terms", "name"),
    [
        (HttpLimits(), Terms(max_exchanges=3), "overloaded"),
        (HttpLimits(max_exchanges=3), Terms(), "gateway-full"),
    ],
)
async def test_one_exchange_too_many_is_answered_at_once(limits: HttpLimits, terms: Terms, name: str) -> None:
    async with listening(FakePool(terms=terms), limits=limits) as front:
        clients = [await front.connect() for _ in range(3)]
        for client in clients:
            client.send(get(fields=CLOSE))
            await front.pool.entered.wait()
        streams = [await front.pool.opened.get() for _ in clients]
        status, fields, body = parsed(await front.ask(get(fields=CLOSE)))
        assert (status, fields["retry-after"]) == (503, "1")
        assert json.loads(body)["type"] == f"urn:dialback:error:{name}"
        answer(b"served")(streams[0].exchange, streams[0])
        assert b"served" in await clients[0].rest()
        front.pool.function = answer()
        assert parsed(await front.ask(get(fields=CLOSE)))[0] == 200  # there is room again
        for stream in streams[1:]:
            answer(b"served")(stream.exchange, stream)
        for client in clients[1:]:
            assert b"served" in await client.rest()
        assert front.ingress.admission.total == 0


async def test_one_connection_too_many_is_answered_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(FakePool(answer(length=True)), limits=HttpLimits(max_connections=2, linger=0.2)) as front:
        first, second = await front.connect(), await front.connect()
        for client in (first, second):
            client.send(get())
            assert b" 200 " in await client.head()
        for _ in range(3):
            status, fields, body = parsed(await front.ask(get()))
            assert (status, fields["retry-after"], fields["connection"]) == (503, "1", "close")
            assert json.loads(body)["type"] == "urn:dialback:error:gateway-full"
        first.send(get())
        assert b" 200 " in (await first.reader.readexactly(2) + await first.head())
        await second.close()
        await asyncio.sleep(0.05)
        assert parsed(await front.ask(get(fields=CLOSE)))[0] == 200
    assert [record.getMessage() for record in caplog.records if "connections" in record.getMessage()] == [
        "2 connections are open: those beyond are refused (client.max_connections)"
    ]


async def test_far_too_many_connections_are_not_even_answered() -> None:
    async with listening(FakePool(answer()), limits=HttpLimits(max_connections=1, max_refusals=1)) as front:
        clients = [await front.connect() for _ in range(2)]
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await (await front.connect()).head()
        clients[0].send(get())
        assert b" 200 " in await clients[0].head()


async def test_functions_may_dial_in_when_clients_have_all_connections() -> None:
    def links(request: ReceivedRequest) -> None:
        reply(request, 403)

    internal = {b"/_dialback/v1/connect": links}
    async with listening(FakePool(), limits=HttpLimits(max_connections=1), internal=internal) as front:
        await front.connect()
        assert b" 403 " in await front.ask(get(b"GET /_dialback/v1/connect HTTP/1.1"))
