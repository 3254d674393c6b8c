"""Folders that outlive nobody: locked by their owner while it lives, and removed by the next one if it was killed."""

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

PREFIX = "local-lambda."


class OwnedFolder:
    """Begins with `create`, which also removes what dead owners left beside it; ends with `close`."""

    def __init__(self, path: Path, descriptor: int, remove: Callable[[Path], None]) -> None:
        self.path = path
        self.descriptor = descriptor
        self._remove = remove

    @classmethod
    def create(cls, parent: Path, remove: Callable[[Path], None]) -> "OwnedFolder":
        """A new folder in `parent`. `remove` takes such a folder away with all that is in it. Raises OSError."""
        _sweep(parent, remove)
        while True:
            path = parent / f"{PREFIX}{os.getpid()}.{os.urandom(4).hex()}"
            path.mkdir(mode=0o700)
            descriptor = _lock(path)
            if descriptor is not None:
                return cls(path, descriptor, remove)
            # Another process swept the folder away before it was locked.

    def close(self) -> None:
        with contextlib.suppress(OSError):  # something in it is still ending; the next owner takes the folder
            self._remove(self.path)
        os.close(self.descriptor)


def _sweep(parent: Path, remove: Callable[[Path], None]) -> None:
    for path in parent.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid != os.geteuid() or (descriptor := _lock(path)) is None:
                continue
            try:
                remove(path)
            finally:
                os.close(descriptor)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the folder's lock, or None where somebody else has it, or the folder is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
