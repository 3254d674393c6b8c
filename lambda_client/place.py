"""Where something is in the user's own code, for lines of the log that name it.

The user's own is what is neither Python's, nor ours, nor of a package that was installed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Iterator
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
    return _innermost(frames, code)


def place_now(stream: Stream) -> str:
    """The same of code that waits, in tasks that have the request's id for their name."""
    frames: list[tuple[FrameType, int]] = []
    for task in asyncio.all_tasks():
        waits: Any = task.get_coro() if task.get_name() == stream.id else None
        while waits is not None:
            frame = getattr(waits, "cr_frame", None)
            frames += [(frame, frame.f_lineno)] if frame is not None else []
            waits = getattr(waits, "cr_await", None)
    return _innermost(frames, stream.code)


def _innermost(frames: list[tuple[FrameType, int]], code: object) -> str:
    for frame, line in reversed(frames):
        if _is_users(frame.f_globals.get("__name__"), frame.f_code.co_filename):
            return f", at {_named(frame.f_code, line)}"
    while isinstance(code, partial):
        code = code.func
    function: Any = unwrap(code) if callable(code) else code
    if callable(function) and not hasattr(function, "__code__"):
        function = type(function).__call__
    found: CodeType | None = getattr(function, "__code__", None)
    if found is None or not _is_users(function.__module__, found.co_filename):
        return ""
    return f", at {_named(found, found.co_firstlineno)}"


def users_part(innermost: FrameType) -> tuple[str, str]:
    """Of a running stack: the user's line that does not return, and the stack from the user's code on."""
    frames = list(_of_callback(innermost))  # with their lines: they may go on while we look
    users = [
        index
        for index, (frame, _) in enumerate(frames)
        if _is_users(frame.f_globals.get("__name__"), frame.f_code.co_filename)
    ] or [0, len(frames) - 1]
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


def _is_users(module: object, file: str) -> bool:
    top = str(module).partition(".")[0]
    if top in ("lambda_client", "protocol") or top in sys.stdlib_module_names:
        return False
    folder = file[: max(0, file.find(os.sep + top))]
    return not ("site-packages" in file or "dist-packages" in file or top.lower() in _installed(folder))


@cache
def _installed(folder: str) -> frozenset[str]:
    """The packages that were installed into a folder, as into a function's zip: by what installers note."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return frozenset(name.partition("-")[0].lower() for name in names if name.endswith(".dist-info"))
