"""What a process holds at one moment: tasks, descriptors, memory, objects; and that none of it has grown."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import process
from tests.e2e.command import Command
from tests.e2e.patience import wait_for

PROBED = (sys.executable, "-u", str(Path(__file__).with_name("probe.py")))
"""In place of the `dialback` command: with E2E_PROBE in its environment it can be asked with `held`."""
GROWTH = 6.0
"""MiB that a process may be larger after a load than before it: allocators do not give all back."""
OBJECTS = 3000
"""How many more objects a process may hold."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds at one moment."""

    tasks: int
    descriptors: int
    resident: float
    """MiB."""
    objects: int
    names: tuple[tuple[str, int], ...] = ()
    """Of the tasks' coroutines."""


def held(command: Command, probe: Path) -> Held:
    """Ask a command that was started as `PROBED`; `probe`: its E2E_PROBE."""
    probe.unlink(missing_ok=True)
    command.signal(signal.SIGUSR1)
    wait_for(probe.exists)
    seen = json.loads(probe.read_text())
    pid = command.pid
    names = tuple(sorted(seen["names"].items()))
    return Held(seen["tasks"], process.descriptors(pid), process.memory(pid).resident, seen["objects"], names)


def assert_flat(what: str, before: Held, after: Held) -> None:
    print(f"\n{what}: {before}\n{' ' * len(what)}  {after}")
    assert after.tasks <= before.tasks, (before.names, after.names)
    assert after.descriptors <= before.descriptors + 1
    assert after.resident < before.resident + GROWTH
    assert after.objects < before.objects + OBJECTS
