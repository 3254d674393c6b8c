"""The first byte of a response, one request after the other on one connection (issue C, 2)."""

from __future__ import annotations

import socket
import statistics
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import connect, first_byte
from benchmarks.figures import Column, Table, Target

TARGET: Final = 2.0


def first_bytes(connection: socket.socket, count: int) -> list[float]:
    """Seconds to the first byte of each of so many requests."""
    return [first_byte(connection) for _ in range(count)]


def run(bench: Bench) -> None:
    count = bench.of(300, 1000)
    table = Table(
        "First byte, sequential",
        f"One connection, {count} tiny responses one after the other; the gateway with its default linger.",
        (Column("p50", "ms", 3, ratio=True), Column("p99", "ms", 3), Column("cpu", "µs/request")),
    )
    with Subjects() as subjects:
        behind = subjects.take(subject.origin(bench.folder))
        measured = [
            *(subjects.take(subject.Dialback(name, bench.folder, compiled=it)) for name, it in subject.BUILDS.items()),
            subjects.take(subject.Dialback("dialback, bare function", bench.folder, bare=True)),
            subjects.take(subject.nginx(bench.folder, behind.port)),
            subjects.take(subject.aiohttp_proxy(bench.folder, behind.port)),
            subjects.take(subject.uvicorn(bench.folder)),
            behind,
        ]
        connections = {one: connect(one.port) for one in measured}
        for one in measured:
            for _ in range(20):
                first_byte(connections[one])
        for one in bench.interleaved(measured):
            first_byte(connections[one])  # the first after a pause may need an invocation
            cost, times = bench.cost(one, first_bytes, connections[one], count)
            table.add(
                one.name,
                p50=statistics.median(times) * 1e3,
                p99=statistics.quantiles(times, n=100)[98] * 1e3,
                cpu=cost.cpu / count * 1e6,
            )
        for connection in connections.values():
            connection.close()
    table.notes.append(
        "The function is Python on the load's core; behind nginx stands an origin in C loops that answers from memory:"
        " part of the ratio is the function's, not the gateway's. The bare function is to the gateway what the"
        " origin is to nginx."
    )
    bench.tables.append(table)
    for name in subject.BUILDS:
        bench.targets.append(
            Target("2", "first byte, p50, sequential", table, name, "p50", TARGET, base="nginx", is_time=True)
        )
