"""docs/faults.md says what happens; and what happens when a client leaves is what issue B asks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.command import REPOSITORY
from tests.e2e.lag import Lag
from tests.faults.page import INTRODUCTION, PAGE, RULES, RUNS, measure_cancels, measure_rows, outcomes
from tests.faults.rows import MOMENTS, all_cases

SOON = 100.0
"""Ms from the client's leaving to the end of the function's code."""
QUICK = {
    "the link's socket is reset",
    "cut in the middle of a frame",
    "the function's process is killed",
    "the client resets",
}
ADVICE = "run: python -m tests.faults.page"


def test_the_page_has_a_row_for_each_fault_and_moment() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(INTRODUCTION) and RULES in text, ADVICE
    assert list(outcomes(text)) == [(kind.name, MOMENTS[moment], way) for kind, moment, way in all_cases()], ADVICE
    assert f"{RUNS} times each" in text


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--quick", 2), ("faults.md", 2)])
def test_the_command_measures_nothing_unless_it_is_asked_to(argument: str, status: int) -> None:
    before = PAGE.stat().st_mtime_ns
    command = (sys.executable, "-m", "tests.faults.page", argument)
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, PAGE.stat().st_mtime_ns) == (status, before)
    assert "usage: python -m tests.faults.page" in run.stdout + run.stderr


@pytest.mark.parametrize(
    "is_quick", [True, pytest.param(False, marks=[pytest.mark.slow, pytest.mark.timeout(600)])], ids=["some", "all"]
)
async def test_what_happens_is_what_the_page_says(is_quick: bool) -> None:
    cases = [case for case in all_cases() if not is_quick or (case[0].name in QUICK and case[1] != "dial")]
    said = outcomes(PAGE.read_text(encoding="utf-8"))
    seen = {found.key: (found.client, found.function) for found in await measure_rows(cases)}
    assert len(seen) == len(cases)
    assert {key: (said[key], now) for key, now in seen.items() if said[key] != now} == {}, ADVICE


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_code_is_stopped_soon_after_its_client_has_left(lag: Lag) -> None:
    for found in await measure_cancels():
        times = " ".join(f"{found.quantile(share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))
        print(f"\n{found.form}: p50, p90, p99, most: {times} ms; {found.saved} ms of the bill saved")
        assert found.quantile(0.5) < SOON and found.quantile(0.99) < lag.allow(SOON / 1000) * 1000
        assert found.saved > 1500
