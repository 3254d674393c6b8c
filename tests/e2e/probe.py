"""The `dialback` command with a window: at SIGUSR1 it writes what its event loop holds into the file E2E_PROBE names.

A script, run in place of the command; everything else about the process is as people run it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
from collections import Counter

from dialback import main

TRIM = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)


def report(*_: object) -> None:
    """Runs in the main thread between two steps of its event loop, which is then the running one."""
    gc.collect()
    TRIM(0)  # what is free and was kept for later is not held
    tasks = asyncio.all_tasks()
    state = {
        "tasks": len(tasks),
        "names": Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks),
        "objects": len(gc.get_objects()),
    }
    file = os.environ["E2E_PROBE"]
    with open(file + ".new", "w") as new:
        json.dump(state, new)
    os.replace(file + ".new", file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, report)
    sys.exit(main())
