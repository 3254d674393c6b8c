"""What curl does in ways of its own: each line as people type it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.lag import Lag
from tests.e2e.stack import Stack

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
CONTENT = os.urandom(3 << 20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def curl(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sS", *arguments], input=given, capture_output=True, timeout=30, check=False)


def digest_of(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["size"] == len(CONTENT)
    return str(seen["sha256"])


@pytest.mark.parametrize("way", ["-T", "--data-binary", "-T -", "--data-binary @-"])
def test_a_file_is_uploaded(stack: Stack, file: Path, way: str) -> None:
    words = {"-T": ["-T", str(file)], "--data-binary": ["--data-binary", f"@{file}"]}.get(way, way.split())
    given = CONTENT if way.endswith("-") else b""
    assert digest_of(curl(*words, f"{stack.url}/digest", given=given)) == hashlib.sha256(CONTENT).hexdigest()


def test_a_form_is_uploaded(stack: Stack, file: Path) -> None:
    done = curl("-F", f"file=@{file}", f"{stack.url}/whole")
    assert done.returncode == 0 and CONTENT in done.stdout
    assert done.stdout.startswith(b"------")


def test_it_sends_the_body_when_the_function_asks_for_it(stack: Stack, file: Path) -> None:
    done = curl("-v", "--expect100-timeout", "20", "-T", str(file), f"{stack.url}/late?wait=0.5")
    said = done.stderr.decode()
    assert "> Expect: 100-continue" in said and re.search(r"< HTTP/1.1 100 Continue.*< HTTP/1.1 200 ", said, re.DOTALL)
    assert done.stdout.endswith(b" %d" % len(CONTENT))


def test_it_need_not_send_what_nobody_reads(stack: Stack, file: Path) -> None:
    told = ("-w", "%{stderr}uploaded %{size_upload}")
    done = curl("-v", *told, "--expect100-timeout", "20", "-T", str(file), f"{stack.url}/unread?code=403")
    said = done.stderr.decode()
    assert "< HTTP/1.1 403 " in said and "100 Continue" not in said and "uploaded 0" in said
    assert done.stdout == b"not read"


def test_http_1_0_gets_the_body_until_the_connection_ends(stack: Stack) -> None:
    done = curl("--http1.0", "-i", "-N", f"{stack.url}/ticks?count=3&interval=0.05")
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert done.returncode == 0 and re.match(rb"HTTP/1\.[01] 200 ", head)
    assert b"transfer-encoding" not in head.lower()
    assert [line.split()[0] for line in body.splitlines()] == [b"0", b"1", b"2"]


def test_http_1_0_sees_that_a_body_is_cut(stack: Stack) -> None:
    """Its end is the connection's, and so a cut is a reset."""
    done = curl("--http1.0", f"{stack.url}/broken?after=3")
    assert done.returncode == 56 and b"reset" in done.stderr


def test_compressed_is_an_offer(stack: Stack) -> None:
    """It is the app that says what is compressed, or a route: nothing is held back for it either way."""
    done = curl("--compressed", "-N", f"{stack.url}/ticks?count=3&interval=0.05")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 3


def test_head_shows_the_fields(stack: Stack) -> None:
    done = curl("-I", f"{stack.url}/hello")
    assert done.stdout.startswith(b"HTTP/1.1 200 ") and b"content-length: " in done.stdout.lower()


def test_fail_is_told_of_a_function_that_fails(stack: Stack) -> None:
    done = curl("--fail", f"{stack.url}/broken")
    assert done.returncode == 22 and b"502" in done.stderr


def test_without_n_it_keeps_lines_to_itself(stack: Stack, lag: Lag) -> None:
    """Why the README says `-N`: curl's output to a pipe is held back until there is a bufferful."""
    url = f"{stack.url}/ticks?count=3&interval=0.4"
    with subprocess.Popen(["curl", "-sS", url], stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        assert len(os.read(held.stdout.fileno(), 1 << 16).splitlines()) == 3
    with subprocess.Popen(["curl", "-sSN", url], stdout=subprocess.PIPE) as prompt:
        assert prompt.stdout is not None
        assert len(os.read(prompt.stdout.fileno(), 1 << 16).splitlines()) == 1
        prompt.stdout.read()
