"""A process that outlives a local Lambda for a moment, to end whatever is left of it.

Environments die with their parent by themselves; what their functions started does not. So each local Lambda has this
script wait at a pipe that only it holds open: at the pipe's end the owner is gone, whatever it died of.

The standard library only: it is run by itself, and small, as long as its owner runs.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 100
ROUND = 0.02
"""Seconds between two looks; in each round, what was started since the last look is ended too."""


def main() -> None:
    """Arguments: the owner's temporary folder, its folder of control groups or "". Waits for the end of stdin."""
    scratch, groups = sys.argv[1], Path(sys.argv[2]) if sys.argv[2] else None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the owner
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(ROUNDS):
        left = {*_marked(scratch.encode()), *_grouped(groups)} - {os.getpid()}
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(ROUND)
    if groups is not None:
        for folder in (*groups.glob("*/"), groups):
            with contextlib.suppress(OSError):
                folder.rmdir()
    shutil.rmtree(scratch, ignore_errors=True)


def _marked(scratch: bytes) -> Iterator[int]:
    """Processes that have the folder in their variables: an environment's TMPDIR is in it, and is handed down."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            if scratch in (entry / "environ").read_bytes():
                yield int(entry.name)


def _grouped(groups: Path | None) -> Iterator[int]:
    for file in groups.glob("**/cgroup.procs") if groups is not None else ():
        with contextlib.suppress(OSError):
            yield from map(int, file.read_text().split())


if __name__ == "__main__":
    main()
