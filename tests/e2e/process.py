"""What the kernel says of running processes: memory, descriptors, children. Reads /proc; signals nothing."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

ESTABLISHED = "01"
"""A connection's state in /proc/net/tcp."""
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process at one moment, in MiB."""

    resident: float
    peak: float
    """The most it ever had resident: the kernel's own high-water mark, which no sampling can miss."""


def memory(pid: int) -> Memory:
    """VmRSS and VmHWM, see proc(5). Raises OSError where there is no such process."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.split()
    return Memory(int(fields["VmRSS"][0]) / 1024, int(fields["VmHWM"][0]) / 1024)


def forget_peak(pid: int) -> None:
    """Let the high-water mark begin again at what is resident now (clear_refs, see proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    """How many file descriptors it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def connections(pid: int) -> set[tuple[int, int]]:
    """Its own and the remote port of each TCP connection (IPv4) that it has open and that lives: proc_pid_net(5)."""
    held = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            held.add(os.readlink(file))
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, own, remote, state, *_, inode = line.split()[:10]
        if state == ESTABLISHED and f"socket:[{inode}]" in held:
            found.add((int(own.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)))
    return found


def state(pid: int) -> str:
    """The third field of /proc/PID/stat: "T" is stopped; "" where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """A zombie is not: somebody else's children are for the machine's first process to reap."""
    return state(pid) not in ("", "Z", "X")


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on, that run now."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found


def marked(mark: str) -> list[int]:
    """All processes of the machine that run and have `NAME=value` among the variables that they were started with."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if is_alive(pid)]


def command_line(pid: int) -> list[str]:
    """Its arguments; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
