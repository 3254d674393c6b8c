"""Where something is in the user's own code, for lines of the log that name it.

The user's own is what is neither Python's, nor ours, nor of a package that was installed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from inspect import unwrap
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_client.stream import Stream

LOG = logging.getLogger("dialback")


def log_failure(stream: Stream, what: str, error: BaseException) -> None:
    """Log with its traceback what the user's code has raised."""
    LOG.error("request %s: %s%s", stream.id, what, place_of(error, stream.code), exc_info=error)


def place_of(error: BaseException, code: object) -> str:
    """`, at FILE:LINE in NAME`: the user's line that raised, or called what raised; else where `code`, which ran,
    begins. Empty where that is not the user's either."""
    frames: list[tuple[FrameType, int]] = []
    for one in filter(None, (error.__cause__, error)):
        frames += traceback.walk_tb(one.__traceback__)
    return innermost(frames, code)


def place_now(stream: Stream) -> str:
    """The same of code that waits, in tasks that have the request's id for their name."""
    tasks = (task for task in asyncio.all_tasks() if task.get_name() == stream.id)
    return innermost([frame for task in tasks for frame in frames_of(task)], stream.code)


def frames_of(task: asyncio.Task[Any]) -> Iterator[tuple[FrameType, int]]:
    """The innermost last."""
    waits: Any = task.get_coro()
    while waits is not None:
        if (frame := getattr(waits, "cr_frame", None)) is not None:
            yield frame, frame.f_lineno
        waits = getattr(waits, "cr_await", None)


def innermost(frames: list[tuple[FrameType, int]], code: object) -> str:
    for frame, line in reversed(frames):
        if _is_users(frame.f_globals, frame.f_code):
            return f", at {_named(frame.f_code, line)}"
    while isinstance(code, partial):
        code = code.func
    function: Any = unwrap(code) if callable(code) else code
    if callable(function) and not hasattr(function, "__code__"):
        function = type(function).__call__
    found: CodeType | None = getattr(function, "__code__", None)
    if found is None or not _is_users(function.__globals__, found):
        return ""
    return f", at {_named(found, found.co_firstlineno)}"


def users_part(innermost: FrameType) -> tuple[str, str]:
    """Of a running stack: the user's line that does not return, and the stack from the user's code on."""
    frames = list(_of_callback(innermost))  # with their lines: they may go on while we look
    users = [index for index, (frame, _) in enumerate(frames) if _is_users(frame.f_globals, frame.f_code)]
    users = users or [0, len(frames) - 1]
    where, line = frames[users[0]]
    lines = traceback.StackSummary.extract(iter(frames[users[-1] :: -1]))
    return _named(where.f_code, line), "".join(lines.format()).rstrip()


def _of_callback(frame: FrameType | None) -> Iterator[tuple[FrameType, int]]:
    """From the innermost frame to the one in which the loop has called back."""
    while frame is not None:
        yield frame, frame.f_lineno
        if frame.f_code.co_name == "_run" and "asyncio" in frame.f_code.co_filename:
            return
        frame = frame.f_back


def _named(code: CodeType, line: int) -> str:
    return f"{code.co_filename}:{line} in {code.co_name}"


def _is_users(names: dict[str, Any], code: CodeType) -> bool:
    module, file = str(names.get("__name__")), code.co_filename
    top = module.partition(".")[0]
    parts = file.split(os.sep)
    if top in {"lambda_client", "protocol", *sys.stdlib_module_names} or {"site-packages", "dist-packages"} & {*parts}:
        return False
    depth = module.count(".") + (parts[-1] == "__init__.py") + 1
    return top not in _installed(os.sep.join(parts[:-depth]))


@cache
def _installed(folder: str) -> frozenset[str]:
    """What can be imported of packages that were installed into a folder: by what installers note."""
    names: set[str] = set()
    for info in os.listdir(folder) if os.path.isdir(folder) else ():
        for note in ("RECORD", "top_level.txt") if info.endswith(".dist-info") else ():
            with suppress(OSError), open(os.path.join(folder, info, note), errors="replace") as lines:
                names.update(re.split(r"[,/.\s]", line, maxsplit=1)[0] for line in lines)
    return frozenset(names)
