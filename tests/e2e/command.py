"""A `dialback` command that runs as people run it: its own process, its lines as they come, its end."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from tests.e2e import process

REPOSITORY = Path(__file__).resolve().parents[2]
DIALBACK = Path(sys.executable).parent / "dialback"
READY = re.compile(r"^Ready: (https?://[\w.:\[\]-]+?)/?(?:\s|$)")
START_SECONDS = 30.0
STOP_SECONDS = 15.0
LINE_SECONDS = 10.0
PRCTL = ctypes.CDLL(None).prctl


class CommandEnded(Exception):
    """The command ended where it should have gone on; the text has all that it wrote."""


class Command:
    """One process. Begins with the constructor, ends with `stop`; what it writes goes to `lines`."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path = REPOSITORY,
        environment: Mapping[str, str] | None = None,
        program: tuple[str, ...] = (),
    ) -> None:
        """`program`: what is run in place of the `dialback` command."""
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._was_interrupted = False
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DIALBACK_")}
        self._process = subprocess.Popen(
            [*(program or (sys.executable, "-u", str(DIALBACK))), *arguments],
            cwd=cwd,
            env={**clean, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return "\n".join(self.lines)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def ready(self, seconds: float = START_SECONDS) -> str:
        """The URL that its line `Ready:` names, without a slash at its end. Raises `CommandEnded`."""
        return self.line(READY, seconds=seconds)[1]

    def line(self, pattern: str | re.Pattern[str], *, after: int = 0, seconds: float = LINE_SECONDS) -> re.Match[str]:
        """Wait for a line that matches, from line `after` on. Raises `CommandEnded`, TimeoutError."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + seconds
        position = after
        with self._news:
            while True:
                for text in self.lines[position:]:
                    if found := wanted.search(text):
                        return found
                position = max(position, len(self.lines))
                if not self._reader.is_alive():
                    raise CommandEnded(f"exit code {self._process.wait()}:\n{self.output}")
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no line {wanted.pattern!r} within {seconds} s:\n{self.output}")
                self._news.wait(min(0.2, max(0.0, deadline - time.monotonic())))

    def environments(self) -> list[int]:
        """The process ids of the function's environments below this command."""
        return [
            pid
            for pid in process.descendants(self.pid)
            if any(part.endswith("bootstrap.py") for part in process.command_line(pid))
        ]

    def signal(self, number: signal.Signals) -> None:
        # A second one would insist, and cut what the first lets finish.
        self._was_interrupted = self._was_interrupted or number != signal.SIGUSR1
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        return code

    def interrupt(self) -> None:
        """Ctrl-C, once, and do not wait."""
        if self._process.poll() is None and not self._was_interrupted:
            self.signal(signal.SIGINT)

    def stop(self) -> int:
        """Ctrl-C, and its exit code; what does not take it is killed, and the code is then -9. Idempotent."""
        self.interrupt()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.returncode

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


def _end_with_parent() -> None:
    """A test run that is killed leaves no command behind (prctl(2), PR_SET_PDEATHSIG)."""
    PRCTL(1, signal.SIGTERM)
