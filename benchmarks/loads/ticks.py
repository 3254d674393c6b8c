"""A thousand streams with 100 bytes every 100 ms, over ten links: CPU and delay of a small chunk (issue C, 4)."""

from __future__ import annotations

import statistics
import time
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import TickStreams
from benchmarks.figures import Column, Table, Target
from benchmarks.process import LOAD_CORE
from benchmarks.subject import Subject

STREAMS: Final = 1000
LINKS: Final = 10
OPEN: Final = {"linger": 300}  # the links stay leased from round to round
SPARE: Final = 5  # places in each environment: a request that finds none at all is refused, not kept waiting
INTERVAL: Final = 0.1  # seconds
WARM_UP: Final = 0.5  # seconds
CPU_TARGET: Final = 30.0  # µs
DELAY_TARGET: Final = 3.0


def _nginx_before_processes(bench: Bench, subjects: Subjects) -> Subject:
    """The application by uvicorn, a process for each environment: what our functions do, without the gateway."""
    many = [subjects.take(subject.uvicorn(bench.folder, core=LOAD_CORE)) for _ in range(LINKS)]
    return subject.nginx(
        bench.folder,
        *(one.port for one in many),
        name=f"nginx, {LINKS} processes behind",
        behind=tuple(one.measured for one in many),
    )


def run(bench: Bench) -> None:
    table = Table(
        f"{STREAMS} streams, 100 bytes every 100 ms",
        f"{STREAMS / INTERVAL:.0f} chunks a second over {LINKS} links, with credit, acknowledgements, metrics and log"
        " on. The delay is from the making of a chunk to its arrival: the function's, the client's and the machine's"
        " own delays are in it, which is why one subject at a time has its streams open. `behind`: what functions or"
        " origins take of the core that they share with the client. nginx's origin, like the bare function, is one"
        " process that answers from memory; behind the second nginx stands the application in as many processes as"
        " there are environments.",
        (
            Column("cpu", "µs/chunk", ratio=True),
            Column("p50", "ms", 2),
            Column("p99", "ms", 2, ratio=True),
            Column("rate", "chunks/s", 0),
            Column("client", "% of its core", 0),
            Column("behind", "% of the same", 0, spread=False),
        ),
    )
    with Subjects() as subjects:
        behind = subjects.take(subject.origin(bench.folder))
        measured = [
            *(
                subjects.take(
                    subject.Dialback(
                        name,
                        bench.folder,
                        places=STREAMS // LINKS + SPARE,
                        environments=LINKS,
                        keys=OPEN,
                        compiled=it,
                    )
                )
                for name, it in subject.BUILDS.items()
            ),
            subjects.take(
                subject.Dialback(
                    "dialback, bare function",
                    bench.folder,
                    places=STREAMS // LINKS + SPARE,
                    environments=LINKS,
                    keys=OPEN,
                    bare=True,
                )
            ),
            subjects.take(subject.nginx(bench.folder, behind.port, behind=(behind.measured,))),
            subjects.take(_nginx_before_processes(bench, subjects)),
            subjects.take(subject.aiohttp_proxy(bench.folder, behind.port)),
            subjects.take(subject.uvicorn(bench.folder)),
        ]
        for one in bench.interleaved(measured):
            one.settle()
            streams = TickStreams(one.port, STREAMS, INTERVAL)
            try:
                behind_cpu, began = one.behind_cpu(), time.perf_counter()
                streams.delays(WARM_UP)  # what came while the processes were counted is late, and not for its own sake
                cost, delays = bench.cost(one, streams.delays, bench.of(1.0, 4.0))
                behind_cpu, wall = one.behind_cpu() - behind_cpu, time.perf_counter() - began
            finally:
                streams.close()
            table.add(
                one.name,
                cpu=cost.cpu / len(delays) * 1e6,
                p50=statistics.median(delays) * 1e3,
                p99=statistics.quantiles(delays, n=100)[98] * 1e3,
                rate=len(delays) / cost.wall,
                client=cost.client_cpu / cost.wall * 100,
                behind=behind_cpu / wall * 100,
            )
    bench.tables.append(table)
    for name in subject.BUILDS:
        bench.targets.append(Target("4", "small chunks, CPU", table, name, "cpu", CPU_TARGET, unit=" µs"))
        bench.targets.append(
            Target("4", "small chunks, delay p99", table, name, "p99", DELAY_TARGET, base="nginx", is_time=True)
        )
