"""Two thousand idle WebSockets and five hundred that talk, through one core (issue D, 3)."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.echoes import Echoes
from benchmarks.figures import Column, Table
from benchmarks.process import LOAD_CORE

IDLE: Final = 2000
ACTIVE: Final = 500
INTERVAL: Final = 0.1  # seconds between the messages of one socket
WARM: Final = 100  # sockets before memory is looked at
ECHO: Final = "benchmarks/workload/echo.py:handler"
ENVIRONMENTS: Final = 2
OPEN: Final = {"linger": 300}


def run(bench: Bench) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    idle, active = bench.of(500, IDLE), bench.of(200, ACTIVE)
    table = Table(
        "WebSockets",
        f"{idle} that are idle and {active} that each have 100 bytes echoed every {INTERVAL * 1e3:.0f} ms:"
        f" {active / INTERVAL:.0f} messages in and as many out each second, by the same ASGI application. The gateway"
        f" has its core, {ENVIRONMENTS} environments and the client the other; `uvicorn, direct` has the first core,"
        " and the application runs in it; nginx before a uvicorn on the other core is what a native proxy takes."
        " Nothing is compressed. CPU: for a message in and its echo out. Memory: what the measured process grew by for"
        " each idle socket.",
        (
            Column("p50", "ms", 2),
            Column("p99", "ms", 2),
            Column("cpu", "µs/message"),
            Column("memory", "KiB/socket"),
            Column("utilisation", "% of its core", 0),
            Column("behind", "% of the other core", 0),
            Column("client", "% of the other core", 0),
            Column("lag", "ms, p99", 2),
        ),
        base="",
    )
    places = (IDLE + ACTIVE + WARM) // ENVIRONMENTS

    def proxied(subjects: Subjects) -> subject.Subject:
        behind = subjects.take(subject.uvicorn(bench.folder, name="uvicorn behind nginx", core=LOAD_CORE))
        return subjects.take(subject.nginx(bench.folder, behind.port, behind=(behind.measured,)))

    ways: dict[str, Callable[[Subjects], subject.Subject]] = {
        "dialback": lambda subjects: subjects.take(
            subject.Dialback(
                "dialback", bench.folder, places=places, environments=ENVIRONMENTS, keys=OPEN, function=ECHO
            )
        ),
        "uvicorn, direct": lambda subjects: subjects.take(subject.uvicorn(bench.folder)),
        "nginx before uvicorn": proxied,
    }
    table.samples = {name: {} for name in ways}
    for name, begin in bench.interleaved(list(ways.items()), bench.of(1, 3)):
        with Subjects() as subjects:
            one = begin(subjects)
            sockets = Echoes(one.port)
            subjects.callback(sockets.close)
            talking = sockets.open(WARM)
            sockets.echo(talking, INTERVAL, 0.5)
            before = one.resident
            sockets.open(idle)
            memory = (one.resident - before) * 1024 / idle
            talking += sockets.open(active - WARM)
            sockets.echo(talking, INTERVAL, 1.0)
            behind = one.behind_cpu()
            cost, seen = bench.cost(one, sockets.echo, talking, INTERVAL, bench.of(2.0, 6.0))
            table.add(
                name,
                p50=statistics.median(seen.latencies) * 1e3,
                p99=statistics.quantiles(seen.latencies, n=100)[98] * 1e3,
                cpu=cost.cpu / len(seen.latencies) * 1e6,
                memory=memory,
                utilisation=cost.cpu / cost.wall * 100,
                behind=(one.behind_cpu() - behind) / cost.wall * 100,
                client=cost.client_cpu / cost.wall * 100,
                lag=statistics.quantiles(seen.lags, n=100)[98] * 1e3,
            )
    bench.tables.append(table)
