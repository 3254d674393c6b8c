"""The real command in a process of its own, and what a test does with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
"""Seconds after which something that should happen has not happened."""
COMMAND = (sys.executable, "-P", "-m", "gateway")
"""As `.venv/bin/dialback` does, it does not look for modules in the working directory."""
READY = r"^Ready: (http://\S+)"


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )


def environment(variables: dict[str, str]) -> dict[str, str]:
    """This process's variables without Dialback's, with the project importable from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIALBACK_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", **variables}


class Command:
    """A command that serves. Begins with the block; at its end the process is killed, if it still runs."""

    def __init__(self, *arguments: str, cwd: Path, **variables: str) -> None:
        self.output = ""
        self._news = threading.Condition()
        self._is_over = False
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        if kind is not None:
            print(self.output)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.output += line
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def wait_for(self, pattern: str, *, after: int = 0, patience: float = PATIENCE) -> re.Match[str]:
        """Wait until `pattern` is in the output, from offset `after` on, for `patience` seconds."""
        expression = re.compile(pattern, re.MULTILINE)
        with self._news:
            self._news.wait_for(lambda: expression.search(self.output, after) or self._is_over, patience)
            found = expression.search(self.output, after)
            assert found, f"no {expression.pattern!r} in:\n{self.output[after:]}"
            return found

    def ready(self) -> str:
        """The URL that it serves, as soon as it does."""
        return self.wait_for(READY)[1]

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """Send a signal and wait; returns exit code and seconds."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code, time.monotonic() - began

    def descendants(self) -> set[int]:
        """The process ids of everything that it started, directly or not."""
        return set(_children(self.process.pid))


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _children(int(child))


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
