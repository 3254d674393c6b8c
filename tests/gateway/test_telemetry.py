"""What log lines look like."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog

from gateway import telemetry
from gateway.exchange import Exchange, RequestHead
from gateway.keys import Secret
from gateway.request_log import log_exchange
from gateway.silent_side import SilentSide
from tests.build import IS_COMPILED


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """A stream to configure; afterwards logging is as it was."""
    root, ours = logging.getLogger(), logging.getLogger("dialback")
    before = (list(root.handlers), root.level, ours.level)
    yield io.StringIO()
    root.handlers, root.level, ours.level = before
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_for_people_has_time_speaker_and_text(lines: io.StringIO) -> None:
    telemetry.configure("console", "info", stream=lines)
    telemetry.logger("gateway").info("listening", port=80)
    structlog.get_logger("dialback.pool").warning("late")
    logging.getLogger("dialback.access").info("GET %s", "/", extra={"status": 200})
    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(
        rf"{clock} gateway  listening  port=80\n{clock} pool     warning: late\n{clock} access   GET /\n",
        lines.getvalue(),
    )


def test_a_line_for_machines_is_one_json_object(lines: io.StringIO) -> None:
    telemetry.configure("auto", "info", stream=lines)
    telemetry.logger("gateway").info("listening", time=0.5, secret=Secret("x" * 40))
    logging.getLogger("dialback.access").info("GET %s", "/", extra={"status": 200, "event": "request.ended"})
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert first == {
        "event": "listening",
        "level": "info",
        "who": "gateway",
        "time": "1970-01-01T00:00:00.500Z",
        "secret": "Secret('***')",
    }
    assert (second["event"], second["who"], second["status"]) == ("request.ended", "access", 200)


def test_a_line_that_nobody_can_read_any_more_does_no_harm(lines: io.StringIO) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    telemetry.configure("console", "info", stream=Closed())
    telemetry.logger("gateway").info("listening")
    telemetry.logger("gateway").warning("still listening")


@pytest.mark.parametrize("style", ["console", "json"])
def test_a_traceback_is_told_once(lines: io.StringIO, style: str) -> None:
    telemetry.configure(style, "info", stream=lines)
    try:
        raise RuntimeError("the cause")
    except RuntimeError as fault:
        logging.getLogger("aiohttp.server").exception("from a library")
        telemetry.logger("gateway").error("from us", exc_info=fault)
    assert lines.getvalue().count("Traceback") == 2
    assert lines.getvalue().count("RuntimeError: the cause") == 2


def test_levels_of_ours_and_of_libraries(lines: io.StringIO) -> None:
    telemetry.configure("console", "debug", stream=lines)
    for logger in (logging.getLogger("aiohttp.server"), logging.getLogger("dialback.access")):
        logger.debug("low")
        logger.warning("high")
    telemetry.logger("gateway").debug("low")
    said = [line.split(None, 1)[1] for line in lines.getvalue().splitlines()]
    assert said == ["aiohttp  warning: high", "access   low", "access   warning: high", "gateway  low"]


def test_colour_only_on_a_terminal(lines: io.StringIO) -> None:
    terminal = Terminal()
    telemetry.configure("auto", "info", stream=terminal)
    telemetry.logger("gateway").error("red")
    assert "\x1b[31m" in terminal.getvalue()
    telemetry.configure("console", "info", stream=lines)
    telemetry.logger("gateway").error("not red")
    assert "\x1b" not in lines.getvalue()


def test_repeated_events_are_counted_instead_of_told(lines: io.StringIO) -> None:
    telemetry.configure("console", "info", stream=lines)
    now = 100.0
    log = telemetry.RateLimited(telemetry.logger("http"), lambda: now)
    for _ in range(8):
        log.warning("refused", peer="p")
    log.warning("another")
    now = 110.0
    log.warning("refused", peer="p")
    said = [line.split("warning: ")[1] for line in lines.getvalue().splitlines()]
    assert said == [*["refused  peer=p"] * 5, "another", "refused  peer=p  suppressed=3"]


class Writes(io.StringIO):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, text: str) -> int:
        self.count += 1
        return super().write(text)


async def test_the_lines_of_a_turn_leave_in_one_write() -> None:
    writes = Writes()
    lines = telemetry.JoinedLines(writes)
    for number in range(3):
        lines.write(f"{number}\n")
    assert writes.getvalue() == ""
    await asyncio.sleep(0)
    assert (writes.getvalue(), writes.count) == ("0\n1\n2\n", 1)
    await asyncio.to_thread(lines.write, "from a thread\n")
    assert writes.getvalue().endswith("from a thread\n")
    lines.write("last\n")
    lines.flush()  # as `logging` does at exit
    assert writes.getvalue().endswith("last\n")


def test_lines_outside_of_a_loop_leave_at_once() -> None:
    writes = Writes()
    telemetry.JoinedLines(writes).write("now\n")
    assert writes.getvalue() == "now\n"


def test_no_line_is_lost_when_the_process_ends_within_a_turn() -> None:
    program = """
import asyncio, logging, structlog
from gateway import telemetry
telemetry.configure("json", "info")

async def main():
    structlog.get_logger("dialback.one").info("first")
    logging.getLogger("dialback.two").warning("second")
    raise SystemExit(3)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["first", "second"]


def exchanges() -> Iterator[Exchange]:
    """Ended ones, of all shapes that a line of them can have."""
    for target, status, head_after, reason in (
        (b"/?secret", 200, 0.0014, ""),
        (b'/a"b\\c\xff', 502, None, 'with "quotes", \u20ac\n and a line'),
        (b"/%s{0}/" + b"x" * 2000, None, 1.0, "y" * 2000),
    ):
        exchange = Exchange(RequestHead(b"GET", target, ()), SilentSide(), id=b"\xab" * 16, function="fün")
        exchange.state = "complete" if status == 200 else "failed"
        exchange.status, exchange.reason = status, reason
        exchange.bytes_in, exchange.bytes_out, exchange.bytes_saved = 1 << 40, 10, 3
        exchange.began, exchange.ended_at = 1000.0, 1012.3456
        exchange.head_at = None if head_after is None else exchange.began + head_after
        yield exchange


COMMON = {
    "id": "ab" * 16,
    "method": "GET",
    "function": "fün",
    "bytes_in": 1 << 40,
    "bytes_out": 7,
    "duration_ms": 12345.6,
}
FIELDS = (
    {**COMMON, "path": "/", "status": 200, "state": "complete", "reason": "", "ttfb_ms": 1.4},
    {
        **COMMON,
        "path": r'/a"b\c\xff',
        "status": 502,
        "state": "failed",
        "reason": r'with "quotes", \u20ac\n and a line',
    },
    {
        **COMMON,
        "path": "/%s{0}/" + "x" * 505 + "...(+1495)",
        "status": None,
        "state": "failed",
        "reason": "y" * 200,
        "ttfb_ms": 1000.0,
    },
)


class Heard(logging.Handler):
    """Somebody else's."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def access() -> Iterator[logging.Logger]:
    """The logger of the lines of exchanges, heard by nobody but ours; afterwards it is as it was."""
    logger = logging.getLogger("dialback.access")
    before = (list(logger.handlers), list(logger.filters), logger.level, logger.propagate, logger.disabled)
    yield logger
    logger.handlers, logger.filters, level, logger.propagate, logger.disabled = before
    logger.setLevel(level)


def test_the_line_of_an_exchange_is_one_json_object(lines: io.StringIO, access: logging.Logger) -> None:
    telemetry.configure("json", "info", stream=lines)
    for exchange in exchanges():
        log_exchange(exchange)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [line.pop("level") for line in told] == ["info", "warning", "warning"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time")) for line in told)
    assert told == [{"event": "request.ended", "who": "access", **fields} for fields in FIELDS]


def test_the_line_is_the_same_when_others_hear_its_record(lines: io.StringIO, access: logging.Logger) -> None:
    telemetry.configure("json", "info", stream=lines)
    for exchange, fields in zip(exchanges(), FIELDS, strict=True):
        heard = Heard()
        log_exchange(exchange)
        access.addHandler(heard)
        log_exchange(exchange)
        access.removeHandler(heard)
        alone, beside = (re.sub(r'"time": "[^"]*"', "", line) for line in lines.getvalue().splitlines()[-2:])
        assert alone == beside
        (record,) = heard.records
        assert {name: record.__dict__[name] for name in fields} == fields
        assert record.getMessage().startswith("GET /")
        assert IS_COMPILED or record.funcName == "log_exchange"  # what is compiled has no frame to be found by
        assert ("secret" in alone + record.getMessage(), "\n" in alone + record.getMessage()) == (False, False)


@pytest.mark.parametrize("where", ["dialback.access", "dialback", ""])
def test_whoever_listens_beside_us_hears_of_exchanges(lines: io.StringIO, access: logging.Logger, where: str) -> None:
    telemetry.configure("json", "info", stream=lines)
    logger, heard, warned = logging.getLogger(where), Heard(), Heard(logging.WARNING)
    for handler in (heard, warned):
        logger.addHandler(handler)
    for exchange in exchanges():
        log_exchange(exchange)
    for handler in (heard, warned):
        logger.removeHandler(handler)
    assert [record.levelname for record in heard.records] == ["INFO", "WARNING", "WARNING"]
    assert warned.records == heard.records[1:]
    assert len(lines.getvalue().splitlines()) == 3


def muted(access: logging.Logger, ours: logging.Handler) -> None:
    access.propagate = False


def heard_here(access: logging.Logger, ours: logging.Handler) -> None:
    access.propagate = False
    access.addHandler(ours)


def disabled(access: logging.Logger, ours: logging.Handler) -> None:
    access.disabled = True


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda access, ours: None, ["200", "502", "null"]),
        (lambda access, ours: access.addFilter(lambda record: record.status == 502), ["502"]),
        (lambda access, ours: ours.addFilter(lambda record: record.status == 502), ["502"]),
        (lambda access, ours: access.setLevel(logging.WARNING), ["502", "null"]),
        (lambda access, ours: ours.setLevel(logging.WARNING), ["502", "null"]),
        (lambda access, ours: ours.setFormatter(logging.Formatter("%(status)s")), ["200", "502", "None"]),
        (muted, []),
        (heard_here, ["200", "502", "null"]),
        (disabled, []),
    ],
)
def test_loggings_own_means_hold_for_exchanges(
    lines: io.StringIO,
    access: logging.Logger,
    change: Callable[[logging.Logger, logging.Handler], object],
    told: list[str],
) -> None:
    telemetry.configure("json", "info", stream=lines)
    (ours,) = logging.getLogger().handlers
    change(access, ours)
    for exchange in exchanges():
        log_exchange(exchange)
    assert re.findall(r'(?:^|"status": )(\w+)', lines.getvalue(), re.MULTILINE) == told
