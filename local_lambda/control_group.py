"""Control groups of version 2: one per environment, with everything that its process started, to freeze and to kill.

Linux, as root. Where it cannot be had, `ControlGroups.open` raises OSError and environments do without.
"""

import contextlib
import errno
import fcntl
import os
import signal
from pathlib import Path

from local_lambda.network import EgressGate

PREFIX = "local-lambda."


class ControlGroups:
    """The folder with the groups of one local Lambda. Begins with `open`, ends with `close`.

    The folder is locked for as long as its owner lives. What an owner that was killed left behind is removed by the next one.
    """

    def __init__(self, path: Path, descriptor: int, gate: EgressGate) -> None:
        self._path = path
        self._descriptor = descriptor
        self._gate = gate

    @classmethod
    def open(cls) -> "ControlGroups":
        """Raises OSError where there is no version 2 hierarchy, or none that we may use."""
        mount = _mount()
        _sweep(mount)
        path = mount / f"{PREFIX}{os.getpid()}.{os.urandom(4).hex()}"
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cls(path, descriptor, EgressGate(descriptor))
        except OSError:
            os.close(descriptor)
            path.rmdir()
            raise

    def group(self, name: str) -> "ControlGroup":
        path = self._path / name
        path.mkdir()
        return ControlGroup(path, self._gate)

    def close(self) -> None:
        """Its groups must be closed before."""
        self._gate.close()
        os.close(self._descriptor)
        with contextlib.suppress(OSError):  # a process that is only now being reaped; the next sweep takes the folder
            self._path.rmdir()


class ControlGroup:
    """Begins empty, before a process joins it (by writing to its cgroup.procs); ends with `close`."""

    def __init__(self, path: Path, gate: EgressGate) -> None:
        self.path = path
        self._gate = gate
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._shut: int | None = None

    def freeze(self) -> None:
        """Stop its processes, then what they have sent."""
        (self.path / "cgroup.freeze").write_text("1")
        if self._shut is None:
            self._shut = self._gate.shut(self._descriptor)

    def thaw(self) -> None:
        if self._shut is not None:
            os.close(self._shut)
            self._shut = None
        (self.path / "cgroup.freeze").write_text("0")

    def kill(self) -> None:
        """SIGKILL to every process in it, frozen or not, also to those that left the process group."""
        _kill(self.path)

    def close(self) -> None:
        """Its processes must have been killed before."""
        if self._shut is not None:
            os.close(self._shut)
            self._shut = None
        os.close(self._descriptor)
        with contextlib.suppress(
            OSError
        ):  # a grandchild that is only now being reaped; the next sweep takes the folder
            self.path.rmdir()


def _mount() -> Path:
    """Where the version 2 hierarchy is mounted: field 5 of its line in /proc/self/mountinfo, see proc(5)."""
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                return Path(before.split()[4])
    raise OSError(errno.ENODEV, "no control groups of version 2")


def _sweep(mount: Path) -> None:
    """Remove the folders whose owner is gone, and what may still run in them."""
    for folder in mount.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for group in (*(path for path in folder.iterdir() if path.is_dir()), folder):
                    _kill(group)
                    group.rmdir()
            finally:
                os.close(descriptor)


def _kill(group: Path) -> None:
    try:
        (group / "cgroup.kill").write_text("1")
    except OSError:  # before Linux 5.14
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
