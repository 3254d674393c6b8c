"""Figures: samples of a load, by who was measured; medians, spreads, ratios, and what they say of a target.

Knows numbers and names, and nothing of what was measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

SPREAD_BOUND: Final = 0.25
"""Half the range between the quartiles (of fewer than four samples: the whole range), over the median. A target whose
two sides are both within a range that is wider than this is not decided, and the run has failed."""
DISTURBANCE_BOUND: Final = 0.1
"""Of the measured core, in the median of the loads."""
NOISY: Final = "too noisy to say"


@dataclass(frozen=True, slots=True)
class Figure:
    """What some samples say together."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        return (self.high - self.low) / 2 / self.median if self.median else 0.0

    def over(self, base: Figure) -> Figure:
        """The ratio, whose range is as wide as both ranges can make it."""
        return Figure(self.median / base.median, self.low / base.high, self.high / base.low)


def figure(samples: list[float]) -> Figure:
    """Of one sample at least."""
    if len(samples) < 4:
        return Figure(statistics.median(samples), min(samples), max(samples))
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Figure(middle, low, high)


@dataclass(frozen=True, slots=True)
class Column:
    """One quantity. `ratio`: is shown over nginx's too; `spread`: without it where a median may be 0."""

    name: str
    unit: str
    digits: int = 1
    ratio: bool = False
    spread: bool = True


@dataclass(slots=True)
class Table:
    """One load's figures: a row for each subject, a column for each quantity."""

    title: str
    setup: str
    columns: tuple[Column, ...]
    base: str = "nginx"
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, subject: str, **values: float) -> None:
        """One round's samples, by the columns' names with `_` for what is no letter."""
        row = self.samples.setdefault(subject, {})
        for name, value in values.items():
            row.setdefault(name, []).append(value)

    def figure(self, subject: str, column: str) -> Figure | None:
        """None where it was not measured."""
        samples = self.samples.get(subject, {}).get(column)
        return figure(samples) if samples else None

    def _rows(self) -> list[str]:
        """Ours, what they are compared with, the others; without a base, in the order in which they were measured."""
        if not self.base:
            return list(self.samples)
        return sorted(self.samples, key=lambda name: (not name.startswith("dialback"), name != self.base, name))

    def markdown(self) -> Iterator[str]:
        """The table's lines."""
        heads = []
        for column in self.columns:
            heads.append(f"{column.name.replace('_', ' ')}, {column.unit}" if column.unit else column.name)
            if column.ratio:
                heads.append(f"× {self.base}")
        yield f"| | {' | '.join(heads)} |"
        yield "|---" * (len(heads) + 1) + "|"
        for subject in self._rows():
            cells = []
            for column in self.columns:
                found, base = self.figure(subject, column.name), self.figure(self.base, column.name)
                spread = f" ±{found.spread:.0%}" if found and column.spread else ""
                cells.append(f"{found.median:.{column.digits}f}{spread}" if found else "")
                if column.ratio:
                    cells.append(f"{found.median / base.median:.2f}" if found and base else "")
            yield f"| {subject} | {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Target:
    """What a load has to show: a figure, or its ratio to `base`'s, at most (`at_least`: at least) `bound`."""

    issue: str
    text: str
    table: Table
    subject: str
    column: str
    bound: float
    base: str = ""
    at_least: bool = False
    unit: str = "×"
    is_time: bool = False
    """It is what a clock says, not CPU: where others had the machine, it says that, and a miss is no miss."""

    def found(self) -> Figure | None:
        """None where it was not measured."""
        ours = self.table.figure(self.subject, self.column)
        if not self.base or ours is None:
            return ours
        base = self.table.figure(self.base, self.column)
        return ours.over(base) if base else None

    def verdict(self, disturbance: float = 0.0) -> str:
        """`met`, `missed`, `too noisy to say`, or `not measured`. `disturbance`: share of the measured core that others
        had."""
        found = self.found()
        if found is None:
            return "not measured"
        is_split = found.low <= self.bound <= found.high
        if is_split and found.spread > SPREAD_BOUND:
            return NOISY
        if found.median >= self.bound if self.at_least else found.median <= self.bound:
            return "met"
        return NOISY if self.is_time and disturbance > DISTURBANCE_BOUND else "missed"
