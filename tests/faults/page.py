"""docs/faults.md: measured, written and read. `python -m tests.faults.page` from the project's root writes it anew."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tests.e2e import process
from tests.e2e.command import REPOSITORY
from tests.faults import cancels
from tests.faults.cancels import Cancels
from tests.faults.proxy import fault_proxy
from tests.faults.rows import GRACE, LINGER, PING, Kind, Row, all_cases, row, start

PAGE = REPOSITORY / "docs" / "faults.md"
LANES = 3
"""Stacks that are hurt side by side."""
RUNS, WHOLE = 200, 10
HEADER = "| fault | moment | direction | the client saw | ms | the function's code | ms |"

INTRODUCTION = f"""\
# Faults

What a client and a function see of a fault, measured on the real stack: a gateway, functions on the local Lambda with
AWS's runtime client, and between the two a TCP proxy that does harm. Made by `python -m tests.faults.page`; a test
holds that these are the rows and the outcomes. Times are of one run on a small, busy machine, in ms since the fault.

Set for these rows: `session.grace` {GRACE:g} s, `session.ping_interval` {PING:g} s (a silent socket is given up after
{3 * PING:g} s) and `linger` {LINGER:g} s, where the defaults are 30, 10 and 0.1. The download is a GET, the upload
a POST with a body of 1 MiB. *Before the head*: the code runs and has neither read nor written. *After the last byte*:
of the body, to the client or to the code, which has not begun its response to an upload.

"""
RULES = """\

How to read it:

- A link that loses its socket dials again and goes on where it was; nobody notices but by the time.
- A link that stays away for longer than its grace, or whose process is gone, has lost its streams: `502` before the
  head of the response, a cut connection after it. A request that may be repeated (idempotent, its body unread, nothing
  of its response begun) is given to another invocation instead, and its code runs again. A POST that was sent to a
  link is not, although its code may not have begun: that cannot be known.
- A function that says that it is unhealthy ends what it has begun; what comes after that goes to a fresh one.
- A dial that nobody answers is given up after 5 s.
- A client that leaves, by a reset or by closing its half of the connection, cancels the code. While an upload is held
  back, because the code does not read it, that is looked for four times a second; otherwise it is seen at once. A FIN
  that is still behind unsent bytes at the client's side cannot be seen.
- Whatever was complete stays complete.

"""


async def measure_rows(cases: list[tuple[Kind, str, str]], lanes: int = LANES) -> list[Row]:
    """The rows of these cases, in their order, over several stacks at once."""
    found: dict[tuple[Kind, str, str], Row] = {}
    waiting = list(reversed(cases))

    async with AsyncExitStack() as exits:
        started = []
        for _ in range(lanes):
            proxy = await exits.enter_async_context(fault_proxy())
            notes = Path(exits.enter_context(tempfile.TemporaryDirectory()))
            lane = start(proxy, notes)
            exits.callback(lane.stack.stop)
            started.append(lane)
            await asyncio.to_thread(lane.stack.get, "/upload?key=warm")

        async def work(number: int) -> None:
            while waiting:
                case, stack = waiting.pop(), started[number].stack
                try:
                    found[case] = await row(started[number], *case)
                except TimeoutError:
                    states = {pid: process.state(pid) for pid in stack.environments}
                    said = "\n".join((*stack.gateway.lines[-25:], *stack.function.lines[-25:]))
                    raise AssertionError(f"{case[0].name}, {case[1]}, {case[2]} hangs: {states}\n{said}") from None

        async with asyncio.TaskGroup() as workers:
            for number in range(lanes):
                workers.create_task(work(number))
        for lane in started:
            assert not lane.stack.mistakes(), lane.stack.mistakes()
    return [found[case] for case in cases]


async def measure_cancels(runs: int = RUNS, whole: int = WHOLE) -> list[Cancels]:
    """One form after the other."""
    found = []
    for form in cancels.FORMS:
        with tempfile.TemporaryDirectory() as notes:
            found.append(await cancels.measure(form, Path(notes), runs, whole))
    return found


def render(rows: list[Row], cancelled: list[Cancels]) -> str:
    """The page's text."""
    lines = [HEADER, "|---|---|---|---|--:|---|--:|"]
    for each in rows:
        client_ms, function_ms = (f"{ms}" if ms is not None else "" for ms in (each.client_ms, each.function_ms))
        cells = (each.fault, each.moment, each.direction, each.client, client_ms, each.function, function_ms)
        lines.append(f"| {' | '.join(cells)} |")
    return INTRODUCTION + "\n".join(lines) + "\n" + RULES + _render_cancels(cancelled)


def _render_cancels(cancelled: list[Cancels]) -> str:
    runs = len(cancelled[0].latencies)
    lines = [
        "## The client is gone",
        "",
        f"{runs} times each: a stream would last {cancels.LENGTH:g} s, and its client leaves "
        f"{cancels.AFTER * 1000:.0f} ms after the first piece. The time is from there to",
        "the end of the code, which makes a piece each 10 ms: `CancelledError` on the loop, `GeneratorExit` at its",
        "next `yield` in a thread. Billed is what the `REPORT` lines of the invocations say (medians, warm, "
        "`linger` 0).",
        "",
        "| code | p50, ms | p90 | p99 | most | billed, ms | run to its end, ms | saved, ms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in cancelled:
        times = " | ".join(f"{each.quantile(share):.1f}" for share in (0.5, 0.9, 0.99, 1.0))
        billed, whole = (round(statistics.median(values)) for values in (each.billed, each.billed_whole))
        lines.append(f"| {each.form} | {times} | {billed} | {whole} | {each.saved} |")
    return "\n".join(lines) + "\n"


def outcomes(text: str) -> dict[tuple[str, str, str], tuple[str, str]]:
    """What a page says of each row, times apart."""
    table = text.partition(HEADER)[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {(fault, moment, direction): (client, code) for fault, moment, direction, client, _, code, _ in rows}


async def write() -> None:
    """The page, anew."""
    PAGE.write_text(render(await measure_rows(list(all_cases())), await measure_cancels()), encoding="utf-8")


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m tests.faults.page",
        description="Measure every fault, for minutes, and write docs/faults.md anew.",
    ).parse_args()
    asyncio.run(write())
