"""What staying awake costs and gives, for some patterns of arrivals; the bill as either side has it (issue C, 5)."""

from __future__ import annotations

import statistics
from typing import Final

from benchmarks import subject
from benchmarks.arrivals import arrive, poisson
from benchmarks.bench import Bench, Subjects
from benchmarks.figures import Column, Table, Target
from benchmarks.invoice import billed, billed_without_init

LINGERS: Final = (0.0, 0.1, 1.0)  # seconds
ANSWER: Final = "/tokens?count=4&interval=0.05&work=0.0025"
PLACES: Final = 20
BURST: Final = 20  # requests at the same moment
BURST_PAUSE: Final = 2.0  # seconds
SPARSE_PAUSE: Final = 1.6  # seconds: longer than any linger
STEADY_RATE: Final = 5.0  # a second
AGREEMENT_TARGET: Final = 5.0  # %


def patterns(seconds: float, seed: int) -> dict[str, list[float]]:
    """When requests are due, in seconds."""
    return {
        "steady": poisson(STEADY_RATE, seconds, seed),
        "bursts": [BURST_PAUSE * number for number in range(int(seconds / BURST_PAUSE)) for _ in range(BURST)],
        "sparse": [SPARSE_PAUSE * number for number in range(int(seconds / SPARSE_PAUSE))],
    }


def run(bench: Bench) -> None:
    seconds = bench.of(2.0, 5.0)
    costs = Table(
        "What lingering costs",
        f"Streams of 0.2 s, up to {PLACES} in each environment. Steady: {STEADY_RATE:.0f} a second, which know nothing"
        f" of each other. Bursts: {BURST} at once every {BURST_PAUSE:.0f} s. Sparse: one every {SPARSE_PAUSE} s. Waste:"
        " of the time in which environments were awake, that without a stream.",
        (
            Column("billed", "ms/stream", 0),
            Column("per_invocation", "streams"),
            Column("waste", "%", 0, spread=False),
            Column("first_byte", "ms, p50"),
            Column("worst", "ms"),
        ),
        base="",
    )
    bills = Table(
        "The bill, by the gateway and by Lambda",
        "`dialback_billed_seconds_total` beside the sum of the same invocations' REPORT lines, all patterns together.",
        (
            Column("reported", "s", 2),
            Column("counted", "s", 2),
            Column("difference", "%", 2, spread=False),
            Column("per_invocation", "ms apart", 2, spread=False),
        ),
        base="",
    )
    with Subjects() as subjects:
        measured = {
            linger: subjects.take(
                subject.Dialback(
                    f"linger {linger:g}", bench.folder, places=PLACES, environments=4, keys={"linger": linger}
                )
            )
            for linger in LINGERS
        }
        for one in measured.values():
            arrive(one.port, ANSWER, [0.0] * PLACES * 2)  # cold starts
        rows = [f"{pattern}, linger {linger:g} s" for pattern in patterns(1.0, 0) for linger in LINGERS]
        costs.samples = {row: {} for row in rows}
        bills.samples = {one.name: {} for one in measured.values()}
        for round_ in range(bench.of(1, 3)):
            for one in bench.interleaved(list(measured.values()), 1):
                begun = one.park()
                counted = one.metrics("dialback_billed_seconds_total")
                for pattern, due in patterns(seconds, round_).items():
                    costs.add(f"{pattern}, {one.name} s", **_cost(one, due))
                lines = one.park()[len(begun) :]
                counted = one.metrics("dialback_billed_seconds_total") - counted
                reported = billed_without_init(lines) / 1e3
                bills.add(
                    one.name,
                    reported=reported,
                    counted=counted,
                    difference=abs(counted / reported - 1) * 100,
                    per_invocation=(reported - counted) / len(lines) * 1e3,
                )
    costs.notes.append(
        "On Lambda an invocation of a warm environment takes longer than here, and so does the first byte of each"
        " request that needs one."
    )
    bills.notes.append(
        "Without the init phase, which Lambda bills with an environment's first invocation and a gateway cannot see."
        " What is left between the two is the runtime's own time round the handler, as much for each invocation, so"
        " that invocations of a few milliseconds would differ by more than these."
    )
    bench.tables += [costs, bills]
    bench.targets += [
        Target("5", f"bill against REPORT lines, {name}", bills, name, "difference", AGREEMENT_TARGET, unit=" %")
        for name in bills.samples
    ]


def _cost(one: subject.Dialback, due: list[float]) -> dict[str, float]:
    """One pattern's figures."""
    before = len(one.park())
    leased, idle = _awake(one)
    answers = arrive(one.port, ANSWER, due)
    lines = one.park()[before:]
    leased_now, idle_now = _awake(one)
    return {
        "billed": billed(lines) / len(due),
        "per_invocation": len(due) / len(lines),
        "waste": (idle_now - idle) / (leased_now - leased) * 100,
        "first_byte": statistics.median(answer.head for answer in answers) * 1e3,
        "worst": max(answer.head for answer in answers) * 1e3,
    }


def _awake(one: subject.Dialback) -> tuple[float, float]:
    """Seconds in which environments were awake, and of those without a stream."""
    return one.metrics("dialback_leased_seconds_total"), one.metrics("dialback_idle_seconds_total")
