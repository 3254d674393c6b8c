"""A client's WebSocket with raw sockets: RFC 6455's edge. The function is the test's; everything else is real."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest

from gateway.client_connection import ClientConnection
from gateway.client_request import ClientRequest
from gateway.limits import HttpLimits
from gateway.received_request import ReceivedRequest
from gateway.response_head import Pair
from gateway.terms import Terms
from protocol.frames import Code
from tests.gateway.function_fake import FakePool, eventually, listening
from tests.gateway.test_ingress_malformed import UPGRADE, get, parsed
from tests.gateway.test_websocket import frame
from tests.gateway.websocket_client import BINARY, CLOSE, PING, PONG, TEXT, Talk, talking

KEY = b"Sec-WebSocket-Key: " + b"A" * 22 + b"==\r\n"
WS = b"GET /ws HTTP/1.1"
ACCEPT = b"ICX+Yqv66kxgM0FcWaLWlFLwTAI="  # of a key of sixteen zeros


# The handshake


async def test_the_handshake_is_answered_when_the_function_has_accepted() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        fields = UPGRADE + b"Origin: https://evil.example\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        fields += b"Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Protocol: c\r\n"
        client.send(get(b"GET /ws?token=1 HTTP/1.1", fields))
        stream = await front.pool.opened.get()
        head = stream.exchange.head
        assert head.websocket is not None and head.websocket.subprotocols == ("a", "b", "c")
        assert head.websocket.max_message == 1 << 20 and not head.has_body
        names = dict(head.headers)
        assert (names[b"origin"], head.target) == (b"https://evil.example", b"/ws?token=1")
        assert not {b"upgrade", b"connection"} & set(names)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.1)
        answer: list[Pair] = [(b"Set-Cookie", b"a=1"), (b"sec-websocket-protocol", b"c"), (b"content-length", b"9")]
        stream.exchange.response(101, answer)
        line, *lines = (await client.head()).split(b"\r\n")
        assert line == b"HTTP/1.1 101 Switching Protocols"
        sent = dict(field.split(b": ", 1) for field in lines if field)
        assert sent.pop(b"date") and sent.pop(b"x-request-id") == stream.exchange.id.hex().encode()
        assert sent == {
            b"upgrade": b"websocket",
            b"connection": b"Upgrade",
            b"sec-websocket-accept": ACCEPT,
            b"sec-websocket-protocol": b"c",
            b"set-cookie": b"a=1",
        }


NO_HANDSHAKES = {
    "POST": (get(b"POST /ws HTTP/1.1", UPGRADE), 400),
    "HEAD": (get(b"HEAD /ws HTTP/1.1", UPGRADE), 400),
    "a body": (get(WS, UPGRADE + b"Content-Length: 3\r\n") + b"abc", 400),
    "HTTP/1.0": (get(b"GET /ws HTTP/1.0", UPGRADE), 400),
    "Connection does not name it": (get(WS, UPGRADE.replace(b"Connection: Upgrade", b"Connection: close")), 400),
    "another protocol beside it": (get(WS, UPGRADE.replace(b"e: websocket", b"e: websocket, h2c")), 400),
    "no version": (get(WS, UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b"")), 426),
    "version 8": (get(WS, UPGRADE.replace(b"Version: 13", b"Version: 8")), 426),
    "two versions": (get(WS, UPGRADE.replace(b"Version: 13", b"Version: 13, 8")), 426),
    "no key": (get(WS, UPGRADE.replace(KEY, b"")), 400),
    "two keys": (get(WS, UPGRADE + KEY), 400),
    "a key of 15 bytes": (get(WS, UPGRADE.replace(b"A" * 22 + b"==", b"A" * 20)), 400),
    "a key that is not Base64": (get(WS, UPGRADE.replace(b"A" * 22 + b"==", b"?" * 24)), 400),
    "a subprotocol twice": (get(WS, UPGRADE + b"Sec-WebSocket-Protocol: a, a\r\n"), 400),
    "a subprotocol that is no token": (get(WS, UPGRADE + b"Sec-WebSocket-Protocol: a b\r\n"), 400),
    "no subprotocol": (get(WS, UPGRADE + b"Sec-WebSocket-Protocol: \r\n"), 400),
}


@pytest.mark.parametrize("case", NO_HANDSHAKES)
async def test_what_is_no_handshake_never_reaches_a_function(case: str) -> None:
    request, wanted = NO_HANDSHAKES[case]
    async with listening(FakePool(), limits=HttpLimits(linger=0.2)) as front:
        response = await front.ask(request)
        assert front.pool.opened.empty()
    status, headers, body = parsed(response)
    assert status == wanted
    if wanted == 426:
        assert headers["sec-websocket-version"] == "13" and headers["upgrade"] == "websocket"
        assert json.loads(body)["type"] == "urn:dialback:error:websocket-version"


async def test_a_refusal_is_the_functions_own() -> None:
    async with listening(FakePool(), limits=HttpLimits(linger=0.2)) as front:
        client = await front.connect()
        client.send(get(WS, UPGRADE))
        stream = await front.pool.opened.get()
        stream.exchange.response(401, [(b"www-authenticate", b"x")])
        stream.exchange.data(b"who are you", end=True)
        status, headers, body = parsed(await client.rest())
        assert (status, headers["www-authenticate"], body) == (401, "x", b"b\r\nwho are you\r\n0\r\n\r\n")
        assert (await front.ended.get()).state == "complete"
        assert stream.told == ["reset NO_ERROR"]


async def test_frames_before_the_101_are_refused_and_the_function_is_stopped() -> None:
    async with listening(FakePool(), limits=HttpLimits(linger=0.2)) as front:
        client = await front.connect()
        client.send(get(WS, UPGRADE) + frame(TEXT, b"too early"))
        stream = await front.pool.opened.get()
        await asyncio.sleep(0.05)
        stream.exchange.response(101, ())
        assert parsed(await client.rest())[0] == 400
        assert stream.told == ["cancel CANCELLED"]


async def test_a_client_that_leaves_before_the_101() -> None:
    async with listening(FakePool()) as front:
        client = await front.connect()
        client.send(get(WS, UPGRADE))
        stream = await front.pool.opened.get()
        await client.close()
        assert (await front.ended.get()).state == "cancelled"
        assert stream.told == ["cancel CANCELLED"]


async def test_a_frame_right_behind_the_101_is_not_lost() -> None:
    async with listening(FakePool()) as front:
        for _ in range(50):
            client = await front.connect()
            client.send(get(WS, UPGRADE))
            stream = await front.pool.opened.get()
            stream.exchange.response(101, ())
            client.send(frame(TEXT, b"at once"))
            await stream.until(lambda stream=stream: stream.messages == ["at once"])
            await client.close()


# Messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 1 << 20])
async def test_messages_of_any_size_both_ways(size: int) -> None:
    async with talking() as talk:
        talk.send(TEXT, b"x" * size)
        talk.send(BINARY, bytes(size))
        await talk.stream.until(lambda: talk.stream.messages == ["x" * size, bytes(size)])
        talk.exchange.message(b"y" * size, True)
        talk.exchange.message(bytes(size), False)
        assert await talk.receive() == (TEXT, b"y" * size)
        assert await talk.receive() == (BINARY, bytes(size))


async def test_fragments_are_one_message_and_control_frames_may_come_between() -> None:
    async with talking() as talk:
        word = "grüße 🎉".encode()
        for at in range(len(word)):
            talk.send(TEXT if at == 0 else 0, word[at : at + 1], final=at == len(word) - 1)
            talk.send(PING, b"%d" % at)
        await talk.stream.until(lambda: talk.stream.messages == ["grüße 🎉"])
        assert [await talk.receive() for _ in word] == [(PONG, b"%d" % at) for at in range(len(word))]


BROKEN = {
    "not masked": (frame(TEXT, b"x", mask=b""), 1002),
    "compression": (frame(TEXT, b"x", reserved=0x40), 1002),
    "opcode 3": (frame(3, b"x"), 1002),
    "a continuation of nothing": (frame(0, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
    "a long ping": (frame(PING, b"x" * 126), 1002),
    "a ping in fragments": (frame(PING, b"", final=False), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close with 1005": (frame(CLOSE, b"\x03\xed"), 1002),
    "a close with 2999": (frame(CLOSE, (2999).to_bytes(2, "big")), 1002),
    "a reason that is no UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "half a character": (frame(TEXT, "ü".encode()[:1]), 1007),
    "a surrogate in fragments": (frame(TEXT, b"\xed", final=False) + frame(0, b"\xa0\x80"), 1007),
    "above the limit": (frame(BINARY, bytes((1 << 20) + 1))[:100], 1009),
    "above the limit in fragments": (frame(BINARY, bytes(1 << 20), final=False) + frame(0, b"x"), 1009),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_what_breaks_the_protocol(case: str) -> None:
    data, code = BROKEN[case]
    async with talking() as talk:
        talk.client.send(data)
        opcode, payload = await talk.receive()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        talk.client.writer.close()
        (told,) = talk.stream.told
        assert told.startswith(f"close {code} ")
        talk.function_closes()
        ended = await talk.front.ended.get()
        assert ended.state == "complete" and str(code) in ended.reason
        assert talk.stream.messages == []


async def test_text_is_refused_at_the_first_wrong_byte_though_its_frame_is_not_whole() -> None:
    async with talking() as talk:
        talk.client.send(frame(TEXT, b"good \xff" + b"x" * 1000)[:20])
        assert (await talk.receive())[1][:2] == (1007).to_bytes(2, "big")


# Closing


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, b""), (1001, b"bye"), (3000, "tschüß".encode()), (4999, b"x" * 123)]
)
async def test_the_client_closes(code: int, reason: bytes) -> None:
    async with talking() as talk:
        talk.send(CLOSE, code.to_bytes(2, "big") + reason)
        assert await talk.receive() == (CLOSE, code.to_bytes(2, "big") + reason), "as it came"
        assert await talk.client.rest() == b""
        assert talk.stream.told == [f"close {code} {reason.decode()}".rstrip()]
        assert talk.front.ended.empty(), "the function has not ended yet"
        talk.exchange.message(b"nobody's", True)
        assert talk.stream.taken == 1
        talk.function_closes()
        ended = await talk.front.ended.get()
        assert (ended.state, ended.status, ended.reason) == ("complete", 101, f"the client closed ({code})")


async def test_a_close_without_a_code() -> None:
    async with talking() as talk:
        talk.send(CLOSE)
        assert await talk.receive() == (CLOSE, b"")
        assert talk.stream.told == ["close 1005"]


async def test_the_function_closes_and_the_client_answers() -> None:
    async with talking() as talk:
        talk.exchange.message(b"last", True)
        talk.function_closes(4001, "tschüß".encode())
        ended = await talk.front.ended.get()
        assert (ended.state, ended.reason) == ("complete", "the function closed (4001)")
        assert await talk.receive() == (TEXT, b"last")
        talk.send(TEXT, b"crosses the close")
        assert await talk.closed() == (4001, "tschüß")
        assert talk.stream.messages == []
        await eventually(lambda: talk.front.server.count == 0)


async def test_a_client_that_never_answers_a_close_is_cut() -> None:
    async with talking() as talk:
        talk.function_closes()
        assert (await talk.receive())[0] == CLOSE
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await talk.receive()


@pytest.mark.parametrize("how", ["reset", "end", "half"])
async def test_a_client_that_goes_without_a_word(how: str) -> None:
    async with talking() as talk:
        if how == "reset":
            talk.client.writer.transport.abort()
        elif how == "end":
            talk.client.writer.close()
        else:
            talk.client.writer.write_eof()
        await talk.stream.until(lambda: talk.stream.told == ["close 1006"])
        assert talk.exchange.state == "detached"
        talk.function_closes()
        ended = await talk.front.ended.get()
        assert (ended.state, ended.reason) == ("discarded", "client left")


@pytest.mark.parametrize(
    ("terms", "at_least", "at_most"),
    [
        (Terms(), 0.25, 5),
        (Terms(on_disconnect="grace", disconnect_grace=0.8), 0.75, 5),
        (Terms(on_disconnect="grace", disconnect_grace=0.0), 0.25, 5),
    ],
)
@pytest.mark.parametrize("word", [b"", frame(CLOSE, b"\x03\xe8")])
async def test_a_function_that_does_not_end_is_stopped_in_time(
    word: bytes, terms: Terms, at_least: float, at_most: float
) -> None:
    async with talking(terms=terms) as talk:
        loop = asyncio.get_running_loop()
        talk.client.send(word)
        talk.client.writer.close()
        await talk.stream.until(lambda: bool(talk.stream.told))
        began = loop.time()
        ended = await talk.front.ended.get()
        assert at_least < loop.time() - began < at_most
        assert ended.state == "cancelled"
        assert talk.stream.told[1:] == ["cancel CANCELLED"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (Code.INTERNAL, 1011),
        (Code.TOO_BIG, 1011),
        (Code.TIMEOUT, 1012),
        (Code.LOST, 1012),
        (Code.SHUTDOWN, 1012),
    ],
)
async def test_a_function_that_fails(code: Code, said: int) -> None:
    async with talking() as talk:
        talk.exchange.reset(code, "its secrets")
        assert (await talk.front.ended.get()).state == "aborted"
        assert await talk.closed() == (said, "")


async def test_a_function_that_is_lost() -> None:
    async with talking() as talk:
        talk.exchange.lost("the link is gone")
        assert await talk.closed() == (1012, "")


# Backpressure


async def test_a_function_that_does_not_read_holds_the_client_back() -> None:
    async with talking() as talk:
        talk.stream.is_writable = False
        talk.client.writer.transport.set_write_buffer_limits(0)
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    talk.send(BINARY, bytes(60_000))
                    await talk.client.writer.drain()
                    sent += 1
        assert len(talk.stream.messages) <= 2, "what was parsed, not what the kernel holds"
        assert sent < 300
        talk.stream.is_writable = True
        talk.exchange.writable()
        await talk.stream.until(lambda: len(talk.stream.messages) > sent)
        talk.send(CLOSE, b"\x03\xe8")
        await talk.stream.until(lambda: talk.stream.told == ["close 1000"])


async def test_many_small_messages_of_one_read_wait_in_the_parser() -> None:
    async with talking() as talk:
        talk.stream.is_writable = False
        talk.client.send(frame(TEXT, b"") * 5000 + frame(CLOSE, b"\x03\xe8"))
        await talk.stream.until(lambda: bool(talk.stream.messages))
        await asyncio.sleep(0.05)
        assert len(talk.stream.messages) == 1
        talk.exchange.writable()
        assert len(talk.stream.messages) == 2
        talk.stream.is_writable = True
        talk.exchange.writable()
        await talk.stream.until(lambda: talk.stream.told == ["close 1000"])
        assert len(talk.stream.messages) == 5000


async def test_a_client_that_leaves_while_it_is_held_back_is_seen() -> None:
    async with talking() as talk:
        talk.stream.is_writable = False
        talk.send(TEXT, b"1")
        await talk.stream.until(lambda: bool(talk.stream.messages))
        talk.send(TEXT, b"2")
        talk.client.writer.close()
        await talk.stream.until(lambda: talk.stream.told == ["close 1006"])


async def test_a_client_that_does_not_read_holds_the_function_back() -> None:
    limits = HttpLimits(linger=0.2, websocket_close=0.3, write_buffer=64 << 10)
    async with talking(limits) as talk:
        talk.client.reader._limit = 1024  # type: ignore[attr-defined]
        talk.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        while talk.stream.taken == sent:
            talk.exchange.message(bytes(50_000), False)
            sent += 1
            assert sent < 1000, "it never was full"
            await asyncio.sleep(0)
        talk.exchange.message(b"one more", True)
        assert talk.stream.taken == sent - 1
        talk.client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(sent):
            assert await talk.receive() == (BINARY, bytes(50_000))
        assert await talk.receive() == (TEXT, b"one more")
        assert talk.stream.taken == sent + 1


async def test_who_pings_and_never_reads_gets_no_answers() -> None:
    limits = HttpLimits(linger=0.2, websocket_close=0.3, write_buffer=16 << 10)
    async with talking(limits) as talk:
        talk.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (websocket,) = talk.front.server.websockets._open
        for _ in range(200):
            talk.client.send(frame(PING, b"x" * 125) * 500)
            await asyncio.sleep(0)
        await eventually(lambda: not talk.client.writer.transport.get_write_buffer_size())
        held = websocket._transport.get_write_buffer_size()  # type: ignore[attr-defined]
        talk.client.writer.transport.abort()
        assert held < 64 << 10, "of 13 MB of pings"


# Pings and time

QUICK = HttpLimits(linger=0.2, websocket_close=0.3, websocket_ping_interval=0.1, websocket_ping_timeout=0.3)


async def test_an_idle_client_is_pinged_and_lives_by_its_pongs() -> None:
    async with talking(QUICK, Terms(response_idle=0.2)) as talk:
        for _ in range(10):
            assert await talk.receive() == (PING, b"")
            talk.send(PONG)
        assert talk.exchange.state == "messages"


async def test_a_client_that_does_not_answer_pings_has_gone() -> None:
    async with talking(QUICK) as talk:
        await talk.stream.until(lambda: talk.stream.told == ["close 1006"])
        talk.function_closes()
        ended = await talk.front.ended.get()
        assert (ended.state, ended.reason) == ("discarded", "the client does not answer pings")
        assert await talk.receive() == (PING, b"")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await talk.receive()


async def test_a_client_that_talks_is_not_pinged() -> None:
    async with talking(QUICK) as talk:
        for _ in range(20):
            talk.send(TEXT, b"x")
            await asyncio.sleep(0.03)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk.client.reader.read(1), 0.02)


async def test_no_pings_where_none_are_wanted() -> None:
    limits = HttpLimits(linger=0.2, websocket_ping_interval=0, websocket_ping_timeout=0.1)
    async with talking(limits, Terms(response_idle=0.1)) as talk:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk.client.reader.read(1), 0.6)
        talk.send(TEXT, b"still here")
        await talk.stream.until(lambda: talk.stream.messages == ["still here"])


async def test_a_client_that_is_held_back_is_not_asked_for_pongs() -> None:
    async with talking(QUICK) as talk:
        talk.stream.is_writable = False
        talk.send(TEXT, b"1")
        await asyncio.sleep(1.0)
        assert talk.exchange.state == "messages"


async def test_a_client_that_takes_nothing_has_gone() -> None:
    async with talking(QUICK, Terms(response_idle=0.4)) as talk:
        talk.client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(200):
            talk.exchange.message(bytes(100_000), False)
        talk.client.send(frame(PONG, b"") * 3)
        await talk.stream.until(lambda: bool(talk.stream.told))
        assert talk.stream.told == ["close 1006"] and talk.exchange.reason == "the client takes nothing"


async def test_the_exchanges_whole_time() -> None:
    async with talking(terms=Terms(exchange=0.5)) as talk:
        assert await talk.closed() == (1012, "")
        ended = await talk.front.ended.get()
        assert (ended.state, ended.reason) == ("timed_out", "exchange-timeout")
        assert talk.stream.told == ["cancel TIMEOUT"]


# The listener's


async def test_a_gateway_that_drains_closes_what_is_quiet_and_lets_the_others_finish() -> None:
    async with talking() as talk:
        talk.send(TEXT, b"a question")
        await talk.stream.until(lambda: bool(talk.stream.messages))
        talk.front.ingress.is_draining = True
        talk.front.server.close_idle()
        talk.front.server.close_idle()
        await asyncio.sleep(0.5)
        talk.exchange.message(b"the answer", True)
        assert await talk.receive() == (TEXT, b"the answer")
        assert await talk.closed() == (1001, "the gateway is stopping")
        assert talk.stream.told == ["close 1001 the gateway is stopping"]
        talk.function_closes()
        assert (await talk.front.ended.get()).state == "complete"


async def test_one_that_is_accepted_while_the_gateway_drains_is_not_kept() -> None:
    async with listening(FakePool(), limits=HttpLimits(websocket_close=0.3)) as front:
        client = await front.connect()
        client.send(get(WS, UPGRADE))
        stream = await front.pool.opened.get()
        front.ingress.is_draining = True
        front.server.close_idle()
        stream.exchange.response(101, ())
        await client.head()
        assert await Talk(front, client, stream).closed() == (1001, "the gateway is stopping")


async def test_what_is_left_at_the_end_is_closed_with_1001() -> None:
    async with talking() as talk:
        ending = asyncio.ensure_future(talk.front.server.shutdown(5))
        assert await talk.closed() == (1001, "the gateway is stopping")
        await ending


async def test_links_that_end_with_the_gateway_are_its_going_away_too() -> None:
    async with talking() as talk:
        talk.front.server.close_idle()
        talk.exchange.lost("the links end first")
        assert (await talk.closed())[0] == 1001


async def test_a_client_that_does_not_answer_at_the_end_is_cut() -> None:
    async with talking(HttpLimits(websocket_close=10)) as talk:
        await talk.front.server.shutdown(0.3)
        await eventually(lambda: talk.front.server.count == 0)


async def test_websockets_count_as_connections() -> None:
    async with talking(HttpLimits(max_connections=1, linger=0.2, websocket_close=0.3)) as talk:
        await eventually(lambda: talk.front.server.count == 1 and talk.front.server.connections == set())
        assert parsed(await talk.front.ask(get()))[0] == 503
        talk.client.writer.close()
        await eventually(lambda: talk.front.server.count == 0)


async def test_nothing_of_the_request_and_no_task_is_kept() -> None:
    async with listening(FakePool()) as front:
        before = len(asyncio.all_tasks())
        talks = []
        for _ in range(3):
            client = await front.connect()
            client.send(get(WS, UPGRADE))
            stream = await front.pool.opened.get()
            stream.exchange.response(101, ())
            await client.head()
            talks.append(Talk(front, client, stream))
        del client, stream
        await eventually(lambda: len(asyncio.all_tasks()) == before)
        await eventually(lambda: not front.server.connections)
        gc.collect()
        kept = (ClientRequest, ClientConnection, ReceivedRequest)
        assert [thing for thing in gc.get_objects() if isinstance(thing, kept)] == []
