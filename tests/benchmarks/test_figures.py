"""What a benchmark may say: medians, ranges, ratios as wide as both sides make them; and when nothing."""

from __future__ import annotations

import pytest

from benchmarks.figures import Column, Figure, Table, Target, figure

COLUMNS = (Column("cpu", "µs", ratio=True),)


def target(ours: list[float], base: list[float], bound: float, *, at_least: bool = False) -> Target:
    table = Table("a load", "", COLUMNS)
    for name, samples in (("dialback", ours), ("nginx", base)):
        for sample in samples:
            table.add(name, cpu=sample)
    return Target("1", "CPU", table, "dialback", "cpu", bound, base="nginx", at_least=at_least)


def test_a_few_samples_are_as_wide_as_their_extremes_and_many_as_their_quartiles() -> None:
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)
    assert figure([1.0, 2.0, 3.0, 4.0, 100.0]) == Figure(3.0, 2.0, 4.0)
    assert figure([1.0, 2.0, 3.0, 4.0, 100.0]).spread == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("ours", "base", "bound", "verdict"),
    [
        pytest.param([20, 21, 22], [10, 10, 10], 4.5, "met", id="far below"),
        pytest.param([80, 81, 82], [10, 10, 10], 4.5, "missed", id="far above"),
        pytest.param([44, 44.5, 46], [10, 10, 10], 4.5, "met", id="close, and steady"),
        pytest.param([30, 44, 60], [10, 10, 10], 4.5, "too noisy to say", id="on both sides of it"),
        pytest.param([44, 44, 44], [5, 10, 15], 4.5, "too noisy to say", id="the base moved"),
        pytest.param([80, 160, 240], [10, 10, 10], 4.5, "missed", id="wide, and above all the same"),
    ],
)
def test_a_verdict_is_given_only_where_noise_cannot_turn_it(
    ours: list[float], base: list[float], bound: float, verdict: str
) -> None:
    assert target(ours, base, bound).verdict() == verdict


def test_a_rate_is_to_be_at_least_its_bound() -> None:
    assert target([300, 310, 320], [1, 1, 1], 100, at_least=True).verdict() == "met"
    assert target([30, 31, 32], [1, 1, 1], 100, at_least=True).verdict() == "missed"


def test_what_was_not_measured_is_said_to_be_so() -> None:
    assert target([], [1.0], 2.0).verdict() == "not measured"
    assert target([1.0], [], 2.0).verdict() == "not measured"


def test_a_table_has_a_ratio_beside_each_figure_that_wants_one() -> None:
    lines = list(target([20, 20, 20], [10, 10, 10], 1).table.markdown())
    assert lines[0] == "| | cpu, µs | × nginx |"
    assert "| dialback | 20.0 ±0% | 2.00 |" in lines


def test_a_miss_of_the_clock_is_no_miss_where_others_had_the_machine() -> None:
    table = target([80, 81, 82], [10, 10, 10], 4.5).table
    late = Target("1", "p99", table, "dialback", "cpu", 4.5, base="nginx", is_time=True)
    soon = Target("1", "p99", table, "dialback", "cpu", 10, base="nginx", is_time=True)
    assert [late.verdict(share) for share in (0.0, 0.5)] == ["missed", "too noisy to say"]
    assert soon.verdict(0.5) == "met"
    assert target([80, 81, 82], [10, 10, 10], 4.5).verdict(0.5) == "missed"
