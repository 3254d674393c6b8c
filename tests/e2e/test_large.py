"""Promise 2: a gibibyte down and a gibibyte up through curl: equal at both ends, and nobody ever holds much of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.e2e import process
from tests.e2e.stack import Stack

MIB = 1 << 20
GROWTH = 40.0
"""MiB by which gateway and function may each grow, at any moment, whatever the size: windows and what is kept to be
replayed (16 MiB each), not the body."""
SIZES = [
    pytest.param(64 * MIB, id="64MiB"),
    pytest.param(1024 * MIB, id="1GiB", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


@pytest.fixture
def large(only: Stack) -> Large:
    """Warm, and with new high-water marks, so that those are of these bodies alone."""
    only.get("/hello")
    return Large(only)


class Large:
    """A stack, and the memory that its two processes had before."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._processes = {"gateway": stack.gateway.pid, "function": stack.environment}
        for pid in self._processes.values():
            process.forget_peak(pid)
        self._before = {name: process.memory(pid).resident for name, pid in self._processes.items()}
        self._began = time.monotonic()

    def assert_flat(self, what: str, size: int) -> None:
        """By the kernel's own high-water marks: they cannot miss a moment."""
        print(f"\n{what} of {size // MIB} MiB: {size / (time.monotonic() - self._began) / MIB:.0f} MiB/s", end="")
        growths = []
        for name, pid in self._processes.items():
            before, memory = self._before[name], process.memory(pid)
            print(f"; {name} RSS {before:.1f} MiB, peak {memory.peak:.1f}, after {memory.resident:.1f}", end="")
            growths.append(memory.peak - before)
        print()
        assert max(growths) < GROWTH


@pytest.mark.parametrize("size", SIZES)
def test_a_large_download_is_equal_and_never_held(large: Large, size: int) -> None:
    url = f"{large.stack.url}/produce?size={size}&note=large"
    sha = hashlib.sha256()
    with subprocess.Popen(["curl", "-sSN", "--fail", url], stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        while data := curl.stdout.read(MIB):
            sha.update(data)
    assert curl.returncode == 0
    assert large.stack.executions("large.sha256")[-1] == sha.hexdigest()
    large.assert_flat("download", size)


@pytest.mark.parametrize("size", SIZES)
def test_a_large_upload_is_equal_and_never_held(large: Large, tmp_path: Path, size: int) -> None:
    sha = hashlib.sha256()
    block = bytes(range(256)) * (MIB // 256)
    command = ["curl", "-sSN", "--fail", "-T", "-", f"{large.stack.url}/digest"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:
        assert curl.stdin is not None and curl.stdout is not None
        for index in range(size // MIB):
            data = block[index % MIB :] + block[: index % MIB]
            sha.update(data)
            curl.stdin.write(data)
        curl.stdin.close()
        seen = json.loads(curl.stdout.read())
    assert curl.returncode == 0
    assert (seen["size"], seen["sha256"]) == (size, sha.hexdigest())
    large.assert_flat("upload", size)


def test_large_bodies_go_both_ways_at_once(large: Large) -> None:
    """Full duplex at full speed: what is echoed comes back equal while the rest is still being sent."""
    size, block = 64 * MIB, bytes(range(251)) * 4096
    sent, received = hashlib.sha256(), hashlib.sha256()
    command = ["curl", "-sSN", "--fail", "-T", "-", f"{large.stack.url}/echo"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:
        assert curl.stdin is not None and curl.stdout is not None
        output = curl.stdout
        total = 0

        def read() -> None:
            nonlocal total
            while data := output.read1(MIB):  # type: ignore[attr-defined]
                received.update(data)
                total += len(data)

        reader = threading.Thread(target=read)
        reader.start()
        left = size
        while left:
            data = block[: min(len(block), left)]
            sent.update(data)
            curl.stdin.write(data)
            left -= len(data)
        curl.stdin.close()
        reader.join()
    assert curl.returncode == 0
    assert (total, received.hexdigest()) == (size, sent.hexdigest())
    large.assert_flat("echo", size)
