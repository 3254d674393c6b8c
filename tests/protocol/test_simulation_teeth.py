"""Whether the simulation would notice: one rule broken at a time, and a run must fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from protocol import scheduler as scheduler_module
from protocol import session as session_module
from protocol.codec import decode, with_body
from protocol.errors import LocalError
from protocol.flow import Budget, ReceiveCredit, SendCredit
from protocol.frames import Lease
from protocol.function_session import FunctionSession
from protocol.gateway_session import GatewaySession
from protocol.ledger import ReceiveLedger, SendLedger
from protocol.reader import Reader
from protocol.scheduler import Scheduler
from protocol.session import Session
from protocol.stream import TERMINAL, QueuedEnd, Stream
from protocol.streams import Streams
from tests.protocol.simulated_link import Link
from tests.protocol.simulation import Scenario, run
from tests.protocol.virtual_network import End

SEEDS = 1500  # the rarest of these needs about 350

Break = Callable[[Callable[..., Any]], None]
BROKEN: dict[str, Callable[[Break], None]] = {}


def rule(mutant: Callable[[Any], None]) -> Callable[[Any], None]:
    BROKEN[mutant.__name__] = mutant
    return mutant


class Kept(deque[Any]):
    """A queue that forgets nothing."""

    def clear(self) -> None: ...


class Breaker:
    """Replaces attributes until the test is over."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, owner: Any, name: str, value: Any) -> None:
        self._stack.enter_context(patch.object(owner, name, value))


@rule
def the_prefix_of_a_cut_frame_is_not_skipped(broken: Breaker) -> None:
    broken(Reader, "cut", lambda self: self._reset())


@rule
def epochs_are_not_fenced(broken: Breaker) -> None:
    accept = GatewaySession.accept

    def always(self: GatewaySession, dial: Any, now: float) -> None:
        self.epoch = min(self.epoch, dial.epoch - 1)
        accept(self, dial, now)

    broken(GatewaySession, "accept", always)


@rule
def an_old_socket_is_still_read(broken: Breaker) -> None:
    def part(self: Link, end: End, part: bytes, offset: int, length: int) -> None:
        if not self.session.is_ended and self.session.is_attached:
            try:
                events = self.session.receive_part(part, offset, length, self.clock.now)
            except LocalError:
                return
            self.dispatch(events)
            self.flush()

    def close(self: End, code: int | None) -> None:
        self.pipe.push("close", 0, lambda: self.other.lose(code))

    broken(Link, "part", part)
    broken(End, "close", close)
    broken(End, "lose", lambda self, code: self.driver.lost(self, code))


@rule
def the_function_states_an_old_count(broken: Breaker) -> None:
    dial, old = FunctionSession.dial, dict[bytes, int]()

    def stale(self: FunctionSession, now: float) -> Any:
        count = self._receiver.count
        self._receiver.count = old.get(self.id, 0)
        stated = dial(self, now)
        self._receiver.count = old[self.id] = count
        return stated

    broken(FunctionSession, "dial", stale)


@rule
def the_gateway_states_an_old_count(broken: Breaker) -> None:
    accept = GatewaySession.accept

    def stale(self: GatewaySession, dial: Any, now: float) -> None:
        count = self._receiver.count
        self._receiver.count = max(0, count - 1)
        try:
            accept(self, dial, now)
        finally:
            self._receiver.count = max(count, self._receiver.count)

    broken(GatewaySession, "accept", stale)


@rule
def the_offer_in_a_dial_is_taken_again(broken: Breaker) -> None:
    accept = GatewaySession.accept

    def again(self: GatewaySession, dial: Any, now: float) -> None:
        if dial.lease and self._receiver.count:
            self._handlers[Lease](decode(dial.lease), now)
        accept(self, dial, now)

    broken(GatewaySession, "accept", again)


@rule
def the_offer_in_a_dial_is_not_counted(broken: Breaker) -> None:
    accept = GatewaySession.accept

    def uncounted(self: GatewaySession, dial: Any, now: float) -> None:
        with patch.object(ReceiveLedger, "receive", lambda self, size, now: None):
            accept(self, dial, now)

    broken(GatewaySession, "accept", uncounted)


@rule
def an_offer_that_a_gateway_left_in_the_dial_is_not_replayed(broken: Breaker) -> None:
    attach = FunctionSession._attach

    def taken(self: FunctionSession, peer_received: int, now: float) -> None:
        attach(self, max(peer_received, int(bool(self._opening))), now)

    broken(FunctionSession, "_attach", taken)


@rule
def what_the_offer_in_a_dial_brings_goes_before_welcome(broken: Breaker) -> None:
    frames_to_send = GatewaySession.frames_to_send

    def hasty(self: GatewaySession, budget: int, now: float) -> list[bytes]:
        welcome, *others = frames_to_send(self, budget, now) or [b""]
        return [*others, welcome] if welcome else []

    broken(GatewaySession, "frames_to_send", hasty)


@rule
def nothing_is_replayed(broken: Breaker) -> None:
    def rewind(self: SendLedger, received: int) -> None:
        self.release(received)
        self._position = len(self._kept)
        self.round_trip = None

    broken(SendLedger, "rewind", rewind)


@rule
def everything_is_replayed(broken: Breaker) -> None:
    def rewind(self: SendLedger, received: int) -> None:
        self._position = 0
        self.round_trip = None

    broken(SendLedger, "rewind", rewind)


@rule
def a_replayed_count_is_taken_for_a_lie(broken: Breaker) -> None:
    release = SendLedger.release
    broken(SendLedger, "release", lambda self, received, now=None, *, may_be_old=False: release(self, received, now))


@rule
def nothing_is_held_back_at_the_limit(broken: Breaker) -> None:
    broken(SendLedger, "has_room", lambda self, size: True)


@rule
def control_frames_pass_the_whole_bound(broken: Breaker) -> None:
    broken(SendLedger, "has_control_room", lambda self, size: True)


@rule
def nothing_is_acknowledged(broken: Breaker) -> None:
    broken(ReceiveLedger, "receive", lambda self, size, now: setattr(self, "count", self.count + 1))


@rule
def one_frame_too_many_is_acknowledged(broken: Breaker) -> None:
    state = ReceiveLedger.state
    broken(ReceiveLedger, "state", lambda self: state(self) + 1)


@rule
def parks_are_not_answered(broken: Breaker) -> None:
    broken(GatewaySession, "_on_park", lambda self, frame, now: None)


@rule
def parks_are_always_answered(broken: Breaker) -> None:
    def answer(self: GatewaySession, frame: Any, now: float) -> None:
        if frame.lease == self.lease and self.lease_state.value == "leased":
            self._answer_park(frame)

    broken(GatewaySession, "_on_park", answer)


@rule
def parked_acknowledges_nothing(broken: Breaker) -> None:
    on_parked = FunctionSession._on_parked

    def silent(self: FunctionSession, frame: Any, now: float) -> None:
        with patch.object(SendLedger, "release", lambda *_, **__: None):
            on_parked(self, frame, now)

    broken(FunctionSession, "_on_parked", silent)


@rule
def a_parked_link_keeps_its_timers(broken: Breaker) -> None:
    broken(Session, "_disarm", lambda self: None)


@rule
def a_parked_link_outlives_its_socket(broken: Breaker) -> None:
    lost = GatewaySession.socket_lost

    def outlive(self: GatewaySession, now: float) -> Any:
        if self.is_leased:
            return lost(self, now)
        self._detach()
        return self.pending_events()

    broken(GatewaySession, "socket_lost", outlive)


@rule
def a_link_that_asks_to_park_is_not_resumed(broken: Breaker) -> None:
    lost = FunctionSession.socket_lost

    def give_up(self: FunctionSession, now: float) -> Any:
        return self.end("lost while parking") if self.lease_state.value == "parking" else lost(self, now)

    broken(FunctionSession, "socket_lost", give_up)


@rule
def a_park_behind_slow_data_is_given_up(broken: Breaker) -> None:
    broken(FunctionSession, "_on_timeout", lambda self, name, now: self._end(name))


@rule
def silence_is_not_noticed(broken: Breaker) -> None:
    broken(session_module, "SILENCE_PINGS", 1_000_000)


@rule
def the_grace_never_ends(broken: Breaker) -> None:
    lost = GatewaySession.socket_lost

    def forget(self: GatewaySession, now: float) -> Any:
        events = lost(self, now)
        self._deadlines.pop("grace", None)
        return events

    broken(GatewaySession, "socket_lost", forget)


@rule
def an_answer_ends_its_lease_at_once(broken: Breaker) -> None:
    broken(GatewaySession, "invocation_answered", lambda self, now: self.end("answered") if self.is_leased else [])


@rule
def an_answer_ends_nothing(broken: Breaker) -> None:
    broken(GatewaySession, "invocation_answered", lambda self, now: [])


@rule
def places_are_not_respected(broken: Breaker) -> None:
    broken(GatewaySession, "can_open", property(lambda self: self.is_attached and self.is_leased))


@rule
def a_request_that_waits_can_not_be_withdrawn(broken: Breaker) -> None:
    stop, reset = Streams.stop, Streams.reset

    def mark(self: Streams, stream: int, code: int) -> None:
        found = self._streams.get(stream)
        if found is None or found.is_announced:
            stop(self, stream, code)
        else:
            found.is_discarding = True

    def keep(self: Streams, stream: int, code: int, reason: str = "") -> None:
        found = self._streams.get(stream)
        if found is not None and (found.send_state not in TERMINAL or found.queue):
            reset(self, stream, code, reason)

    broken(Streams, "stop", mark)
    broken(Streams, "reset", keep)


@rule
def a_reset_discards_nothing(broken: Breaker) -> None:
    broken(Stream, "discard_unsent", lambda self: None)


@rule
def an_end_overtakes_its_data(broken: Breaker) -> None:
    join = Scheduler._join_data

    def hurry(self: Scheduler, stream: Stream) -> bytes:
        if len(stream.queue) > 1 and type(stream.queue[-1]) is QueuedEnd:
            stream.queue.rotate(1)
        return join(self, stream)

    broken(Scheduler, "_join_data", hurry)


@rule
def credit_is_not_respected(broken: Breaker) -> None:
    broken(SendCredit, "available", property(lambda self: 1 << 20))


@rule
def a_body_in_its_response_needs_no_credit(broken: Breaker) -> None:
    whole = scheduler_module._whole_response

    def anyway(stream: Stream, head: bytes) -> bytes | None:
        limit, stream.send_credit.limit = stream.send_credit.limit, 1 << 40
        try:
            return whole(stream, head)
        finally:
            stream.send_credit.limit = limit

    broken(scheduler_module, "_whole_response", anyway)


@rule
def a_body_travels_in_its_response_before_it_is_whole(broken: Breaker) -> None:
    def early(stream: Stream, head: bytes) -> bytes | None:
        first = stream.queue[0] if stream.queue else None
        return with_body(head, first) if isinstance(first, bytes) and len(first) == stream.queued else None

    broken(scheduler_module, "_whole_response", early)


@rule
def a_body_that_travelled_in_its_response_goes_again(broken: Breaker) -> None:
    whole = scheduler_module._whole_response

    def again(stream: Stream, head: bytes) -> bytes | None:
        if (found := whole(stream, head)) is not None:
            stream.queue = Kept(stream.queue)
        return found

    broken(scheduler_module, "_whole_response", again)


@rule
def credit_is_granted_without_consumption(broken: Breaker) -> None:
    def grant(self: ReceiveCredit) -> int:
        self.granted += self.window
        return self.granted

    broken(ReceiveCredit, "grant", grant)


@rule
def some_grants_are_lost(broken: Breaker) -> None:
    granted = Streams._granted
    broken(
        Streams,
        "_granted",
        lambda self, stream, offset: granted(self, stream, None if offset and offset % 7 == 0 else offset),
    )


@rule
def a_budget_has_no_end(broken: Breaker) -> None:
    broken(Budget, "left", property(lambda self: 1 << 40))


@rule
def a_stream_keeps_its_share_of_the_budget(broken: Breaker) -> None:
    broken(ReceiveCredit, "close", lambda self: setattr(self, "consumed", self.granted))


@rule
def what_is_acknowledged_stays_lent(broken: Breaker) -> None:
    release = SendLedger.release

    def forget(self: SendLedger, *arguments: Any, **options: Any) -> None:
        with patch.object(Budget, "lend", lambda self, size: None):
            release(self, *arguments, **options)

    broken(SendLedger, "release", forget)


@rule
def a_session_that_ends_keeps_what_it_was_lent(broken: Breaker) -> None:
    broken(SendLedger, "close", lambda self: None)


@rule
def messages_are_granted_whole(broken: Breaker) -> None:
    on_message = Streams._on_message

    def whole(self: Streams, frame: Any, now: float) -> None:
        stream = self._streams.get(frame.stream)
        with patch.object(Streams, "consume", lambda *_: None):
            on_message(self, frame, now)
        if stream is not None and not frame.last:
            stream.assembly_deferred += max(1, len(frame.payload))

    broken(Streams, "_on_message", whole)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.interpreted("breaks the rules by replacing methods and constants")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_noticed(name: str) -> None:
    with ExitStack() as stack:
        BROKEN[name](Breaker(stack))  # type: ignore[arg-type]
        with pytest.raises(AssertionError):
            for seed in range(SEEDS):
                run(Scenario.of(seed))
