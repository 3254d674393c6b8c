"""A client's WebSocket messages on a stream (docs/protocol.md §5, §6.5)."""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import encode
from protocol.dial import Limits
from protocol.errors import LocalError, ProtocolError
from protocol.session import Session
from protocol.stream import MAX_MESSAGE
from tests.protocol.pair import Pair


def both(pair: Pair) -> list[tuple[Session, Session]]:
    return [(pair.function, pair.gateway), (pair.gateway, pair.function)]


def talking() -> tuple[Pair, int]:
    pair = Pair.leased()
    return pair, pair.answered({"websocket": ["chat"], "max_message": 1000}, 101)


def test_they_keep_their_bounds_and_kinds_both_ways() -> None:
    pair, stream = talking()
    for session, peer in both(pair):
        for data, text in ((b"one", True), (b"", False), (b"", True), (bytes(1000), False)):
            session.send_message(stream, data, text=text)
        pair.pump()
        assert pair.seen(peer, ev.MessageReceived) == [
            ev.MessageReceived(stream, b"one", True),
            ev.MessageReceived(stream, b"", False),
            ev.MessageReceived(stream, b"", True),
            ev.MessageReceived(stream, bytes(1000), False),
        ]


def test_close_and_then_end() -> None:
    """END is an empty DATA+END there, which was taken for data among messages: no WebSocket could be closed."""
    pair, stream = talking()
    for session, peer in both(pair):
        session.send_close(stream, 1001, b"bye")
        with pytest.raises(LocalError):
            session.send_message(stream, b"late", text=True)
        session.send_data(stream, b"", end=True)
        pair.pump()
        assert pair.seen(peer, ev.CloseReceived) == [ev.CloseReceived(stream, 1001, b"bye")]
        assert pair.seen(peer, ev.DataReceived) == [ev.DataReceived(stream, b"", True)]
    assert not pair.function.is_open(stream) and not pair.gateway.is_open(stream)


def test_an_end_without_a_close_code() -> None:
    pair, stream = talking()
    pair.function.send_data(stream, b"", end=True)
    pair.pump()
    assert pair.seen(pair.gateway, ev.DataReceived)[-1].end


@pytest.mark.parametrize(
    "frames",
    [
        [fr.Data(1, b"x")],
        [fr.Data(1, b"")],
        [fr.Data(1, b"x", end=True)],
        [fr.Trailers(1)],
        [fr.Close(1, 1000), fr.Close(1, 1000)],
        [fr.Close(1, 1000), fr.Message(1, b"x", text=True)],
        [fr.Data(1, b"", end=True), fr.Message(1, b"x", text=True)],
        [fr.Data(1, b"", end=True), fr.Close(1, 1000)],
    ],
)
def test_what_is_no_conversation_of_messages_is_an_error(frames: list[fr.Frame]) -> None:
    for side in ("function", "gateway"):
        pair, _ = talking()
        session = getattr(pair, side)
        *before, last = map(encode, frames)
        pair.give(session, before)
        with pytest.raises(ProtocolError):
            session.receive(last, pair.now)


def test_one_that_is_larger_than_the_window_gets_through() -> None:
    pair = Pair.leased(function=Limits(credit=100), gateway=Limits(credit=100), data_size=30)
    stream = pair.answered({"websocket": []}, 101)
    for session, peer in both(pair):
        body = bytes(range(256)) * 20
        session.send_message(stream, body, text=False)
        pair.pump()
        assert pair.seen(peer, ev.MessageReceived) == [ev.MessageReceived(stream, body, False)]


def test_while_a_finished_one_waits_the_next_is_granted_nothing() -> None:
    pair = Pair.leased(gateway=Limits(credit=100), data_size=30)
    stream = pair.answered({"websocket": []}, 101)
    for _ in range(3):
        pair.function.send_message(stream, bytes(70), text=False)
    pair.pump()
    assert len(pair.seen(pair.gateway, ev.MessageReceived)) == 2
    assert pair.gateway._streams[stream].assembly is not None
    for _ in range(3):
        pair.gateway.consume_message(stream, pair.now)
        pair.pump()
    assert len(pair.seen(pair.gateway, ev.MessageReceived)) == 3
    credit = pair.gateway._streams[stream].receive_credit
    assert credit.consumed == credit.received == 210, "in the end every byte was granted again"


def test_empty_ones_cost_a_byte_of_credit() -> None:
    pair = Pair.leased(gateway=Limits(credit=5))
    stream = pair.answered({"websocket": []}, 101)
    for _ in range(9):
        pair.function.send_message(stream, b"", text=True)
    pair.pump()
    assert len(pair.seen(pair.gateway, ev.MessageReceived)) == 5
    for _ in range(9):
        pair.gateway.consume_message(stream, pair.now)
        pair.pump()
    assert len(pair.seen(pair.gateway, ev.MessageReceived)) == 9


def test_one_above_the_limit_is_refused_and_the_rest_of_it_dropped() -> None:
    pair, stream = talking()
    pair.function.send_message(stream, bytes(1001), text=False)
    pair.function.send_message(stream, b"after it", text=False)
    pair.pump()
    assert pair.seen(pair.gateway, ev.StreamReset) == [
        ev.StreamReset(stream, fr.Code.TOO_BIG, "a message above its limit")
    ]
    assert pair.seen(pair.function, ev.StreamStopped) == [ev.StreamStopped(stream, fr.Code.TOO_BIG)]
    assert pair.seen(pair.gateway, ev.MessageReceived) == []
    assert pair.gateway._streams[stream].assembly is None
    pair.function.reset(stream, fr.Code.TOO_BIG)
    pair.pump()
    assert len(pair.seen(pair.gateway, ev.StreamReset)) == 1


def test_the_limit_is_16_mib_unless_the_request_says_otherwise() -> None:
    pair = Pair.leased()
    stream = pair.answered({"websocket": []}, 101)
    assert pair.gateway._streams[stream].max_message == pair.function._streams[stream].max_message == MAX_MESSAGE


def test_one_of_two_kinds_is_an_error() -> None:
    pair, stream = talking()
    pair.give(pair.gateway, [encode(fr.Message(stream, b"te", text=True, last=False))])
    with pytest.raises(ProtocolError, match="two kinds"):
        pair.gateway.receive(encode(fr.Message(stream, b"xt", text=False)), pair.now)


def test_a_websocket_that_is_refused_gets_an_ordinary_response() -> None:
    pair = Pair.leased()
    stream = pair.answered({"websocket": []}, 403)
    pair.function.send_data(stream, b"no", end=True)
    pair.gateway.send_data(stream, b"", end=True)
    pair.pump()
    assert pair.body(pair.gateway, stream) == b"no" and not pair.function.is_open(stream)


@pytest.mark.parametrize(
    ("options", "response"),
    [
        ({}, fr.Response(1, 101)),
        ({"websocket": []}, fr.Response(1, 101, [], {"end": True})),
        ({"websocket": []}, fr.Response(1, 101, [], {"body": b""})),
    ],
)
def test_101_is_for_websockets_and_begins_messages(options: dict[str, object], response: fr.Response) -> None:
    pair = Pair.leased()
    pair.opened(options)
    with pytest.raises(ProtocolError):
        pair.gateway.receive(encode(response), pair.now)
    with pytest.raises(LocalError):
        pair.function.send_response(1, 101, [], end=bool(response.options))
