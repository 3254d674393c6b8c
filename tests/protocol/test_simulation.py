"""Two sessions under everything that a network and a frozen environment do to them; see `simulation`."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.ledger import MIN_UNACKED_FRAMES
from tests.protocol.simulation import Report, Scenario, run

QUICK = 300  # seeds of the default suite
BLOCK = 500  # seeds of one slow test
BLOCKS = 20  # 10 000 runs


def run_all(seeds: range) -> Report:
    total = Report()
    for seed in seeds:
        report = run(Scenario.of(seed))
        for name in ("outcomes", "losses", "ends"):
            getattr(total, name).update(getattr(report, name))
        total.events += report.events
        total.dials += report.dials
        total.whole += report.whole
        total.most_frames = max(total.most_frames, report.most_frames)
    return total


def test_some_hundred_runs() -> None:
    total = run_all(range(QUICK))
    # What the runs are for did happen in them.
    assert {"end", "trailers", "reset", "cancelled", "withdrawn", "lost"} <= set(total.outcomes)
    assert total.outcomes["lost"] < 0.1 * total.outcomes.total()
    assert total.dials > 2 * QUICK
    assert total.whole > QUICK // 2
    assert total.most_frames > MIN_UNACKED_FRAMES
    assert {"the recycled socket is dead", "a parked link lost its socket"} <= set(total.ends)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_ten_thousand_runs(block: int) -> None:
    total = run_all(range(QUICK + block * BLOCK, QUICK + (block + 1) * BLOCK))
    assert total.outcomes.total() > 2 * BLOCK


scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 1 << 32),
    requests=st.integers(1, 8),
    spread=st.sampled_from((0.0, 0.5)),
    places=st.integers(1, 8),
    cuts=st.integers(0, 6),
    is_harsh=st.booleans(),
    latency=st.sampled_from((0.005, 0.0, 0.1)),
    bandwidth=st.sampled_from((1e9, 1e5)),
    buffer=st.sampled_from((1 << 18, 2000)),
    parts=st.sampled_from((0.0, 1.0)),
    laziness=st.sampled_from((0.0, 0.3)),
    budget=st.sampled_from((1 << 20, 1)),
    linger=st.sampled_from((0.0, 0.05)),
    second_leases=st.booleans(),
    releases=st.integers(0, 2),
    credit=st.sampled_from((4096, 100, 1)),
    data_size=st.sampled_from((1024, 64)),
    chunks=st.integers(1, 10),
    chunk=st.sampled_from((3000, 1)),
    oddities=st.sampled_from((0.0, 0.5)),
    websockets=st.sampled_from((0.0, 0.5)),
    pauses=st.sampled_from((0.0, 0.5)),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios)
def test_a_scenario_that_fails_is_made_small(scenario: Scenario) -> None:
    run(scenario)


def test_a_run_is_the_same_each_time() -> None:
    scenario = Scenario.of(7)
    assert run(scenario) == run(scenario)


def test_seeds_use_every_part_of_a_scenario() -> None:
    used: dict[str, Counter[object]] = {field.name: Counter() for field in fields(Scenario)}
    for seed in range(QUICK):
        for name, values in used.items():
            values[getattr(Scenario.of(seed), name)] += 1
    assert [name for name, values in used.items() if len(values) < 2] == []
