"""Credit: pure arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalError, ProtocolError
from protocol.flow import MAX_WINDOW, SHORT_WINDOW, Budget, ReceiveCredit, SendCredit


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
    credit.receive(99, 0.0)
    credit.receive(1, 0.0)
    credit.receive(0, 0.0)
    with pytest.raises(ProtocolError):
        credit.receive(1, 0.0)
    assert credit.received == 100, "what was refused did not count"


def test_a_grant_is_sent_when_it_has_grown_by_a_quarter() -> None:
    credit = ReceiveCredit(100, 100, Budget(), 0.0)
    credit.receive(100, 0.0)
    assert credit.consume(24, 9.0, 0.0) is None
    assert credit.consume(1, 9.0, 0.0) == 125
    assert credit.consume(24, 9.0, 0.0) is None
    assert credit.consume(51, 9.0, 0.0) == 200


def test_a_window_of_one_byte_grants_each() -> None:
    credit = ReceiveCredit(1, 1, Budget(), 0.0)
    credit.receive(1, 0.0)
    assert credit.consume(1, 9.0, 0.0) == 2


def test_the_first_grant_of_an_expected_body_is_the_window() -> None:
    credit = ReceiveCredit(100, 0, Budget(), 0.0)
    with pytest.raises(ProtocolError):
        credit.receive(1, 0.0)
    assert credit.grant() == 100
    assert credit.grant() is None
    assert credit.receive(100, 9.0) is None, "it waited for the client, too"


def test_the_first_byte_that_needed_a_grant_measures_a_round_trip() -> None:
    credit = ReceiveCredit(100, 100, Budget(), 0.0)
    assert credit.receive(50, 1.0) is None
    assert credit.consume(50, 2.0, 0.0) == 150
    assert credit.receive(50, 2.5) is None, "could be sent without"
    assert credit.consume(50, 2.6, 0.0) == 200
    assert credit.receive(1, 3.0) == 1.0, "since the first of them"
    assert credit.receive(1, 3.1) is None
    assert credit.consume(2, 4.0, 0.0) is None
    assert credit.receive(50, 5.0) is None, "nothing was granted since"


@pytest.mark.parametrize("size", [-1, 51])
def test_more_than_came_can_not_be_consumed(size: int) -> None:
    credit = ReceiveCredit(100, 100, Budget(), 0.0)
    credit.receive(50, 0.0)
    with pytest.raises(LocalError):
        credit.consume(size, 0.0, 0.0)
    assert (credit.consumed, credit.granted) == (0, 100)


class Reader:
    """A receiver whose consumer takes what comes at once, in windows. Its sender always has more."""

    def __init__(self, budget: Budget, *, window: int = 1000, round_trip: float = 0.1) -> None:
        self.credit = ReceiveCredit(window, window, budget, 0.0)
        self.budget = budget
        self.round_trip = round_trip
        self.now = 0.0

    def take(self, seconds: float, size: int | None = None) -> int:
        """Consume a whole window (or `size` bytes) in so many seconds; the window after it."""
        self.now += seconds
        size = self.credit.window if size is None else size
        self.credit.receive(min(size, self.credit.granted - self.credit.received), self.now)
        self.credit.consume(min(size, self.credit.received - self.credit.consumed), self.now, self.round_trip)
        return self.credit.window


class TestWidening:
    def test_a_window_that_is_consumed_within_two_round_trips_doubles(self) -> None:
        reader = Reader(Budget())
        assert reader.take(0.2, 999) == 1000, "not the whole of it yet"
        assert reader.take(0.0, 1) == 2000
        assert reader.credit.granted == 3000

    def test_a_slower_one_does_not(self) -> None:
        assert Reader(Budget()).take(0.21) == 1000

    def test_each_window_is_measured_anew(self) -> None:
        reader = Reader(Budget())
        assert reader.take(1.0) == 1000
        assert reader.take(0.1) == 2000

    def test_up_to_512_kib_a_path_is_taken_for_one_of_50_ms_at_least(self) -> None:
        reader = Reader(Budget(), window=64 << 10, round_trip=0.0001)
        assert [reader.take(0.09) for _ in range(4)] == [128 << 10, 256 << 10, SHORT_WINDOW, SHORT_WINDOW]

    def test_beyond_it_the_path_must_be_as_long(self) -> None:
        reader = Reader(Budget(), window=SHORT_WINDOW, round_trip=0.001)
        assert reader.take(0.0021) == SHORT_WINDOW
        assert reader.take(0.0019) == 2 * SHORT_WINDOW

    def test_it_ends_at_16_mib(self) -> None:
        reader = Reader(Budget(1 << 40), window=MAX_WINDOW // 2 + 1)
        assert MAX_WINDOW == 16 << 20
        assert [reader.take(0.0) for _ in range(2)] == [MAX_WINDOW, MAX_WINDOW]

    def test_one_that_takes_longer_than_sixteen_is_halved_down_to_the_first(self) -> None:
        reader = Reader(Budget())
        assert [reader.take(0.0) for _ in range(3)] == [2000, 4000, 8000]
        assert reader.take(1.6) == 8000
        assert reader.budget.lent == 7000
        assert [reader.take(1.7) for _ in range(4)] == [4000, 2000, 1000, 1000]
        assert reader.budget.lent == 0

    def test_what_was_granted_before_it_narrowed_is_lent_until_it_is_consumed(self) -> None:
        reader = Reader(Budget())
        assert [reader.take(0.0) for _ in range(3)] == [2000, 4000, 8000]
        reader.credit.receive(8000, 0.0)
        reader.credit.consume(4000, 0.0, 0.1)  # half a window: granted again
        reader.credit.receive(4000, 0.0)
        reader.credit.consume(4000, 2.0, 0.1)  # so slowly that it is halved
        assert (reader.credit.window, reader.credit.granted - reader.credit.consumed) == (4000, 4000)
        assert reader.budget.lent == 3000

    def test_it_stops_at_the_budget(self) -> None:
        reader = Reader(Budget(9000))
        assert [reader.take(0.0) for _ in range(4)] == [2000, 4000, 4000, 4000], (
            "8000 - 1000 is more than would be left"
        )
        assert reader.budget.lent == 3000

    def test_it_stops_at_the_budget_that_sessions_share(self) -> None:
        process = Budget(9000)
        one, other = Reader(Budget(within=process)), Reader(Budget(within=process))
        assert [one.take(0.0) for _ in range(3)] == [2000, 4000, 4000]
        assert [other.take(0.0) for _ in range(3)] == [2000, 4000, 4000], "it left as much as it took"
        assert (one.budget.lent, other.budget.lent, process.lent) == (3000, 3000, 6000)
        one.credit.close()
        assert (one.budget.lent, other.budget.lent, process.lent) == (0, 3000, 3000)

    def test_the_first_ones_do_not_keep_everything(self) -> None:
        budget = Budget(32_000)
        readers = [Reader(budget)]
        while readers[0].take(0.0) < 16_000:
            pass
        readers += [Reader(budget) for _ in range(7)]
        for _ in range(20):
            for reader in readers:
                reader.take(0.0)
                assert budget.lent <= budget.total
        windows = sorted(reader.credit.window for reader in readers)
        assert windows[-1] <= 4 * windows[0] and windows[0] >= 2000, windows


def test_closing_gives_the_budget_back_once() -> None:
    budget = Budget()
    one, other = Reader(budget), Reader(budget)
    assert (one.take(0.0), other.take(0.0), budget.lent) == (2000, 2000, 2000)
    one.credit.close()
    one.credit.close()
    assert budget.lent == 1000
    one.credit.receive(2000, 0.0)  # what was granted may still come
    with pytest.raises(ProtocolError):
        one.credit.receive(1, 0.0)


@given(
    window=st.integers(1, 5000),
    steps=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000), st.floats(0, 3)), max_size=60),
    total=st.integers(0, 40_000),
)
def test_what_is_granted_is_consumed_plus_what_is_lent_at_most(
    window: int, steps: list[tuple[int, int, float]], total: int
) -> None:
    process = Budget(total)
    budget = Budget(within=process)
    credit, now = ReceiveCredit(window, window, budget, 0.0), 0.0
    for received, consumed, pause in steps:
        now += pause
        credit.receive(min(received, credit.granted - credit.received), now)
        before = credit.granted
        grant = credit.consume(min(consumed, credit.received - credit.consumed), now, 0.1)
        assert credit.granted == (before if grant is None else grant) >= before
        assert credit.consumed <= credit.received <= credit.granted <= credit.consumed + window + budget.lent
        assert window <= credit.window <= window + budget.lent
        # A quarter at most is kept back: a sender at its limit is never forgotten.
        assert credit.consumed + credit.window - credit.granted < max(1, credit.window // 4)
        assert 0 <= budget.lent == process.lent <= total
    credit.close()
    assert budget.lent == process.lent == 0
