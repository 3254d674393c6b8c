"""A run that others have disturbed fails and says so; the picture is the same for the same figures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="only `make bench` installs it")

from benchmarks import plot, report
from benchmarks.__main__ import run
from benchmarks.bench import Bench
from benchmarks.figures import Column, Table


@pytest.mark.parametrize(("share", "code"), [(0.02, 0), (0.3, 1)])
def test_a_run_on_a_disturbed_machine_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float, code: int
) -> None:
    bench = Bench(tmp_path, quick=True, disturbances=[0.0, share, share])
    assert run(bench, ["transitions_cost"]) == code
    shown = capsys.readouterr()
    assert ("Too noisy" in shown.out) == ("too noisy: others had 30%" in shown.err) == bool(code)
    assert "| 6 | the machine's cost per request |" in shown.out


def test_a_load_that_breaks_fails_the_run_and_its_absence_is_said(tmp_path: Path) -> None:
    text = report.text(Bench(tmp_path, quick=True), 60.0, ["bulk"])
    assert "The load `bulk` broke" in text


def test_the_same_figures_give_the_same_picture(tmp_path: Path) -> None:
    table = Table("A load", "", (Column("cpu", "µs", ratio=True),))
    other = Table("A bill", "", (Column("billed", "ms", ratio=True),), base="concurrency 1")
    for sample in (1.0, 2.0, 3.0):
        table.add("dialback", cpu=2 * sample)
        table.add("nginx", cpu=sample)
        other.add("concurrency 1", billed=sample)
        other.add("concurrency 20", billed=sample / 10)
    for name in ("one.svg", "other.svg"):
        plot.write(tmp_path / name, [table, other])
    picture = (tmp_path / "one.svg").read_bytes()
    assert picture == (tmp_path / "other.svg").read_bytes()
    assert b"A load" in picture
    assert b"A bill" in picture
