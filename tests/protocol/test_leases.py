"""Leases at both sides (docs/protocol.md §4): every state × every input, parking and its races."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import encode
from protocol.errors import LocalError, ProtocolError
from protocol.gateway_session import GATEWAY_LEASE
from protocol.lease import FUNCTION_LEASE, LeaseInput, LeaseState
from tests.protocol.pair import EXCHANGE, Pair


def offered(pair: Pair) -> int:
    lease = pair.function.offer_lease("t", 100, 900.0, pair.now)
    pair.pump()
    return lease


def function_in(state: LeaseState) -> Pair:
    """A pair whose function is in `state`, with a lease number of at least 1; what it sent is not delivered."""
    pair = Pair.leased()
    if state is LeaseState.OFFERED:
        pair.function.offer_lease("t", 1, 9.0, pair.now)
    elif state is LeaseState.PARKING:
        pair.function.park(pair.now)
    elif state is LeaseState.PARKED:
        pair.function.park(pair.now)
        pair.pump()
    pair.forget()
    assert pair.function.lease_state is state
    return pair


@pytest.mark.parametrize(("state", "event"), list(itertools.product(LeaseState, LeaseInput)))
def test_the_function_does_as_its_table_says(state: LeaseState, event: LeaseInput) -> None:
    pair = function_in(state)
    function, lease, sent = pair.function, pair.function.lease, pair.function._sender.sent
    frames: dict[LeaseInput, fr.Frame] = {
        LeaseInput.GRANT: fr.Leased(lease),
        LeaseInput.REQUEST: fr.Request(9, EXCHANGE, b"GET", b"/", [], {"end": True}),
        LeaseInput.PARKED: fr.Parked(lease, sent),
    }
    calls: dict[LeaseInput, Callable[[], object]] = {
        LeaseInput.OFFER: lambda: function.offer_lease("t", 1, 9.0, pair.now),
        LeaseInput.PARK: lambda: function.park(pair.now),
    }
    after = FUNCTION_LEASE.get((state, event))
    act = calls.get(event) or (lambda: function.receive(encode(frames[event]), pair.now))
    if after is None:
        with pytest.raises(LocalError if event in calls else ProtocolError):
            act()
        assert function.lease_state is state
    else:
        act()
        assert function.lease_state is after


@pytest.mark.parametrize("state", [LeaseState.PARKED, LeaseState.OFFERED, LeaseState.LEASED])
@pytest.mark.parametrize("event", LeaseInput)
def test_the_gateway_does_as_its_table_says(state: LeaseState, event: LeaseInput) -> None:
    pair = function_in(LeaseState.PARKED)
    if state is not LeaseState.PARKED:
        offered(pair)
    if state is LeaseState.LEASED:
        pair.gateway.grant(pair.function.lease, 0.0, pair.now)
        pair.pump()
    gateway, lease = pair.gateway, pair.gateway.lease
    assert gateway.lease_state is state
    frames: dict[LeaseInput, fr.Frame] = {
        LeaseInput.OFFER: fr.Lease(lease + 1, "t", 1, 1000, 0),
        LeaseInput.PARK: fr.Park(lease, 0, 0),
    }
    calls: dict[LeaseInput, Callable[[], object]] = {
        LeaseInput.GRANT: lambda: gateway.grant(lease, 0.0, pair.now),
        LeaseInput.REQUEST: lambda: pair.open(),
        LeaseInput.PARKED: lambda: gateway.decline(lease),
    }
    # PARK is answered in the same step; PARKED is its answer, or that to an offer.
    after = GATEWAY_LEASE.get((state, event))
    if event is LeaseInput.PARK and state is LeaseState.LEASED:
        after = LeaseState.PARKED
    if event is LeaseInput.PARKED and state is LeaseState.LEASED:
        after = None  # `decline` answers offers alone
    act = calls.get(event) or (lambda: gateway.receive(encode(frames[event]), pair.now))
    if after is None:
        with pytest.raises(LocalError if event in calls else ProtocolError):
            act()
        assert gateway.lease_state is state
    else:
        act()
        assert gateway.lease_state is after


class TestOffering:
    def test_an_offer_says_what_remains_when_it_leaves(self) -> None:
        """It said what had remained when it was made: a dial may take seconds."""
        pair = Pair()
        pair.function.offer_lease("invitation", 7, 10.0, pair.now)
        pair.later(4.0)
        pair.dial()
        assert pair.seen(pair.gateway, ev.LeaseOffered) == [ev.LeaseOffered(1, "invitation", 7, 6.0)]
        assert pair.gateway.places == 7

    def test_time_that_has_run_out_is_no_time(self) -> None:
        pair = Pair()
        pair.function.offer_lease("t", 1, -5.0, pair.now)
        pair.dial()
        assert pair.seen(pair.gateway, ev.LeaseOffered)[0].remaining == 0.0

    @pytest.mark.parametrize(("invitation", "places"), [("x" * 4097, 1), ("x", -1)])
    def test_an_offer_that_no_frame_holds_is_refused_here(self, invitation: str, places: int) -> None:
        pair = Pair.leased()
        with pytest.raises(LocalError):
            pair.function.offer_lease(invitation, places, 1.0, pair.now)
        assert pair.function.lease_state is LeaseState.LEASED and pair.function.lease == 1

    def test_a_grant_says_how_long_to_linger(self) -> None:
        pair = Pair.leased(linger=0.25)
        assert pair.seen(pair.function, ev.LeaseGranted) == [ev.LeaseGranted(1, 0.25)]

    def test_a_declined_offer_parks(self) -> None:
        pair = Pair()
        pair.dial()
        lease = offered(pair)
        pair.gateway.decline(lease)
        pair.pump()
        assert pair.seen(pair.function, ev.Parked) == [ev.Parked(lease)]
        assert pair.function.next_timeout() is None and pair.gateway.next_timeout() is None

    def test_only_the_present_offer_is_answered(self) -> None:
        pair = Pair()
        pair.dial()
        lease = offered(pair)
        with pytest.raises(LocalError):
            pair.gateway.grant(lease + 1, 0.0, pair.now)
        with pytest.raises(LocalError):
            pair.gateway.decline(lease - 1)
        pair.gateway.grant(lease, 0.0, pair.now)
        with pytest.raises(LocalError):
            pair.gateway.grant(lease, 0.0, pair.now)

    def test_nobody_declines_with_streams_open(self) -> None:
        pair = Pair.leased()
        pair.opened()
        lease = offered(pair)
        with pytest.raises(LocalError):
            pair.gateway.decline(lease)
        assert pair.gateway.lease_state is LeaseState.OFFERED

    def test_a_second_lease_replaces_the_first_and_its_streams_go_on(self) -> None:
        pair = Pair.leased(places=1)
        stream = pair.answered()
        pair.lease(places=2)
        assert pair.gateway.places == 2 and pair.gateway.can_open
        pair.function.send_data(stream, b"goes on")
        pair.pump()
        assert pair.body(pair.gateway, stream) == b"goes on"

    def test_a_lease_that_was_never_offered_is_an_error(self) -> None:
        for frame in (fr.Leased(2), fr.Parked(2, 0), fr.Release(2)):
            with pytest.raises(ProtocolError, match="never offered"):
                Pair.leased().function.receive(encode(frame), 100.0)
        for other in (fr.Park(2, 0, 0), fr.Lease(1, "t", 1, 1, 0), fr.Lease(0, "t", 1, 1, 0)):
            with pytest.raises(ProtocolError):
                Pair.leased().gateway.receive(encode(other), 100.0)

    def test_what_comes_of_an_older_lease_is_ignored(self) -> None:
        pair = Pair.leased()
        pair.lease()
        pair.forget()
        for frame in (fr.Leased(1), fr.Parked(1, 0), fr.Release(1)):
            assert pair.give(pair.function, [encode(frame)]) == []
        assert pair.give(pair.gateway, [encode(fr.Park(1, 0, 0))]) == []
        assert pair.function.lease_state is pair.gateway.lease_state is LeaseState.LEASED

    def test_no_stream_is_opened_without_a_lease_a_socket_or_a_place(self) -> None:
        pair = Pair()
        assert not pair.gateway.can_open
        pair.dial()
        assert not pair.gateway.can_open
        lease = pair.function.offer_lease("t", 1, 9.0, pair.now)
        pair.pump()
        assert pair.gateway.can_open, "before the answer, so that it leaves in the same write"
        pair.open()
        assert not pair.gateway.can_open
        pair.gateway.grant(lease, 0.0, pair.now)
        pair.function.offer_lease("t", 2, 9.0, pair.now)
        pair.pump()
        assert pair.gateway.can_open
        pair.cut()
        assert not pair.gateway.can_open
        with pytest.raises(LocalError):
            pair.open()

    def test_a_lease_of_no_places_opens_nothing(self) -> None:
        with pytest.raises(LocalError):
            Pair.leased(places=0).open()

    def test_the_next_offer_after_a_declined_one_is_another_lease(self) -> None:
        pair = Pair()
        pair.dial()
        pair.gateway.decline(offered(pair))
        pair.pump()
        assert pair.lease() == 2 and pair.gateway.can_open

    def test_a_release_comes_after_the_grant_and_once(self) -> None:
        pair = Pair()
        pair.dial()
        lease = offered(pair)
        pair.gateway.grant(lease, 5.0, pair.now)
        pair.gateway.release()
        pair.gateway.release()
        pair.pump()
        kinds = [type(event) for event in pair.function_saw]
        assert kinds.count(ev.LeaseReleased) == 1
        assert kinds.index(ev.LeaseGranted) < kinds.index(ev.LeaseReleased)
        pair.lease()
        pair.gateway.release()
        pair.pump()
        assert pair.function_saw[-1] == ev.LeaseReleased(2), "each lease anew"

    def test_a_release_that_waits_does_not_follow_parked(self) -> None:
        """It reached an environment that was frozen."""
        pair = Pair.leased()
        pair.gateway.release()
        pair.function.park(pair.now)
        pair.give(pair.gateway, pair.take(pair.function))
        assert [type(frame) for frame in pair.frames(pair.gateway)] == [fr.Release, fr.Parked]

    def test_a_release_without_a_lease_is_nothing(self) -> None:
        pair = function_in(LeaseState.PARKED)
        pair.gateway.release()
        assert pair.take(pair.gateway) == []


class TestParking:
    def test_it_is_a_question_with_an_answer_and_then_silence(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.pump()
        assert pair.seen(pair.function, ev.Parked) == pair.seen(pair.gateway, ev.Parked) == [ev.Parked(1)]
        pair.later(3600.0)
        for session in (pair.function, pair.gateway):
            assert session.next_timeout() is None
            assert pair.tick(session) == [] and pair.take(session) == []

    def test_it_acknowledges_everything(self) -> None:
        pair = Pair.leased()
        stream = pair.answered({"end": True})
        pair.function.send_data(stream, bytes(10_000), end=True)
        pair.take(pair.function)
        assert pair.function._sender.frames > 0 and pair.gateway._sender.frames > 0
        pair.cut()
        pair.dial()
        pair.function.park(pair.now)
        pair.pump()
        assert pair.function._sender.frames == 0
        assert pair.gateway._sender.frames == 1, "PARKED itself, which the next LEASE acknowledges"
        pair.lease()
        assert pair.gateway._sender.frames == 1, "LEASED"

    def test_nobody_parks_with_streams_open(self) -> None:
        pair = Pair.leased()
        pair.opened()
        assert not pair.function.can_park
        with pytest.raises(LocalError):
            pair.function.park(pair.now)
        assert pair.function.lease_state is LeaseState.LEASED

    def test_a_request_that_crosses_it_voids_it(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        park = pair.take(pair.function)
        stream = pair.open()
        request = pair.take(pair.gateway)
        assert pair.give(pair.gateway, park) == [], "it is not answered"
        pair.give(pair.function, request)
        assert pair.function.lease_state is LeaseState.LEASED
        pair.later(1.5)
        assert pair.tick(pair.function) == [], "nor waited for"
        assert pair.function.is_open(stream)
        pair.function.send_response(stream, 200, [], end=True)
        pair.gateway.send_data(stream, b"", end=True)
        pair.pump()
        pair.function.park(pair.now)
        pair.pump()
        assert pair.seen(pair.function, ev.Parked)

    def test_a_request_that_waits_voids_it_too(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        park = pair.take(pair.function)
        pair.open()
        pair.give(pair.gateway, park)
        pair.pump()
        assert pair.function.lease_state is LeaseState.LEASED and pair.function.open_streams == 1

    @pytest.mark.parametrize("give_up", ["reset", "stop"])
    def test_when_the_request_that_waited_is_withdrawn_it_is_answered_after_all(self, give_up: str) -> None:
        """It was not: the function waited for its second, and closed a good link."""
        pair = Pair.leased()
        pair.function.park(pair.now)
        park = pair.take(pair.function)
        waiting = pair.open()
        pair.give(pair.gateway, park)
        assert pair.gateway.is_leased
        events = pair.call(pair.gateway, lambda: getattr(pair.gateway, give_up)(waiting, 1))
        assert events == [ev.StreamClosed(waiting), ev.Parked(1)]
        pair.pump()
        assert pair.seen(pair.function, ev.Parked) == [ev.Parked(1)]

    def test_it_is_not_answered_when_another_request_left_meanwhile(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        park = pair.take(pair.function)
        one, two = pair.open(), pair.open()
        pair.give(pair.gateway, park)
        pair.gateway.frames_to_send(1, pair.now)
        pair.gateway.reset(two, 1)
        assert pair.gateway.is_open(one) and not pair.gateway.is_open(two)
        assert pair.gateway.is_leased

    @pytest.mark.parametrize("last", [1, 7])
    def test_a_park_with_open_streams_or_after_one_that_never_was_is_an_error(self, last: int) -> None:
        pair = Pair.leased()
        pair.opened()
        with pytest.raises(ProtocolError):
            pair.gateway.receive(encode(fr.Park(1, last, 0)), pair.now)

    def test_parked_with_streams_open_is_an_error(self) -> None:
        pair = Pair.leased()
        pair.opened()
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        with pytest.raises(ProtocolError):
            pair.function.receive(encode(fr.Parked(2, 0)), pair.now)

    def test_a_lease_that_crosses_the_answer_goes_on(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        park = pair.take(pair.function)
        lease = pair.function.offer_lease("t", 1, 9.0, pair.now)
        pair.give(pair.gateway, park)
        assert pair.seen(pair.gateway, ev.Parked) == [ev.Parked(1)]
        pair.give(pair.function, pair.take(pair.gateway))
        assert pair.seen(pair.function, ev.Parked) == [], "that was the former lease"
        pair.pump()
        pair.gateway.grant(lease, 0.0, pair.now)
        pair.pump()
        assert pair.function.lease_state is pair.gateway.lease_state is LeaseState.LEASED
        pair.later(2.0)
        assert pair.tick(pair.function) == [], "the former lease's park is not waited for"

    def test_what_a_park_asked_on_a_lost_socket_is_asked_again(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.take(pair.function)
        pair.cut()
        pair.dial()
        assert pair.seen(pair.function, ev.Parked) == [ev.Parked(1)]

    def test_an_answer_that_was_lost_is_given_again_to_a_dial_that_comes_before_the_loss_is_noticed(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.give(pair.gateway, pair.take(pair.function))
        pair.take(pair.gateway)
        pair._note(pair.function, pair.function.socket_lost(pair.now))
        pair.dial()
        assert pair.seen(pair.function, ev.Parked) == [ev.Parked(1)]
        assert pair.function.next_timeout() is None and pair.gateway.next_timeout() is None

    def test_a_request_that_crosses_a_park_on_a_lost_socket_is_served_on_the_next(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.take(pair.function)
        stream = pair.open()
        pair.take(pair.gateway)
        pair.cut()
        pair.dial()
        assert pair.function.is_open(stream) and pair.function.lease_state is LeaseState.LEASED

    def test_a_parked_link_that_loses_its_socket_is_over(self) -> None:
        pair = function_in(LeaseState.PARKED)
        pair.cut()
        assert pair.seen(pair.function, ev.SessionEnded) and pair.seen(pair.gateway, ev.SessionEnded)
