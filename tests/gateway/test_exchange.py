"""The exchange's table, every state against every event, and what each event makes of the two sides."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from transitions import MachineError

from gateway.errors import KINDS, Problem, RequestRefused
from gateway.exchange import ClientSide, Exchange, RequestHead, StreamSide
from gateway.machine import MACHINE, STATES, TABLE, TERMINAL, move
from gateway.response_head import ResponseHead
from gateway.sides import READ_MARK, WebSocketOffer, WebSocketSide
from gateway.silent_side import SilentSide
from gateway.websocket_exchange import WebSocketExchange
from protocol.frames import Code, Headers

LEGAL = {(trigger, source): state for trigger, sources, state in TABLE for source in sources}
TRIGGERS = sorted({trigger for trigger, _, _ in TABLE})


class Record:
    """Both sides of an exchange at once; `told` has all that was done to either, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.id = 7
        self.is_writable = True
        self.is_paused = False

    def _tell(self, *words: object) -> None:
        self.told.append(" ".join(str(word) for word in words))

    def informational(self, status: int, headers: Headers) -> None:
        self._tell("informational", status, *(name.decode() for name, _ in headers))

    def continue_(self) -> None:
        self._tell("continue")

    def head(self, head: ResponseHead, end: bool, body: bytes | bytearray | memoryview = b"") -> None:
        self._tell("head", head.status, "end" if end else "open", *([len(body)] if body else []))

    def data(self, payload: bytes | bytearray | memoryview, end: bool) -> None:
        self._tell("data", len(payload), "end" if end else "open")

    def accept(self, headers: Headers) -> WebSocketSide:
        self._tell("accept", *(name.decode() for name, _ in headers))
        return self

    def message(self, data: bytes, text: bool) -> None:
        self._tell("message", len(data), "text" if text else "binary")

    def close(self, code: int, reason: str) -> None:
        self._tell("close", code, reason)

    def end(self, trailers: Headers) -> None:
        self._tell("trailers", *(name.decode() for name, _ in trailers))

    def problem(self, problem: Problem) -> None:
        self._tell("problem", problem.name)

    def abort(self) -> None:
        self._tell("abort")

    def upload_writable(self) -> None:
        self._tell("writable")

    def upload_stopped(self) -> None:
        self._tell("upload stopped")

    def returned(self) -> None:
        self._tell("returned")

    def ended(self) -> None:
        self._tell("ended")

    def send(self, data: bytes, end: bool) -> None:
        self._tell("send", len(data), "end" if end else "open")

    def send_trailers(self, headers: Headers) -> None:
        self._tell("send trailers")

    def send_message(self, data: bytes, text: bool) -> None:
        self._tell("send message", len(data), "text" if text else "binary")

    def send_close(self, code: int, reason: bytes) -> None:
        self._tell("send close", code, reason.decode())

    def consumed(self, size: int) -> None:
        self._tell("consumed", size)

    def consumed_message(self) -> None:
        self._tell("consumed message")

    def cancel(self, code: Code) -> None:
        self._tell("cancel", code.name)

    def stop(self, code: Code) -> None:
        self._tell("stop", code.name)

    def reset(self, code: Code) -> None:
        self._tell("reset", code.name)


def exchange_in(state: str, *, method: bytes = b"POST", has_body: bool = True) -> tuple[Exchange, Record]:
    """One that got there by events, with an empty record."""
    if state in ("messages", "closing", "client_closed"):
        return websocket_in(state)
    record = Record()
    client: ClientSide = record
    stream: StreamSide = record
    head = RequestHead(method, b"/a?secret", (), has_body=has_body, expects_continue=state == "opened")
    exchange = Exchange(head, client)
    if state in ("queued", "invoking"):
        exchange.queued()
    if state == "invoking":
        exchange.invoking()
    if state in (
        "opened",
        "request_sent",
        "duplex",
        "downloading",
        "uploading",
        "complete",
        "aborted",
        "detached",
        "discarded",
    ):
        exchange.stream_opened(stream)
    if state in ("request_sent", "downloading", "complete") and has_body:
        exchange.request_data(b"", end=True)
    if state in ("duplex", "downloading", "uploading", "complete", "aborted"):
        exchange.response(200, [(b"a", b"b")])
    if state in ("uploading", "complete"):
        exchange.data(b"xyz", end=True)
    if state in ("refused", "failed"):
        exchange.refused(Problem("no-route" if state == "refused" else "invoke-failed"))
    if state == "timed_out":
        exchange.timed_out("queue-timeout")
    if state == "cancelled":
        exchange.client_gone()
    if state == "aborted":
        exchange.lost()
    if state in ("detached", "discarded"):
        exchange.detach(Record(), "client left")
    if state == "discarded":
        exchange.response(200, (), end=True)
    assert exchange.state == state
    record.told.clear()
    return exchange, record


OFFER = WebSocketOffer(b"A" * 22 + b"==", ("a", "b"), 1 << 20)


def websocket_in(state: str) -> tuple[WebSocketExchange, Record]:
    """The same of one whose client asks for a WebSocket."""
    record = Record()
    exchange = WebSocketExchange(RequestHead(b"GET", b"/ws", (), websocket=OFFER), record)
    exchange.stream_opened(record)
    if state in ("messages", "closing", "client_closed", "detached", "complete"):
        exchange.response(101, [(b"sec-websocket-protocol", b"a")])
    if state == "closing":
        exchange.stopped(Code.NO_ERROR)
    if state == "client_closed":
        exchange.client_closes(SilentSide(), 1001, b"bye", "the client closed (1001)")
    if state == "detached":
        exchange.detach(SilentSide(), "client left")
    if state == "complete":
        exchange.data(b"", end=True)
    assert exchange.state == state
    record.told.clear()
    return exchange, record


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_state_against_every_event(state: str, trigger: str) -> None:
    exchange, librarys = exchange_in(state)[0], exchange_in(state)[0]
    if (trigger, state) in LEGAL:
        move(exchange, trigger)
        assert MACHINE.events[trigger].trigger(librarys)
        assert exchange.state == librarys.state == LEGAL[trigger, state]
    else:
        with pytest.raises(MachineError):
            move(exchange, trigger)
        assert exchange.state == state


def test_the_table_is_sound() -> None:
    assert len(LEGAL) == sum(len(sources) for _, sources, _ in TABLE), "one state after each event"
    assert {state for _, _, state in TABLE} | {"accepted"} == set(STATES)
    assert not {source for _, source in LEGAL} & TERMINAL
    assert set(STATES.values()) == {"idle", "connecting", "socket received", "connected", "complete", "error"}
    reached = {"accepted"}
    while more := {LEGAL[key] for key in LEGAL if key[1] in reached} - reached:
        reached |= more
    assert reached == set(STATES)
    for state in set(STATES) - TERMINAL:
        assert LEGAL["client_left", state] == "cancelled"


def test_an_exchange_is_not_added_to_the_machine() -> None:
    exchange_in("complete")
    assert MACHINE.models == []
    assert not hasattr(exchange_in("accepted")[0], "__dict__")


LATE = [
    lambda e: e.stream_opened(Record()),
    lambda e: e.informational(103, ()),
    lambda e: e.response(200, (), False),
    lambda e: e.response(200, (), True, b"late"),
    lambda e: e.data(b"late", True),
    lambda e: e.trailers([(b"a", b"b")]),
    lambda e: e.reset(Code.INTERNAL, "late"),
    lambda e: e.stopped(Code.NO_ERROR),
    lambda e: e.credit(),
    lambda e: e.writable(),
    lambda e: e.lost("late"),
    lambda e: e.request_data(b"late", True),
    lambda e: e.client_gone(),
    lambda e: e.client_resumed(),
    lambda e: e.timed_out("response-timeout"),
    lambda e: e.refused(Problem("draining")),
]


@pytest.mark.parametrize("late", LATE, ids=lambda late: inspect.getsource(late).strip(" ,\n")[10:])
@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_nothing_moves_after_the_end(state: str, late: object) -> None:
    exchange, record = exchange_in(state)
    late(exchange)  # type: ignore[operator]
    assert (exchange.state, record.told) == (state, [])


def test_a_stream_that_comes_too_late_is_cancelled() -> None:
    exchange, _ = exchange_in("cancelled")
    stream = Record()
    exchange.stream_opened(stream)
    assert stream.told == ["cancel CANCELLED"]
    assert exchange.stream is None


def test_both_directions_to_the_end() -> None:
    exchange, record = exchange_in("opened")
    ends: list[str] = []
    exchange.on_end(lambda ended: ends.append(ended.state))
    exchange.request_data(b"12")
    exchange.response(200, ())
    exchange.data(b"345")
    exchange.request_data(b"6", end=True)
    assert exchange.state == "downloading"
    exchange.data(b"7", end=True)
    assert exchange.state == "complete"
    assert ends == ["complete"]
    assert (exchange.bytes_in, exchange.bytes_out, exchange.status) == (3, 4, 200)
    assert record.told == [
        "send 2 open", "head 200 open", "data 3 open", "consumed 3", "send 1 end", "data 1 end", "ended",
    ]  # fmt: skip


@pytest.mark.parametrize("length", [None, 3, 2, 4])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("state", ["opened", "request_sent", "detached"])
def test_a_response_that_came_whole_is_as_one_in_pieces(state: str, method: bytes, length: int | None) -> None:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    in_pieces, pieces = exchange_in(state, method=method)
    in_pieces.response(200, headers)
    in_pieces.data(b"123", end=True)
    whole, record = exchange_in(state, method=method)
    whole.response(200, headers, True, b"123")
    said = ",".join(pieces.told).replace("head 200 open,data 3 end", "head 200 end 3").removeprefix("stop NO_ERROR,")
    assert ",".join(record.told) == said
    for name in ("state", "status", "bytes_out", "reason", "problem"):
        assert getattr(whole, name) == getattr(in_pieces, name), name


def test_credit_waits_for_a_slow_client() -> None:
    exchange, record = exchange_in("downloading")
    record.is_paused = True
    exchange.data(b"123")
    exchange.data(memoryview(b"45"))
    assert record.told == ["data 3 open", "data 2 open"]
    record.is_paused = False
    exchange.client_resumed()
    exchange.client_resumed()
    assert record.told[2:] == ["consumed 5"]


def test_100_continue_leaves_once_when_the_function_reads() -> None:
    exchange, record = exchange_in("opened")
    exchange.credit()
    exchange.credit()
    assert record.told == ["continue"]
    exchange, record = exchange_in("duplex")
    exchange.credit()
    assert record.told == []


def test_a_body_that_was_never_asked_for_is_not_waited_for() -> None:
    exchange, record = exchange_in("opened")
    exchange.response(403, (), end=True)
    assert exchange.state == "complete"
    assert record.told == ["head 403 end", "reset NO_ERROR", "upload stopped", "ended"]


def test_no_100_continue_where_none_is_expected() -> None:
    exchange, record = exchange_in("request_sent", has_body=False)
    exchange.credit()
    assert record.told == []


@pytest.mark.parametrize(
    ("status", "told"), [(103, ["informational 103 link"]), (100, []), (101, []), (200, []), (99, [])]
)
def test_informational(status: int, told: list[str]) -> None:
    exchange, record = exchange_in("opened")
    exchange.informational(status, [(b"Link", b"</a>"), (b"connection", b"x"), (b"content-length", b"3")])
    assert record.told == told
    exchange, record = exchange_in("duplex")
    exchange.informational(status, [])
    assert record.told == []


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 205), (b"GET", 304), (b"HEAD", 404)]
)
def test_a_body_that_nobody_will_see_is_stopped_at_the_head(method: bytes, status: int) -> None:
    exchange, record = exchange_in("request_sent", method=method, has_body=False)
    exchange.response(status, [(b"content-length", b"10")])
    assert record.told == ["stop NO_ERROR", f"head {status} end", "ended"]
    exchange.data(b"in flight", end=False)
    assert exchange.state == "complete"
    assert len(record.told) == 3


@pytest.mark.parametrize(
    ("status", "headers", "end"),
    [
        (0, [], False),
        (99, [], False),
        (101, [], False),
        (600, [], False),
        (200, [(b"a b", b"")], False),
        (200, [(b"", b"")], False),
        (200, [(b"a:", b"")], False),
        (200, [(b"a", b"x\r\ny: z")], False),
        (200, [(b"a", b"x\ny")], False),
        (200, [(b"a", b"\0")], False),
        (200, [(b"content-length", b"-1")], False),
        (200, [(b"content-length", b"1, 1")], False),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")], False),
        (200, [(b"content-length", b"9" * 19)], False),
        (200, [(b"content-length", b"1")], True),
    ],
)
def test_a_response_that_is_not_http_is_ours_to_answer(status: int, headers: Headers, end: bool) -> None:
    exchange, record = exchange_in("request_sent")
    exchange.response(status, headers, end)
    assert exchange.state == "failed"
    assert exchange.status == 502
    assert record.told == ["cancel MISMATCH", "problem bad-response", "ended"]


def test_hop_by_hop_fields_stay_here() -> None:
    exchange, record = exchange_in("request_sent")
    heads: list[ResponseHead] = []
    record.head = lambda head, end, body: heads.append(head)  # type: ignore[method-assign]
    fields = [
        (b"Connection", b"X-Mine, close, content-length"),
        (b"x-mine", b"1"),
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    fields += [(b"Keep-Alive", b"x"), (b"Transfer-Encoding", b"chunked"), (b"Upgrade", b"x"), (b"content-length", b"3")]
    exchange.response(200, fields)
    assert heads == [ResponseHead(200, [(b"set-cookie", b"a"), (b"set-cookie", b"b")], 3, False)]


@pytest.mark.parametrize(
    "pieces", [[(b"1234", False)], [(b"12", True)], [(b"12", False), (b"", True)], [(b"12", False), (b"34", True)]]
)
def test_a_body_that_is_not_its_content_length_is_no_end(pieces: list[tuple[bytes, bool]]) -> None:
    exchange, record = exchange_in("request_sent")
    exchange.response(200, [(b"content-length", b"3")])
    for payload, end in pieces:
        exchange.data(payload, end)
    assert exchange.state == "aborted"
    assert record.told[-3:] == ["cancel MISMATCH", "abort", "ended"]
    assert not any("end" in told.split() for told in record.told)


def test_trailers_end_a_body_of_the_right_length_only() -> None:
    exchange, record = exchange_in("downloading")
    exchange.data(b"123")
    exchange.trailers([(b"X-Sum", b"1"), (b"Content-Length", b"3"), (b"trailer", b"x")])
    assert (exchange.state, record.told[-2:]) == ("complete", ["trailers x-sum", "ended"])
    exchange, record = exchange_in("request_sent")
    exchange.response(200, [(b"content-length", b"3")])
    exchange.trailers([])
    assert exchange.state == "aborted"
    exchange, record = exchange_in("downloading")
    exchange.trailers([(b"a", b"\r\n")])
    assert exchange.state == "aborted"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (Code.INTERNAL, "function-error"),
        (Code.CANCELLED, "function-error"),
        (Code.NO_ERROR, "function-error"),
        (Code.TIMEOUT, "function-timeout"),
        (Code.MISMATCH, "bad-response"),
        (Code.LOST, "function-lost"),
        (Code.SHUTDOWN, "function-lost"),
        (77, "function-error"),
    ],
)
def test_a_reset_before_the_head_is_a_problem_and_after_it_a_cut(code: int, problem: str) -> None:
    exchange, record = exchange_in("request_sent")
    exchange.reset(code, "boom")
    assert (exchange.state, exchange.reason) == ("failed", "boom")
    assert record.told == ["cancel CANCELLED", f"problem {problem}", "ended"]
    exchange, record = exchange_in("duplex")
    exchange.reset(code)
    assert exchange.state == "aborted"
    assert record.told == ["cancel CANCELLED", "abort", "ended"]


def test_a_stream_returned_unseen_goes_elsewhere() -> None:
    exchange, record = exchange_in("opened")
    exchange.reset(Code.REFUSED)
    assert (exchange.state, exchange.stream) == ("accepted", None)
    assert record.told == ["cancel CANCELLED", "returned"]
    second = Record()
    exchange.stream_opened(second)
    exchange.request_data(b"1", end=True)
    assert second.told == ["send 1 end"]


def test_what_has_left_of_a_body_goes_to_the_next_stream_too() -> None:
    exchange, record = exchange_in("opened")
    for size in range(1, 4):
        exchange.request_data(b"%d" % size)
        exchange.reset(Code.REFUSED)
        exchange.stream_opened(record := Record())
        assert (exchange.state, exchange.bytes_in) == ("opened", size)
        assert record.told == ["send 1 open"] * size
    exchange.request_data(b"", end=True)
    exchange.reset(Code.REFUSED)
    exchange.stream_opened(record := Record())
    assert (exchange.state, exchange.bytes_in) == ("request_sent", 3)
    assert record.told == ["send 1 open"] * 3 + ["send 0 end"]


@pytest.mark.parametrize(
    "happens",
    [
        lambda exchange: [exchange.request_data(piece) for piece in (bytes(READ_MARK), b"more")],
        lambda exchange: exchange.credit(),
        lambda exchange: exchange.informational(103, ()),
        lambda exchange: exchange.stopped(Code.NO_ERROR),
    ],
    ids=["more came than is taken unread", "it reads", "it informs", "it wants no more"],
)
def test_a_body_that_is_not_kept_or_was_looked_at_cannot_go_elsewhere(happens: Callable[[Exchange], None]) -> None:
    exchange, record = exchange_in("opened")
    exchange.request_data(b"1")
    happens(exchange)
    exchange.reset(Code.REFUSED)
    assert (exchange.state, record.told[-2]) == ("failed", "problem unhealthy")


def test_an_upload_that_may_be_repeated_survives_its_link() -> None:
    exchange, record = exchange_in("opened", method=b"PUT")
    exchange.request_data(b"1", end=True)
    exchange.lost()
    exchange.stream_opened(record := Record())
    assert (exchange.state, record.told) == ("request_sent", ["send 1 end"])


def test_nothing_of_a_body_is_kept_once_its_response_has_begun() -> None:
    freed = []

    class Piece(bytes):
        def __del__(self) -> None:
            freed.append(len(self))

    exchange, _ = exchange_in("opened")
    exchange.request_data(Piece(1000), end=True)
    assert freed == []
    exchange.response(200, ())
    assert freed == [1000]


def test_losing_the_link() -> None:
    exchange, record = exchange_in("opened")
    exchange.lost("went away")
    assert (exchange.state, record.told) == ("failed", ["cancel LOST", "problem function-lost", "ended"])
    exchange, record = exchange_in("downloading")
    exchange.lost()
    assert (exchange.state, record.told) == ("aborted", ["cancel LOST", "abort", "ended"])
    exchange, record = exchange_in("uploading")  # the client has its response: no harm done
    exchange.lost()
    assert (exchange.state, record.told) == ("complete", ["reset NO_ERROR", "upload stopped", "ended"])


@pytest.mark.parametrize(
    ("state", "after"), [("opened", "request_sent"), ("duplex", "downloading"), ("uploading", "complete")]
)
def test_a_function_that_stops_reading(state: str, after: str) -> None:
    exchange, record = exchange_in(state)
    exchange.stopped(Code.NO_ERROR)
    assert exchange.state == after
    assert record.told[:2] == ["reset NO_ERROR", "upload stopped"]
    exchange.request_data(b"more")
    exchange.stopped(Code.NO_ERROR)
    assert len(record.told) == (3 if after == "complete" else 2)


@pytest.mark.parametrize(
    "state", ["accepted", "queued", "invoking", "opened", "request_sent", "duplex", "downloading", "uploading"]
)
def test_a_client_that_leaves(state: str) -> None:
    exchange, record = exchange_in(state)
    cancelled = ["cancel CANCELLED"] if exchange.stream else []
    exchange.client_gone()
    assert exchange.state == "cancelled"
    assert record.told == [*cancelled, "abort", "ended"]


@pytest.mark.parametrize("name", KINDS)
def test_every_error_ends_an_exchange(name: str) -> None:
    exchange, record = exchange_in("queued")
    exchange.refused(Problem(name))
    assert exchange.state == KINDS[name].ends
    assert exchange.status == KINDS[name].status
    assert record.told == [f"problem {name}", "ended"]


def test_deadlines() -> None:
    exchange, record = exchange_in("request_sent")
    exchange.timed_out("response-timeout")
    assert (exchange.state, record.told) == ("timed_out", ["cancel TIMEOUT", "problem response-timeout", "ended"])
    exchange, record = exchange_in("downloading")
    exchange.timed_out("response-timeout")
    assert (exchange.state, record.told) == ("timed_out", ["cancel TIMEOUT", "abort", "ended"])


def test_our_own_mistakes_raise_and_change_nothing() -> None:
    exchange, record = exchange_in("duplex")
    for mistake in (
        exchange.queued,
        exchange.invoking,
        lambda: exchange.stream_opened(Record()),
        lambda: exchange.response(200, ()),
    ):
        with pytest.raises(MachineError):
            mistake()
    assert (exchange.state, record.told) == ("duplex", [])


# WebSockets: what each event makes of the sides.


def test_a_websocket_from_its_handshake_to_the_functions_close() -> None:
    record = Record()
    ends: list[str] = []
    exchange = WebSocketExchange(RequestHead(b"GET", b"/ws", (), websocket=OFFER), record)
    exchange.on_end(lambda ended: ends.append(ended.state))
    exchange.stream_opened(record)
    exchange.response(101, [(b"Sec-WebSocket-Protocol", b"b"), (b"sec-websocket-extensions", b"x"), (b"x-a", b"1")])
    exchange.client_message(b"1234", True)
    exchange.message(b"56", False)
    exchange.function_closes(4000, b"bye")
    exchange.data(b"", end=True)
    assert record.told == [
        "accept sec-websocket-protocol x-a",
        "send message 4 text",
        "message 2 binary",
        "consumed message",
        "reset NO_ERROR",
        "close 4000 bye",
        "ended",
    ]
    assert (exchange.state, exchange.status, exchange.bytes_in, exchange.bytes_out) == ("complete", 101, 4, 2)
    assert (ends, exchange.reason) == (["complete"], "the function closed (4000)")


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ([(b"sec-websocket-protocol", b"c")], ["cancel MISMATCH", "problem bad-response", "ended"]),
        ([(b"sec-websocket-protocol", b"a, b")], ["cancel MISMATCH", "problem bad-response", "ended"]),
        ([(b"sec-websocket-protocol", b"a")] * 2, ["cancel MISMATCH", "problem bad-response", "ended"]),
        ([(b"x", b"\r\n")], ["cancel MISMATCH", "problem bad-response", "ended"]),
    ],
)
def test_an_accept_that_is_none(headers: Headers, told: list[str]) -> None:
    exchange, record = websocket_in("request_sent")
    exchange.response(101, headers)
    assert (exchange.state, record.told) == ("failed", told)


def test_a_refusal_is_an_ordinary_response() -> None:
    exchange, record = websocket_in("request_sent")
    exchange.response(403, ())
    exchange.data(b"no", end=True)
    assert record.told == ["reset NO_ERROR", "head 403 open", "data 2 end", "ended"]
    assert exchange.state == "complete"
    exchange, record = websocket_in("request_sent")
    exchange.response(403, (), True, b"no")
    assert record.told == ["reset NO_ERROR", "head 403 end 2", "ended"]


def test_an_accept_and_its_end_that_came_at_once() -> None:
    exchange, record = websocket_in("request_sent")
    exchange.response(101, (), True, b"?")
    assert record.told == ["accept", "reset NO_ERROR", "close 1000 ", "ended"]


def test_a_client_that_cannot_be_accepted_any_more() -> None:
    for error, state in ((ConnectionResetError(), "cancelled"), (RequestRefused(Problem("bad-request")), "refused")):
        exchange, record = websocket_in("request_sent")

        def accept(headers: Headers, error: Exception = error) -> WebSocketSide:
            raise error

        record.accept = accept  # type: ignore[method-assign]
        exchange.response(101, ())
        assert exchange.state == state
        assert record.told[0] == "cancel CANCELLED" and record.told[-1] == "ended"


def test_messages_wait_for_a_slow_client() -> None:
    exchange, record = websocket_in("messages")
    record.is_paused = True
    exchange.message(b"1", True)
    exchange.message(b"2", True)
    assert record.told == ["message 1 text", "message 1 text"]
    record.is_paused = False
    exchange.client_resumed()
    exchange.client_resumed()
    assert record.told[2:] == ["consumed message"] * 2


def test_a_client_that_does_not_take_its_messages_any_more_holds_nobody_back() -> None:
    exchange, record = websocket_in("messages")
    record.is_paused = True
    exchange.message(b"1", True)
    exchange.client_closes(SilentSide(), 1000, b"", "closed")
    assert record.told == ["message 1 text", "send close 1000 ", "consumed message", "ended"]
    exchange.message(b"2", True)
    assert record.told[4:] == ["consumed message"]
    exchange.function_closes(1000, b"")
    exchange.data(b"", end=True)
    assert exchange.state == "complete"


def test_text_of_the_function_that_is_none() -> None:
    exchange, record = websocket_in("messages")
    exchange.message(b"\xff", True)
    assert (exchange.state, record.told) == ("aborted", ["cancel MISMATCH", "abort", "ended"])
    assert exchange.problem is not None and exchange.problem.name == "bad-response"


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        (1000, b"ok", "close 1000 ok"),
        (1005, b"", "close 1005 "),
        (1006, b"", "close 1011 "),
        (1015, b"", "close 1011 "),
        (2000, b"", "close 1011 "),
        (1000, b"\xff", "close 1011 "),
    ],
)
def test_what_a_function_may_say_last(code: int, reason: bytes, said: str) -> None:
    exchange, record = websocket_in("messages")
    exchange.function_closes(code, reason)
    exchange.data(b"", end=True)
    assert record.told == ["reset NO_ERROR", said, "ended"]


def test_a_function_that_stops_reading_first() -> None:
    exchange, record = websocket_in("messages")
    exchange.stopped(Code.NO_ERROR)
    exchange.client_message(b"nobody's", True)
    exchange.message(b"12", True)
    assert exchange.is_writable
    exchange.function_closes(1000, b"")
    exchange.data(b"", end=True)
    assert record.told[:4] == ["reset NO_ERROR", "upload stopped", "message 2 text", "consumed message"]
    assert record.told[4:] == ["reset NO_ERROR", "close 1000 ", "ended"]


def test_a_stop_that_overtakes_the_101() -> None:
    exchange, record = websocket_in("request_sent")
    exchange.stopped(Code.NO_ERROR)
    exchange.response(101, ())
    assert (exchange.state, record.told) == ("closing", ["accept", "reset NO_ERROR", "upload stopped"])


def test_a_stop_of_a_stream_that_was_given_back_is_no_news_of_the_next() -> None:
    exchange, record = websocket_in("request_sent")
    exchange.stopped(Code.NO_ERROR)
    exchange.reset(Code.REFUSED)
    exchange.stream_opened(record)
    exchange.response(101, ())
    assert exchange.state == "messages"


def test_a_client_that_leaves_before_it_is_accepted_while_its_function_may_go_on() -> None:
    exchange, record = websocket_in("request_sent")
    exchange.detach(SilentSide(), "client left")
    assert record.told == ["abort", "send close 1006 ", "ended"]
    exchange.response(101, ())
    exchange.message(b"1", True)
    exchange.data(b"", end=True)
    assert (exchange.state, record.told[3:]) == ("discarded", ["consumed message"])


@pytest.mark.parametrize("state", ["messages", "closing", "client_closed", "detached"])
def test_a_websocket_that_is_lost(state: str) -> None:
    exchange, record = websocket_in(state)
    exchange.lost("gone")
    assert exchange.state == ("aborted" if state in ("messages", "closing") else "failed")
    assert exchange.problem is not None and exchange.problem.kind.close_code == 1012
    assert ("abort" in record.told) == (state in ("messages", "closing"))


LATE_MESSAGES = [
    lambda e: e.message(b"late", True),
    lambda e: e.client_message(b"late", True),
    lambda e: e.function_closes(1000, b""),
    lambda e: e.stopped(Code.NO_ERROR),
    lambda e: e.response(101, ()),
    lambda e: e.data(b"", True),
    lambda e: e.client_resumed(),
]


@pytest.mark.parametrize("late", LATE_MESSAGES, ids=lambda late: inspect.getsource(late).strip(" ,\n")[10:])
def test_nothing_of_a_websocket_moves_after_the_end(late: object) -> None:
    exchange, record = websocket_in("complete")
    late(exchange)  # type: ignore[operator]
    assert (exchange.state, record.told) == ("complete", [])
