"""From nothing: a crowd before a function that has no environment, and an environment kept awake (issue C, 5)."""

from __future__ import annotations

import statistics
import time
from typing import Final

from benchmarks import subject
from benchmarks.arrivals import Answer, arrive
from benchmarks.bench import Bench, Subjects
from benchmarks.figures import Column, Table, Target
from benchmarks.invoice import billed
from benchmarks.loads.cost import ANSWER, MANY, ONE, PLACES

#: Two cores take long for a hundred starts, and none of them is to wait for the gateway's own limit.
CROWD: Final = {"timeouts.dial_back": 120, "timeouts.queue_wait": 120, "limits.invocation_rate": 10_000}
TARGET: Final = 0.333
STARTS_TARGET: Final = 12.0
KEPT: Final = {"none kept": 0, "min_leased 1": 1}
WARM_UP: Final = 2.5  # seconds after the start of the gateway, in which the environment that is kept has started
PAUSE: Final = 1.0  # seconds between requests
SHORT: Final = "/tokens?count=2&interval=0.05&work=0.0025"


def run(bench: Bench) -> None:
    _crowds(bench)
    _kept(bench)


def _crowds(bench: Bench) -> None:
    crowd = bench.of(50, 100)
    herd = 2 * crowd
    table = Table(
        "Scale-up from nothing",
        f"{crowd} requests at once (in the last row {herd}) for a function that has no environment yet; each then"
        " streams for a second. What is waited for is the first byte. A new gateway and local Lambda for each sample.",
        (
            Column("p50", "ms", 0, ratio=True),
            Column("worst", "ms", 0, ratio=True),
            Column("environments", "started", 0),
            Column("init", "ms, p50", 0),
            Column("billed", "ms/stream", 0),
        ),
        base=ONE,
    )
    crowds: dict[str, tuple[int, int, dict[str, object]]] = {
        MANY: (PLACES, crowd, {}),
        ONE: (1, crowd, {"linger": 0}),
        herd_name(herd): (PLACES, herd, {}),
    }
    table.samples = {name: {} for name in crowds}
    for name, (places, count, keys) in bench.interleaved(list(crowds.items()), bench.of(1, 3)):
        with Subjects() as subjects:
            one = subjects.take(
                subject.Dialback(
                    name.replace(" ", "-"),
                    bench.folder,
                    places=places,
                    environments=count,
                    keys=CROWD | keys,
                    function_core=None,
                )
            )
            waits = [answer.head for answer in arrive(one.port, ANSWER, [0.0] * count)]
            lines = one.park()
            table.add(
                name,
                p50=statistics.median(waits) * 1e3,
                worst=max(waits) * 1e3,
                environments=sum(line.init > 0 for line in lines),
                init=statistics.median(line.init for line in lines if line.init),
                billed=billed(lines) / count,
            )
    table.notes.append(
        "Environments start on this machine's cores, so that a hundred of them at once are slow in a way that Lambda's"
        " are not: there each start has a processor, and what is left of the difference is the number of starts, what"
        " they bill (the init phase is billed), and the account's limits on how many and how fast. Before the first"
        " lease nobody knows how many streams an environment takes: ten starts, at most, find out."
    )
    bench.tables.append(table)
    bench.targets += [
        *(
            Target("5", f"wait from cold, {column}", table, MANY, column, TARGET, base=ONE, is_time=True)
            for column in ("p50", "worst")
        ),
        Target("5", f"environments for {herd} at once", table, herd_name(herd), "environments", STARTS_TARGET, unit=""),
    ]


def herd_name(count: int) -> str:
    return f"{MANY}, {count} at once"


def _kept(bench: Bench) -> None:
    requests = bench.of(3, 5)
    table = Table(
        "An environment kept awake",
        f"`min_leased` 0 and 1: the very first request of a new gateway and function, {WARM_UP} s after they began, and"
        f" {requests - 1} more, {PAUSE:.0f} s apart. Billed: the REPORT lines until the gateway stops, init included.",
        (
            Column("first_of_all", "ms"),
            Column("later", "ms, p50"),
            Column("billed", "s", 2),
            Column("of", "s", 2),
        ),
        base="",
    )
    table.samples = {name: {} for name in KEPT}
    for name, kept in bench.interleaved(list(KEPT.items()), bench.of(1, 3)):
        with Subjects() as subjects:
            began = time.monotonic()
            one = subjects.take(
                subject.Dialback(
                    name.replace(" ", "-"),
                    bench.folder,
                    places=PLACES,
                    environments=2,
                    keys={"min_leased": kept},
                    function_core=None,
                )
            )
            time.sleep(WARM_UP)
            answers = sorted(arrive(one.port, SHORT, [PAUSE * number for number in range(requests)]), key=_due)
            one.measured.stop()
            wall = time.monotonic() - began
            table.add(
                name,
                first_of_all=answers[0].head * 1e3,
                later=statistics.median(answer.head for answer in answers[1:]) * 1e3,
                billed=billed(one.ended()) / 1e3,
                of=wall,
            )
    table.notes.append("What is kept awake costs its time around the clock, 3 600 s an hour each, whether used or not.")
    bench.tables.append(table)


def _due(answer: Answer) -> float:
    return answer.due
