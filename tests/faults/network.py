"""A network namespace of a test's own, in which a bad network is the kernel's: loss (iptables) and rate limits (tc)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespace() -> Iterator[None]:
    """This thread, and what it starts, have a loopback of their own meanwhile (unshare(2), setns(2)). Skips the test
    where that is not allowed."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if LIBC.unshare(CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())} (it takes root)")
        try:
            command("ip", "link", "set", "lo", "up")
            yield
        finally:
            if LIBC.setns(before, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the test is left in its namespace")
    finally:
        os.close(before)


def lose(port: int, share: float) -> None:
    """Drop so many packets to and from a port."""
    for side in ("--dport", "--sport"):
        match = ("-p", "tcp", side, str(port), "-m", "statistic", "--mode", "random", "--probability", str(share))
        command("iptables", "-A", "INPUT", "-i", "lo", *match, "-j", "DROP")


def limit(megabits: int) -> None:
    """Let no more than that pass in a second, all connections and both directions together; what waits for longer than
    50 ms is dropped."""
    bucket = ("burst", "256kb", "latency", "50ms")  # the loopback's packets have up to 64 KiB
    command("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", f"{megabits}mbit", *bucket)


def command(name: str, *arguments: str) -> None:
    """Run it; skip the test where it is missing, or the kernel does not know what it asks for."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{name} {' '.join(arguments)}: {done.stderr.strip()}")
