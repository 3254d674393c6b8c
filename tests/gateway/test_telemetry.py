"""What log lines look like."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from gateway import telemetry
from gateway.keys import Secret


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
    log = telemetry.RateLimited(telemetry.logger("http"), lines=2, period=10, clock=lambda: now)
    for _ in range(5):
        log.warning("refused", peer="p")
    log.warning("another")
    now = 110.0
    log.warning("refused", peer="p")
    said = [line.split("warning: ")[1] for line in lines.getvalue().splitlines()]
    assert said == ["refused  peer=p", "refused  peer=p", "another", "refused  peer=p  suppressed=3"]
