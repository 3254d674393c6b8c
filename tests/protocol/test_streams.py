"""Streams (docs/protocol.md §5): heads, bodies, ends and cancellations, between two sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import encode
from protocol.dial import Limits
from protocol.errors import LocalError, ProtocolError
from protocol.flow import MAX_FIRST_CREDIT
from protocol.session import Session
from tests.protocol.pair import Pair


def both(pair: Pair) -> list[tuple[Session, Session]]:
    return [(pair.function, pair.gateway), (pair.gateway, pair.function)]


ENDS: list[fr.Frame] = [fr.Data(1, b"", end=True), fr.Trailers(1), fr.Reset(1, 3)]


class TestTheLifeOfAStream:
    def test_a_request_and_its_response(self) -> None:
        pair = Pair.leased()
        stream = pair.gateway.open(
            b"e" * 16, b"POST", b"/p?q", [(b"a", b"1"), (b"a", b"2")], {"scheme": "https"}, pair.now
        )
        pair.gateway.send_data(stream, b"question", end=True)
        pair.pump()
        (opened,) = pair.seen(pair.function, ev.StreamOpened)
        request = opened.request
        assert (request.exchange, request.method, request.target) == (b"e" * 16, b"POST", b"/p?q")
        assert (request.headers, request.options) == ([(b"a", b"1"), (b"a", b"2")], {"scheme": "https"})
        pair.function.send_informational(stream, 103, [(b"link", b"x")])
        pair.function.send_response(stream, 201, [(b"b", b"3")])
        pair.function.send_data(stream, b"ans")
        pair.function.send_data(stream, b"wer")
        pair.function.send_trailers(stream, [(b"sum", b"7")])
        pair.pump()
        assert pair.body(pair.function, stream) == b"question"
        kinds = [type(event) for event in pair.gateway_saw if not isinstance(event, (ev.LeaseOffered, ev.Welcomed))]
        assert kinds == [
            ev.InformationalReceived,
            ev.ResponseReceived,
            ev.DataReceived,
            ev.TrailersReceived,
            ev.StreamClosed,
        ]
        assert not pair.gateway.is_open(stream) and not pair.function.is_open(stream)

    @pytest.mark.parametrize("with_end", [True, False])
    def test_without_bodies(self, with_end: bool) -> None:
        pair = Pair.leased()
        stream = pair.opened({"end": True} if with_end else {})
        if not with_end:
            pair.gateway.send_data(stream, b"", end=True)
        pair.function.send_response(stream, 204, [], end=True)
        pair.pump()
        assert pair.seen(pair.gateway, ev.ResponseReceived)[0].end
        assert (
            pair.seen(pair.function, ev.StreamClosed)
            == pair.seen(pair.gateway, ev.StreamClosed)
            == [ev.StreamClosed(stream)]
        )

    def test_numbers_rise_and_are_not_used_twice(self) -> None:
        pair = Pair.leased()
        assert [pair.open(), pair.open()] == [1, 2]
        pair.gateway.reset(2, 1)
        assert pair.open() == 3
        pair.pump()
        assert [event.stream for event in pair.seen(pair.function, ev.StreamOpened)] == [1, 3]
        for number in (1, 2, 3):
            with pytest.raises(ProtocolError):
                pair.function.receive(encode(fr.Request(number, b"e" * 16, b"GET", b"/")), pair.now)

    def test_a_place_is_free_when_both_directions_have_ended(self) -> None:
        pair = Pair.leased(places=1)
        stream = pair.answered()
        pair.function.send_data(stream, b"", end=True)
        pair.pump()
        assert not pair.gateway.can_open
        pair.gateway.send_data(stream, b"", end=True)
        pair.pump()
        assert pair.gateway.can_open

    def test_a_stream_is_not_over_before_its_end_has_left(self) -> None:
        pair = Pair.leased(gateway=Limits(credit=10))
        stream = pair.answered({"end": True})
        pair.consumes = False
        pair.function.send_data(stream, bytes(20), end=True)
        pair.pump()
        assert pair.function.is_open(stream) and not pair.function.can_park
        pair.gateway.consume(stream, 10, pair.now)
        pair.pump()
        assert not pair.function.is_open(stream) and pair.function.can_park


class TestFramesOfOtherStreams:
    @pytest.mark.parametrize(
        "frame",
        [
            fr.Data(9, b"x"),
            fr.Trailers(9),
            fr.Message(9, b"x", text=True),
            fr.Close(9, 1000),
            fr.Credit(9, 1),
            fr.Reset(9, 1),
            fr.Stop(9, 1),
        ],
    )
    def test_of_one_that_never_was_they_are_an_error(self, frame: fr.Frame) -> None:
        for side in ("function", "gateway"):
            pair = Pair.leased()
            pair.opened()
            with pytest.raises(ProtocolError, match="never opened"):
                getattr(pair, side).receive(encode(frame), pair.now)

    def test_of_one_whose_request_waits_too(self) -> None:
        pair = Pair.leased()
        waiting = pair.open()
        with pytest.raises(ProtocolError, match="never opened"):
            pair.gateway.receive(encode(fr.Response(waiting, 200)), pair.now)

    def test_of_one_that_is_over_they_are_counted_and_ignored(self) -> None:
        for side in ("function", "gateway"):
            pair = Pair.leased()
            stream = pair.answered({"end": True})
            pair.function.send_data(stream, b"", end=True)
            pair.pump()
            session = getattr(pair, side)
            before = session._receiver.count
            late: list[fr.Frame] = [
                fr.Data(stream, b"x", end=True),
                fr.Trailers(stream),
                fr.Message(stream, b"x", text=True),
                fr.Close(stream, 1000),
                fr.Credit(stream, 1),
                fr.Reset(stream, 1),
                fr.Stop(stream, 1),
            ]
            if session is pair.gateway:
                late += [fr.Informational(stream, 103), fr.Response(stream, 200)]
            for frame in late:
                assert pair.give(session, [encode(frame)]) == []
            assert session._receiver.count == before + len(late)

    @pytest.mark.parametrize(
        "after", [fr.Data(1, b"x"), fr.Data(1, b""), fr.Informational(1, 103), fr.Response(1, 200), *ENDS]
    )
    @pytest.mark.parametrize("end", ENDS)
    def test_after_its_direction_ended_they_are_an_error(self, end: fr.Frame, after: fr.Frame) -> None:
        for side in ("function", "gateway"):
            pair = Pair.leased()
            pair.answered()
            session = getattr(pair, side)
            pair.give(session, [encode(end)])
            with pytest.raises(ProtocolError):
                session.receive(encode(after), pair.now)

    @pytest.mark.parametrize("frame", [fr.Data(1, b"x"), fr.Data(1, b""), fr.Data(1, b"", end=True), fr.Trailers(1)])
    def test_after_a_head_that_ended_they_are_an_error(self, frame: fr.Frame) -> None:
        pair = Pair.leased()
        pair.opened({"end": True})
        with pytest.raises(ProtocolError):
            pair.function.receive(encode(frame), pair.now)

    @pytest.mark.parametrize("frame", [fr.Message(1, b"x", text=True), fr.Close(1, 1000)])
    def test_messages_in_a_body_are_an_error(self, frame: fr.Frame) -> None:
        for side in ("function", "gateway"):
            pair = Pair.leased()
            pair.answered()
            with pytest.raises(ProtocolError):
                getattr(pair, side).receive(encode(frame), pair.now)

    def test_there_is_one_head_and_nothing_informational_after_it(self) -> None:
        for frame in (fr.Response(1, 200), fr.Informational(1, 103)):
            pair = Pair.leased()
            pair.answered()
            with pytest.raises(ProtocolError):
                pair.gateway.receive(encode(frame), pair.now)

    @pytest.mark.parametrize(
        "frame",
        [fr.Data(1, b"x"), fr.Data(1, b"", end=True), fr.Trailers(1), fr.Message(1, b"", text=True), fr.Close(1, 1000)],
    )
    def test_before_its_head_they_are_an_error(self, frame: fr.Frame) -> None:
        pair = Pair.leased()
        pair.opened()
        with pytest.raises(ProtocolError):
            pair.gateway.receive(encode(frame), pair.now)

    def test_a_stream_is_opened_by_the_gateway_alone(self) -> None:
        for frame in (fr.Request(5, b"e" * 16, b"GET", b"/"), fr.Leased(1), fr.Parked(1, 0), fr.Release(1)):
            with pytest.raises(ProtocolError, match="not for this side"):
                Pair.leased().gateway.receive(encode(frame), 100.0)
        for other in (fr.Response(1, 200), fr.Informational(1, 103), fr.Lease(2, "t", 1, 1, 0), fr.Park(1, 0, 0)):
            with pytest.raises(ProtocolError, match="not for this side"):
                Pair.leased().function.receive(encode(other), 100.0)


class TestOurOwnMistakes:
    """Each raises LocalError, and nothing has changed."""

    def test_out_of_order(self) -> None:
        pair = Pair.leased()
        stream = pair.opened()
        function = pair.function
        calls: list[Callable[[], None]] = [
            lambda: function.send_data(stream, b"before the head"),
            lambda: function.send_data(stream, b"", end=True),
            lambda: function.send_trailers(stream, []),
            lambda: function.send_message(stream, b"", text=True),
            lambda: function.send_close(stream, 1000),
            lambda: function.send_response(stream, 101, []),
            lambda: function.send_response(stream, 99, []),
            lambda: function.send_response(stream, 200, [("a", "b")]),  # type: ignore[list-item]
            lambda: function.send_response(stream, 200, [(b"a", bytes(70_000))]),
            lambda: function.send_informational(stream, 101, []),
        ]
        for call in calls:
            with pytest.raises(LocalError):
                call()
        assert pair.take(function) == []
        function.send_response(stream, 200, [])
        for call in (
            lambda: function.send_response(stream, 200, []),
            lambda: function.send_informational(stream, 103, []),
            lambda: function.send_trailers(stream, [(b"a", bytes(70_000))]),
        ):
            with pytest.raises(LocalError):
                call()
        function.send_data(stream, b"body", end=True)
        for call in (lambda: function.send_data(stream, b"x"), lambda: function.send_trailers(stream, [])):
            with pytest.raises(LocalError):
                call()
        pair.pump()
        assert pair.body(pair.gateway, stream) == b"body"

    def test_on_a_stream_that_is_over(self) -> None:
        pair = Pair.leased()
        stream = pair.opened({"end": True})
        pair.function.send_response(stream, 200, [], end=True)
        pair.pump()
        for session in (pair.function, pair.gateway):
            with pytest.raises(LocalError, match="over"):
                session.send_data(stream, b"x")
            session.reset(stream, 1)
            session.stop(stream, 1)
            session.consume(stream, 5, pair.now)
            session.consume_message(stream, pair.now)
            session.start_reading(stream)
            assert session.is_writable(stream) and pair.take(session) == []

    @pytest.mark.parametrize(
        "options", [{"window": MAX_FIRST_CREDIT + 1}, {"window": -1}, {"window": None}, {"client": ("a", 1)}]
    )
    def test_an_option_that_the_peer_would_refuse(self, options: dict[str, object]) -> None:
        pair = Pair.leased()
        with pytest.raises(LocalError):
            pair.open(options)
        assert pair.gateway.open_streams == 0 and pair.open() == 1

    def test_more_is_consumed_than_came(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.consumes = False
        pair.function.send_data(stream, b"12345")
        pair.pump()
        with pytest.raises(LocalError):
            pair.gateway.consume(stream, 6, pair.now)
        pair.gateway.consume(stream, 5, pair.now)


class TestReset:
    def test_it_ends_one_direction_and_says_why(self) -> None:
        for sender in (0, 1):
            pair = Pair.leased()
            stream = pair.answered()
            session, peer = both(pair)[sender]
            session.reset(stream, fr.Code.INTERNAL, "it broke")
            session.reset(stream, fr.Code.TIMEOUT)
            pair.pump()
            assert pair.seen(peer, ev.StreamReset) == [ev.StreamReset(stream, fr.Code.INTERNAL, "it broke")]
            assert session.is_open(stream) and peer.is_open(stream), "the other direction goes on"
            peer.send_data(stream, b"still", end=True)
            pair.pump()
            assert pair.body(session, stream) == b"still"
            assert not session.is_open(stream)

    def test_after_the_end_it_is_nothing(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.send_data(stream, b"all", end=True)
        pair.pump()
        pair.function.reset(stream, 3)
        assert pair.take(pair.function) == []

    def test_before_the_end_has_left_it_takes_its_place(self) -> None:
        pair = Pair.leased(gateway=Limits(credit=10))
        stream = pair.answered()
        pair.consumes = False
        pair.function.send_data(stream, bytes(50), end=True)
        pair.pump()
        pair.function.reset(stream, 3)
        pair.pump()
        assert pair.seen(pair.gateway, ev.StreamReset) and len(pair.body(pair.gateway, stream)) == 10

    def test_a_reason_may_be_anything_that_a_user_raised(self) -> None:
        """A lone surrogate in an exception's text could not be encoded, and broke the session when it was sent."""
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.reset(stream, 3, "\udc80 and " + "x" * 100_000)
        pair.pump()
        (event,) = pair.seen(pair.gateway, ev.StreamReset)
        assert event.reason.startswith("? and xxx") and len(event.reason) == 256


class TestStop:
    def test_it_asks_once_and_what_still_comes_is_dropped(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.send_data(stream, b"on its way")
        on_its_way = pair.take(pair.function)
        pair.gateway.stop(stream, fr.Code.CANCELLED)
        pair.gateway.stop(stream, fr.Code.CANCELLED)
        pair.give(pair.gateway, on_its_way)
        pair.pump()
        assert pair.seen(pair.function, ev.StreamStopped) == [ev.StreamStopped(stream, fr.Code.CANCELLED)]
        assert pair.body(pair.gateway, stream) == b""
        pair.function.reset(stream, fr.Code.CANCELLED)
        pair.gateway.reset(stream, fr.Code.CANCELLED)
        pair.pump()
        assert not pair.gateway.is_open(stream) and not pair.function.is_open(stream)

    def test_the_peer_may_finish_instead(self) -> None:
        pair = Pair.leased()
        stream = pair.answered({"end": True})
        pair.gateway.stop(stream, fr.Code.NO_ERROR)
        pair.pump()
        pair.function.send_data(stream, bytes(100), end=True)
        pair.pump()
        assert not pair.gateway.is_open(stream)

    def test_it_is_nothing_to_a_direction_that_has_ended(self) -> None:
        pair = Pair.leased()
        stream = pair.answered({"end": True})
        pair.function.stop(stream, 0)
        assert pair.take(pair.function) == []
        pair.gateway.stop(stream, 1)
        crossing = pair.take(pair.gateway)
        pair.function.send_data(stream, b"", end=True)
        assert pair.take(pair.function)
        assert pair.give(pair.function, crossing) == []

    @pytest.mark.parametrize("frame", [fr.Data(1, bytes(65537)), fr.Message(1, b"x", text=True), fr.Close(1, 1000)])
    def test_what_is_stopped_is_still_held_to_the_rules(self, frame: fr.Frame) -> None:
        pair = Pair.leased()
        pair.function.stop(pair.answered(), fr.Code.NO_ERROR)
        with pytest.raises(ProtocolError):
            pair.function.receive(encode(frame), pair.now)

    def test_with_a_reset_it_cancels_and_the_place_is_free_when_the_code_has_stopped(self) -> None:
        pair = Pair.leased(places=1)
        stream = pair.answered()
        pair.gateway.reset(stream, fr.Code.CANCELLED)
        pair.gateway.stop(stream, fr.Code.CANCELLED)
        pair.pump()
        assert pair.function_saw[-2:] == [ev.StreamReset(stream, 1, ""), ev.StreamStopped(stream, 1)]
        assert not pair.gateway.can_open
        pair.function.reset(stream, fr.Code.CANCELLED)
        pair.pump()
        assert pair.gateway.can_open
        assert not pair.seen(pair.gateway, ev.StreamReset), "what was asked for is no news"

    def test_it_gives_its_share_of_the_budget_back(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.send_data(stream, bytes(100_000))
        pair.pump()
        assert pair.gateway._budget.lent > 0
        pair.gateway.stop(stream, 0)
        assert pair.gateway._budget.lent == 0
        pair.function.send_data(stream, bytes(1000), end=True)
        pair.pump()
        assert pair.gateway._budget.lent == 0


class TestARequestThatWaits:
    """Nothing of it was handed to a socket: it is forgotten, whichever half of a cancellation comes first."""

    @pytest.mark.parametrize("options", [{}, {"end": True}, {"websocket": []}])
    @pytest.mark.parametrize("first", ["reset", "stop"])
    def test_it_is_withdrawn(self, options: dict[str, object], first: str) -> None:
        """One without a body was sent nevertheless, and never stopped: it ran for nobody."""
        pair = Pair.leased()
        stream = pair.open(options)
        for call in (first, "stop" if first == "reset" else "reset"):
            getattr(pair.gateway, call)(stream, fr.Code.CANCELLED)
        assert pair.gateway.pending_events() == [ev.StreamClosed(stream)]
        assert pair.take(pair.gateway) == []
        assert pair.gateway._budget.lent == 0 and pair.gateway.can_open

    def test_with_its_data(self) -> None:
        pair = Pair.leased()
        stream = pair.open()
        pair.gateway.send_data(stream, b"never")
        pair.gateway.reset(stream, 1)
        other = pair.open({"end": True})
        assert [getattr(frame, "stream", 0) for frame in pair.frames(pair.gateway)] == [other]


def test_a_count_in_a_replayed_frame_is_not_taken_for_a_lie() -> None:
    """PARK said 3 when it was first sent; on the next socket, after a count of 4, it ended the session."""
    pair = Pair.leased()
    pair.function.park(pair.now)
    park = pair.take(pair.function)
    stream = pair.open({"end": True})
    pair.give(pair.function, pair.take(pair.gateway))
    assert park, "lost"
    pair.cut()
    pair.dial()
    assert pair.function.is_open(stream)
    pair.function.send_response(stream, 200, [], end=True)
    pair.pump()
    assert not pair.gateway.is_open(stream)


def test_an_idle_session_costs_the_same_however_much_it_keeps() -> None:
    """Each call walked over every frame that was kept for replay."""
    pair = Pair.leased(function=Limits(), gateway=Limits(credit=1 << 22))
    stream = pair.answered()
    pair.function.send_data(stream, bytes(1 << 20))
    pair.take(pair.function)
    assert pair.function._sender.frames > 10

    class Counting(deque[tuple[bytes, float]]):
        walks = 0

        def __iter__(self) -> Iterator[tuple[bytes, float]]:
            Counting.walks += 1
            return super().__iter__()

    pair.function._sender._kept = Counting(pair.function._sender._kept)
    Counting.walks = 0
    for _ in range(10):
        pair.function.send_data(stream, b"x")
        assert pair.function.frames_to_send(1 << 20, pair.now)
    assert Counting.walks == 0
