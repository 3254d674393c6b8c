"""A small body that is whole when its response's head leaves travels in that RESPONSE (docs/protocol.md §2.6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import decode, encode
from protocol.dial import Limits
from protocol.errors import ProtocolError
from protocol.ledger import MIN_UNACKED_BYTES
from protocol.scheduler import SMALL_BODY
from tests.protocol.pair import Pair

ENDED = {"end": True}  # a request without a body


def answer(pair: Pair, stream: int, *pieces: bytes, status: int = 200, headers: fr.Headers = ()) -> None:
    """A whole response, made in one turn."""
    pair.function.send_response(stream, status, headers)
    for piece in pieces:
        pair.function.send_data(stream, piece)
    pair.function.send_data(stream, b"", end=True)


@pytest.mark.parametrize("body", [b"x", b"\x80", bytes(SMALL_BODY), bytearray(b"array"), memoryview(b"a view")[2:]])
def test_it_is_one_frame_and_one_event(body: bytes) -> None:
    pair = Pair.leased()
    stream = pair.opened(ENDED)
    answer(pair, stream, body, headers=[(b"a", b"\x80")])
    messages = pair.take(pair.function)
    (frame,) = map(decode, messages)
    assert frame == fr.Response(stream, 200, [(b"a", b"\x80")], {"body": bytes(body)})
    assert pair.give(pair.gateway, messages) == [
        ev.ResponseReceived(stream, frame, True, bytes(body)),
        ev.StreamClosed(stream),
    ]
    assert pair.seen(pair.function, ev.StreamClosed) == [ev.StreamClosed(stream)]


def in_two(pair: Pair, stream: int) -> None:
    answer(pair, stream, b"one", b"two")


def large(pair: Pair, stream: int) -> None:
    answer(pair, stream, bytes(SMALL_BODY + 1))


def beyond_its_credit(pair: Pair, stream: int) -> None:
    answer(pair, stream, bytes(fr.MAX_FRAME_SIZE >> 8) + b"x")


def behind_a_large_head(pair: Pair, stream: int) -> None:
    answer(pair, stream, bytes(5000), headers=[(b"a", bytes(60_600))])


def unended(pair: Pair, stream: int) -> None:
    pair.function.send_response(stream, 200, [])
    pair.function.send_data(stream, b"and on")


def with_trailers(pair: Pair, stream: int) -> None:
    pair.function.send_response(stream, 200, [])
    pair.function.send_data(stream, b"body")
    pair.function.send_trailers(stream, [(b"a", b"b")])


def without_a_body(pair: Pair, stream: int) -> None:
    answer(pair, stream)


@pytest.mark.parametrize(
    "make", [in_two, large, beyond_its_credit, behind_a_large_head, unended, with_trailers, without_a_body]
)
def test_other_bodies_go_their_own_way(make: Callable[[Pair, int], None]) -> None:
    pair = Pair.leased(gateway=Limits(credit=fr.MAX_FRAME_SIZE >> 8) if make is beyond_its_credit else Limits())
    stream = pair.opened(ENDED)
    make(pair, stream)
    head, *rest = pair.frames(pair.function)
    assert isinstance(head, fr.Response) and head.options == {}
    assert all(isinstance(frame, (fr.Data, fr.Trailers)) for frame in rest) and rest


def test_informational_responses_go_before() -> None:
    pair = Pair.leased()
    stream = pair.opened(ENDED)
    pair.function.send_informational(stream, 103, [(b"link", b"\x80")])  # ends as a head without options does
    answer(pair, stream, b"body")
    assert pair.frames(pair.function) == [
        fr.Informational(stream, 103, [(b"link", b"\x80")]),
        fr.Response(stream, 200, [], {"body": b"body"}),
    ]


def test_a_refused_handshake_has_one() -> None:
    pair = Pair.leased()
    stream = pair.opened({"websocket": []})
    answer(pair, stream, b"no", status=403)
    pair.gateway.send_data(stream, b"", end=True)
    pair.pump()
    assert pair.body(pair.gateway, stream) == b"no" and not pair.gateway.is_open(stream)


def test_it_counts_to_the_credit() -> None:
    pair = Pair.leased()
    stream = pair.opened({"window": 4} | ENDED)
    with pytest.raises(ProtocolError, match="granted"):
        pair.gateway.receive(encode(fr.Response(stream, 200, [], {"body": b"12345"})), pair.now)


def test_it_ends_the_direction() -> None:
    pair = Pair.leased()
    stream = pair.opened()  # whose request goes on
    whole = encode(fr.Response(stream, 200, [], {"body": b""}))
    pair.give(pair.gateway, [whole])
    assert pair.seen(pair.gateway, ev.ResponseReceived)[0].end and pair.gateway.is_open(stream)
    for late in (whole, encode(fr.Data(stream, b"x")), encode(fr.Data(stream, b"", end=True))):
        with pytest.raises(ProtocolError):
            pair.gateway.receive(late, pair.now)


def test_nobody_is_told_of_one_that_is_not_wanted() -> None:
    pair = Pair.leased()
    stream = pair.opened(ENDED)
    pair.gateway.stop(stream, fr.Code.CANCELLED)
    answer(pair, stream, b"body")
    pair.pump()
    assert not pair.seen(pair.gateway, ev.ResponseReceived) and not pair.gateway.is_open(stream)


def test_it_is_sent_again_as_it_was() -> None:
    pair = Pair.leased()
    stream = pair.opened(ENDED)
    answer(pair, stream, b"body")
    lost = pair.take(pair.function)
    pair.cut()
    pair.gateway.accept(pair.function.dial(pair.now), pair.now)
    pair.give(pair.function, pair.take(pair.gateway))
    assert pair.take(pair.function)[0] == lost[0]
    pair.give(pair.gateway, lost)
    assert pair.body(pair.gateway, stream) == b"body"


def test_a_reset_takes_it_back() -> None:
    pair = Pair.leased()
    stream = pair.opened(ENDED)
    answer(pair, stream, b"body")
    pair.function.reset(stream, fr.Code.INTERNAL)
    assert pair.frames(pair.function) == [fr.Reset(stream, fr.Code.INTERNAL)]


def test_it_waits_for_the_ledgers_room_and_breaks_no_bound() -> None:
    tiny = Limits(credit=1 << 22, unacked=MIN_UNACKED_BYTES, frames=8192)
    pair = Pair.leased(function=tiny, gateway=tiny)
    streams = [pair.opened(ENDED) for _ in range(30)]
    for stream in streams:
        answer(pair, stream, bytes(SMALL_BODY))
    sent = pair.take(pair.function)
    assert len(sent) < len(streams) and pair.function._sender.bytes <= MIN_UNACKED_BYTES * 7 // 8
    pair.give(pair.gateway, sent)
    pair.later(1.0)
    pair.pump()
    assert [len(pair.body(pair.gateway, stream)) for stream in streams] == [SMALL_BODY] * 30
