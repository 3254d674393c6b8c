"""Fifty milliseconds between gateway and function: first bytes in round trips, one stream's rate (issue C, 2)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import connect, download, first_byte, upload
from benchmarks.figures import Column, Table, Target
from benchmarks.process import Process, free_port

ROUND_TRIP: Final = 0.05  # seconds
PARKING: Final = 0.6  # seconds after which a link is parked for certain, and its environment frozen
RATE_TARGET: Final = 100.0  # MB/s
CERTIFICATE: Final = (
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    " -addext subjectAltName=DNS:localhost"
)


class Distance:
    """A gateway and its function, far from each other. Begins with the constructor; `subjects` ends it."""

    def __init__(self, subjects: Subjects, folder: Path, round_trip: float, tls: tuple[Path, Path] | None) -> None:
        ports = free_port(), free_port()
        self.tls = tls is not None
        name = f"distant{'-tls' if tls else ''}-{round_trip * 1e3:.0f}"
        self.gateway = subject.Dialback(name, folder, distance=ports, tls=tls)
        subjects.take(self.gateway)
        self.lines = []
        for port, target in zip(ports, self.gateway.distance_targets, strict=True):
            command = [sys.executable, "-m", "benchmarks.delay_line", str(port), str(target), str(round_trip)]
            line = Process(command, folder / f"{name}-{port}.log")
            subjects.callback(line.stop)
            line.ready("Ready")
            self.lines.append(line)

    def cut_links(self) -> None:
        """The function's sockets are gone; the connection for invocations stays."""
        self.lines[0].signal(signal.SIGUSR1)


def run(bench: Bench) -> None:
    files = bench.folder / "cert.pem", bench.folder / "key.pem"
    subprocess.run(
        ["openssl", *CERTIFICATE.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    _first_bytes(bench, files)
    _rates(bench)


def _first_bytes(bench: Bench, files: tuple[Path, Path]) -> None:
    table = Table(
        "First byte with 50 ms between gateway and function",
        "In round trips of 50 ms; the client is beside the gateway. Open: a leased link. Recycled: a parked one, its"
        " environment frozen. Cold: the environment is there, and has no socket. The connection on which the gateway"
        " invokes is open, and plain HTTP; the link is `ws` or `wss`.",
        (Column("open", "RTT", 2), Column("recycled", "RTT", 2), Column("cold", "RTT", 2)),
        base="",
    )
    for name, tls in (("ws", None), ("wss", files)):
        with Subjects() as subjects:
            distance = Distance(subjects, bench.folder, ROUND_TRIP, tls)
            with connect(distance.gateway.port, tls=distance.tls) as connection:
                first_byte(connection)
                for _ in range(bench.of(2, 7)):
                    time.sleep(PARKING)
                    recycled = first_byte(connection)
                    opened = first_byte(connection)
                    time.sleep(PARKING)
                    distance.cut_links()
                    time.sleep(PARKING)
                    cold = first_byte(connection)
                    table.add(name, open=opened / ROUND_TRIP, recycled=recycled / ROUND_TRIP, cold=cold / ROUND_TRIP)
    bench.tables.append(table)


def _rates(bench: Bench) -> None:
    table = Table(
        "One stream's rate with 50 ms between gateway and function",
        "The same delay line stands between the two in both rows.",
        (Column("download", "MB/s", 0), Column("upload", "MB/s", 0)),
        base="",
    )
    size = bench.of(128, 512) << 20
    for name, round_trip in (("0 ms", 0.0), ("50 ms", ROUND_TRIP)):
        with Subjects() as subjects:
            port = Distance(subjects, bench.folder, round_trip, None).gateway.port
            download(port, 64 << 16)
            for _ in range(bench.of(1, 3)):
                table.add(name, download=size / download(port, size) / 1e6, upload=size / upload(port, size) / 1e6)
    bench.tables.append(table)
    bench.targets.append(
        Target(
            "2",
            "one stream's rate at 50 ms",
            table,
            "50 ms",
            "download",
            RATE_TARGET,
            at_least=True,
            unit=" MB/s",
            is_time=True,
        )
    )
