"""Bulk over a long way, in virtual time: how fast it goes, what readers that stop leave behind, what bounds the sums
(docs/protocol.md §2.4, §2.5, §6.3). Beside each claim stand the broken rules that it must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import pytest

from protocol import flow, ledger
from protocol.flow import INITIAL_WINDOW, MAX_WINDOW, SESSION_BUDGET, SHORT_WINDOW, Budget, ReceiveCredit
from protocol.ledger import MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES, SendLedger
from tests.protocol.simulation import Scenario, run
from tests.protocol.traffic import Direction, Plan

MIB = 1 << 20
CHUNK = 64 << 10
LINE = 300e6  # bytes per second: what two Python processes pass on over loopback

FAR = Scenario(
    latency=0.025,
    bandwidth=LINE,
    buffer=64 * MIB,
    places=100,
    credit=INITIAL_WINDOW,
    data_size=CHUNK,
    unacked=MAX_UNACKED_BYTES,
    function_unacked=MAX_UNACKED_BYTES,
    frames=MAX_UNACKED_FRAMES,
    linger=0.01,
)
NEAR = replace(FAR, latency=0.0002)


def download(number: int = 1, size: int = 128 * MIB, *, hurry: int = 0, stall: float = 0.0, pause: float = 0.0) -> Plan:
    response = Direction((CHUNK,) * (size // CHUNK))
    return Plan(number, Direction(), response, client_hurry=hurry, client_stall=stall, client_pause=pause)


def upload(number: int = 1, size: int = 128 * MIB) -> Plan:
    return Plan(number, Direction((CHUNK,) * (size // CHUNK)), Direction(), waits_for_request=True)


def rate(scenario: Scenario, plan: Plan) -> float:
    """MB/s of one stream, its beginning included."""
    (seconds,) = run(scenario, [plan]).finished
    return sum((*plan.request.sizes, *plan.response.sizes)) / seconds / 1e6


# The claims


def one_stream_is_fast_over_50_ms() -> None:
    for plan in (download(), upload()):
        assert rate(FAR, plan) > 130
        assert rate(NEAR, plan) > 250


def a_peer_with_the_former_limit_is_served_as_fast_as_that_allows() -> None:
    former = 8 * MIB
    assert rate(replace(FAR, function_unacked=former), download()) > 85
    assert rate(replace(FAR, unacked=former), upload()) > 85
    assert rate(replace(FAR, function_unacked=former), upload()) > 130, "what it receives is bounded by the other side"


def a_reader_that_never_reads_holds_its_first_credit() -> None:
    for scenario in (NEAR, FAR):
        assert run(scenario, [download(stall=5.0)]).most_held == INITIAL_WINDOW


def a_reader_that_stops_holds_little_on_a_short_path() -> None:
    assert run(NEAR, [download(hurry=64 * MIB, stall=5.0)]).most_held <= SHORT_WINDOW


def a_reader_that_stops_holds_a_window_on_a_long_one() -> None:
    assert SHORT_WINDOW < run(FAR, [download(hurry=64 * MIB, stall=5.0)]).most_held <= MAX_WINDOW


def a_reader_that_turns_slow_loses_its_window() -> None:
    report = run(FAR, [download(hurry=64 * MIB, pause=0.01)])
    assert report.most_held > 8 * MIB and report.last_window <= 4 * MIB


def the_streams_of_a_link_share_what_it_has() -> None:
    report = run(FAR, [download(number, 12 * MIB) for number in range(1, 21)])
    assert 20 * MIB < report.most_lent <= SESSION_BUDGET


def the_first_streams_leave_something_to_the_others() -> None:
    """Two have all that they want before the others come."""
    others = [replace(download(number, 8 * MIB), at=1.0) for number in range(3, 7)]
    report = run(FAR, [download(1, 384 * MIB), download(2, 384 * MIB), *others])
    assert report.finished[3] < 2.5, report.finished


def the_links_of_a_process_share_what_it_has() -> None:
    crowd = replace(FAR, environments=6, places=2, windows=24 * MIB, replay=8 * MIB)
    report = run(crowd, [(upload if number % 2 else download)(number, 16 * MIB) for number in range(1, 13)])
    assert 12 * MIB < report.most_lent <= 24 * MIB
    assert 4 * MIB < report.most_replay < 9 * MIB


def a_link_goes_on_when_the_others_have_everything() -> None:
    report = run(replace(FAR, environments=6, places=2, replay=0), [upload(number, 8 * MIB) for number in range(1, 13)])
    assert report.finished[-1] < 10


def a_sender_keeps_what_its_path_needs() -> None:
    assert run(NEAR, [download()]).most_bytes < 2 * MIB
    assert 8 * MIB < run(FAR, [download()]).most_bytes <= MAX_UNACKED_BYTES


CLAIMS = (
    one_stream_is_fast_over_50_ms,
    a_peer_with_the_former_limit_is_served_as_fast_as_that_allows,
    a_reader_that_never_reads_holds_its_first_credit,
    a_reader_that_stops_holds_little_on_a_short_path,
    a_reader_that_stops_holds_a_window_on_a_long_one,
    a_reader_that_turns_slow_loses_its_window,
    the_streams_of_a_link_share_what_it_has,
    the_first_streams_leave_something_to_the_others,
    the_links_of_a_process_share_what_it_has,
    a_link_goes_on_when_the_others_have_everything,
    a_sender_keeps_what_its_path_needs,
)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_claim_holds(claim: Callable[[], None]) -> None:
    claim()


# Whether they would notice


def _greedy(self: ReceiveCredit, took: float, round_trip: float) -> None:
    """First come, first served."""
    wider = min(2 * self.window, MAX_WINDOW)
    if took <= 2 * round_trip and wider - self.window <= self._budget.left:
        self.window = wider
        self._borrow(max(self._lent, wider - self._first))


def _without_own(self: SendLedger, size: int) -> bool:
    return self.bytes + size <= self._hold_bytes and (self._budget is None or size <= self._budget.left)


def _never_back(self: Budget, size: int) -> None:
    self.lent += max(0, size)


def _alone(self: Budget, size: int) -> None:
    self.lent += size


BROKEN: tuple[tuple[str, object, str, object, Callable[[], None]], ...] = (
    ("windows end at 4 MiB", flow, "MAX_WINDOW", 4 * MIB, one_stream_is_fast_over_50_ms),
    ("windows do not widen", flow, "_FAST", -1, one_stream_is_fast_over_50_ms),
    (
        "8 MiB at most are kept",
        SendLedger,
        "has_room",
        lambda self, size: self.bytes + size <= 7 * MIB,
        one_stream_is_fast_over_50_ms,
    ),
    (
        "a late acknowledgement measures the way",
        ReceiveCredit,
        "receive",
        lambda self, size, now: setattr(self, "received", self.received + size),
        a_reader_that_stops_holds_little_on_a_short_path,
    ),
    ("every path is a long one", flow, "SHORT_WINDOW", MAX_WINDOW, a_reader_that_stops_holds_little_on_a_short_path),
    ("nothing narrows", flow, "_SLOW", 1e9, a_reader_that_turns_slow_loses_its_window),
    (
        "a budget has no end",
        Budget,
        "left",
        property(lambda self: 1 << 40),
        the_streams_of_a_link_share_what_it_has,
    ),
    ("the first have everything", ReceiveCredit, "_resize", _greedy, the_first_streams_leave_something_to_the_others),
    ("a process has no budget", Budget, "lend", _alone, the_links_of_a_process_share_what_it_has),
    (
        "replay is not bounded",
        SendLedger,
        "has_room",
        lambda self, size: True,
        the_links_of_a_process_share_what_it_has,
    ),
    ("nobody has an own share", SendLedger, "has_room", _without_own, a_link_goes_on_when_the_others_have_everything),
    ("nothing is given back", Budget, "lend", _never_back, the_links_of_a_process_share_what_it_has),
    ("acknowledged by quarters alone", ledger, "ACK_BYTES", 1 << 40, a_sender_keeps_what_its_path_needs),
)


@pytest.mark.interpreted("breaks the rules by replacing methods and constants")
@pytest.mark.parametrize(
    ("owner", "name", "value", "claim"), [rule[1:] for rule in BROKEN], ids=[rule[0] for rule in BROKEN]
)
def test_a_broken_rule_is_noticed(owner: object, name: str, value: object, claim: Callable[[], None]) -> None:
    with patch.object(owner, name, value), pytest.raises(AssertionError):
        claim()
