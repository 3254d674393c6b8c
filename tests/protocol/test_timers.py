"""What happens when nothing comes: silence, grace, answers, parks, recycled sockets, acknowledgements."""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import encode
from protocol.dial import Limits
from protocol.ledger import MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES
from protocol.session import Session
from tests.protocol.pair import Pair


def fires(pair: Pair, session: Session, seconds: float) -> list[ev.Event]:
    """What the session says when it is woken as it asked to be, over so many seconds."""
    seen: list[ev.Event] = []
    until = pair.now + seconds
    while (at := session.next_timeout()) is not None and at <= until:
        assert at >= pair.now or not seen, "a timer that fires for ever"
        pair.now = max(pair.now, at)
        seen += pair.tick(session)
    pair.now = until
    return seen


class TestAcknowledging:
    def test_within_50_ms_of_a_frame_while_leased(self) -> None:
        pair = Pair.leased()
        pair.later(1.0)
        pair.pump()
        stream = pair.opened()
        assert pair.gateway._sender.frames == 1
        assert pair.function.next_timeout() == pair.now + 0.05
        pair.later(0.05)
        assert pair.tick(pair.function) == []
        assert pair.function.has_frames_to_send
        assert pair.frames(pair.function) == [fr.Ack(pair.function._receiver.count)]
        assert pair.function.is_open(stream)

    def test_at_a_quarter_of_the_frames_in_the_same_turn(self) -> None:
        pair = Pair.leased(gateway=Limits(1 << 20, MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES), data_size=10)
        stream = pair.answered()
        pair.later(1.0)
        pair.pump()
        pair.gateway.send_data(stream, bytes(160))
        messages = pair.take(pair.gateway)
        assert len(messages) == MIN_UNACKED_FRAMES // 4
        pair.consumes = False
        pair.give(pair.function, messages[:-1])
        assert not pair.function.has_frames_to_send
        pair.give(pair.function, messages[-1:])
        assert pair.function.has_frames_to_send
        assert pair.frames(pair.function) == [fr.Ack(pair.function._receiver.count)]

    def test_at_a_quarter_of_the_bytes(self) -> None:
        pair = Pair.leased(gateway=Limits(1 << 20, MIN_UNACKED_BYTES, 8192), function=Limits(credit=1 << 20))
        stream = pair.answered()
        pair.later(1.0)
        pair.pump()
        pair.consumes = False
        pair.gateway.send_data(stream, bytes((MIN_UNACKED_BYTES // 4) - 12 - 64 - 1))
        pair.give(pair.function, pair.take(pair.gateway))
        assert not pair.function.has_frames_to_send
        pair.gateway.send_data(stream, b"x")
        pair.give(pair.function, pair.take(pair.gateway))
        assert pair.function.has_frames_to_send

    def test_what_is_due_on_a_full_socket_does_not_fire_again_and_again(self) -> None:
        """A driver that could not send span at full speed until it could."""
        pair = Pair.leased()
        pair.opened()
        assert fires(pair, pair.function, 1.0) == []
        assert pair.function.next_timeout() == pytest.approx(pair.function._heard_at + 30.0)
        assert pair.function.has_frames_to_send

    def test_it_never_waits_for_a_consumer(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.consumes = False
        pair.gateway.send_data(stream, bytes(1 << 17))
        pair.pump()
        pair.later(0.05)
        pair.pump()
        assert pair.gateway._sender.frames == 0 and pair.gateway.is_open(stream)


class TestSilence:
    def test_the_gateway_pings_while_leased(self) -> None:
        pair = Pair(ping=10.0, grace=1000.0)
        pair.dial()
        assert fires(pair, pair.gateway, 100.0) == [], "not before a lease"
        pair.lease()
        assert fires(pair, pair.gateway, 25.0) == [ev.PingDue(), ev.PingDue()]
        pair.function.park(pair.now)
        pair.pump()
        assert fires(pair, pair.gateway, 100.0) == [], "nor after it"
        pair.lease()
        assert fires(pair, pair.gateway, 10.0) == [ev.PingDue()]

    def test_three_intervals_without_a_byte_are_the_end_of_a_socket_and_not_of_the_session(self) -> None:
        pair = Pair.leased(ping=10.0)
        for session in (pair.function, pair.gateway):
            start = pair.now
            seen = fires(pair, session, 30.0)
            assert seen[-1] == ev.SocketDead("silent") and ev.SocketDead("silent") not in seen[:-1]
            assert not session.is_ended
            pair.now = start

    @pytest.mark.parametrize("sign", ["heard", "receive", "part"])
    def test_any_byte_is_a_sign_of_life(self, sign: str) -> None:
        pair = Pair.leased(ping=10.0)
        data = encode(fr.Data(pair.answered(), bytes(100)))
        pair.later(29.0)
        if sign == "heard":
            pair.function.heard(pair.now)
        elif sign == "receive":
            pair.give(pair.function, [encode(fr.Ack(pair.function._sender.released))])
        else:
            pair.function.receive_part(data[:5], 0, len(data), pair.now)
        assert ev.SocketDead("silent") not in fires(pair, pair.function, 29.9)
        assert fires(pair, pair.function, 0.2) == [ev.SocketDead("silent")]

    def test_a_parked_link_is_silent_and_nobody_minds(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.pump()
        assert fires(pair, pair.function, 9999.0) == [] and fires(pair, pair.gateway, 9999.0) == []

    def test_after_a_thaw_the_silence_of_the_freeze_does_not_count(self) -> None:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.pump()
        pair.later(3600.0)
        pair.lease()
        assert pair.tick(pair.function) == [] and not pair.seen(pair.gateway, ev.SocketDead)


class TestGrace:
    def test_a_leased_session_outlives_its_socket_for_so_long(self) -> None:
        for side in ("function", "gateway"):
            pair = Pair.leased(grace=30.0)
            pair.cut()
            session = getattr(pair, side)
            assert fires(pair, session, 29.9) == []
            assert fires(pair, session, 0.2) == [ev.SessionEnded("the grace is over")]

    def test_it_ends_with_the_lease(self) -> None:
        for side in ("function", "gateway"):
            pair = Pair.leased(grace=30.0)
            pair.lease(remaining=12.0)
            pair.cut()
            assert fires(pair, getattr(pair, side), 11.9) == []
            assert fires(pair, getattr(pair, side), 0.2) == [ev.SessionEnded("the grace is over")]

    def test_a_dial_that_fails_does_not_lengthen_it(self) -> None:
        pair = Pair.leased(grace=30.0)
        pair.cut()
        pair.later(20.0)
        pair.function.dial(pair.now)
        pair._note(pair.function, pair.function.socket_lost(pair.now))
        assert fires(pair, pair.function, 9.9) == []
        assert fires(pair, pair.function, 0.2) == [ev.SessionEnded("the grace is over")]

    def test_a_resume_ends_it_and_says_what_remains(self) -> None:
        pair = Pair.leased(grace=30.0)
        pair.lease(remaining=100.0)
        pair.later(60.0)
        pair.cut()
        pair.later(10.0)
        pair.dial()
        assert pair.gateway._lease_ends == pytest.approx(pair.now + 30.0)
        assert ev.SessionEnded("the grace is over") not in fires(pair, pair.gateway, 29.0)

    def test_a_session_that_never_offers_a_lease_ends(self) -> None:
        """It stayed, with its socket, for as long as its peer liked."""
        pair = Pair(grace=30.0)
        pair.dial()
        pair.later(20.0)
        pair.dial()
        assert fires(pair, pair.gateway, 9.9) == []
        assert fires(pair, pair.gateway, 0.2) == [ev.SessionEnded("the grace is over")]

    def test_a_session_that_nobody_welcomed_ends_with_its_lease(self) -> None:
        pair = Pair()
        pair.function.offer_lease("t", 1, 50.0, pair.now)
        pair.function.dial(pair.now)
        pair._note(pair.function, pair.function.socket_lost(pair.now))
        assert fires(pair, pair.function, 49.9) == []
        assert fires(pair, pair.function, 0.2) == [ev.SessionEnded("the grace is over")]


class TestAnswers:
    def test_without_a_socket_an_answer_is_the_end(self) -> None:
        pair = Pair.leased()
        pair.cut()
        assert pair.gateway.invocation_answered(pair.now) == [ev.SessionEnded("its invocation has ended")]

    def test_with_one_it_waits_for_a_second_of_silence(self) -> None:
        pair = Pair.leased()
        assert pair.gateway.invocation_answered(pair.now + 0.1) == [ev.PingDue()]
        pair.later(0.1)
        assert fires(pair, pair.gateway, 0.99) == []
        assert fires(pair, pair.gateway, 0.02) == [ev.SessionEnded("its invocation has ended")]

    def test_a_stream_that_says_nothing_is_not_silent_while_pongs_come(self) -> None:
        """A lease ended under a stream that was slower than one piece a second."""
        pair = Pair.leased(ping=1000.0)
        pair.answered()
        pings = pair.gateway.invocation_answered(pair.now)
        for _ in range(20):
            assert pings == [ev.PingDue()]
            pair.later(0.1)
            pair.gateway.heard(pair.now)
            pings = fires(pair, pair.gateway, 0.9)

    def test_the_sockets_end_after_it_is_the_end(self) -> None:
        pair = Pair.leased()
        pair.gateway.invocation_answered(pair.now)
        assert pair.gateway.socket_lost(pair.now) == [ev.SessionEnded("its invocation has ended")]

    def test_it_means_nothing_to_a_later_lease_or_to_a_parked_link(self) -> None:
        pair = Pair.leased()
        pair.gateway.invocation_answered(pair.now)
        pair.lease()
        assert fires(pair, pair.gateway, 5.0) == [], "nor is it pinged"
        pair.function.park(pair.now)
        pair.pump()
        assert pair.gateway.invocation_answered(pair.now) == []
        assert pair.gateway.next_timeout() is None


class TestParks:
    def test_a_park_without_an_answer_ends_the_session_after_a_second(self) -> None:
        pair = Pair.leased()
        pair.later(5.0)
        pair.function.park(pair.now)
        pair.take(pair.function)
        assert fires(pair, pair.function, 0.99) == []
        assert fires(pair, pair.function, 0.02) == [ev.SessionEnded("PARK was not answered")]

    def test_a_park_behind_slow_data_is_waited_for_as_long_as_acknowledgements_come(self) -> None:
        """A response that a slow socket still carried was cut off one second after its handler had returned."""
        pair = Pair.leased(data_size=1000)
        stream = pair.answered({"end": True})
        pair.function.send_data(stream, bytes(10_000), end=True)
        *data, park = [*pair.take(pair.function), *self.parked(pair)]
        for message in data:
            pair.later(0.8)
            assert pair.tick(pair.function) == []
            pair.give(pair.gateway, [message])
            pair.later(0.05)
            pair.give(pair.function, pair.take(pair.gateway))
        pair.give(pair.gateway, [park])
        pair.pump()
        assert pair.body(pair.gateway, stream) == bytes(10_000)
        assert pair.seen(pair.function, ev.Parked)

    @staticmethod
    def parked(pair: Pair) -> list[bytes]:
        pair.function.park(pair.now)
        return pair.take(pair.function)

    def test_a_lost_socket_gives_it_the_grace_and_a_new_one_another_second(self) -> None:
        """What was sent before PARK may still be on this side alone: it was lost with the link."""
        pair = Pair.leased(grace=30.0)
        stream = pair.answered({"end": True})
        pair.function.send_data(stream, b"the end of it", end=True)
        pair.take(pair.function)
        self.parked(pair)
        pair.cut()
        assert fires(pair, pair.function, 20.0) == []
        dial = pair.function.dial(pair.now)
        pair.gateway.accept(dial, pair.now)
        pair.give(pair.function, pair.gateway.frames_to_send(1, pair.now))
        assert fires(pair, pair.function, 0.99) == []
        assert fires(pair, pair.function, 0.02) == [ev.SessionEnded("PARK was not answered")]

    def test_a_park_that_is_asked_without_a_socket_waits_for_the_next(self) -> None:
        pair = Pair.leased(grace=30.0)
        pair.cut()
        pair.function.park(pair.now)
        assert fires(pair, pair.function, 20.0) == []
        pair.dial()
        assert pair.seen(pair.function, ev.Parked)


class TestRecycledSockets:
    def parked(self) -> Pair:
        pair = Pair.leased()
        pair.function.park(pair.now)
        pair.pump()
        pair.later(60.0)
        pair.forget()
        return pair

    def test_200_ms_without_a_frame_and_it_is_dead(self) -> None:
        pair = self.parked()
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        assert fires(pair, pair.function, 0.199) == []
        assert fires(pair, pair.function, 0.002) == [ev.SessionEnded("the recycled socket is dead")]

    def test_a_ping_is_no_frame(self) -> None:
        pair = self.parked()
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        pair.later(0.1)
        pair.function.heard(pair.now)
        assert fires(pair, pair.function, 0.11) == [ev.SessionEnded("the recycled socket is dead")]

    @pytest.mark.parametrize(
        "frame", [fr.Request(1, b"e" * 16, b"GET", b"/"), fr.Leased(2), fr.Parked(2, 2), fr.Ack(2)]
    )
    def test_any_frame_proves_it(self, frame: fr.Frame) -> None:
        pair = self.parked()
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        pair.take(pair.function)
        pair.later(0.1)
        pair.give(pair.function, [encode(frame)])
        assert ev.SessionEnded("the recycled socket is dead") not in fires(pair, pair.function, 1.0)

    def test_a_slow_socket_is_not_a_dead_one(self) -> None:
        """Over a tunnel of 300 ms no environment could be used a second time."""
        pair = self.dialled_in(0.6)
        pair.lease()
        pair.function.park(pair.now)
        question = pair.take(pair.function)
        pair.later(0.3)
        pair.give(pair.gateway, question)
        pair.give(pair.function, pair.take(pair.gateway))
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        assert fires(pair, pair.function, 0.89) == []
        assert fires(pair, pair.function, 0.02) == [ev.SessionEnded("the recycled socket is dead")]

    def test_a_dial_is_a_round_trip_too(self) -> None:
        """An offer that came with the dial and was not wanted left nothing else to go by."""
        pair = Pair()
        pair.function.offer_lease("token", 1, 9.0, pair.now)
        dial = pair.function.dial(pair.now)
        pair.later(0.5)
        pair.gateway.accept(dial, pair.now)
        pair.gateway.decline(1)
        pair.pump()
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        assert fires(pair, pair.function, 1.49) == []
        assert fires(pair, pair.function, 0.02) == [ev.SessionEnded("the recycled socket is dead")]

    def dialled_in(self, seconds: float) -> Pair:
        pair = Pair()
        dial = pair.function.dial(pair.now)
        pair.later(seconds)
        pair.gateway.accept(dial, pair.now)
        pair.pump()
        return pair

    def test_a_fresh_socket_is_trusted(self) -> None:
        pair = Pair()
        pair.dial()
        pair.function.offer_lease("t", 1, 9.0, pair.now)
        assert fires(pair, pair.function, 5.0) == []

    def test_a_second_lease_does_not_doubt_a_socket_that_is_in_use(self) -> None:
        """A second lease on a slow network ended the session, and with it the streams of the first."""
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.offer_lease("t", 1, 900.0, pair.now)
        assert fires(pair, pair.function, 1.0) == []
        pair.cut()
        assert not pair.function.is_ended, "nor does the loss of it"
        pair.dial()
        assert pair.function.is_open(stream)

    def test_a_link_that_breaks_after_its_first_frame_is_resumed(self) -> None:
        """LEASED was lost, the REQUEST before it was not: the session ended with its stream."""
        pair = self.parked()
        pair.function.offer_lease("t", 1, 900.0, pair.now)
        pair.give(pair.gateway, pair.take(pair.function))
        stream = pair.open()
        pair.give(pair.function, pair.take(pair.gateway))
        pair.cut()
        pair.dial()
        assert pair.function.is_open(stream)

    def test_one_that_breaks_before_it_is_given_up(self) -> None:
        pair = self.parked()
        pair.function.offer_lease("t", 1, 900.0, pair.now)
        assert pair.function.socket_lost(pair.now) == [ev.SessionEnded("the recycled socket is dead")]
