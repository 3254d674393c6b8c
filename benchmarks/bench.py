"""A run: where its files are, how long its loads last, and how a subject is measured while a load is on it."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.figures import DISTURBANCE_BOUND, Table, Target
from benchmarks.process import SUBJECT_CORE
from benchmarks.subject import Subject

T = TypeVar("T")
S = TypeVar("S", bound=Subject)
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load cost while it lasted, in seconds."""

    cpu: float
    """Of the measured process."""
    wall: float
    client_cpu: float
    """Of this process, where the lean client runs."""
    disturbance: float
    """Share of the subject's core that somebody else used."""


@dataclass(slots=True)
class Bench:
    """One run of the whole. `quick`: fewer rounds and shorter loads, for a look."""

    folder: Path
    quick: bool
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    disturbances: list[float] = field(default_factory=list)

    @property
    def disturbance(self) -> float:
        """Share of the measured core that others had, in the median of the loads."""
        return statistics.median(self.disturbances or [0.0])

    @property
    def is_disturbed(self) -> bool:
        """So much that the run is none: its clocks mean nothing, and even CPU is dearer where caches are shared."""
        return self.disturbance > DISTURBANCE_BOUND

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    def of(self, quick: T, whole: T) -> T:
        return quick if self.quick else whole

    def interleaved(self, sides: Sequence[T], rounds: int | None = None) -> Iterator[T]:
        """Each once in each round, in an order that is drawn anew."""
        for _ in range(rounds or self.rounds):
            yield from random.sample(sides, len(sides))

    def cost(self, subject: Subject, load: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> tuple[Cost, T]:
        """Call `load`; what it cost, and what it returned."""
        process = subject.measured
        before, client, core, began = process.cpu(), time.process_time(), _busy(SUBJECT_CORE), time.perf_counter()
        result = load(*arguments, **named)
        wall = time.perf_counter() - began
        cpu, client = process.cpu() - before, time.process_time() - client
        disturbance = max(0.0, _busy(SUBJECT_CORE) - core - cpu) / wall
        self.disturbances.append(disturbance)
        return Cost(cpu, wall, client, disturbance), result


class Subjects(ExitStack):
    """Those of one load; all are stopped at its end."""

    def take(self, subject: S) -> S:
        self.callback(subject.stop)
        return subject


def _busy(core: int) -> float:
    """Seconds that a core was not idle, by /proc/stat: all but its fourth and fifth field."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return sum(int(value) for place, value in enumerate(fields[:8]) if place not in (3, 4)) / 100
    return 0.0
