"""Pythons and loops beside each other, and what the function's side costs to load (issue C, 7)."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import connect, download, first_byte, upload
from benchmarks.figures import Column, Table
from benchmarks.loads.tiny import CONNECTIONS, wrk
from benchmarks.process import REPOSITORY

VERSIONS: Final = ("3.11", "3.12", "3.13")
GIB: Final = 1 << 30
IMPORT: Final = """
import time
began = time.process_time()
{}
took = time.process_time() - began
status = open("/proc/self/status").read()
print(took * 1e3, int(status.split("VmRSS:")[1].split()[0]) / 1024)
"""
YARDSTICK: Final = "websockets and msgpack"  # what one would import to dial by hand
IMPORTS: Final = {
    YARDSTICK: "import websockets.asyncio.client, msgpack",
    "nothing": "",
    "asyncio alone": "import asyncio",
    "lambda_client": "import lambda_client",
    "and what a first dial needs": "import lambda_client.environment, lambda_client.dial, lambda_client.plain",
}


def interpreters(*, quick: bool) -> dict[str, str]:
    """Each version's Python that has the gateway's libraries: our own, and those of `.venv-3.x` (scripts/bench)."""
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if quick:
        return {ours: sys.executable}
    found = {version: REPOSITORY / f".venv-{version}" / "bin" / "python" for version in VERSIONS if version != ours}
    return {ours: sys.executable} | {name: str(path) for name, path in found.items() if path.exists()}


def function_interpreters(*, quick: bool) -> dict[str, str]:
    """The same of the function's libraries: also those of `.venv-function-3.x` (scripts/check-pythons)."""
    folders = {} if quick else {path.name.rpartition("-")[2]: path for path in REPOSITORY.glob(".venv-function-3.*")}
    return {version: str(path / "bin" / "python") for version, path in folders.items()} | interpreters(quick=quick)


def run(bench: Bench) -> None:
    _loops(bench)
    _loading(bench)


def _loops(bench: Bench) -> None:
    pythons = dict(sorted(interpreters(quick=bench.quick).items()))
    size = bench.of(GIB // 8, GIB // 2)
    table = Table(
        "Pythons and loops",
        "The gateway on each; the function's side and the clients are the same for all. Tiny: wrk, 32 connections,"
        " quiet log. Bulk: one stream. Three rounds.",
        (
            Column("tiny", "µs/request"),
            Column("download", "s/GiB", 3),
            Column("upload", "s/GiB", 3),
            Column("resident", "MiB"),
        ),
        base="",
    )
    with Subjects() as subjects:
        measured = [
            subjects.take(
                subject.Dialback(
                    f"{version}, {'uvloop' if uvloop else 'asyncio'}",
                    bench.folder,
                    python=python,
                    uvloop=uvloop,
                    keys={"log.level": "warning"},
                )
            )
            for (version, python), uvloop in itertools.product(pythons.items(), (False, True))
        ]
        for one in measured:
            with connect(one.port) as connection:
                first_byte(connection)
            wrk(one.port, 1, CONNECTIONS)
        table.samples = {one.name: {} for one in measured}
        for one in bench.interleaved(measured, bench.of(1, 3)):
            cost, count = bench.cost(one, wrk, one.port, bench.of(1, 2), CONNECTIONS)
            down, _ = bench.cost(one, download, one.port, size)
            up, _ = bench.cost(one, upload, one.port, size)
            table.add(
                one.name,
                tiny=cost.cpu / count * 1e6,
                download=down.cpu / size * GIB,
                upload=up.cpu / size * GIB,
                resident=one.resident,
            )
    missing = [version for version in VERSIONS if version not in pythons]
    if missing:
        why = "A quick run" if bench.quick else "Not on this machine, or without the gateway's libraries"
        table.notes.append(f"{why}: nothing of {', '.join(missing)}.")
    bench.tables.append(table)


def _loading(bench: Bench) -> None:
    table = Table(
        "The function's side, loaded",
        "A fresh interpreter of each version, files and bytecode in the page cache; import in processor time, resident"
        f" memory of the whole process. Ratio: to the import of {YARDSTICK} (`websockets.asyncio.client`) in the same"
        " round.",
        (Column("import", "ms"), Column("ratio", "", 2), Column("resident", "MiB")),
        base="",
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    pythons = sorted(function_interpreters(quick=bench.quick).items(), key=lambda item: int(item[0].partition(".")[2]))
    for round_ in range(bench.rounds + 1):
        for version, python in pythons:
            yardstick = 0.0
            for name, statement in IMPORTS.items():
                command = [python, "-c", IMPORT.format(statement)]
                done = subprocess.run(
                    command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
                )
                took, resident = map(float, done.stdout.split())
                yardstick = yardstick or took
                if round_:  # the first compiles
                    table.add(f"{version}, {name}", **{"import": took, "ratio": took / yardstick, "resident": resident})
    bench.tables.append(table)
