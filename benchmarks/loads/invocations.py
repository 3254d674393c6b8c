"""One invocation for each request: concurrency 1, no linger, recycled sockets (issue C, 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import paced
from benchmarks.figures import Column, Table, Target
from benchmarks.loads.tiny import wrk

CONNECTIONS: Final = 2  # few: a request that waits while another ends takes its place, and need not invoke
EACH: Final = 0.9  # invocations for a request, without which something easier was measured
PAUSE: Final = 0.02  # seconds after each answer, in which the environment parks: the next request invokes again
ENVIRONMENTS: Final = 10
BARE_ENVIRONMENTS: Final = 64
TARGET: Final = 220.0  # µs
COUNTED: Final = "dialback_invocations_total"
LINGERS: Final = 5.0  # seconds: a request every 20 ms finds the link leased
RATE: Final = 10_000  # invocations a second: no limit here


def run(bench: Bench) -> None:
    _busy(bench)
    _paced(bench)


def _busy(bench: Bench) -> None:
    """What an invocation costs where the gateway has work, as all the other loads measure it."""
    table = Table(
        "One invocation for each request",
        f"`concurrency` 1, `linger` 0, sockets recycled, wrk with {CONNECTIONS} connections. Before the bare function"
        " (benchmarks/workload/bare_function.py: it takes the POST, leases its link, answers, parks, and is never"
        " frozen) the gateway's core is what sets the rate; before the local Lambda the other core is: its Runtime"
        " API, its environments, their freezing and thawing. There a request that waits takes the place that frees"
        " up, and need not invoke.",
        (
            Column("cpu", "µs/request"),
            Column("rate", "requests/s", 0),
            Column("utilisation", "% of its core", 0),
            Column("invocations", "each request", 2),
        ),
    )
    seconds = bench.of(2, 4)
    bare: dict[str, object] = {"linger": 0, "limits.invocation_rate": RATE}
    with Subjects() as subjects:
        ours = [
            subject.Dialback(
                name, bench.folder, places=1, environments=BARE_ENVIRONMENTS, bare=True, keys=bare, compiled=it
            )
            for name, it in subject.BUILDS.items()
        ]
        quiet = subject.Dialback(
            "dialback, quiet",
            bench.folder,
            places=1,
            environments=BARE_ENVIRONMENTS,
            bare=True,
            keys={**bare, "log.level": "warning"},
        )
        lambdas = subject.Dialback(
            "dialback, local Lambda", bench.folder, places=1, environments=ENVIRONMENTS, keys={"linger": 0}
        )
        measured = [*ours, quiet, lambdas]
        for one in measured:
            subjects.take(one)
            wrk(one.port, 2, CONNECTIONS)  # the environments' cold starts
        for _ in range(bench.rounds):
            for one in measured:
                _measure(bench, table, one, lambda one=one: wrk(one.port, seconds, CONNECTIONS))  # type: ignore[misc]
    bench.tables.append(table)
    for name in subject.BUILDS:
        bench.targets.append(
            Target("1", "one invocation per request, gateway CPU", table, name, "cpu", TARGET, unit=" µs")
        )
    bench.targets.append(
        Target("1", "of which are invocations", table, "dialback", "invocations", EACH, at_least=True, unit="")
    )


def _paced(bench: Bench) -> None:
    """The same where everybody idles in between: what an idle core makes of a request, whoever serves it."""
    table = Table(
        f"A request every {PAUSE * 1e3:.0f} ms",
        f"One connection, and {PAUSE * 1e3:.0f} ms after each answer, in which the environment parks. Whoever is"
        " measured sleeps in between, and finds its caches cold: compare nginx here with nginx above.",
        (
            Column("cpu", "µs/request", ratio=True),
            Column("rate", "requests/s", 0),
            Column("utilisation", "% of its core", 1),
            Column("invocations", "each request", 2),
        ),
    )
    seconds = bench.of(2, 4)
    with Subjects() as subjects:
        origin = subjects.take(subject.origin(bench.folder))
        measured = [
            subject.Dialback(
                "dialback, an invocation each", bench.folder, places=1, environments=ENVIRONMENTS, keys={"linger": 0}
            ),
            subject.Dialback("dialback, an open link", bench.folder, keys={"linger": LINGERS}),
            subject.nginx(bench.folder, origin.port),
            subject.aiohttp_proxy(bench.folder, origin.port),
        ]
        for one in measured:
            subjects.take(one)
            paced(one.port, 1, PAUSE, 1)
        for one in bench.interleaved(measured):
            _measure(bench, table, one, lambda one=one: paced(one.port, 1, PAUSE, seconds))  # type: ignore[misc]
    bench.tables.append(table)


def _measure(bench: Bench, table: Table, one: subject.Subject, load: Callable[[], int]) -> None:
    before = one.metrics(COUNTED) if isinstance(one, subject.Dialback) else 0.0
    cost, count = bench.cost(one, load)
    figures = {
        "cpu": cost.cpu / count * 1e6,
        "rate": count / cost.wall,
        "utilisation": cost.cpu / cost.wall * 100,
    }
    if isinstance(one, subject.Dialback):
        figures["invocations"] = (one.metrics(COUNTED) - before) / count
    table.add(one.name, **figures)
