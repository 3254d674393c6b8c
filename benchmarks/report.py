"""RESULTS.md and its plot: what a run found, on what machine, and how much it was disturbed."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import plot, subject
from benchmarks.bench import Bench
from benchmarks.figures import DISTURBANCE_BOUND, SPREAD_BOUND
from benchmarks.process import LOAD_CORE, SUBJECT_CORE

PLOT = "results.svg"


def text(bench: Bench, seconds: float, broken: list[str]) -> str:
    """The whole document."""
    return "\n".join([*_head(bench, seconds, broken), *_targets(bench), *_tables(bench)]) + "\n"


def write(folder: Path, bench: Bench, content: str) -> None:
    """Both files."""
    plot.write(folder / PLOT, bench.tables)
    (folder / "RESULTS.md").write_text(content, encoding="utf-8")


def _head(bench: Bench, seconds: float, broken: list[str]) -> Iterator[str]:
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    kind = "a quick run: a look, not a result" if bench.quick else "a whole run"
    yield "# Benchmark results"
    yield ""
    yield f"<!-- Written by `make bench`. --> {day}, {kind}, {seconds / 60:.0f} minutes."
    yield ""
    yield f"![CPU over nginx's; what is billed over one at a time]({PLOT})"
    yield ""
    yield f"- Machine: {_processor()}, {os.cpu_count()} cores, {_memory():.0f} GiB, Linux {platform.release()}"
    named = ", ".join(f"{name} {version}" for name, version in subject.versions().items())
    yield f"- Python {platform.python_version()} ({sys.implementation.name}), {named}"
    yield (
        f"- What is measured has core {SUBJECT_CORE}; clients, origins and functions have core {LOAD_CORE}. CPU is the"
        " measured process's alone, in nanoseconds by the kernel's scheduler. Loopback: the kernel's work for what a"
        " process receives is charged to it."
    )
    yield (
        f"- Rounds are interleaved, their order drawn anew: {bench.rounds} of them unless said. A cell is the median"
        " and its spread: half the distance between the quartiles (of three samples: between the extremes) over the"
        " median."
    )
    yield (
        f"- Others used the measured core for {bench.disturbance:.0%} of the time (median of the loads),"
        f" {max(bench.disturbances, default=0):.0%} at worst. A quiet machine has below 5 %."
    )
    yield (
        "- `dialback` is the gateway as pip installs it; `dialback, compiled`, what mypyc makes of it, is the image's:"
        " the one that a target has to hold for. Both are judged."
        if len(subject.BUILDS) > 1
        else "- The gateway is the one that pip installs. No compiler was here for the image's, which is compiled."
    )
    yield (
        "- nginx: one worker, `proxy_buffering off`, default buffers, keep-alive to a bare origin (asyncio on uvloop,"
        " answers from memory)."
    )
    if bench.is_disturbed:
        yield "- **Too noisy: run it again on a quiet machine. What follows is a look, not a result.**"
    for name in broken:
        yield f"- **The load `{name}` broke: its figures are missing.**"
    yield ""


def _targets(bench: Bench) -> Iterator[str]:
    yield "## Targets"
    yield ""
    yield (
        f"A target is not decided (and the run has failed) where its bound lies within the range that was seen, and"
        f" that range is wider than ±{SPREAD_BOUND:.0%}; nor is a miss of what a clock says, not CPU, where others had"
        f" more than {DISTURBANCE_BOUND:.0%} of the measured core."
    )
    yield ""
    yield "| issue C | what | target | found | range | |"
    yield "|---|---|---|---|---|---|"
    for target in bench.targets:
        found = target.found()
        over = f" × {target.base}" if target.base else target.unit
        sign = "≥" if target.at_least else "≤"
        seen = f"{_short(found.median)}{over} | {_short(found.low)} to {_short(found.high)}" if found else " | "
        verdict = target.verdict(bench.disturbance)
        bold = "**" if verdict != "met" else ""
        build = ", compiled" if target.subject.endswith("compiled") else ""
        row = f"{target.issue} | {target.text}{build} | {sign} {target.bound:g}{over} | {seen}"
        yield f"| {row} | {bold}{verdict}{bold} |"
    yield ""


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _tables(bench: Bench) -> Iterator[str]:
    for table in bench.tables:
        yield f"## {table.title}"
        yield ""
        yield table.setup
        yield ""
        yield from table.markdown()
        yield ""
        for note in table.notes:
            yield note
            yield ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
