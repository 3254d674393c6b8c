"""What Lambda would ask for, by the REPORT lines of the local one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

REPORT: Final = re.compile(
    r"REPORT RequestId: \S+\s+Duration: (?P<duration>[\d.]+) ms\s+Billed Duration: (?P<billed>\d+) ms\s+"
    r"Memory Size: \d+ MB\s+Max Memory Used: (?P<memory>\d+) MB(?:\s+Init Duration: (?P<init>[\d.]+) ms)?"
)


@dataclass(frozen=True, slots=True)
class Report:
    """One invocation's line. Durations in milliseconds, memory in MiB."""

    duration: float
    billed: int
    """With the init phase, as since August 2025."""
    init: float
    """0 where the environment was there already."""
    memory: int


def reports(log: str) -> list[Report]:
    """Of a local Lambda's log, in its order."""
    return [
        Report(float(line["duration"]), int(line["billed"]), float(line["init"] or 0), int(line["memory"]))
        for line in REPORT.finditer(log)
    ]


def billed(lines: Iterable[Report]) -> int:
    """Milliseconds in all."""
    return sum(line.billed for line in lines)


def billed_without_init(lines: Iterable[Report]) -> float:
    """Milliseconds in all that a gateway can know of: it sees what its invocations took, and no environment's init."""
    return sum(line.billed - line.init for line in lines)
