"""A process that is measured, or that stands beside one: pinned to a core, its output in a file, its CPU read in
nanoseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
SUBJECT_CORE: Final = 0  # what is measured has it alone
LOAD_CORE: Final = 1 if (os.cpu_count() or 1) > 1 else 0  # clients, origins and functions
CORES: Final = frozenset(range(os.cpu_count() or 1))
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
PORTS: Final = range(20000, 32768)  # below those that the kernel gives to clients
_ports: Final = itertools.cycle(random.sample(PORTS, len(PORTS)))
DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG, prctl(2)
PRCTL: Final = ctypes.CDLL(None).prctl


class NotReady(Exception):
    """A process did not start; the text has its last words."""


class Process:
    """Begins with the constructor, ends with `stop`."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        core: int | None = LOAD_CORE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`log`: the file for both its outputs. `core`: None for all of them. Our own `DIALBACK_` variables are kept
        from it."""

        def prepare() -> None:
            PRCTL(DIE_WITH_PARENT, signal.SIGTERM)
            os.sched_setaffinity(0, CORES if core is None else {core})

        clean = {name: value for name, value in os.environ.items() if not name.startswith("DIALBACK_")}
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=clean | {"PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"} | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=prepare,
            )
        self.pid = self._process.pid

    def ready(self, pattern: str) -> re.Match[str]:
        """Wait for it to write what matches. Raises `NotReady`."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            text = self.log.read_text(errors="replace")
            if found := re.search(pattern, text, re.MULTILINE):
                return found
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise NotReady(f"{self.log.name}: {self.log.read_text(errors='replace')[-2000:]}")

    def listening(self, port: int) -> None:
        """Wait until it takes connections. Raises `NotReady`."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.02)
        raise NotReady(f"{self.log.name}: {self.log.read_text(errors='replace')[-2000:]}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def cpu(self) -> float:
        """Seconds that its threads have run: the first field of /proc/PID/task/*/schedstat, in nanoseconds."""
        return cpu_seconds(self.pid)

    def stop(self) -> None:
        """Ctrl-C; what does not take it is killed. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._process.wait()


def cpu_seconds(pid: int) -> float:
    """Seconds that the process has run on a core, all its threads together."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment, and that was not given before."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
