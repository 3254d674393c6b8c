"""A thousand LLM-like streams: what is billed with twenty at once in each environment, and with one (issue C, 5)."""

from __future__ import annotations

import statistics
from typing import Final

from benchmarks import subject
from benchmarks.arrivals import arrive, poisson
from benchmarks.bench import Bench, Subjects
from benchmarks.figures import Column, Table, Target
from benchmarks.invoice import billed

#: Twenty seconds at a twentieth: a piece every 50 ms for a second, 95 % of it waiting.
ANSWER: Final = "/tokens?count=20&interval=0.05&work=0.0025"
PLACES: Final = 20
SPARE: Final = 1.6  # environments of one stream, over the mean of those that are open
TARGET: Final = 0.1
MANY, ONE = f"concurrency {PLACES}", "concurrency 1"


def run(bench: Bench) -> None:
    rates = bench.of({40: 3.0}, {50: 20.0, 10: 10.0})  # seconds, by the streams that come in each
    tables = {
        rate: Table(
            f"What LLM-like streams cost, {rate} a second",
            f"About {rate * seconds:.0f} streams in each round, which come as they come (Poisson, the same moments for"
            " both) and last a second each: a piece every 50 ms, over which the code holds its thread for 2.5 ms. The"
            " real gateway and the local Lambda; billed is what the REPORT lines say. One at a time is as on Lambda:"
            f" `concurrency` 1, `linger` 0. {PLACES} at once: the default linger of 0.1 s. Both begin with warm"
            " environments.",
            (
                Column("billed", "ms/stream", ratio=True),
                Column("per_invocation", "streams"),
                Column("first_byte", "ms, p50"),
                Column("worst", "ms"),
                Column("lasted", "ms, p50", 0),
                Column("lag", "ms, worst"),
            ),
            base=ONE,
        )
        for rate, seconds in rates.items()
    }
    with Subjects() as subjects:
        environments = int(max(rates) * SPARE)
        measured = [
            subjects.take(
                subject.Dialback(
                    name,
                    bench.folder,
                    places=places,
                    environments=environments,
                    keys={"timeouts.dial_back": 120, **keys},
                    function_core=None,
                )
            )
            for name, places, keys in ((MANY, PLACES, {}), (ONE, 1, {"linger": 0}))
        ]
        for one, count in zip(measured, (environments // PLACES * PLACES, environments), strict=True):
            arrive(one.port, ANSWER, [0.0] * count)  # cold starts
        for round_ in range(bench.of(1, 3)):
            for rate, table in tables.items():
                due = poisson(rate, rates[rate], seed=round_)
                for one in bench.interleaved(measured, 1):
                    before = len(one.park())
                    answers = arrive(one.port, ANSWER, due)
                    lines = one.park()[before:]
                    table.add(
                        one.name,
                        billed=billed(lines) / len(due),
                        per_invocation=len(due) / len(lines),
                        first_byte=statistics.median(answer.head for answer in answers) * 1e3,
                        worst=max(answer.head for answer in answers) * 1e3,
                        lasted=statistics.median(answer.whole for answer in answers) * 1e3,
                        lag=max(answer.lag for answer in answers) * 1e3,
                    )
    for table in tables.values():
        table.notes.append(
            "Code that holds its thread sleeps here, and so holds its event loop, but no processor: on Lambda each"
            " environment has its own, and this machine has none for eighty. Twenty such streams fill one environment."
            " Lag: how late the client sent a request, at worst; it is within the first byte."
        )
        bench.tables.append(table)
    busiest = tables[max(rates)]
    bench.targets.append(
        Target("5", "LLM-like streams, billed", busiest, MANY, "billed", TARGET, base=ONE, is_time=True)
    )
