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
RESIDENT = 150.0
"""MiB that gateway and function may each have resident, at any moment."""
SIZES = [
    pytest.param(64 * MIB, id="64MiB"),
    pytest.param(1024 * MIB, id="1GiB", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


@pytest.fixture
def large_stack(only: Stack) -> Stack:
    """Warm, and with new high-water marks, so that those are of these bodies alone."""
    only.get("/hello")
    for pid in (only.gateway.pid, only.environment):
        process.forget_peak(pid)
    return only


def assert_small(stack: Stack, what: str, seconds: float, size: int) -> None:
    """By the kernel's own high-water marks: they cannot miss a moment."""
    gateway, function = process.memory(stack.gateway.pid).peak, process.memory(stack.environment).peak
    print(
        f"\n{what}: {size / seconds / MIB:.0f} MiB/s, peak RSS gateway {gateway:.0f} MiB, function {function:.0f} MiB"
    )
    assert gateway < RESIDENT and function < RESIDENT


@pytest.mark.parametrize("size", SIZES)
def test_a_large_download_is_equal_and_never_held(large_stack: Stack, size: int) -> None:
    began = time.monotonic()
    url = f"{large_stack.url}/produce?size={size}&note=large"
    sha = hashlib.sha256()
    with subprocess.Popen(["curl", "-sSN", "--fail", url], stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        while data := curl.stdout.read(MIB):
            sha.update(data)
    assert curl.returncode == 0
    assert large_stack.executions("large.sha256")[-1] == sha.hexdigest()
    assert_small(large_stack, "download", time.monotonic() - began, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_large_upload_is_equal_and_never_held(large_stack: Stack, tmp_path: Path, size: int) -> None:
    began = time.monotonic()
    sha = hashlib.sha256()
    block = bytes(range(256)) * (MIB // 256)
    command = ["curl", "-sSN", "--fail", "-T", "-", f"{large_stack.url}/digest"]
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
    assert_small(large_stack, "upload", time.monotonic() - began, size)


def test_large_bodies_go_both_ways_at_once(large_stack: Stack) -> None:
    """Full duplex at full speed: what is echoed comes back equal while the rest is still being sent."""
    size, block = 64 * MIB, bytes(range(251)) * 4096
    sent, received = hashlib.sha256(), hashlib.sha256()
    began = time.monotonic()
    command = ["curl", "-sSN", "--fail", "-T", "-", f"{large_stack.url}/echo"]
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
    assert_small(large_stack, "echo", time.monotonic() - began, size)
