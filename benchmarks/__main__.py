"""`python -m benchmarks [--quick] [LOAD …]`: run the loads, write RESULTS.md; with names, print their tables instead.

Exit code 1: the run was too noisy, or a target could not be judged for that reason, or a load broke.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.figures import NOISY
from benchmarks.process import LOAD_CORE, REPOSITORY

LOADS: Final = (
    "tiny",
    "invocations",
    "first_byte",
    "distance",
    "bulk",
    "stalled",
    "ticks",
    "open_streams",
    "sockets",
    "cost",
    "lingers",
    "cold",
    "transitions_cost",
    "pythons",
    "zips",
)


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="about four minutes: fewer rounds, shorter loads")
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=f"of {', '.join(LOADS)}; all of them without any")
    arguments = parser.parse_args()
    if unknown := set(arguments.loads) - set(LOADS):
        parser.error(f"no such load: {', '.join(sorted(unknown))}")
    alone = os.open(Path(__file__).parent, os.O_RDONLY)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("make bench: another run is on; two would measure each other", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that its folder goes with it
    os.sched_setaffinity(0, {LOAD_CORE})
    folder = Path(tempfile.mkdtemp(prefix="dialback-bench-"))
    try:
        return run(Bench(folder, arguments.quick), arguments.loads)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(bench: Bench, names: list[str]) -> int:
    """The loads in their order, one after the other."""
    began = time.monotonic()
    broken = []
    for name in names or LOADS:
        print(f"{time.monotonic() - began:6.0f} s  {name}", file=sys.stderr, flush=True)
        try:
            importlib.import_module(f"benchmarks.loads.{name}").run(bench)
        except Exception:  # the others' figures are worth having
            traceback.print_exc()
            broken.append(name)
    text = report.text(bench, time.monotonic() - began, broken)
    noisy = [target.text for target in bench.targets if target.verdict(bench.disturbance) == NOISY]
    if names:
        print(text)
    else:
        report.write(REPOSITORY / "benchmarks", bench, text)
        print(f"benchmarks/RESULTS.md is written, {time.monotonic() - began:.0f} s", file=sys.stderr)
    for name in broken:
        print(f"make bench: the load {name} broke; see above", file=sys.stderr)
    for name in noisy:
        print(f"make bench: too noisy to say: {name}", file=sys.stderr)
    if bench.is_disturbed:
        print(f"make bench: too noisy: others had {bench.disturbance:.0%} of the measured core", file=sys.stderr)
    return 1 if broken or noisy or bench.is_disturbed else 0


if __name__ == "__main__":
    sys.exit(main())
