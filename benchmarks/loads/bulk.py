"""Bodies of many megabytes in 64 KiB chunks, down and up, one stream and eight: CPU for each GiB (issue C, 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import download, upload
from benchmarks.figures import Column, Table, Target
from tests.e2e import process

GIB: Final = 1 << 30
STREAMS: Final = (1, 8)
LOADS: Final[dict[str, Callable[[int, int, int], float]]] = {"download": download, "upload": upload}
TARGET: Final = 1.0
LARGE: Final = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
FLAT: Final = 16.0  # MiB


def run(bench: Bench) -> None:
    total = bench.of(GIB // 4, GIB)
    columns = (
        Column("cpu", "s/GiB", 3, ratio=True),
        Column("rate", "MB/s", 0),
        Column("utilisation", "% of its core", 0),
        Column("growth", "MiB", 1, spread=False),
    )
    tables = {
        (name, streams): Table(
            f"Bulk {name}, {streams} stream{'s' if streams > 1 else ''}",
            f"{total >> 20} MiB in all, in chunks of 64 KiB; every stream on one link.",
            columns,
        )
        for name in LOADS
        for streams in STREAMS
    }
    with Subjects() as subjects:
        behind = subjects.take(subject.origin(bench.folder))
        measured = [
            *(subjects.take(subject.Dialback(name, bench.folder, compiled=it)) for name, it in subject.BUILDS.items()),
            subjects.take(subject.nginx(bench.folder, behind.port)),
            subjects.take(subject.nginx(bench.folder, behind.port, name="nginx, 64 KiB buffers", buffers=LARGE)),
            subjects.take(subject.aiohttp_proxy(bench.folder, behind.port)),
            subjects.take(subject.uvicorn(bench.folder)),
        ]
        for one in measured:
            for load in LOADS.values():
                load(one.port, GIB // 16, 1)
        for (name, streams), table in tables.items():
            for one in bench.interleaved(measured):
                process.forget_peak(one.measured.pid)
                before = one.resident
                cost, wall = bench.cost(one, LOADS[name], one.port, total // streams, streams)
                table.add(
                    one.name,
                    cpu=cost.cpu / total * GIB,
                    rate=total / wall / 1e6,
                    utilisation=cost.cpu / cost.wall * 100,
                    growth=process.memory(one.measured.pid).peak - before,
                )
    for (name, streams), table in tables.items():
        table.notes.append("Growth: the most memory that the process had during the load, beyond what it had before.")
        bench.tables.append(table)
        text = f"bulk {name}, {streams} stream{'s' if streams > 1 else ''}, CPU"
        for build in subject.BUILDS:
            bench.targets.append(Target("3", text, table, build, "cpu", TARGET, base="nginx"))
    for name in LOADS:
        flat = tables[name, 1]
        bench.targets.append(Target("3", f"memory while a {name} flows", flat, "dialback", "growth", FLAT, unit=" MiB"))
