"""Clients that ask for a gigabyte and take nothing: what is held for each of them (issue C, 3)."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import connect, request
from benchmarks.figures import Column, Table, Target

CLIENTS: Final = 16
SIZE: Final = 1 << 30
SETTLE: Final = 2.0  # seconds until nothing moves any more
RECEIVE_BUFFER: Final = 32 << 10
TARGET: Final = 1.0  # MB
TCP_INFO_BYTES_RECEIVED: Final = 128  # offset of tcpi_bytes_received in struct tcp_info, linux/tcp.h


def _taken(connection: socket.socket) -> int:
    """Bytes that have reached the client's kernel."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return int(struct.unpack_from("Q", info, TCP_INFO_BYTES_RECEIVED)[0])


def _queued(pid: int) -> int:
    """Bytes in the kernel, in the queues of all sockets of the process, by /proc/net/tcp."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and fields[3] != "0A":  # a listener's queues count connections
            sent, received = fields[4].split(":")
            total += int(sent, 16) + int(received, 16)
    return total


def run(bench: Bench) -> None:
    table = Table(
        "Stalled clients",
        f"{CLIENTS} clients ask for 1 GiB each and never read. Held: what the process grew by, and what its sockets'"
        " queues hold in the kernel, for each client.",
        (Column("held", "MB", 3), Column("process", "MB", 3), Column("kernel", "MB", 3), Column("passed", "MB", 3)),
    )
    rounds = bench.of(1, 3)
    for _ in range(rounds):
        with Subjects() as subjects:
            behind = subjects.take(subject.origin(bench.folder))
            for one in (
                subjects.take(subject.Dialback("dialback", bench.folder)),
                subjects.take(subject.nginx(bench.folder, behind.port)),
                subjects.take(subject.aiohttp_proxy(bench.folder, behind.port)),
            ):
                with connect(one.port) as first:  # what the first request loads is nobody's buffer
                    first.sendall(request("/bulk?size=65536"))
                    time.sleep(0.5)
                before, queued = one.resident, _queued(one.measured.pid)
                clients = [connect(one.port, receive_buffer=RECEIVE_BUFFER) for _ in range(CLIENTS)]
                for client in clients:
                    client.sendall(request(f"/bulk?size={SIZE}"))
                time.sleep(SETTLE)
                process = (one.resident - before) * (1 << 20) / CLIENTS / 1e6
                kernel = (_queued(one.measured.pid) - queued) / CLIENTS / 1e6
                passed = sum(map(_taken, clients)) / CLIENTS / 1e6
                table.add(one.name, held=process + kernel, process=process, kernel=kernel, passed=passed)
                for client in clients:
                    client.close()
    table.notes.append("Passed: what reached the client's own kernel, and is nobody's memory here.")
    bench.tables.append(table)
    bench.targets.append(Target("3", "held for a stalled client", table, "dialback", "held", TARGET, unit=" MB"))
