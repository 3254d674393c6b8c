"""Source files as they were when an environment first imported them: what is saved later does not reach those after it.

Runs in the function's process, from `bootstrap.py`: the standard library only, and little of that. A module's file is
copied when it is first imported, and all environments that share the folder of copies import that copy. Everything
else about it is as on disk: its `__file__`, its name in tracebacks, the data beside it, the cache of its bytecode.
"""

from __future__ import annotations

import importlib.machinery as machinery
import importlib.util
import os
import sys
import time

TYPE_CHECKING = False  # importing `typing` would cost ten milliseconds
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

MTIME_GRAIN = 2.0
"""Seconds. Cached bytecode knows its source by size and whole second: what is saved twice in one second looks the same.
"""


def keep(root: str, folder: str) -> None:
    """Import what is below `root` by its copies in `folder`, but for the interpreter's own folders."""
    inside = os.path.join(root, "")
    interpreters = (os.path.join(prefix, "") for prefix in (sys.prefix, sys.base_prefix))
    apart = tuple(folder for folder in interpreters if folder.startswith(inside) and folder != inside)

    def hook(path: str) -> Finder:
        absolute = os.path.join(os.path.abspath(path), "")
        if not absolute.startswith(inside) or absolute.startswith(apart) or "site-packages" in absolute:
            raise ImportError("not of the task root", path=path)
        return Finder(path, Copies(root, folder))

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


class Copies:
    """The folder of copies, laid out as the task root is."""

    def __init__(self, root: str, folder: str) -> None:
        self._root = root
        self._folder = folder

    def path(self, source: str) -> str:
        """Where a source's copy is, or would be."""
        return os.path.join(self._folder, os.path.relpath(source, self._root))

    def made(self, source: str) -> str:
        """Its path, with the copy made now if there is none. Raises OSError."""
        copy = self.path(source)
        if os.path.exists(copy):
            return copy
        with open(source, "rb") as file:
            data, status = file.read(), os.fstat(file.fileno())
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        draft = f"{copy}.{os.getpid()}"
        with open(draft, "wb") as file:
            file.write(data)
        os.utime(draft, ns=(status.st_atime_ns, status.st_mtime_ns))
        try:
            os.link(draft, copy)
        except FileExistsError:
            pass  # another environment was first, and its copy counts
        os.unlink(draft)
        return copy


class Loader(machinery.SourceFileLoader):
    """Reads the copy, and says that it is the source."""

    def __init__(self, fullname: str, path: str, copies: Copies) -> None:
        super().__init__(fullname, path)
        self._copies = copies

    def get_data(self, path: str) -> bytes:
        return super().get_data(self._copies.made(path) if path == self.path else path)

    def path_stats(self, path: str) -> dict[str, float]:
        return dict(super().path_stats(self._copies.made(path)))

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write bytecode, but not where another save may still come that it would pass for."""
        if time.time() - int.from_bytes(data[8:12], "little") > MTIME_GRAIN:
            super().set_data(path, data, _mode=_mode)


class Finder(machinery.FileFinder):
    """Finds what was copied, also if it is gone by now, and then what is there."""

    def __init__(self, path: str, copies: Copies) -> None:
        self._copies = copies
        kinds: list[Any] = [  # a loader is made by calling what stands here; it need not be a class
            (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
            (self._loader, machinery.SOURCE_SUFFIXES),
            (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
        ]
        super().__init__(path, *kinds)

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> machinery.ModuleSpec | None:
        base = os.path.join(self.path, fullname.rpartition(".")[2])
        for source, places in ((os.path.join(base, "__init__.py"), [base]), (base + ".py", None)):
            if os.path.exists(self._copies.path(source)):
                loader = self._loader(fullname, source)
                return importlib.util.spec_from_file_location(
                    fullname, source, loader=loader, submodule_search_locations=places
                )
        spec = super().find_spec(fullname, target)
        if spec is None and os.path.isdir(self._copies.path(base)):
            spec = machinery.ModuleSpec(fullname, None)  # a folder without __init__.py, a namespace package
            spec.submodule_search_locations = [base]
        return spec

    def _loader(self, fullname: str, path: str) -> Loader:
        return Loader(fullname, path, self._copies)
