"""Credit: pure arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalError, ProtocolError
from protocol.flow import MAX_WINDOW, Budget, ReceiveCredit, SendCredit


def test_a_grant_opens_a_closed_window_once() -> None:
    credit = SendCredit(100)
    credit.offset = 100
    assert credit.available == 0
    assert credit.raise_to(150)
    assert not credit.raise_to(160), "it was open"
    assert credit.available == 60


def test_an_old_or_repeated_grant_changes_nothing() -> None:
    credit = SendCredit(100)
    credit.offset = 100
    assert not credit.raise_to(100)
    assert not credit.raise_to(50)
    assert credit.limit == 100


def test_the_peer_may_send_to_the_last_granted_byte_and_no_further() -> None:
    credit = ReceiveCredit(100, 100, Budget(), 0.0)
    credit.receive(99)
    credit.receive(1)
    credit.receive(0)
    with pytest.raises(ProtocolError):
        credit.receive(1)
    assert credit.received == 100, "what was refused did not count"


def test_a_grant_is_sent_when_it_has_grown_by_a_quarter() -> None:
    credit = ReceiveCredit(100, 100, Budget(), 0.0)
    credit.receive(100)
    assert credit.consume(24, 9.0, 0.0) is None
    assert credit.consume(1, 9.0, 0.0) == 125
    assert credit.consume(24, 9.0, 0.0) is None
    assert credit.consume(51, 9.0, 0.0) == 200


def test_a_window_of_one_byte_grants_each() -> None:
    credit = ReceiveCredit(1, 1, Budget(), 0.0)
    credit.receive(1)
    assert credit.consume(1, 9.0, 0.0) == 2


def test_the_first_grant_of_an_expected_body_is_the_window() -> None:
    budget = Budget()
    credit = ReceiveCredit(100, 0, budget, 0.0)
    with pytest.raises(ProtocolError):
        credit.receive(1)
    assert budget.outstanding == 0
    assert credit.grant() == 100
    assert credit.grant() is None
    assert budget.outstanding == 100


@pytest.mark.parametrize("size", [-1, 51])
def test_more_than_came_can_not_be_consumed(size: int) -> None:
    budget = Budget()
    credit = ReceiveCredit(100, 100, budget, 0.0)
    credit.receive(50)
    with pytest.raises(LocalError):
        credit.consume(size, 0.0, 0.0)
    assert (credit.consumed, budget.outstanding) == (0, 100)


class TestWidening:
    ROUND_TRIP = 0.1

    def consume(self, credit: ReceiveCredit, size: int, now: float) -> None:
        credit.receive(size)
        credit.consume(size, now, self.ROUND_TRIP)

    def test_a_window_that_is_consumed_within_two_round_trips_doubles(self) -> None:
        credit = ReceiveCredit(1000, 1000, Budget(), 0.0)
        self.consume(credit, 999, 0.2)
        assert credit.window == 1000, "not the whole of it yet"
        self.consume(credit, 1, 0.2)
        assert credit.window == 2000
        assert credit.granted == 3000

    def test_a_slower_one_does_not(self) -> None:
        credit = ReceiveCredit(1000, 1000, Budget(), 0.0)
        self.consume(credit, 1000, 0.21)
        assert credit.window == 1000

    def test_each_window_is_measured_anew(self) -> None:
        credit = ReceiveCredit(1000, 1000, Budget(), 0.0)
        self.consume(credit, 1000, 50.0)
        self.consume(credit, 1000, 50.1)
        assert credit.window == 2000

    def test_it_ends_at_4_mib(self) -> None:
        credit = ReceiveCredit(MAX_WINDOW // 2 + 1, MAX_WINDOW // 2 + 1, Budget(1 << 40), 0.0)
        self.consume(credit, MAX_WINDOW // 2 + 1, 0.0)
        assert credit.window == MAX_WINDOW
        self.consume(credit, MAX_WINDOW, 0.0)
        assert credit.window == MAX_WINDOW

    def test_it_stops_at_the_budget_and_takes_nothing_back(self) -> None:
        budget = Budget(2500)
        one = ReceiveCredit(1000, 1000, budget, 0.0)
        other = ReceiveCredit(1000, 1000, budget, 0.0)
        self.consume(one, 1000, 0.0)
        assert one.window == 2000 and budget.outstanding == 3000, "it fitted when it was decided"
        self.consume(other, 1000, 0.0)
        assert other.window == 1000
        assert one.window == 2000 and one.granted == 3000
        one.close()
        self.consume(other, 1000, 0.0)
        assert other.window == 2000


def test_closing_gives_the_budget_back_once() -> None:
    budget = Budget()
    one = ReceiveCredit(100, 100, budget, 0.0)
    ReceiveCredit(70, 70, budget, 0.0)
    one.receive(50)
    one.consume(50, 0.0, 0.0)
    one.close()
    one.close()
    assert budget.outstanding == 70
    one.receive(50)  # what was granted may still come
    with pytest.raises(ProtocolError):
        one.receive(101)


@given(
    window=st.integers(1, 5000),
    steps=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.floats(0, 0.3)), max_size=60),
)
def test_what_is_granted_is_consumed_plus_the_window_at_most(window: int, steps: list[tuple[int, int, float]]) -> None:
    budget = Budget(20_000)
    credit, now = ReceiveCredit(window, window, budget, 0.0), 0.0
    for received, consumed, pause in steps:
        now += pause
        credit.receive(min(received, credit.granted - credit.received))
        before = credit.granted
        grant = credit.consume(min(consumed, credit.received - credit.consumed), now, 0.1)
        assert credit.granted == (before if grant is None else grant) >= before
        assert credit.consumed <= credit.received <= credit.granted <= credit.consumed + credit.window
        # A quarter at most is kept back: a sender at its limit is never forgotten.
        assert credit.consumed + credit.window - credit.granted < max(1, credit.window // 4)
        assert budget.outstanding == credit.granted - credit.consumed
    credit.close()
    assert budget.outstanding == 0
