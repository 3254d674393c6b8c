"""Credit: what may be sent, when a grant is due, when a window widens, and what the memory budget holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalError, ProtocolError
from protocol.flow import INITIAL_WINDOW, MAX_WINDOW, Budget, ReceiveCredit, SendCredit

SLOW = 0.0  # a round trip so short that no window is consumed within two of them
FAST = 1e9


def receiving(window: int = 1000, *, granted: int | None = None, budget: Budget | None = None) -> ReceiveCredit:
    return ReceiveCredit(window, window if granted is None else granted, budget or Budget(), 0.0)


def consumed(credit: ReceiveCredit, size: int, now: float = 1.0, round_trip: float = SLOW) -> int | None:
    """What came, and was consumed at once."""
    credit.receive(size)
    return credit.consume(size, now, round_trip)


class TestSending:
    def test_a_grant_opens_a_closed_window_only_once(self) -> None:
        credit = SendCredit(100)
        assert credit.available == 100
        credit.offset = 100
        assert credit.available == 0
        assert credit.raise_to(150), "it was closed"
        assert credit.available == 50
        assert not credit.raise_to(200), "it was open"
        assert credit.available == 100

    def test_a_grant_that_is_not_higher_is_old(self) -> None:
        credit = SendCredit(100)
        credit.offset = 100
        for limit in (0, 99, 100):
            assert not credit.raise_to(limit)
            assert credit.available == 0

    def test_a_first_credit_of_none_is_closed(self) -> None:
        credit = SendCredit(0)
        assert credit.available == 0
        assert credit.raise_to(1)


class TestReceiving:
    def test_the_last_granted_byte_is_taken_and_the_next_is_not(self) -> None:
        credit = receiving(1000)
        credit.receive(999)
        credit.receive(1)
        credit.receive(0)
        with pytest.raises(ProtocolError):
            credit.receive(1)
        assert credit.received == 1000, "nothing has changed"

    def test_without_any_credit_no_byte_is_taken(self) -> None:
        credit = receiving(1000, granted=0)
        credit.receive(0)
        with pytest.raises(ProtocolError):
            credit.receive(1)
        assert credit.grant() == 1000, "the first credit is the whole window"
        assert credit.grant() is None, "once"
        credit.receive(1000)

    def test_more_is_not_consumed_than_came(self) -> None:
        credit = receiving()
        credit.receive(10)
        for size in (11, -1):
            with pytest.raises(LocalError):
                credit.consume(size, 0.0, SLOW)
        assert credit.consumed == 0
        credit.consume(10, 0.0, SLOW)
        with pytest.raises(LocalError):
            credit.consume(1, 0.0, SLOW)

    def test_a_grant_is_due_at_a_quarter_of_the_window(self) -> None:
        credit = receiving(1000)
        assert consumed(credit, 249) is None
        assert consumed(credit, 1) == 1250
        assert consumed(credit, 249) is None
        assert consumed(credit, 300) == 1799

    def test_a_window_of_a_byte_is_granted_byte_by_byte(self) -> None:
        credit = receiving(1)
        assert [consumed(credit, 1, now=float(second)) for second in (1, 2, 3)] == [2, 3, 4]

    def test_a_window_of_nothing_is_never_granted(self) -> None:
        credit = receiving(0)
        assert credit.grant() is None
        assert credit.consume(0, 0.0, FAST) is None


class TestWidening:
    def test_a_window_consumed_within_two_round_trips_doubles(self) -> None:
        credit = receiving(1000)
        assert consumed(credit, 1000, now=0.2, round_trip=0.1) == 1000 + 2000
        assert credit.window == 2000

    def test_a_window_that_took_longer_does_not(self) -> None:
        credit = receiving(1000)
        assert consumed(credit, 1000, now=0.201, round_trip=0.1) == 2000
        assert credit.window == 1000

    def test_only_a_whole_window_is_measured(self) -> None:
        credit = receiving(1000)
        consumed(credit, 999, now=0.0, round_trip=FAST)
        assert credit.window == 1000
        consumed(credit, 1, now=0.0, round_trip=FAST)
        assert credit.window == 2000

    def test_each_window_is_measured_from_the_end_of_the_last(self) -> None:
        credit = receiving(1000)
        consumed(credit, 1000, now=10.0, round_trip=0.1)  # slow: the measure begins again at 10
        consumed(credit, 999, now=10.1, round_trip=0.1)
        consumed(credit, 1, now=10.2, round_trip=0.1)
        assert credit.window == 2000

    def test_4_mib_is_the_widest(self) -> None:
        credit = ReceiveCredit(3 << 20, 3 << 20, Budget(1 << 40), 0.0)
        consumed(credit, 3 << 20, now=0.0, round_trip=FAST)
        assert credit.window == MAX_WINDOW == 4 << 20
        consumed(credit, 4 << 20, now=0.0, round_trip=FAST)
        assert credit.window == MAX_WINDOW

    def test_only_what_fits_the_budget_widens(self) -> None:
        # When 1000 bytes of two windows were consumed, 1000 are outstanding: with 1000 more, 2000 must fit.
        for total, widened in ((2000, True), (1999, False)):
            budget = Budget(total)
            credit, _other = receiving(1000, budget=budget), receiving(1000, budget=budget)
            consumed(credit, 1000, now=0.0, round_trip=FAST)
            assert (credit.window == 2000) is widened, total
            assert budget.outstanding == (3000 if widened else 2000), "what was granted is never taken back"


class TestBudget:
    def test_closing_gives_back_what_nobody_consumed(self) -> None:
        budget = Budget()
        credit, other = receiving(1000, budget=budget), receiving(500, budget=budget)
        assert budget.outstanding == 1500
        consumed(credit, 100)
        assert budget.outstanding == 1400
        credit.close()
        assert budget.outstanding == 500
        credit.close()
        assert budget.outstanding == 500, "idempotent"
        other.close()
        assert budget.outstanding == 0

    def test_what_comes_after_closing_is_held_to_what_was_granted(self) -> None:
        credit = receiving(1000)
        credit.close()
        credit.receive(1000)
        with pytest.raises(ProtocolError):
            credit.receive(1)

    def test_the_first_window_is_64_kib(self) -> None:
        assert INITIAL_WINDOW == 65_536  # what a peer of this version that states none would be measured by


steps = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 0.01, 1.0])), max_size=60
)


@given(st.lists(st.integers(1, 5000), min_size=3, max_size=3), st.integers(1, 20_000), steps)
def test_whatever_is_consumed_the_sender_goes_on_and_the_sums_agree(
    windows: list[int], total: int, moves: list[tuple[int, float, float, float]]
) -> None:
    budget = Budget(total)
    credits = [receiving(window, budget=budget) for window in windows]
    senders = [SendCredit(window) for window in windows]
    now = 0.0
    for which, sent, taken, passed in moves:
        credit, sender = credits[which], senders[which]
        now += passed
        size = round(sent * sender.available)
        sender.offset += size
        credit.receive(size)
        grant = credit.consume(round(taken * (credit.received - credit.consumed)), now, 0.01)
        if grant is not None:
            assert grant > sender.limit, "grants only rise"
            sender.raise_to(grant)
        assert credit.granted == sender.limit, "nothing is granted unsaid"
        ahead = credit.granted - credit.consumed
        assert credit.window - max(1, credit.window // 4) < ahead <= credit.window, "never stuck, never beyond"
        assert budget.outstanding == sum(one.granted - one.consumed for one in credits)
        assert budget.outstanding <= max(total, sum(windows)) + max(one.window for one in credits)
    for credit in credits:
        credit.close()
    assert budget.outstanding == 0
