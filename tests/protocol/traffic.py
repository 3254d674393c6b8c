"""What travels in a simulation: plans of exchanges, and the code at both ends, which compares every byte that comes.

Knows a session by its public methods, a link by `session` and `flush`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

from protocol import events as ev
from protocol.frames import Code, Headers, Options
from protocol.function_session import FunctionSession
from protocol.gateway_session import GatewaySession
from protocol.session import Session
from tests.protocol.virtual_network import Clock

_BLOB = 2 * Random(1).randbytes(1 << 17)
TRAILERS: Headers = [(b"checksum", b"1234")]
HINTS: Headers = [(b"link", b"</style.css>")]


def pattern(key: int, offset: int, size: int) -> bytes:
    """The bytes of direction `key` from `offset` on: like no other direction's, and like none of another offset."""
    start = (key * 7919 + offset) % (len(_BLOB) // 2)
    assert size <= len(_BLOB) // 2
    return _BLOB[start : start + size]


@dataclass(frozen=True)
class Direction:
    """What one side sends: sizes of chunks or of messages, seconds between them, and how it ends."""

    sizes: tuple[int, ...] = ()
    pause: float = 0.0
    trailers: bool = False
    gives_up: bool = False  # RESET in the place of the end


@dataclass(frozen=True)
class Plan:
    """One exchange: what both ends will do."""

    number: int
    request: Direction
    response: Direction
    at: float = 0.0  # seconds after the beginning
    is_websocket: bool = False
    is_expecting: bool = False
    window: int | None = None
    informational: int = 0
    waits_for_request: bool = False  # the response's head comes after the request's end
    ignores_request: bool = False  # STOP at once
    cancelled_after: float | None = None  # seconds after its opening the client leaves
    reading_pause: float = 0.0  # seconds that the function's consumer needs for a piece
    client_pause: float = 0.0  # the same for the client's
    client_stall: float = 0.0  # seconds that it takes nothing, once
    client_hurry: int = 0  # bytes that it takes at full speed before either
    max_message: int = 1 << 20  # bytes, of either side's

    @property
    def is_too_big(self) -> bool:
        return self.is_websocket and max(self.response.sizes, default=0) > self.max_message

    @property
    def exchange(self) -> bytes:
        return self.number.to_bytes(16, "big")

    @property
    def options(self) -> Options:
        options: Options = {"scheme": "http", "client": ["192.0.2.1", 1]}
        if self.is_websocket:
            options |= {"websocket": [], "max_message": self.max_message}
        elif not self.request.sizes and not self.request.trailers:
            options["end"] = True
        if self.is_expecting and "end" not in options:
            options["expect"] = True
        if self.window is not None:
            options["window"] = self.window
        return options


class Holder(Protocol):
    """A link of either side."""

    clock: Clock

    def flush(self) -> None: ...


class Sender:
    """Sends a direction's chunks as its stream takes them, then ends it."""

    def __init__(
        self, link: Holder, session: Session, stream: int, key: int, plan: Direction, *, messages: bool
    ) -> None:
        self.link = link
        self.session = session
        self.stream = stream
        self.key = key
        self.plan = plan
        self.messages = messages
        self.sent = 0  # chunks
        self.offset = 0
        self.is_over = False
        self._is_pausing = False

    def pump(self) -> None:
        session, stream, sizes = self.session, self.stream, self.plan.sizes
        while not self.is_over and not self._is_pausing and session.is_open(stream) and session.is_writable(stream):
            if self.sent == len(sizes):
                self._finish()
                break
            size = sizes[self.sent]
            data = pattern(self.key, self.offset, size)
            if self.messages:
                session.send_message(stream, data, text=size % 2 == 0)
            else:
                session.send_data(stream, data)
            self.sent += 1
            self.offset += size
            if self.plan.pause:
                self._is_pausing = True
                self.link.clock.call_later(self.plan.pause, self._resume)
        self.link.flush()

    def _resume(self) -> None:
        self._is_pausing = False
        self.pump()

    def _finish(self) -> None:
        self.is_over = True
        if self.plan.gives_up:
            self.session.reset(self.stream, Code.INTERNAL, "planned")
        elif self.messages:
            self.session.send_close(self.stream, 1000, b"done")
            self.session.send_data(self.stream, b"", end=True)
        elif self.plan.trailers:
            self.session.send_trailers(self.stream, TRAILERS)
        else:
            self.session.send_data(self.stream, b"", end=True)

    def abandon(self, code: int) -> None:
        self.is_over = True
        self.session.reset(self.stream, code)


class Receiver:
    """Compares what comes with what was planned, and consumes it at its own pace."""

    def __init__(
        self,
        link: Holder,
        session: Session,
        stream: int,
        key: int,
        plan: Direction,
        pause: float,
        stall: float = 0.0,
        hurry: int = 0,
    ) -> None:
        self.link = link
        self.session = session
        self.stream = stream
        self.key = key
        self.plan = plan
        self.pause = pause
        self.stall = stall
        self.hurry = hurry
        self.received = 0
        self.messages = 0
        self.ending: str | None = None
        self.was_whole = False
        self._free_at = 0.0  # when the consumer has taken what came before

    def data(self, event: ev.DataReceived) -> None:
        size = len(event.data)
        assert self.ending is None, f"stream {self.stream}: data after {self.ending}"
        assert bytes(event.data) == pattern(self.key, self.received, size), f"stream {self.stream} at {self.received}"
        self.received += size
        if event.end:
            self.end("end")
        self._later(partial(self._consume, size))

    def whole(self, body: bytes) -> None:
        """All of it came with its head."""
        self.was_whole = bool(body)
        self.data(ev.DataReceived(self.stream, body, True))

    def _consume(self, size: int) -> None:
        self.session.consume(self.stream, size, self.link.clock.now)

    def message(self, event: ev.MessageReceived) -> None:
        expected = self.plan.sizes[self.messages]
        assert len(event.data) == expected and event.text == (expected % 2 == 0)
        assert event.data == pattern(self.key, self.received, expected)
        self.messages += 1
        self.received += expected
        self._later(lambda: self.session.consume_message(self.stream, self.link.clock.now))

    def _later(self, consume: Callable[[], None]) -> None:
        now, pause = self.link.clock.now, 0.0
        if self.received > self.hurry:
            pause, self.stall = self.pause + self.stall, 0.0
        if not pause and self._free_at <= now:
            consume()
            return

        def act() -> None:
            consume()
            self.link.flush()

        self._free_at = max(self._free_at, now) + pause
        self.link.clock.call_at(self._free_at, act)

    def end(self, how: str) -> None:
        assert self.ending is None, f"stream {self.stream}: {how} after {self.ending}"
        self.ending = how
        if how in ("end", "trailers"):
            assert self.received == sum(self.plan.sizes), f"stream {self.stream} ended at {self.received}"
            assert (how == "trailers") == self.plan.trailers
        elif how == "reset":
            assert self.received <= sum(self.plan.sizes)


class Party:
    """What the code at both ends of an exchange has in common."""

    sender: Sender
    receiver: Receiver

    def handle(self, event: ev.Event) -> None:
        match event:
            case ev.DataReceived():
                self.receiver.data(event)
            case ev.MessageReceived():
                self.receiver.message(event)
            case ev.CloseReceived():
                assert (event.code, event.reason) == (1000, b"done")
            case ev.TrailersReceived():
                assert event.headers == TRAILERS
                self.receiver.end("trailers")
            case ev.StreamReset():
                self.receiver.end("reset")
            case ev.StreamStopped():
                self.sender.abandon(event.code)
            case ev.StreamWritable() | ev.CreditGranted():
                self.sender.pump()
            case _:
                raise AssertionError(f"{event} is not for a stream")


class ClientCode(Party):
    """The gateway's end of an exchange. Begins with `open`; `outcome` is set at its end."""

    def __init__(self, plan: Plan, settled: Callable[[ClientCode], None]) -> None:
        self.plan = plan
        self.outcome: str | None = None
        self.status = 0
        self.hints = 0
        self.is_cancelled = False
        self.was_seen = True  # by the function, when it was cancelled
        self._settled = settled

    def open(self, link: Holder, session: GatewaySession) -> int:
        """May be called again after the stream was refused."""
        plan = self.plan
        self.stream = session.open(plan.exchange, b"GET", b"/", [(b"host", b"x")], plan.options, link.clock.now)
        self.link, self.session = link, session
        self.sender = Sender(link, session, self.stream, 2 * plan.number, plan.request, messages=plan.is_websocket)
        self.receiver = Receiver(
            link,
            session,
            self.stream,
            2 * plan.number + 1,
            plan.response,
            plan.client_pause,
            plan.client_stall,
            plan.client_hurry,
        )
        if "end" in plan.options:
            self.sender.is_over = True
        if plan.cancelled_after is not None:
            link.clock.call_later(plan.cancelled_after, self._cancel)
        return self.stream

    def begin(self) -> None:
        if not self.plan.is_expecting and not self.plan.is_websocket:
            self.sender.pump()

    def _cancel(self) -> None:
        if self.outcome is None and self.session.is_open(self.stream):
            self.is_cancelled = self.sender.is_over = True
            self.was_seen = self.session._streams[self.stream].is_announced
            self.session.stop(self.stream, Code.CANCELLED)
            self.session.reset(self.stream, Code.CANCELLED)
            self.link.flush()

    def handle(self, event: ev.Event) -> None:
        match event:
            case ev.InformationalReceived():
                assert self.status == 0 and event.headers == HINTS
                self.hints += 1
            case ev.ResponseReceived():
                assert self.status == 0 and self.hints == self.plan.informational
                self.status = event.response.status
                if event.end:
                    self.receiver.whole(event.body)
                if self.plan.is_websocket:
                    self.sender.pump()
            case ev.StreamReset(code=Code.REFUSED):
                self.receiver.end("refused")
            case ev.StreamReset() if self.plan.is_websocket and not self.status:
                self.receiver.end("reset")
                self.sender.abandon(Code.CANCELLED)  # it would wait for 101
            case ev.StreamClosed():
                self.settle("cancelled" if self.is_cancelled else self.receiver.ending or "withdrawn")
            case _:
                super().handle(event)

    def settle(self, outcome: str) -> None:
        assert self.outcome is None
        self.outcome = outcome
        self._settled(self)


class HandlerCode(Party):
    """The function's end of an exchange. Begins with its request; `is_running` until its direction has ended."""

    def __init__(self, plan: Plan, link: Holder, session: FunctionSession, stream: int, options: Options) -> None:
        self.plan = plan
        self.link = link
        self.session = session
        self.stream = stream
        assert options == plan.options
        self.sender = Sender(link, session, stream, 2 * plan.number + 1, plan.response, messages=plan.is_websocket)
        self.receiver = Receiver(link, session, stream, 2 * plan.number, plan.request, plan.reading_pause)
        self.has_begun = False
        if options.get("end"):
            self.receiver.end("end")

    def begin(self) -> None:
        plan, session = self.plan, self.session
        for _ in range(plan.informational):
            session.send_informational(self.stream, 103, HINTS)
        if plan.ignores_request:
            session.stop(self.stream, Code.NO_ERROR)
        else:
            session.start_reading(self.stream)
        if not plan.waits_for_request or plan.ignores_request or self.receiver.ending is not None:
            self._respond()
        self.link.flush()

    def _respond(self) -> None:
        if self.has_begun or self.sender.is_over:
            return
        self.has_begun = True
        plan = self.plan
        empty = not plan.is_websocket and plan.response == Direction()
        self.session.send_response(self.stream, 101 if plan.is_websocket else 200, [], end=empty)
        if empty:
            self.sender.is_over = True
        else:
            self.sender.pump()

    def handle(self, event: ev.Event) -> None:
        super().handle(event)
        if self.receiver.ending is not None:
            self._respond()
