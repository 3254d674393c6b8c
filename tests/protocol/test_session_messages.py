"""Two sessions and a perfect link: the WebSocket messages of a client, one rule at a time.

What is put on the wire by hand is what the other side would never send.
"""

from __future__ import annotations

from typing import Any

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.dial import Limits
from protocol.errors import LocalError
from protocol.frames import Code
from tests.protocol.by_hand import refuses
from tests.protocol.pair import Pair


def websocket(pair: Pair, **options: Any) -> int:
    return pair.answered({"websocket": [], **options}, 101)


def test_messages_both_ways_and_then_their_close() -> None:
    pair = Pair.leased(data_size=10)
    stream = websocket(pair)
    for session in (pair.function, pair.gateway):
        session.send_message(stream, "grüße".encode() * 5, text=True)
        session.send_message(stream, b"", text=False)
        session.send_close(stream, 1000, b"bye")
        with pytest.raises(LocalError):
            session.send_message(stream, b"late", text=True)
        session.send_data(stream, b"", end=True)
    pair.pump()
    for session in (pair.function, pair.gateway):
        messages = [ev.MessageReceived(stream, "grüße".encode() * 5, True), ev.MessageReceived(stream, b"", False)]
        assert pair.seen(session, ev.MessageReceived) == messages
        assert pair.seen(session, ev.CloseReceived) == [ev.CloseReceived(stream, 1000, b"bye")]
        assert session.open_streams == 0


def test_a_message_may_be_larger_than_the_window() -> None:
    pair = Pair.leased(function=Limits(credit=100), data_size=64)
    stream, data = websocket(pair), bytes(range(250)) * 400
    pair.gateway.send_message(stream, data, text=False)
    pair.pump()
    assert pair.seen(pair.function, ev.MessageReceived) == [ev.MessageReceived(stream, data, False)]


def test_one_behind_a_message_that_nobody_took_waits() -> None:
    pair = Pair.leased(function=Limits(credit=100), data_size=64)
    stream = websocket(pair)
    for size in (10, 1000, 1000):
        pair.gateway.send_message(stream, bytes(size), text=False)
    for count in (1, 2, 3):
        pair.pump()
        assert len(pair.seen(pair.function, ev.MessageReceived)) == count
        pair.function.consume_message(stream, pair.now)


def test_a_message_above_its_limit_is_refused_and_stopped() -> None:
    for size in (50, 51):
        pair = Pair.leased(data_size=20)
        stream = websocket(pair, max_message=50)
        pair.gateway.send_message(stream, bytes(size), text=False)
        pair.pump()
        if size == 50:
            assert len(pair.seen(pair.function, ev.MessageReceived)) == 1
        else:
            assert not pair.seen(pair.function, ev.MessageReceived)
            assert [event.code for event in pair.seen(pair.function, ev.StreamReset)] == [Code.TOO_BIG]
            assert pair.seen(pair.gateway, ev.StreamStopped) == [ev.StreamStopped(stream, Code.TOO_BIG)]


@pytest.mark.parametrize(
    "frames",
    [
        [fr.Message(1, b"a", text=True, last=False), fr.Message(1, b"b", text=False)],
        [fr.Data(1, b"x")],
        [fr.Data(1, b"")],
        [fr.Data(1, b"x", end=True)],
        [fr.Trailers(1)],
        [fr.Close(1, 1000), fr.Close(1, 1000)],
        [fr.Close(1, 1000), fr.Message(1, b"x", text=True)],
        [fr.Data(1, b"", end=True), fr.Message(1, b"x", text=True)],
        [fr.Data(1, b"", end=True), fr.Close(1, 1000)],
    ],
    ids=repr,
)
def test_what_is_no_conversation_of_messages_is_refused(frames: list[fr.Frame]) -> None:
    for name in ("function", "gateway"):
        pair = Pair.leased()
        websocket(pair)
        refuses(pair, getattr(pair, name), *frames)


@pytest.mark.parametrize("frame", [fr.Message(1, b"x", text=True), fr.Close(1, 1000)], ids=repr)
def test_a_message_in_a_body_is_refused(frame: fr.Frame) -> None:
    for name in ("function", "gateway"):
        pair = Pair.leased()
        pair.answered()
        refuses(pair, getattr(pair, name), frame)


def test_empty_messages_are_bounded_by_credit_too() -> None:
    pair = Pair.leased(function=Limits(credit=100))
    websocket(pair)
    refuses(pair, pair.function, *[fr.Message(1, b"", text=True)] * 101)
