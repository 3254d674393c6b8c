"""Ten thousand open streams: the gateway's memory for each, and the delay of a chunk among them (issue C, 4)."""

from __future__ import annotations

import resource
import statistics
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import TickStreams
from benchmarks.figures import Column, Table, Target

LINKS: Final = 10
OPEN: Final = {"linger": 300}  # the links stay leased from round to round
STREAMS: Final = 10_000
RATE: Final = 1000  # chunks a second, of all streams together
SPARE_PLACES: Final = 50  # in each environment
SPARE: Final = 500  # file descriptors for everything but streams
MEMORY_TARGET: Final = 14.0  # KiB
DELAY_TARGET: Final = 50.0  # ms


def run(bench: Bench) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    streams = bench.of(2000, min(STREAMS, most - SPARE))
    table = Table(
        "Open streams",
        f"{streams} responses that are open at once over {LINKS} links, each with 100 bytes every"
        f" {streams / RATE:.0f} s, so that {RATE} chunks a second pass. Memory: what the gateway grew by.",
        (
            Column("memory", "KiB/stream", 2),
            Column("p50", "ms", 2),
            Column("p99", "ms", 2),
            Column("utilisation", "% of its core", 0),
        ),
    )
    for _ in range(bench.of(2, 3)):
        with Subjects() as subjects:
            one = subjects.take(
                subject.Dialback(
                    "dialback", bench.folder, places=STREAMS // LINKS + SPARE_PLACES, environments=LINKS, keys=OPEN
                )
            )
            TickStreams(one.port, LINKS, 1.0).close()
            one.settle()
            before = one.resident
            opened = TickStreams(one.port, streams, streams / RATE)
            opened.delays(0.5)
            memory = (one.resident - before) * 1024 / streams
            cost, delays = bench.cost(one, opened.delays, bench.of(3.0, 10.0))
            opened.close()
            table.add(
                one.name,
                memory=memory,
                p50=statistics.median(delays) * 1e3,
                p99=statistics.quantiles(delays, n=100)[98] * 1e3,
                utilisation=cost.cpu / cost.wall * 100,
            )
    if streams < STREAMS:
        table.notes.append(f"Not {STREAMS}: a quick run, or file descriptors for {most} files only.")
    bench.tables.append(table)
    bench.targets += [
        Target("4", f"{streams} open streams, memory", table, "dialback", "memory", MEMORY_TARGET, unit=" KiB"),
        Target(
            "4", f"{streams} open streams, delay p99", table, "dialback", "p99", DELAY_TARGET, unit=" ms", is_time=True
        ),
    ]
