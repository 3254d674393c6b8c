"""Two sessions and a clock moved by hand: acknowledgements, pings, silence, grace, and every timeout.

What is put on the wire by hand may be what the other side would never send.
"""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.dial import Limits
from protocol.session import Session
from tests.protocol.by_hand import acknowledged, give, kinds, parked, refuses
from tests.protocol.pair import Pair


def unacknowledged(limits: Limits) -> Pair:
    """A stream is open, and everything was acknowledged."""
    pair = Pair(function=limits)
    pair.dial()
    pair.lease()
    pair.opened()
    return acknowledged(pair)


def test_an_acknowledgement_at_a_quarter_of_the_frames() -> None:
    pair = unacknowledged(Limits(frames=64))
    for _ in range(15):
        give(pair, pair.gateway, fr.Stop(1, 0))
        assert pair.frames(pair.gateway) == []
    give(pair, pair.gateway, fr.Stop(1, 0))
    assert pair.frames(pair.gateway) == [fr.Ack(1 + 16)], "and LEASE"


def test_an_acknowledgement_at_a_quarter_of_the_bytes() -> None:
    pair = acknowledged(Pair.leased(function=Limits(unacked=256 << 10)))
    stream = pair.answered()
    acknowledged(pair)
    for _ in range(2):
        give(pair, pair.gateway, fr.Data(stream, bytes(30_000)))
        acks = [frame for frame in pair.frames(pair.gateway) if isinstance(frame, fr.Ack)]
        assert acks == []
    give(pair, pair.gateway, fr.Data(stream, bytes(5_500)))
    assert fr.Ack(5) in pair.frames(pair.gateway)


def test_an_acknowledgement_after_50_ms_while_leased() -> None:
    pair = unacknowledged(Limits())
    give(pair, pair.gateway, fr.Stop(1, 0))
    assert pair.frames(pair.gateway) == [] and pair.gateway.next_timeout() == pair.now + 0.05
    pair.later(0.05)
    assert pair.tick(pair.gateway) == [] and pair.frames(pair.gateway) == [fr.Ack(2)]
    assert pair.frames(pair.gateway) == []


def test_a_count_beyond_what_was_sent_or_below_one_stated_is_refused() -> None:
    for count in (2, 0):
        pair = acknowledged(Pair.leased())
        refuses(pair, pair.gateway, fr.Ack(count))


def test_pings_only_while_leased() -> None:
    pair = Pair(ping=10.0, grace=1000.0)
    pair.dial()
    pair.later(100)
    assert pair.tick(pair.gateway) == [], "not before a lease"
    pair.lease()
    acknowledged(pair)
    for wait, events in ((9.9, []), (0.05, [ev.PingDue()]), (9.9, []), (0.1, [ev.PingDue()]), (10.0, [ev.PingDue()])):
        pair.later(wait)
        for session in (pair.gateway, pair.function):
            session.heard(pair.now)
        assert pair.tick(pair.gateway) == events and pair.tick(pair.function) == []
    parked(pair).later(100)
    assert pair.tick(pair.gateway) == [], "not after it"
    pair.lease()
    pair.later(10)
    assert pair.tick(pair.gateway) == [ev.PingDue()]


def test_a_socket_is_given_up_after_three_pings_of_silence() -> None:
    for name in ("function", "gateway"):
        pair = acknowledged(Pair.leased(ping=10.0))
        session: Session = getattr(pair, name)
        session.heard(pair.now)
        pair.later(29.9)
        assert ev.SocketDead not in kinds(pair.tick(session))
        session.heard(pair.now)
        pair.later(29.9)
        assert ev.SocketDead not in kinds(pair.tick(session))
        pair.later(0.2)
        assert ev.SocketDead in kinds(pair.tick(session)) and not session.is_ended
        assert ev.SocketDead not in kinds(pair.tick(session)), "said once"


@pytest.mark.parametrize(("remaining", "ends"), [(900.0, 30.0), (5.0, 5.0)], ids=["grace", "lease"])
def test_without_a_socket_until_the_grace_or_the_lease_is_over(remaining: float, ends: float) -> None:
    pair = Pair(grace=30.0)
    pair.dial()
    pair.lease(remaining=remaining)
    pair.opened()
    pair.cut()
    for session in (pair.function, pair.gateway):
        assert session.next_timeout() == pytest.approx(pair.now + ends, abs=0.002)
    pair.later(ends - 0.01)
    assert pair.tick(pair.function) == pair.tick(pair.gateway) == []
    pair.later(0.02)
    for session in (pair.function, pair.gateway):
        assert kinds(pair.tick(session)) == [ev.SessionEnded] and session.open_streams == 0


def test_a_resume_ends_the_grace() -> None:
    pair = Pair.leased(grace=1.0, ping=100.0)
    pair.cut()
    pair.later(0.9)
    pair.dial()
    pair.later(50)
    assert pair.tick(pair.function) == pair.tick(pair.gateway) == []


def test_a_session_that_offers_nothing_ends_with_the_grace() -> None:
    pair = Pair(grace=30.0)
    pair.dial()
    pair.cut()
    assert pair.function.is_ended, "parked: nothing to resume"
    pair.later(30)
    assert kinds(pair.tick(pair.gateway)) == [ev.SessionEnded]


def test_a_parked_link_that_loses_its_socket_is_over() -> None:
    pair = parked(Pair.leased())
    pair.cut()
    assert pair.function.is_ended and pair.gateway.is_ended


def test_a_park_that_nobody_answers() -> None:
    pair = acknowledged(Pair.leased())
    pair.function.park(pair.now)
    pair.take(pair.function)
    pair.later(0.9)
    pair.function.heard(pair.now)
    pair.later(0.9)
    assert pair.tick(pair.function) == [], "1 s of silence"
    pair.later(0.2)
    assert kinds(pair.tick(pair.function)) == [ev.SessionEnded]


def test_a_recycled_socket_is_dead_after_200_ms_without_a_frame() -> None:
    for answered in (False, True):
        pair = parked(Pair.leased())
        pair.function.offer_lease("token", 1, 9.0, pair.now)
        pair.take(pair.function)
        if answered:
            give(pair, pair.function, fr.Leased(2))
        pair.later(0.2)
        assert kinds(pair.tick(pair.function)) == ([] if answered else [ev.SessionEnded])


def test_an_answered_invocation() -> None:
    pair = acknowledged(Pair.leased())
    assert pair.gateway.invocation_answered(pair.now) == [ev.PingDue()], "a stream may have nothing to say"
    for _ in range(3):
        pair.later(0.5)
        pair.gateway.heard(pair.now)  # the pong
        pair.later(0.5)
        assert pair.tick(pair.gateway) == [ev.PingDue()], "and is asked again"
    pair.later(0.9)
    assert pair.tick(pair.gateway) == [], "1 s without a pong"
    pair.later(0.1)
    assert kinds(pair.tick(pair.gateway)) == [ev.SessionEnded]


def test_an_answered_invocation_without_a_socket() -> None:
    for order in ("cut first", "answered first"):
        pair = Pair.leased()
        if order == "cut first":
            pair.cut()
        pair.call(pair.gateway, lambda: pair.gateway.invocation_answered(pair.now))  # noqa: B023
        if order == "answered first":
            pair.cut()
        assert pair.gateway.is_ended


def test_an_answer_means_nothing_to_a_parked_link_or_to_a_later_lease() -> None:
    pair = parked(Pair.leased())
    assert pair.gateway.invocation_answered(pair.now) == [] and pair.gateway.next_timeout() is None
    pair.lease()
    pair.gateway.invocation_answered(pair.now)
    pair.lease()
    pair.later(5)
    assert ev.SessionEnded not in kinds(pair.tick(pair.gateway))
