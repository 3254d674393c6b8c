"""Log lines: one place that decides how they look and where they go (stderr).

Every line is an event: a constant text and named values; a line for people on a terminal, elsewhere a JSON object.
It knows nothing of what is logged; a `Secret` prints itself as stars.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
OURS = "dialback"
"""The root of our loggers' names."""
WHO_WIDTH = 8
"""Columns for the name of who speaks: "gateway" and "a1b2c3d4" (an environment) line up."""
RESET, DIM, RED, YELLOW, CYAN = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[36m"
LEVEL_COLOURS = {"warning": YELLOW, "error": RED, "critical": RED}

RECORD_FIELDS = frozenset((*logging.makeLogRecord({}).__dict__, "message", "asctime"))
"""What every record of `logging` has."""


def configure(style: str, level: str, *, stream: TextIO | None = None) -> None:
    """Send our events and `logging`'s to `stream` (stderr), in the style "console", "json" or "auto" (by the stream).

    Ours are told from `level` on, those of libraries from "warning" on.
    """
    is_terminal = (stream or sys.stderr).isatty()
    out = JoinedLines(stream or sys.stderr)
    shared: list[Processor] = [structlog.processors.add_log_level, _name_speaker, _add_time]
    handler = LineHandler(out)
    renderer: Processor
    if style == "console" or (style == "auto" and is_terminal):
        renderer = ConsoleLine(colour=is_terminal)
        remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove, renderer])
        )
    else:
        renderer = structlog.processors.JSONRenderer(default=str)
        shared = [*shared, structlog.processors.format_exc_info, _stamp]
        handler.setFormatter(JsonLine())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *names: Lines(out, *names),
        cache_logger_on_first_use=False,
    )
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(LEVELS[level])


class JoinedLines:
    """A stream for lines: those of one turn of the event loop leave in one write, at its end; outside of a loop each
    leaves at once. What is left at exit leaves with `logging`'s own end.

    A line that nobody can read any more (the terminal is closed, the pipe's reader has ended) is dropped: what it tells
    of, an orderly stop perhaps, must go on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            is_first = len(self._lines) == 1
        if is_first:  # else they leave together
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # there is no loop
                self.flush()

    def flush(self) -> None:
        """Let them leave now."""
        with self._lock:
            lines, self._lines = self._lines, []
            if lines:
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write("".join(lines))
                    self._stream.flush()


class LineHandler(logging.Handler):
    """`logging`'s way to them."""

    def __init__(self, lines: JoinedLines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self.lines.flush()


class Lines:
    """structlog's; keeps the name that `structlog.get_logger` was given."""

    def __init__(self, lines: JoinedLines, name: str = "") -> None:
        self._lines = lines
        self.name = name

    def msg(self, message: str) -> None:
        self._lines.write(message + "\n")

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def logger(who: str) -> FilteringBoundLogger:
    """A logger whose lines carry `who`; `configure` decides, before or later, what becomes of them."""
    bound: FilteringBoundLogger = structlog.get_logger(who=who)
    return bound


def _add_time(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event.setdefault("time", time.time())
    return event


def _stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The time as RFC 3339 writes it, in UTC."""
    event["time"] = _rfc3339(event["time"])
    return event


def _rfc3339(seconds: float) -> str:
    return _millisecond(int(seconds * 1000))


@lru_cache(maxsize=1)
def _millisecond(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _name_speaker(speaker: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A logger's name says who speaks: the last part of ours (`dialback.pool`), the first of a library's."""
    record = event.get("_record")
    name = str(record.name if record is not None else getattr(speaker, "name", ""))
    event.setdefault("who", _speaker(name))
    return event


def _speaker(name: str) -> str:
    return name.removeprefix(OURS + ".") if name.startswith(OURS) else name.partition(".")[0]


class JsonLine(logging.Formatter):
    """Renders a record of `logging` as our own events are: what it was given beside the text stands beside the event.
    structlog's formatter, which copies the record and walks processors, costs thrice."""

    def format(self, record: logging.LogRecord) -> str:
        given = {name: value for name, value in record.__dict__.items() if name not in RECORD_FIELDS}
        event = {
            "event": given.pop("event", None) or record.getMessage(),
            "level": record.levelname.lower(),
            "who": given.pop("who", None) or _speaker(record.name),
            "time": _rfc3339(record.created),
            **given,
        }
        if trace := _traceback_text(record.exc_info):
            event["exception"] = trace
        return json.dumps(event, default=str)


def json_line(event: str, level: int, who: str, members: str) -> str:
    """What `JsonLine` makes of a record whose fields beside the text are the `members` of an object."""
    said = f'"event": "{event}", "level": "{logging.getLevelName(level).lower()}", "who": "{who}"'
    return f'{{{said}, "time": "{_rfc3339(time.time())}", {members}}}\n'


def sole_json_lines(logger: logging.Logger, level: int) -> JoinedLines | None:
    """Ours, if what `logger` says at `level` goes there as JSON, unfiltered, and nowhere else: then a record would be
    made for nothing."""
    heard: logging.Handler | None = None
    speaker: logging.Logger | None = logger
    while speaker is not None:
        for handler in speaker.handlers:
            if heard is not None or handler.filters or handler.level > level:
                return None
            heard = handler
        speaker = speaker.parent if speaker.propagate else None
    if type(heard) is LineHandler and type(heard.formatter) is JsonLine and not logger.filters:
        return heard.lines
    return None


class ConsoleLine:
    """Renders an event as `12:00:01.234 gateway  text  name=value`, with a traceback below it."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> str:
        seconds = event.pop("time")
        level = event.pop("level", "info")
        who = str(event.pop("who", ""))
        text = str(event.pop("event", ""))
        trace = _traceback_text(event.pop("exc_info", None))
        clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds * 1000) % 1000:03d}"
        details = "".join(f"  {name}={value}" for name, value in event.items())
        colour = LEVEL_COLOURS.get(level, "")
        label = f"{level}: " if colour else ""
        line = (
            f"{self._paint(DIM, clock)} {self._paint(CYAN, who.ljust(WHO_WIDTH))} "
            f"{self._paint(colour, label + text)}{self._paint(DIM, details)}"
        )
        return f"{line}\n{trace}" if trace else line

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self._colour and colour and text else text


def _traceback_text(exc_info: object) -> str:
    if exc_info is True:
        return traceback.format_exc().rstrip()
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if isinstance(exc_info, BaseException):
        return "".join(traceback.format_exception(exc_info)).rstrip()
    return ""


class RateLimited:
    """A logger for what a client can cause as often as it likes.

    Each event, told apart by its constant text, gets `lines` in `period` seconds; the first of a later one says how
    many were suppressed.
    """

    def __init__(
        self, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic, lines: int = 5, period: float = 10
    ) -> None:
        self._log = log
        self._lines = lines
        self._period = period
        self._clock = clock
        self._events: dict[str, tuple[float, int]] = {}  # text -> (when its period began, how many since)

    def warning(self, event: str, **details: object) -> None:
        """Log at `warning`, or only count."""
        now = self._clock()
        began, count = self._events.get(event, (now, 0))
        suppressed = 0
        if now - began >= self._period:
            suppressed = max(0, count - self._lines)
            began, count = now, 0
        self._events[event] = (began, count + 1)
        if count < self._lines:
            self._log.warning(event, **details, **({"suppressed": suppressed} if suppressed else {}))
