"""Tiny responses on open links, 32 connections: CPU for each request (issue C, 1)."""

from __future__ import annotations

import re
import subprocess
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import connect, first_byte
from benchmarks.figures import Column, Table, Target

CONNECTIONS: Final = 32
REQUESTS: Final = re.compile(r"(\d+) requests in")
FAILED: Final = re.compile(r"Non-2xx|Socket errors")
TARGET: Final = 2.5  # of a front that drives aiohttp's parser; 4.5 would be that of aiohttp's server


def wrk(port: int, seconds: int, connections: int, target: str = "/tiny") -> int:
    """How many requests wrk got answered. Raises RuntimeError when any of them was not answered 200."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"http://127.0.0.1:{port}{target}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = REQUESTS.search(done.stdout)
    if not found or FAILED.search(done.stdout):
        raise RuntimeError(done.stdout)
    return int(found[1])


def run(bench: Bench) -> None:
    table = Table(
        "Tiny responses, 32 connections",
        "wrk, 13 bytes of text, all connections kept. nginx and the gateway write a line to their log for each request,"
        " as installed; the aiohttp proxy and uvicorn write none, and `quiet`, the gateway with `log.level = warning`,"
        " is the row to hold beside them. The bare function (benchmarks/workload/bare_function.py) is to the gateway"
        " what the origin is to nginx.",
        (
            Column("cpu", "µs/request", ratio=True),
            Column("rate", "requests/s", 0),
            Column("utilisation", "% of its core", 0),
        ),
    )
    with Subjects() as subjects:
        origin = subjects.take(subject.origin(bench.folder))
        measured = [
            *(subjects.take(subject.Dialback(name, bench.folder, compiled=it)) for name, it in subject.BUILDS.items()),
            subjects.take(subject.Dialback("dialback, quiet", bench.folder, keys={"log.level": "warning"})),
            subjects.take(subject.Dialback("dialback, bare function", bench.folder, bare=True)),
            subjects.take(subject.nginx(bench.folder, origin.port)),
            subjects.take(subject.aiohttp_proxy(bench.folder, origin.port)),
            subjects.take(subject.uvicorn(bench.folder)),
        ]
        for one in measured:
            with connect(one.port) as connection:
                first_byte(connection)
            wrk(one.port, 1, CONNECTIONS)
        for one in bench.interleaved(measured):
            cost, count = bench.cost(one, wrk, one.port, bench.of(1, 2), CONNECTIONS)
            table.add(
                one.name, cpu=cost.cpu / count * 1e6, rate=count / cost.wall, utilisation=cost.cpu / cost.wall * 100
            )
        ceiling = wrk(origin.port, 1, CONNECTIONS)
    table.notes.append(
        f"wrk alone, on the origin, both on one core: {ceiling} requests/s. Where a subject's utilisation is far below"
        " 100 %, its function or origin and wrk, which share the other core, set the rate; the CPU of a request is the"
        " subject's own, and a little dearer than under full load, since fewer events come at once."
    )
    bench.tables.append(table)
    for name in subject.BUILDS:
        bench.targets.append(Target("1", "tiny responses on open links, CPU", table, name, "cpu", TARGET, base="nginx"))
