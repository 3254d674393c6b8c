"""Two sessions and a perfect link: dials and leases, one rule at a time (streams and time have files of their own).

Whatever is put on the wire by hand is what the other side would never send.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.errors import DialRefused, LocalError, ProtocolError
from protocol.frames import Code
from protocol.function_session import FunctionSession
from protocol.lease import LeaseState
from tests.protocol.by_hand import acknowledged, give, parked, refuses
from tests.protocol.pair import EXCHANGE, Pair

WELCOME = {"credit": 1, "unacked": 1 << 20, "frames": 100}


class TestDials:
    def test_the_gateway_speaks_first_and_alone(self) -> None:
        pair = Pair()
        pair.function.offer_lease("token", 1, 9.0, pair.now)
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        assert pair.take(pair.function) == [] and not pair.function.has_frames_to_send
        (welcome,) = pair.frames(pair.gateway)
        assert isinstance(welcome, fr.Welcome) and (welcome.received, welcome.epoch) == (0, 1)
        stated = {"credit": 65536, "unacked": 8 << 20, "frames": 8192, "grace": 30_000, "ping": 10_000, "features": []}
        assert welcome.options == stated
        assert give(pair, pair.function, welcome) == [ev.Welcomed(resumed=False)]
        assert [type(frame) for frame in pair.frames(pair.function)] == [fr.Lease]

    def test_an_epoch_that_is_not_above_the_last_leaves_the_live_socket_alone(self) -> None:
        pair = Pair.leased()
        old, new = pair.function.dial(pair.now), pair.function.dial(pair.now)
        pair.gateway.accept(new, pair.now)
        pair.pump()
        for late in (old, new):
            with pytest.raises(DialRefused, match="superseded"):
                pair.gateway.accept(late, pair.now)
        assert pair.gateway.is_attached and pair.opened() == 1, "and the session goes on"

    def test_a_session_that_is_over_is_unknown(self) -> None:
        pair = Pair.leased()
        dial = pair.function.dial(pair.now)
        assert pair.gateway.end("stopped") == [ev.SessionEnded("stopped")]
        assert pair.gateway.end("again") == []
        with pytest.raises(DialRefused, match="unknown"):
            pair.gateway.accept(dial, pair.now)
        pair.function.end("stopped")
        with pytest.raises(LocalError):
            pair.function.dial(pair.now)

    @pytest.mark.parametrize("received", [0, 99])
    def test_an_impossible_count_is_refused(self, received: int) -> None:
        pair = acknowledged(Pair.leased())  # the gateway has sent LEASED, and the function has said so
        with pytest.raises(ProtocolError):
            pair.gateway.accept(replace(pair.function.dial(pair.now), received=received), pair.now)
        other = acknowledged(Pair.leased())
        epoch = other.function.dial(other.now).epoch
        refuses(other, other.function, fr.Welcome(received, epoch, WELCOME))

    def test_a_resume_is_proved_and_replays_what_was_lost_before_anything_new(self) -> None:
        pair = Pair.leased()
        stream = pair.opened()
        pair.function.send_response(stream, 200, [])
        pair.function.send_data(stream, b"one")
        lost = pair.take(pair.function)
        pair.cut()
        pair.function.send_data(stream, b"two")
        dial = pair.function.dial(pair.now)
        assert dial.epoch == 2 and dial.is_proved_by(b"k" * 32) and not dial.invitation and dial.remaining == 900.0
        pair.gateway.accept(dial, pair.now)
        pair.give(pair.function, pair.take(pair.gateway))
        assert ev.Welcomed(resumed=True) in pair.function_saw
        sent = pair.take(pair.function)
        assert sent[:2] == lost and len(sent) == 3
        pair.give(pair.gateway, sent)
        assert pair.body(pair.gateway, stream) == b"onetwo"

    def test_what_was_passed_on_before_the_cut_is_not_passed_on_again(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.send_data(stream, b"0123456789", end=True)
        (data,) = pair.take(pair.function)
        (event,) = pair.gateway.receive_part(data[:16], 0, len(data), pair.now)
        assert isinstance(event, ev.DataReceived) and bytes(event.data) == b"0123" and not event.end
        pair.cut()
        pair.dial()
        assert pair.body(pair.gateway, stream) == b"456789"
        assert pair.seen(pair.gateway, ev.DataReceived)[-1].end

    @pytest.mark.parametrize(
        "options",
        [{}, {"credit": 1}, WELCOME | {"credit": 0}, WELCOME | {"unacked": 1}, WELCOME | {"frames": 63}],
        ids=repr,
    )
    def test_a_welcome_without_limits_is_refused(self, options: dict[str, Any]) -> None:
        pair = Pair()
        pair.function.dial(pair.now)
        refuses(pair, pair.function, fr.Welcome(0, 1, options))

    def test_a_welcome_that_nobody_asked_for_is_refused(self) -> None:
        refuses(pair := Pair.leased(), pair.function, fr.Welcome(1, 1, WELCOME))
        refuses(pair := Pair.leased(), pair.gateway, fr.Welcome(1, 1, WELCOME))
        pair = Pair()
        pair.function.dial(pair.now)
        refuses(pair, pair.function, fr.Welcome(0, 2, WELCOME))

    @pytest.mark.parametrize("frame", [fr.Ack(0), fr.Credit(1, 1), fr.Data(1, b"x"), fr.Leased(1)], ids=repr)
    def test_a_frame_before_welcome_is_refused(self, frame: fr.Frame) -> None:
        pair = Pair()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        for session in (pair.function, pair.gateway):
            refuses(pair, session, frame)

    def test_nothing_is_read_without_a_socket(self) -> None:
        pair = Pair.leased()
        pair.cut()
        for session in (pair.function, pair.gateway):
            assert session.receive(b"garbage", pair.now) == [] and pair.take(session) == []

    def test_frames_of_the_other_side_are_refused(self) -> None:
        for_the_gateway = (fr.Lease(9, "t", 1, 1, 0), fr.Park(1, 0, 0), fr.Response(1, 200), fr.Informational(1, 103))
        for frame in for_the_gateway:
            refuses(pair := Pair.leased(), pair.function, frame)
        for frame in (fr.Leased(1), fr.Release(1), fr.Parked(1, 0), fr.Request(1, EXCHANGE, b"GET", b"/")):
            refuses(pair := Pair.leased(), pair.gateway, frame)


class TestLeases:
    def test_an_offer_is_granted_after_the_requests_that_wait(self) -> None:
        pair = Pair()
        pair.dial()
        lease = pair.function.offer_lease("token", 2, 9.0, pair.now)
        pair.later(1.5)
        pair.pump()
        assert pair.gateway_saw == [ev.LeaseOffered(1, "token", 2, 7.5)], "what remains is said when it is sent"
        pair.open()
        pair.gateway.grant(lease, 0.25, pair.now)
        assert [type(frame) for frame in pair.frames(pair.gateway)] == [fr.Request, fr.Leased]
        for again in (lease, lease + 1):
            with pytest.raises(LocalError):
                pair.gateway.grant(again, 0.0, pair.now)

    def test_a_granted_lease(self) -> None:
        pair = Pair.leased(linger=0.25)
        assert pair.function_saw == [ev.Welcomed(resumed=False), ev.LeaseGranted(1, 0.25)]
        assert pair.function.lease_state is pair.gateway.lease_state is LeaseState.LEASED
        refuses(pair, pair.function, fr.Leased(1))

    def test_a_declined_offer(self) -> None:
        pair = Pair()
        pair.dial()
        lease = pair.function.offer_lease("token", 1, 9.0, pair.now)
        pair.pump()
        pair.gateway.decline(lease)
        pair.pump()
        assert pair.seen(pair.function, ev.Parked) == [ev.Parked(1)]
        assert not pair.function.is_leased and not pair.gateway.is_leased
        with pytest.raises(LocalError):
            pair.open()
        assert pair.lease() == 2, "the next offer is another lease"

    def test_nothing_is_declined_with_a_stream_open(self) -> None:
        pair = Pair.leased()
        pair.opened()
        lease = pair.function.offer_lease("token", 1, 9.0, pair.now)
        pair.pump()
        with pytest.raises(LocalError):
            pair.gateway.decline(lease)

    def test_an_early_end_is_asked_for_once(self) -> None:
        pair = Pair.leased()
        for _ in range(2):
            pair.gateway.release()
        pair.pump()
        assert pair.seen(pair.function, ev.LeaseReleased) == [ev.LeaseReleased(1)]
        parked(pair).gateway.release()
        pair.pump()
        assert len(pair.seen(pair.function, ev.LeaseReleased)) == 1
        pair.lease()
        pair.gateway.release()
        pair.pump()
        assert pair.seen(pair.function, ev.LeaseReleased)[1:] == [ev.LeaseReleased(2)]

    def test_parked_and_silent(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.pump()
        assert pair.function_saw[-1] == pair.gateway_saw[-1] == ev.Parked(1)
        pair.later(3600)
        for session in (pair.function, pair.gateway):
            assert session.next_timeout() is None and not session.has_frames_to_send
            assert pair.take(session) == [] and pair.tick(session) == []

    def test_a_park_with_a_stream_open_is_refused(self) -> None:
        pair = Pair.leased()
        pair.opened()
        assert not pair.function.can_park
        with pytest.raises(LocalError):
            pair.function.park(pair.now)
        refuses(pair, pair.gateway, fr.Park(1, 1, 0))
        refuses(pair := Pair.leased(), pair.gateway, fr.Park(1, 7, 0))

    def test_parked_with_a_stream_open_is_refused(self) -> None:
        pair = Pair.leased()
        pair.opened()
        refuses(pair, pair.function, fr.Parked(1, 1))

    def test_parked_that_nobody_asked_for_is_refused(self) -> None:
        refuses(pair := Pair.leased(), pair.function, fr.Parked(1, 1))

    def test_a_request_on_its_way_voids_a_park(self) -> None:
        pair = Pair.leased()
        pair.open()
        request = pair.take(pair.gateway)
        pair.function.park(pair.now)
        pair.give(pair.gateway, pair.take(pair.function))
        assert pair.take(pair.gateway) == [], "no answer"
        pair.give(pair.function, request)
        assert pair.function.lease_state is pair.gateway.lease_state is LeaseState.LEASED
        pair.later(2.0)
        assert pair.tick(pair.function) == [], "nobody waits for PARKED any more"

    def test_a_request_that_was_never_sent_answers_a_park_when_it_is_withdrawn(self) -> None:
        pair = Pair.leased()
        stream = pair.open()
        pair.function.park(pair.now)
        pair.give(pair.gateway, pair.take(pair.function))
        pair.gateway.reset(stream, Code.CANCELLED)
        pair.pump()
        assert pair.seen(pair.function, ev.StreamOpened) == []
        assert pair.function_saw[-1] == ev.Parked(1) and not pair.gateway.is_leased

    def test_a_second_lease_replaces_the_first_and_the_streams_go_on(self) -> None:
        pair = Pair.leased(places=1)
        stream = pair.opened()
        assert pair.lease(places=2) == 2
        assert pair.opened() == 2 and pair.gateway.places == 2
        pair.function.send_response(stream, 200, [])
        pair.pump()
        assert give(pair, pair.gateway, fr.Park(1, 0, 0)) == [], "an older lease's events are ignored"
        assert give(pair, pair.function, fr.Release(1), fr.Leased(1), fr.Parked(1, 0)) == []
        assert pair.gateway.lease_state is pair.function.lease_state is LeaseState.LEASED

    @pytest.mark.parametrize("lease", [0, 1])
    def test_a_number_that_came_before_is_refused(self, lease: int) -> None:
        refuses(pair := Pair.leased(), pair.gateway, fr.Lease(lease, "token", 1, 1000, 0))

    @pytest.mark.parametrize("frame", [fr.Leased(2), fr.Release(2), fr.Parked(2, 0)], ids=repr)
    def test_a_lease_that_was_never_offered_is_refused(self, frame: fr.Frame) -> None:
        refuses(pair := Pair.leased(), pair.function, frame)

    def test_a_park_of_a_lease_that_was_never_offered_is_refused(self) -> None:  # E4
        refuses(pair := Pair.leased(), pair.gateway, fr.Park(2, 0, 0))
        pair = Pair()
        pair.dial()
        refuses(pair, pair.gateway, fr.Park(1, 0, 0))

    @pytest.mark.parametrize("lease", ["never", "declined", "parked"])
    def test_a_request_without_a_lease_is_refused(self, lease: str) -> None:
        pair = parked(Pair.leased()) if lease == "parked" else Pair()
        if lease != "parked":
            pair.dial()
        if lease == "declined":
            offer = pair.function.offer_lease("token", 1, 9.0, pair.now)
            pair.pump()
            pair.gateway.decline(offer)
            pair.pump()
        refuses(pair, pair.function, fr.Request(1, EXCHANGE, b"GET", b"/"))

    @pytest.mark.parametrize("offer", [("t" * 4097, 1), ("t", -1)])
    def test_an_offer_that_no_frame_holds_is_refused(self, offer: tuple[str, int]) -> None:
        pair = Pair.leased()
        with pytest.raises(LocalError):
            pair.function.offer_lease(*offer, 9.0, pair.now)
        assert pair.function.lease == 1

    def test_no_more_streams_than_places_and_a_place_is_free_when_both_directions_ended(self) -> None:
        pair = Pair.leased(places=1)
        stream = pair.answered()
        pair.function.send_data(stream, b"", end=True)
        pair.pump()
        assert not pair.gateway.can_open, "the request has not ended"
        with pytest.raises(LocalError):
            pair.open()
        pair.gateway.send_data(stream, b"", end=True)
        pair.pump()
        assert pair.gateway.can_open and pair.opened() == 2
        pair.cut()
        assert not pair.gateway.can_open, "nor without a socket"

    def test_a_lease_of_no_places_opens_nothing(self) -> None:
        with pytest.raises(LocalError):
            Pair.leased(places=0).open()


def test_a_session_prints_its_state_and_no_secret() -> None:
    pair = Pair.leased()
    assert repr(pair.gateway) == "GatewaySession(69696969, epoch=1, leased, streams=0)"
    assert "token" not in repr(pair.function) and isinstance(pair.function, FunctionSession)
