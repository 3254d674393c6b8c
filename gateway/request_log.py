"""What the HTTP side writes to the log: one line per exchange at its end, and one, rate-limited, for what never
became one.

Knows no secret: a path without its query, no header, no body, nothing of a request that was not understood. Each
line's fields are also attributes of its record, for structured logs; `event` is then its text, which is constant.
"""

from __future__ import annotations

import logging
import time
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from gateway.errors import Problem
from gateway.exchange import Exchange
from gateway.telemetry import JsonText

ACCESS: Final = logging.getLogger("dialback.access")
HTTP: Final = logging.getLogger("dialback.http")
REFUSAL_INTERVAL: Final = 1.0  # seconds between lines about bad requests; a flood of them must not become one of lines
PATH_LENGTH: Final = 512  # characters of a path; 16 KiB of it may have come
REASON_LENGTH: Final = 200  # characters of a function's reason
EVENT: Final = "request.ended"
#: What all these records have in common.
RECORDS: Final = {
    level: logging.makeLogRecord(
        {"name": ACCESS.name, "levelno": level, "levelname": logging.getLevelName(level), "event": EVENT}
    ).__dict__
    for level in (logging.INFO, logging.WARNING)
}
WORTH_A_WARNING: Final = frozenset(("failed", "aborted", "timed_out"))


def access_fields(exchange: Exchange) -> dict[str, object]:
    """What is said of an ended exchange; times in milliseconds, sizes in bytes of body. No response, no `ttfb_ms`."""
    ended = exchange.ended_at or time.monotonic()
    fields: dict[str, object] = {
        "id": exchange.id.hex(),
        "method": exchange.head.method.decode("ascii"),
        "path": _cut(exchange.head.path.decode("ascii", "backslashreplace")),
        "function": exchange.function,
        "status": exchange.status,
        "state": exchange.state,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out - exchange.bytes_saved,
        "duration_ms": round((ended - exchange.began) * 1000, 1),
        "reason": _printable(exchange.reason) if exchange.reason else "",
    }
    if exchange.head_at is not None:
        fields["ttfb_ms"] = round((exchange.head_at - exchange.began) * 1000, 1)
    return fields


def log_exchange(exchange: Exchange) -> None:
    """The line of an exchange that has ended; an end that somebody should look at is a warning."""
    level = logging.WARNING if exchange.state in WORTH_A_WARNING else logging.INFO
    if not ACCESS.isEnabledFor(level):
        return
    fields = access_fields(exchange)
    # Made here, since `ACCESS.log` would first look for who calls it, and a record of `logging`'s own making for the
    # thread and the process: each costs as much as all the rest.
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__ = {**RECORDS[level], **fields, "created": time.time(), "msg": AccessText(fields)}
    ACCESS.handle(record)


class AccessText(JsonText):
    """The line; for people made where somebody reads it, and by hand for machines."""

    __slots__ = ("_fields",)
    event = EVENT

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        fields = self._fields
        first = f" ttfb_ms={fields['ttfb_ms']}" if "ttfb_ms" in fields else ""
        why = f" reason={fields['reason']!r}" if fields["reason"] else ""
        return (
            "{method} {path} {status} {state} function={function} in={bytes_in} out={bytes_out}{first}"
            " duration_ms={duration_ms} id={id}{why}"
        ).format(**fields, first=first, why=why)

    def members(self) -> str:
        """As `json.dumps` would have it, at a third of its price."""
        return ", ".join(
            [
                f'"{name}": {quoted(value) if type(value) is str else "null" if value is None else value}'
                for name, value in self._fields.items()
            ]
        )


class RefusalLog:
    """Lines about requests that were refused unread; one per gateway."""

    def __init__(self) -> None:
        self._next = 0.0
        self._unsaid = 0

    def refused(self, problem: Problem, peer: str, request_id: str) -> None:
        """Say it, or count it for the next line."""
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        fields = {"problem": problem.name, "peer": peer, "id": request_id, "unsaid": self._unsaid}
        self._next, self._unsaid = now + REFUSAL_INTERVAL, 0
        HTTP.warning(
            "refused a request: %(problem)s peer=%(peer)s id=%(id)s (and %(unsaid)d others)",
            fields,
            extra={**fields, "event": "request.refused"},
        )


def _cut(path: str) -> str:
    return path if len(path) <= PATH_LENGTH else f"{path[:PATH_LENGTH]}...(+{len(path) - PATH_LENGTH})"


def _printable(text: str) -> str:
    """One line, whatever a function put into it."""
    return text[:REASON_LENGTH].encode("unicode_escape").decode("ascii")
