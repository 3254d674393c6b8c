"""Requests that come when they come: each is sent in its time, whatever became of the others."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvloop", reason="not on this platform")

from benchmarks import subject
from benchmarks.arrivals import arrive, poisson
from benchmarks.client import Broken


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subject.Subject]:
    started = subject.origin(Path(tmp_path_factory.mktemp("bench")))
    yield started
    started.stop()


def test_requests_do_not_wait_for_each_other(origin: subject.Subject) -> None:
    due = [0.0, 0.1, 0.2]
    answers = arrive(origin.port, "/ticks?count=4&interval=0.1&wait=0.1", due)
    assert sorted(answer.due for answer in answers) == due
    for answer in answers:
        assert answer.lag <= answer.head < answer.whole
        assert answer.whole >= 0.4
    first, second, third = sorted(answers, key=lambda answer: answer.due)
    assert max(second.due + second.lag, third.due + third.lag) < first.whole


def test_what_is_no_whole_success_is_not_measured(origin: subject.Subject) -> None:
    with pytest.raises(Broken):
        arrive(origin.port, "/bulk?size=none", [0.0])


def test_chance_is_the_same_for_everybody() -> None:
    due = poisson(50, 20, seed=1)
    assert due == poisson(50, 20, seed=1) != poisson(50, 20, seed=2)
    assert due == sorted(due)
    assert 0 < due[0] and due[-1] < 20
    assert 800 < len(due) < 1200
    gaps = [later - earlier for earlier, later in zip(due, due[1:], strict=False)]
    assert 0.7 < statistics.stdev(gaps) / statistics.mean(gaps) < 1.3
