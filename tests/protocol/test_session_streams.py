"""Two sessions and a perfect link: streams, their ends and their credit, one rule at a time.

What is put on the wire by hand is what the other side would never send.
"""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.dial import Limits
from protocol.errors import LocalError
from protocol.frames import Code
from protocol.session import Session
from tests.protocol.by_hand import give, refuses
from tests.protocol.pair import Pair

WINDOW = 64 << 10


def of_stream(number: int) -> list[fr.Frame]:
    """Every frame that both sides may send on a stream."""
    return [
        fr.Data(number, b"x"),
        fr.Data(number, b"", end=True),
        fr.Message(number, b"x", text=True),
        fr.Close(number, 1000),
        fr.Trailers(number),
        fr.Credit(number, 1 << 40),
        fr.Reset(number, 1),
        fr.Stop(number, 1),
    ]


class TestNumbers:
    @pytest.mark.parametrize("frame", of_stream(2), ids=repr)
    def test_a_frame_for_a_stream_that_was_never_opened_is_refused(self, frame: fr.Frame) -> None:
        for name in ("function", "gateway"):
            pair = Pair.leased()
            pair.answered()
            refuses(pair, getattr(pair, name), frame)

    @pytest.mark.parametrize("frame", [*of_stream(1), fr.Response(1, 200), fr.Informational(1, 103)], ids=repr)
    def test_a_stream_whose_request_was_never_sent_was_never_opened(self, frame: fr.Frame) -> None:
        pair = Pair.leased()
        pair.open()
        refuses(pair, pair.gateway, frame)

    def test_frames_for_an_ended_stream_are_counted_and_ignored(self) -> None:
        for name in ("function", "gateway"):
            pair = Pair.leased()
            stream = pair.opened({"end": True})
            pair.function.send_response(stream, 204, [], end=True)
            pair.pump()
            session: Session = getattr(pair, name)
            assert session.open_streams == 0 and not session.is_open(stream)
            pair.later(0.05)
            pair.pump()
            assert give(pair, session, *of_stream(stream)) == []
            pair.later(0.05)
            (ack,) = pair.frames(session)
            assert ack == fr.Ack(2 + len(of_stream(stream)))

    def test_a_stream_is_opened_once_and_upwards(self) -> None:
        def request(number: int) -> fr.Request:
            return fr.Request(number, bytes(16), b"GET", b"/")

        for numbers in ((1, 1), (3, 2), (3, 3)):
            refuses(pair := Pair.leased(), pair.function, *map(request, numbers))
        pair = Pair.leased()
        assert len(give(pair, pair.function, request(1), request(7))) == 2, "gaps are allowed"

    def test_calls_for_a_stream_that_is_over(self) -> None:
        pair = Pair.leased()
        for session in (pair.function, pair.gateway):
            for send in (
                lambda: session.send_data(9, b"x"),  # noqa: B023
                lambda: session.send_trailers(9, []),  # noqa: B023
                lambda: session.send_message(9, b"x", text=True),  # noqa: B023
                lambda: session.send_close(9, 1000),  # noqa: B023
            ):
                with pytest.raises(LocalError):
                    send()
            session.reset(9, 1)
            session.stop(9, 1)
            session.consume(9, 1, pair.now)
            session.consume_message(9, pair.now)
            session.start_reading(9)
            assert session.is_writable(9) and pair.take(session) == [], "what loses nothing does nothing"


class TestHeads:
    def test_a_request_comes_as_it_was_sent(self) -> None:
        pair = Pair.leased()
        options = {"client": ["127.0.0.1", 80], "scheme": "https", "later": 1}
        stream = pair.open(options, [(b"a", b"1"), (b"a", b"2")])
        pair.pump()
        (opened,) = pair.seen(pair.function, ev.StreamOpened)
        assert opened.stream == stream == 1 and opened.request.method == b"POST"
        assert opened.request.target == b"/path?query" and opened.request.options == options
        assert opened.request.headers == [(b"a", b"1"), (b"a", b"2")]

    def test_heads_that_end_leave_nothing_open(self) -> None:
        pair = Pair.leased()
        stream = pair.opened({"end": True})
        with pytest.raises(LocalError):
            pair.gateway.send_data(stream, b"x")
        with pytest.raises(LocalError):
            pair.gateway.send_data(stream, b"", end=True)
        pair.function.send_response(stream, 204, [(b"a", b"b")], end=True)
        assert len(pair.take(pair.function)) == 1 and pair.seen(pair.function, ev.StreamClosed)
        give(pair, pair.gateway, fr.Response(stream, 204, [], {"end": True}))
        assert pair.gateway_saw[-2:] == [
            ev.ResponseReceived(stream, fr.Response(stream, 204, [], {"end": True}), end=True),
            ev.StreamClosed(stream),
        ]

    def test_a_body_after_a_head_that_ended_is_refused(self) -> None:
        for frame in (fr.Data(1, b"x"), fr.Data(1, b""), fr.Data(1, b"", end=True), fr.Trailers(1)):
            pair = Pair.leased()
            pair.opened({"end": True})
            refuses(pair, pair.function, frame)

    def test_informational_responses_come_before_the_head(self) -> None:
        pair = Pair.leased()
        stream = pair.opened()
        for status in (102, 103, 103):
            pair.function.send_informational(stream, status, [(b"link", b"x")])
        pair.function.send_response(stream, 200, [])
        with pytest.raises(LocalError):
            pair.function.send_informational(stream, 103, [])
        pair.pump()
        assert [event.status for event in pair.seen(pair.gateway, ev.InformationalReceived)] == [102, 103, 103]
        assert isinstance(pair.gateway_saw[-1], ev.ResponseReceived)
        refuses(pair, pair.gateway, fr.Informational(stream, 103))

    def test_one_head(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        with pytest.raises(LocalError):
            pair.function.send_response(stream, 200, [])
        refuses(pair, pair.gateway, fr.Response(stream, 200))

    @pytest.mark.parametrize("frame", [fr.Data(1, b"x"), fr.Data(1, b"", end=True), fr.Trailers(1)], ids=repr)
    def test_no_body_before_the_head(self, frame: fr.Frame) -> None:
        pair = Pair.leased()
        stream = pair.opened()
        refuses(pair, pair.gateway, frame)
        with pytest.raises(LocalError):
            pair.function.send_data(stream, b"x")
        with pytest.raises(LocalError):
            pair.function.send_trailers(stream, [])

    def test_101_only_accepts_a_websocket_and_does_not_end(self) -> None:
        for options, frame in (({}, fr.Response(1, 101)), ({"websocket": []}, fr.Response(1, 101, [], {"end": True}))):
            pair = Pair.leased()
            stream = pair.opened(options)
            with pytest.raises(LocalError):
                pair.function.send_response(stream, 101, [], end=bool(frame.options))
            refuses(pair, pair.gateway, frame)

    def test_a_websocket_that_is_refused_is_answered_like_any_request(self) -> None:
        pair = Pair.leased()
        stream = pair.answered({"websocket": ["chat"]}, 403)
        pair.function.send_data(stream, b"no", end=True)
        pair.gateway.send_data(stream, b"", end=True)
        pair.pump()
        assert pair.body(pair.gateway, stream) == b"no" and pair.gateway.open_streams == 0


ENDS: list[fr.Frame] = [fr.Data(1, b"", end=True), fr.Trailers(1), fr.Reset(1, 3)]


class TestEnds:
    def test_trailers_end_a_direction(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        for session in (pair.function, pair.gateway):
            session.send_data(stream, b"body")
            session.send_trailers(stream, [(b"a", b"b")])
            with pytest.raises(LocalError):
                session.send_data(stream, b"", end=True)
        pair.pump()
        for session in (pair.function, pair.gateway):
            assert pair.body(session, stream) == b"body"
            assert pair.seen(session, ev.TrailersReceived) == [ev.TrailersReceived(stream, [(b"a", b"b")])]
            assert session.open_streams == 0

    @pytest.mark.parametrize("after", [fr.Data(1, b"x"), *ENDS], ids=repr)
    @pytest.mark.parametrize("end", ENDS, ids=repr)
    def test_nothing_comes_after_an_end(self, end: fr.Frame, after: fr.Frame) -> None:
        for name in ("function", "gateway"):
            pair = Pair.leased()
            pair.answered()
            refuses(pair, getattr(pair, name), end, after)

    def test_a_reset_discards_what_was_not_sent(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.send_data(stream, bytes(1000), end=True)
        pair.function.reset(stream, Code.INTERNAL, "it raised " + "\udc80" * 1000)
        (frame,) = pair.frames(pair.function)
        assert isinstance(frame, fr.Reset) and frame.code == Code.INTERNAL
        assert frame.options["reason"].startswith("it raised ") and len(frame.options["reason"]) == 256
        pair.function.reset(stream, Code.CANCELLED)
        assert pair.frames(pair.function) == [], "once"
        (event,) = give(pair, pair.gateway, frame)
        assert event == ev.StreamReset(stream, Code.INTERNAL, frame.options["reason"])
        assert pair.gateway.is_open(stream), "only the sender's direction has ended"

    def test_a_cancelled_request_whose_head_was_never_sent_is_never_heard_of(self) -> None:
        for name in ("reset", "stop"):
            pair = Pair.leased()
            stream = pair.open()
            pair.gateway.send_data(stream, b"body")
            events = pair.call(pair.gateway, lambda: getattr(pair.gateway, name)(stream, Code.CANCELLED))  # noqa: B023
            assert events == [ev.StreamClosed(stream)] and pair.take(pair.gateway) == []

    def test_a_stop_drops_what_still_comes(self) -> None:
        pair = Pair.leased()
        stream = pair.opened()
        pair.gateway.send_data(stream, b"body")
        data = pair.take(pair.gateway)
        pair.function.send_response(stream, 413, [], end=True)
        pair.function.stop(stream, Code.NO_ERROR)
        pair.function.stop(stream, Code.NO_ERROR)
        assert [type(frame) for frame in pair.frames(pair.function)] == [fr.Stop, fr.Response]
        assert pair.give(pair.function, data) == []
        assert give(pair, pair.gateway, fr.Stop(stream, 0), fr.Stop(stream, 0)) == [ev.StreamStopped(stream, 0)]
        pair.gateway.reset(stream, Code.NO_ERROR)
        events = pair.give(pair.function, pair.take(pair.gateway))
        assert events == [ev.StreamClosed(stream)], "the reset that was asked for is no news"

    def test_a_stop_may_be_answered_by_finishing(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        pair.function.stop(stream, Code.NO_ERROR)
        pair.pump()
        pair.gateway.send_data(stream, b"rest", end=True)
        pair.function.send_data(stream, b"", end=True)
        pair.pump()
        assert pair.gateway.open_streams == pair.function.open_streams == 0
        assert pair.body(pair.function, stream) == b""

    def test_a_stop_of_what_has_ended_says_nothing(self) -> None:
        pair = Pair.leased()
        stream = pair.opened({"end": True})
        pair.function.stop(stream, Code.NO_ERROR)
        assert pair.take(pair.function) == []
        assert give(pair, pair.gateway, fr.Stop(stream, 0)) == []

    def test_what_is_stopped_is_still_held_to_the_rules(self) -> None:
        for frame in (fr.Data(1, bytes(WINDOW + 1)), fr.Message(1, b"x", text=True), fr.Close(1, 1000)):
            pair = Pair.leased()
            pair.answered()
            pair.function.stop(1, Code.NO_ERROR)
            refuses(pair, pair.function, frame)

    def test_both_together_cancel_and_the_place_is_free_when_the_code_has_stopped(self) -> None:
        pair = Pair.leased(places=1)
        stream = pair.answered()
        pair.gateway.reset(stream, Code.CANCELLED)
        pair.gateway.stop(stream, Code.CANCELLED)
        pair.pump()
        assert pair.function_saw[-2:] == [ev.StreamReset(stream, 1, ""), ev.StreamStopped(stream, 1)]
        assert pair.gateway.open_streams == 1 and not pair.gateway.can_open
        pair.function.reset(stream, Code.CANCELLED)
        pair.pump()
        assert pair.gateway.open_streams == pair.function.open_streams == 0 and pair.gateway.can_open
        assert ev.StreamReset not in map(type, pair.gateway_saw), "it asked for that"

    def test_the_end_of_a_session_refuses_what_was_never_sent(self) -> None:
        pair = Pair.leased()
        known, unknown = pair.opened(), pair.open()
        assert known != unknown
        assert pair.gateway.end("over") == [
            ev.StreamReset(unknown, Code.REFUSED, "over"),
            ev.StreamClosed(unknown),
            ev.SessionEnded("over"),
        ]


class TestCredit:
    def test_a_byte_more_than_was_granted_is_refused(self) -> None:
        limits = Limits(credit=100)
        for name in ("function", "gateway"):
            for sizes in ((101,), (100, 1), (50, 50, 1)):
                pair = Pair.leased(function=limits, gateway=limits)
                pair.consumes = False
                pair.answered()
                refuses(pair, getattr(pair, name), *(fr.Data(1, bytes(size)) for size in sizes))

    def test_the_first_credit_of_a_response_is_that_of_the_request(self) -> None:
        pair = Pair.leased()
        pair.consumes = False
        stream = pair.answered({"window": 10})
        pair.function.send_data(stream, bytes(25), end=True)
        pair.pump()
        assert len(pair.body(pair.gateway, stream)) == 10
        refuses(pair, pair.gateway, fr.Data(stream, b"x"))

    def test_what_is_consumed_is_granted_again_and_nothing_is_lost(self) -> None:
        pair = Pair.leased(function=Limits(credit=1000), gateway=Limits(credit=1000), data_size=300)
        stream, body = pair.answered(), bytes(range(256)) * 100
        for session in (pair.function, pair.gateway):
            session.send_data(stream, body, end=True)
        pair.pump()
        for session in (pair.function, pair.gateway):
            assert pair.body(session, stream) == body and session.open_streams == 0

    def test_a_sender_that_waits_is_told_when_little_is_queued(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        assert pair.function.is_writable(stream)
        pair.function.send_data(stream, bytes(WINDOW))
        assert not pair.function.is_writable(stream)
        pair.pump()
        assert pair.seen(pair.function, ev.StreamWritable) == [ev.StreamWritable(stream)]
        for _ in range(1024):
            pair.function.send_data(stream, b"x")
        assert not pair.function.is_writable(stream), "a thousand pieces of a byte are as many"

    def test_empty_data_and_ends_need_none(self) -> None:
        pair = Pair.leased()
        stream = pair.answered({"window": 0, "expect": True})
        assert give(pair, pair.function, fr.Data(stream, b"")) == []
        assert give(pair, pair.function, fr.Data(stream, b"", end=True)) == [ev.DataReceived(stream, b"", True)]
        pair.function.send_data(stream, b"", end=True)
        pair.pump()
        assert pair.seen(pair.gateway, ev.DataReceived)[-1].end

    def test_more_is_not_consumed_than_came(self) -> None:
        pair = Pair.leased()
        stream = pair.answered()
        with pytest.raises(LocalError):
            pair.function.consume(stream, 1, pair.now)

    def test_expect_begins_without_credit_and_the_first_grant_is_the_100(self) -> None:
        pair = Pair.leased()
        stream = pair.opened({"expect": True})
        pair.gateway.send_data(stream, b"body")
        pair.pump()
        assert pair.body(pair.function, stream) == b"" and not pair.seen(pair.gateway, ev.CreditGranted)
        for _ in range(2):
            pair.function.start_reading(stream)
            pair.pump()
        assert pair.seen(pair.gateway, ev.CreditGranted) == [ev.CreditGranted(stream)]
        assert pair.body(pair.function, stream) == b"body"
        pair = Pair.leased()
        request = fr.Request(1, bytes(16), b"PUT", b"/", [], {"expect": True})
        refuses(pair, pair.function, request, fr.Data(1, b"x"))
