"""Control groups of version 2: one per environment, with everything that its process started, to stop, mute and kill.

Linux, as root. Where it cannot be had, `ControlGroups.open` raises OSError and environments do without.
"""

import contextlib
import errno
import os
import signal
from pathlib import Path

from local_lambda.folders import OwnedFolder
from local_lambda.network import EgressGate

SIGNAL_ROUNDS = 5
"""How often at most to look for processes that were started while the others got their signal."""


class ControlGroups:
    """The folder with the groups of one local Lambda. Begins with `open`, ends with `close`."""

    def __init__(self, folder: OwnedFolder, gate: EgressGate) -> None:
        self._folder = folder
        self._gate = gate

    @classmethod
    def open(cls) -> "ControlGroups":
        """Raises OSError where there is no version 2 hierarchy, or none that we may use."""
        folder = OwnedFolder.create(_mount(), _remove)
        try:
            return cls(folder, EgressGate(folder.descriptor))
        except OSError:
            folder.close()
            raise

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    def group(self, name: str) -> "ControlGroup":
        """An empty group. Raises OSError."""
        path = self._folder.path / name
        path.mkdir()
        return ControlGroup(path, self._gate)

    def close(self) -> None:
        """Its groups must be closed before."""
        self._gate.close()
        self._folder.close()


class ControlGroup:
    """Begins empty, before a process joins it (by writing to its cgroup.procs); ends with `close`."""

    def __init__(self, path: Path, gate: EgressGate) -> None:
        self.path = path
        self._gate = gate
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._shut: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process in it, those that left the process group included."""
        reached: set[str] = set()
        for _ in range(SIGNAL_ROUNDS):
            new = set((self.path / "cgroup.procs").read_text().split()) - reached
            if not new:
                break
            for pid in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), number)
            reached |= new

    def shut(self) -> None:
        """Let nothing more leave its sockets, until `open`."""
        if self._shut is None:
            self._shut = self._gate.shut(self._descriptor)

    def open(self) -> None:
        if self._shut is not None:
            os.close(self._shut)
            self._shut = None

    def kill(self) -> None:
        """SIGKILL to every process in it."""
        _kill(self.path)

    def close(self) -> None:
        """Its processes must have been killed before."""
        self.open()
        os.close(self._descriptor)
        with contextlib.suppress(OSError):  # a grandchild is only now being reaped: `ControlGroups.close` tries again
            self.path.rmdir()


def _mount() -> Path:
    """Where the version 2 hierarchy is mounted: field 5 of its line in /proc/self/mountinfo, see proc(5)."""
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return Path(before.split()[4])
    raise OSError(errno.ENODEV, "no control groups of version 2")


def _remove(folder: Path) -> None:
    """Take away a folder of groups, and what may still run in them."""
    for group in (*(path for path in folder.iterdir() if path.is_dir()), folder):
        _kill(group)
        group.rmdir()


def _kill(group: Path) -> None:
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:  # before Linux 5.14
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
