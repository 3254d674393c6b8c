"""Credit between two sessions (docs/protocol.md §6)."""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import encode
from protocol.dial import Limits
from protocol.errors import ProtocolError
from tests.protocol.pair import Pair


def test_the_first_is_what_the_receiver_stated_or_what_the_request_says() -> None:
    pair = Pair.leased(function=Limits(credit=100), gateway=Limits(credit=200))
    pair.consumes = False
    for options, up, down in (({}, 100, 200), ({"window": 7}, 100, 7), ({"window": 0}, 100, 0)):
        stream = pair.answered(options)
        pair.gateway.send_data(stream, bytes(1000))
        pair.function.send_data(stream, bytes(1000))
        pair.pump()
        assert (len(pair.body(pair.function, stream)), len(pair.body(pair.gateway, stream))) == (up, down)


def test_it_is_granted_as_the_consumer_consumes_and_not_as_bytes_come() -> None:
    pair = Pair.leased(function=Limits(credit=100))
    pair.consumes = False
    stream = pair.answered()
    pair.gateway.send_data(stream, bytes(1000))
    pair.pump()
    pair.function.consume(stream, 24, pair.now)
    pair.pump()
    assert len(pair.body(pair.function, stream)) == 100
    pair.function.consume(stream, 1, pair.now)
    pair.pump()
    assert len(pair.body(pair.function, stream)) == 125


def test_unsent_grants_merge() -> None:
    pair = Pair.leased(function=Limits(credit=100))
    pair.consumes = False
    stream = pair.answered()
    pair.gateway.send_data(stream, bytes(100))
    pair.pump()
    pair.later(60.0)  # a window that is consumed so slowly is wide enough
    for _ in range(4):
        pair.function.consume(stream, 25, pair.now)
    assert pair.frames(pair.function)[0] == fr.Credit(stream, 200)
    assert not pair.function.has_frames_to_send


def test_beyond_it_is_an_error() -> None:
    pair = Pair.leased(function=Limits(credit=100))
    stream = pair.answered()
    pair.consumes = False
    pair.give(pair.function, [encode(fr.Data(stream, bytes(100)))])
    with pytest.raises(ProtocolError, match="granted"):
        pair.function.receive(encode(fr.Data(stream, b"x")), pair.now)


def test_an_expected_body_that_does_not_wait_is_an_error() -> None:
    pair = Pair.leased()
    pair.opened({"expect": True})
    with pytest.raises(ProtocolError, match="granted"):
        pair.function.receive(encode(fr.Data(1, b"x")), pair.now)


def test_an_expected_body_waits_for_the_first_read() -> None:
    pair = Pair.leased()
    stream = pair.open({"expect": True})
    pair.gateway.send_data(stream, b"body", end=True)
    pair.pump()
    assert pair.body(pair.function, stream) == b"" and not pair.seen(pair.gateway, ev.CreditGranted)
    pair.function.start_reading(stream)
    pair.function.start_reading(stream)
    (grant,) = pair.frames(pair.function)
    assert grant == fr.Credit(stream, 65536)
    pair.give(pair.gateway, [encode(grant)])
    pair.pump()
    assert pair.body(pair.function, stream) == b"body"


def test_the_first_grant_is_told_once() -> None:
    pair = Pair.leased()
    stream = pair.opened({"expect": True})
    pair.give(pair.gateway, [encode(fr.Credit(stream, 0))])
    assert pair.seen(pair.gateway, ev.CreditGranted) == [], "none is no credit"
    pair.function.start_reading(stream)
    pair.pump()
    pair.give(pair.gateway, [encode(fr.Credit(stream, 70_000))])
    assert pair.seen(pair.gateway, ev.CreditGranted) == [ev.CreditGranted(stream)]


def test_end_and_empty_data_need_none() -> None:
    pair = Pair.leased(gateway=Limits(credit=5))
    pair.consumes = False
    stream = pair.answered()
    pair.function.send_data(stream, b"12345", end=True)
    pair.pump()
    assert pair.seen(pair.gateway, ev.DataReceived)[-1].end
    other = pair.answered({"window": 0})
    pair.function.send_data(other, b"", end=True)
    pair.pump()
    assert pair.seen(pair.gateway, ev.DataReceived)[-1] == ev.DataReceived(other, b"", True)


def test_a_grant_is_forgotten_with_its_stream() -> None:
    pair = Pair.leased(function=Limits(credit=4))
    pair.consumes = False
    stream = pair.answered()
    pair.gateway.send_data(stream, b"1234", end=True)
    data = pair.take(pair.gateway)
    pair.give(pair.function, [encode(fr.Data(stream, b"1234"))])
    assert data
    pair.function.consume(stream, 4, pair.now)
    pair.give(pair.function, [encode(fr.Data(stream, b"", end=True))])
    pair.function.send_data(stream, b"", end=True)
    assert fr.Credit not in {type(frame) for frame in pair.frames(pair.function)[1:]}
