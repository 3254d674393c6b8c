"""One invocation for each request: concurrency 1, no linger, recycled sockets (issue C, 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import paced
from benchmarks.figures import Column, Table, Target
from benchmarks.loads.tiny import wrk

CONNECTIONS: Final = 8
PAUSE: Final = 0.02  # seconds after each answer, in which the environment parks: the next request invokes again
ENVIRONMENTS: Final = 10
TARGET: Final = 220.0  # µs
COUNTED: Final = "dialback_invocations_total"


def run(bench: Bench) -> None:
    table = Table(
        "One invocation for each request",
        f"`concurrency` 1, `linger` 0, up to {ENVIRONMENTS} environments of the local Lambda, frozen between"
        f" invocations. Paced: one connection, and {PAUSE * 1e3:.0f} ms after each answer, in which the"
        f" environment parks. Saturated: wrk with {CONNECTIONS} connections, where a request that waits takes the place"
        " that frees up, and need not invoke.",
        (
            Column("cpu", "µs/request"),
            Column("rate", "requests/s", 0),
            Column("utilisation", "% of its core", 0),
            Column("invocations", "each request", 2),
        ),
    )
    seconds = bench.of(2, 4)
    with Subjects() as subjects:
        ours = subject.Dialback("dialback", bench.folder, places=1, environments=ENVIRONMENTS, keys={"linger": 0})
        subjects.take(ours)
        loads: dict[str, Callable[[], int]] = {
            "saturated": lambda: wrk(ours.port, seconds, CONNECTIONS),
            "paced": lambda: paced(ours.port, 1, PAUSE, seconds),
        }
        loads["saturated"]()  # the environments' cold starts
        for _ in range(bench.rounds):
            for name, load in loads.items():
                before = ours.metrics(COUNTED)
                cost, count = bench.cost(ours, load)
                table.add(
                    name,
                    cpu=cost.cpu / count * 1e6,
                    rate=count / cost.wall,
                    utilisation=cost.cpu / cost.wall * 100,
                    invocations=(ours.metrics(COUNTED) - before) / count,
                )
    table.notes.append(
        "Saturated, the rate is bounded by the other core: the local Lambda, its Runtime API, the environments, their"
        " freezing and thawing, and wrk. The gateway's own core has the utilisation that the table says."
    )
    bench.tables.append(table)
    bench.targets.append(
        Target("1", "one invocation per request, gateway CPU", table, "paced", "cpu", TARGET, unit=" µs")
    )
