"""Dialling, welcoming, fencing and resuming (docs/protocol.md §3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import decode, encode
from protocol.dial import Dial, Limits
from protocol.dial_reader import is_proved
from protocol.errors import DialRefused, LocalError, ProtocolError
from protocol.ledger import MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES
from tests.protocol.pair import IDENTITY, KEY, Pair


class TestDialling:
    def test_a_first_dial_shows_the_invitation_and_every_later_one_a_proof(self) -> None:
        pair = Pair()
        first = pair.function.dial(pair.now)
        assert (first.session, first.epoch, first.received, first.invitation, first.proof) == (
            IDENTITY,
            1,
            0,
            "token",
            b"",
        )
        again = pair.function.dial(pair.now)
        assert (again.epoch, again.invitation) == (2, "token"), "nobody has welcomed it yet"
        pair.gateway.accept(again, pair.now)
        pair.pump()
        pair.function.offer_lease("t", 1, 10.0, pair.now)
        pair.later(4.0)
        resume = pair.function.dial(pair.now)
        assert (resume.epoch, resume.invitation, resume.remaining) == (3, "", 6.0)
        assert is_proved(resume, KEY)

    def test_an_old_dial_that_comes_late_is_fenced_off_without_touching_the_live_socket(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.cut()
        late = pair.function.dial(pair.now)
        pair.dial()
        for old in (late, Dial(IDENTITY, 1, 0, Limits(), invitation="token")):
            with pytest.raises(DialRefused, match="superseded"):
                pair.gateway.accept(old, pair.now)
        assert pair.gateway.is_attached
        pair.gateway.send_data(stream, b"still here")
        pair.pump()
        assert pair.body(pair.function, stream) == b"still here"

    def test_a_new_dial_takes_over_while_the_old_socket_is_open(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.gateway.send_data(stream, b"lost on the old socket")
        pair.take(pair.gateway)
        pair.dial()
        assert pair.body(pair.function, stream) == b"lost on the old socket"

    def test_a_session_that_is_over_is_unknown(self) -> None:
        pair = Pair.leased()
        dial = pair.function.dial(pair.now)
        pair.gateway.end("enough")
        with pytest.raises(DialRefused, match="unknown"):
            pair.gateway.accept(dial, pair.now)
        pair.function.end("enough")
        with pytest.raises(LocalError):
            pair.function.dial(pair.now)

    @pytest.mark.parametrize("received", [2, 1000])
    def test_a_count_that_was_never_reached_is_an_error(self, received: int) -> None:
        pair = Pair.leased()
        assert pair.gateway._sender.sent == 1
        with pytest.raises(ProtocolError):
            pair.gateway.accept(Dial(IDENTITY, 2, received, Limits(), proof=bytes(32)), pair.now)

    def test_a_count_below_what_was_acknowledged_is_an_error(self) -> None:
        pair = Pair.leased()
        pair.opened()
        pair.later(1.0)
        pair.pump()
        assert pair.gateway._sender.frames == 0
        with pytest.raises(ProtocolError):
            pair.gateway.accept(Dial(IDENTITY, 2, 0, Limits(), proof=bytes(32)), pair.now)


class TestWelcome:
    LIMITS = {"credit": 100, "unacked": MIN_UNACKED_BYTES, "frames": MIN_UNACKED_FRAMES}

    def dialled(self) -> Pair:
        pair = Pair()
        pair.function.offer_lease("t", 1, 10.0, pair.now)
        pair.function.dial(pair.now)
        return pair

    def test_the_gateway_speaks_first_and_the_function_says_nothing_before(self) -> None:
        pair = Pair()
        dial = pair.function.dial(pair.now)
        pair.function.offer_lease("t", 1, 10.0, pair.now)
        assert not pair.function.has_frames_to_send and pair.take(pair.function) == []
        pair.gateway.accept(dial, pair.now)
        assert pair.gateway.has_frames_to_send
        (welcome,) = pair.frames(pair.gateway)
        assert welcome == fr.Welcome(
            0,
            1,
            {"grace": 30_000, "ping": 10_000, "credit": 65536, "unacked": 16 << 20, "frames": 8192, "features": []},
        )
        assert pair.give(pair.function, [encode(welcome)]) == [ev.Welcomed(resumed=False)]
        assert [type(frame) for frame in pair.frames(pair.function)] == [fr.Lease]

    def test_a_second_welcome_is_an_error(self) -> None:
        pair = self.dialled()
        welcome = encode(fr.Welcome(0, 1, self.LIMITS))
        pair.function.receive(welcome, pair.now)
        with pytest.raises(ProtocolError):
            pair.function.receive(welcome, pair.now)

    @pytest.mark.parametrize(
        "welcome",
        [
            fr.Welcome(0, 2, LIMITS),
            fr.Welcome(0, 0, LIMITS),
            fr.Welcome(2, 1, LIMITS),
            fr.Welcome(0, 1, {}),
            fr.Welcome(0, 1, LIMITS | {"credit": 0}),
            fr.Welcome(0, 1, LIMITS | {"unacked": MIN_UNACKED_BYTES - 1}),
            fr.Welcome(0, 1, LIMITS | {"frames": MIN_UNACKED_FRAMES - 1}),
        ],
    )
    def test_a_welcome_to_another_dial_or_with_impossible_limits_is_an_error(self, welcome: fr.Welcome) -> None:
        with pytest.raises(ProtocolError):
            self.dialled().function.receive(encode(welcome), 100.0)

    @pytest.mark.parametrize("frame", [fr.Ack(0), fr.Leased(1), fr.Parked(1, 0), fr.Data(1, b"x"), fr.Credit(1, 5)])
    def test_any_frame_before_it_is_an_error(self, frame: fr.Frame) -> None:
        with pytest.raises(ProtocolError, match="before WELCOME"):
            self.dialled().function.receive(encode(frame), 100.0)

    @pytest.mark.parametrize("frame", [fr.Ack(0), fr.Lease(1, "t", 1, 1, 0), fr.Data(1, b"x")])
    def test_any_frame_before_it_left_is_an_error_at_the_gateway(self, frame: fr.Frame) -> None:
        pair = Pair()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        with pytest.raises(ProtocolError, match="before WELCOME"):
            pair.gateway.receive(encode(frame), pair.now)

    def test_the_gateway_takes_none(self) -> None:
        with pytest.raises(ProtocolError, match="not for this side"):
            Pair.leased().gateway.receive(encode(fr.Welcome(0, 1, self.LIMITS)), 100.0)

    def test_what_it_says_is_believed(self) -> None:
        pair = Pair()
        tiny = Limits(credit=7, unacked=MIN_UNACKED_BYTES, frames=MIN_UNACKED_FRAMES)
        pair = Pair(gateway=tiny)
        pair.dial()
        pair.lease()
        stream = pair.answered()
        pair.function.send_data(stream, bytes(100))
        pair.consumes = False
        pair.pump()
        assert len(pair.body(pair.gateway, stream)) == 7
        assert pair.function._receiver._max_frames == MIN_UNACKED_FRAMES // 4


class TestTheOfferInTheDial:
    """docs/protocol.md §3.1: a LEASE that was offered before the first dial travels with it, as frame 0."""

    def offered(self) -> Pair:
        pair = Pair()
        pair.function.offer_lease("token", 3, 10.0, pair.now)
        return pair

    def test_what_waits_comes_behind_welcome_before_the_function_has_said_anything(self) -> None:
        pair = self.offered()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        assert pair.gateway.pending_events() == [ev.LeaseOffered(1, "token", 3, 10.0)]
        pair.open()
        pair.gateway.grant(1, 0.0, pair.now)
        flight = pair.take(pair.gateway)
        assert [type(decode(message)) for message in flight] == [fr.Welcome, fr.Request, fr.Leased]
        events = pair.give(pair.function, flight)
        assert [type(event) for event in events] == [ev.Welcomed, ev.StreamOpened, ev.LeaseGranted]
        assert not any(isinstance(frame, fr.Lease) for frame in pair.frames(pair.function)), "it was received"

    def test_a_dial_that_was_lost_is_made_again_with_the_same_frame(self) -> None:
        pair = self.offered()
        first = pair.function.dial(pair.now)
        pair.function.socket_lost(pair.now)
        pair.later(1.0)
        again = pair.function.dial(pair.now)
        assert again.lease == first.lease and is_proved(again, KEY) and again.remaining == 9.0
        pair.gateway.accept(again, pair.now)
        pair.pump()
        assert [offer.lease for offer in pair.seen(pair.gateway, ev.LeaseOffered)] == [1]

    def test_an_offer_whose_welcome_was_lost_is_taken_once(self) -> None:
        pair = self.offered()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        pair.open()
        pair.gateway.grant(1, 0.0, pair.now)
        pair.take(pair.gateway)
        pair.cut()
        pair.dial()
        assert len(pair.seen(pair.gateway, ev.LeaseOffered)) == 1
        assert len(pair.seen(pair.function, ev.StreamOpened)) == 1, "the REQUEST is replayed"
        assert pair.function.is_leased and pair.function._sender.frames == 0

    def test_a_gateway_that_leaves_it_has_it_replayed(self) -> None:
        pair = self.offered()
        pair.gateway.accept(replace(pair.function.dial(pair.now), lease=b""), pair.now)
        pair.pump()
        assert [offer.lease for offer in pair.seen(pair.gateway, ev.LeaseOffered)] == [1]

    def test_an_offer_after_the_first_dial_is_a_frame_like_any_other(self) -> None:
        pair = Pair()
        assert pair.function.dial(pair.now).lease == b""
        pair.function.offer_lease("token", 3, 10.0, pair.now)
        pair.function.socket_lost(pair.now)
        again = pair.function.dial(pair.now)
        assert again.lease == b""
        pair.gateway.accept(again, pair.now)
        pair.pump()
        assert [offer.lease for offer in pair.seen(pair.gateway, ev.LeaseOffered)] == [1]

    def test_a_welcomed_session_shows_no_invitation_any_more(self) -> None:
        pair = self.offered()
        pair.dial()
        pair.cut()
        later = pair.function.dial(pair.now)
        assert (later.invitation, later.lease) == ("", b"")

    def test_an_offer_for_a_lease_that_the_gateway_does_not_want_is_declined_in_the_same_flight(self) -> None:
        pair = self.offered()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        pair.gateway.decline(1)
        flight = pair.take(pair.gateway)
        assert [type(decode(message)) for message in flight] == [fr.Welcome, fr.Parked]
        assert pair.give(pair.function, flight)[-1] == ev.Parked(1)


class TestReplay:
    def test_a_cut_in_the_middle_of_data_is_mended_to_the_byte(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        body = bytes(range(200)) * 5
        pair.gateway.send_data(stream, body, end=True)
        (message,) = pair.take(pair.gateway)
        for size in (300, 100, 700):  # what arrives of it on one socket after another
            for offset in range(0, size, 50):
                events = pair.function.receive_part(message[offset : offset + 50], offset, len(message), pair.now)
                pair._note(pair.function, events)
            pair.cut()
            pair.gateway.accept(pair.function.dial(pair.now), pair.now)
            welcome, again = pair.gateway.frames_to_send(1 << 20, pair.now)
            assert again == message, "byte-identical"
            pair.give(pair.function, [welcome])
        assert len(pair.body(pair.function, stream)) == 688
        pair.give(pair.function, [message])
        assert pair.body(pair.function, stream) == body
        ends = [event.end for event in pair.seen(pair.function, ev.DataReceived)]
        assert ends == [False] * (len(ends) - 1) + [True]

    def test_frames_of_a_stream_that_was_reset_are_replayed_and_counted(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.gateway.send_data(stream, b"one")
        pair.take(pair.gateway)
        pair.gateway.reset(stream, fr.Code.CANCELLED)
        pair.take(pair.gateway)
        pair.cut()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        _, *replayed = pair.frames(pair.gateway)
        assert [type(frame) for frame in replayed] == [fr.Data, fr.Reset]

    def test_both_replay_before_anything_new_and_nothing_comes_twice(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.gateway.send_data(stream, b"request ")
        pair.function.send_data(stream, b"response ")
        lost_down, lost_up = pair.take(pair.gateway), pair.take(pair.function)
        assert lost_down and lost_up
        pair.give(pair.gateway, lost_up)  # it arrived, but its acknowledgement did not
        pair.cut()
        pair.gateway.send_data(stream, b"goes on", end=True)
        pair.function.send_data(stream, b"goes on", end=True)
        pair.dial()
        assert pair.body(pair.function, stream) == b"request goes on"
        assert pair.body(pair.gateway, stream) == b"response goes on"
        assert not pair.gateway.is_open(stream) and not pair.function.is_open(stream)

    def test_what_was_not_handed_to_the_old_socket_is_numbered_on_the_new_one(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.cut()
        sent = pair.function._sender.sent
        pair.function.send_data(stream, b"waits")
        assert pair.take(pair.function) == [] and pair.function._sender.sent == sent
        pair.dial()
        assert pair.body(pair.gateway, stream) == b"waits"

    def test_another_frame_than_the_one_that_was_cut_ends_the_session(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        message = encode(fr.Data(stream, bytes(100)))
        pair.function.receive_part(message[:50], 0, len(message), pair.now)
        pair.cut()
        dial = pair.function.dial(pair.now)
        pair.gateway.accept(dial, pair.now)
        pair.give(pair.function, pair.gateway.frames_to_send(1, pair.now))
        with pytest.raises(ProtocolError):
            pair.function.receive(encode(fr.Credit(stream, 1 << 20)), pair.now)


class TestAnotherEndOfASession:
    def test_ending_is_said_once_and_silences_everything(self) -> None:
        pair = Pair.leased()
        pair.opened()
        for session in (pair.function, pair.gateway):
            assert session.end("first") == [ev.SessionEnded("first")]
            assert session.end("second") == []
            assert session.is_ended and not session.is_attached and session.open_streams == 0
            assert session.next_timeout() is None and session.handle_timeout(1e9) == []
            assert session.socket_lost(pair.now) == []
            assert not session.has_frames_to_send and pair.take(session) == []
            assert session.receive(b"anything", pair.now) == []

    def test_what_happened_before_it_in_the_same_call_is_still_told(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.gateway.is_writable(stream)
        pair.gateway._events.append(ev.StreamWritable(stream))
        assert pair.gateway.end("enough") == [ev.StreamWritable(stream), ev.SessionEnded("enough")]

    def test_a_request_that_never_left_is_said_to_be_refused(self) -> None:
        pair = Pair.leased()
        known, waiting = pair.opened(), pair.open()
        assert pair.gateway.end("enough") == [
            ev.StreamReset(waiting, fr.Code.REFUSED, "enough"),
            ev.StreamClosed(waiting),
            ev.SessionEnded("enough"),
        ]
        assert known != waiting

    def test_a_budget_that_sessions_share_is_given_back(self) -> None:
        """It was not: a gateway's windows would have stopped widening for ever."""
        pair = Pair.leased()
        stream = pair.answered()
        for session in (pair.function, pair.gateway):
            session.send_data(stream, bytes(100_000))
        pair.pump()
        assert pair.gateway._budget.lent > 0 and pair.function._budget.lent > 0
        pair.gateway.end("enough")
        pair.function.end("enough")
        assert pair.gateway._budget.lent == pair.function._budget.lent == 0

    def test_nothing_is_read_between_sockets(self) -> None:
        pair = Pair.leased()
        pair.cut()
        assert pair.gateway.receive(b"garbage", pair.now) == []
        assert pair.function.receive(b"garbage", pair.now) == []

    def test_losing_a_socket_twice_changes_nothing(self) -> None:
        pair = Pair.leased()
        pair.cut()
        timeout = pair.function.next_timeout()
        pair.later(5.0)
        pair.cut()
        assert pair.function.next_timeout() == timeout


def test_limits_that_the_peer_would_refuse_are_refused_here() -> None:
    for limits in (Limits(credit=0), Limits(unacked=1), Limits(frames=1)):
        with pytest.raises(ValueError):
            Pair(function=limits)
    with pytest.raises(ValueError):
        Pair(data_size=0)
    with pytest.raises(ValueError):
        Pair(data_size=(2 << 20) + 1)
