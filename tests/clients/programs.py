"""The clients that are programs: curl, and Node.js with its two HTTP clients."""

from __future__ import annotations

import email.parser
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.clients.seen import Ask, Leaving, Reads, Seen

NODE = Path(__file__).parent / "node"
READ_SIZE = 64 << 10


class Program:
    """A process that gets the request's body on its standard input and writes the response's to its output."""

    def run(self, command: list[str], ask: Ask, seen: Seen, *, leaves_itself: bool) -> tuple[int, str]:
        """Its exit code, and what it wrote to its standard error."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe if ask.body else subprocess.DEVNULL, stdout=pipe, stderr=pipe
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            feeding = threading.Thread(target=feed, args=(process, ask.body), daemon=True)
            if ask.body:
                feeding.start()
            while piece := os.read(process.stdout.fileno(), READ_SIZE):
                seen.add(piece)
                if len(seen.pieces) == ask.leave_after and not leaves_itself:
                    process.terminate()
            said = process.stderr.read().decode()
            if ask.body:
                feeding.join()
            return process.wait(), said


def feed(process: subprocess.Popen[bytes], body: bytes | Iterator[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # it may have ended
        try:
            for piece in [body] if isinstance(body, bytes) else body:
                process.stdin.write(piece)
                process.stdin.flush()
        except Leaving:
            process.kill()  # before its input ends, which would be the end of the body
            process.wait()


class Curl(Program):
    reads, shows_trailers = Reads.BETWEEN, True
    cut_error, timeout_error = "curl: (18)", "curl: (28)"

    def fetch(self, ask: Ask, seen: Seen) -> None:
        with tempfile.TemporaryDirectory() as folder:
            heads = Path(folder, "heads")
            method = ["--head"] if ask.method == "HEAD" else ["-X", ask.method]
            sent = (
                [] if ask.body is None else ["-H", "Content-Type: application/octet-stream", "-H", "Expect:", "-T", "-"]
            )
            command = ["curl", "-sSN", "-m", str(ask.timeout), "-D", str(heads), *method, *sent, ask.url]
            _, said = self.run(command, ask, seen, leaves_itself=False)
            if found := re.match(r"curl: \(\d+\)", said):
                seen.error = found[0]
            read_heads(heads.read_text() if heads.exists() else "", seen)
        if ask.method == "HEAD":
            seen.pieces.clear()  # --head prints the head


def read_heads(text: str, seen: Seen) -> None:
    """What curl dumps: heads, each ended by an empty line, and behind the last one the trailers."""
    for block in filter(None, text.replace("\r\n", "\n").split("\n\n")):
        first, _, fields = block.partition("\n")
        status = re.match(r"HTTP/1\.[01] (\d{3})", first)
        parsed = email.parser.Parser().parsestr(fields if status else block)
        found = {name.lower(): str(value) for name, value in parsed.items()}
        if status:
            seen.status, seen.headers = int(status[1]), found
        else:
            seen.trailers = found


class Node(Program):
    """`node/NAME.mjs URL METHOD LEAVE_AFTER TIMEOUT_MS HAS_BODY`, which tells what it saw as JSON on its stderr."""

    def __init__(self, name: str, *, shows_trailers: bool, cut_error: str, timeout_error: str) -> None:
        self.reads, self.shows_trailers = Reads.ALWAYS, shows_trailers
        self.cut_error, self.timeout_error = cut_error, timeout_error
        self._script = str(NODE / f"{name}.mjs")

    def fetch(self, ask: Ask, seen: Seen) -> None:
        words = [ask.url, ask.method, str(ask.leave_after or 0), str(round(ask.timeout * 1000))]
        command = [node(), self._script, *words, "body" if ask.body else ""]
        _, said = self.run(command, ask, seen, leaves_itself=True)
        if said:  # else it was terminated in the middle of its upload
            report = json.loads(said)
            seen.status, seen.headers = report["status"], report["headers"]
            seen.trailers, seen.error = report["trailers"], report["error"]


def node() -> str:
    """Node.js 20 or newer; the test is skipped where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node: install Node.js 20 or newer")
    if node_major(found) < 20:
        pytest.skip("node is too old: install Node.js 20 or newer")
    return found


def node_major(program: str) -> int:
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return int(version.strip().lstrip("v").partition(".")[0])
