"""What the HTTP side writes to the log: one line per exchange at its end.

Knows no secret: a path without its query, no header, no body, nothing of a request that was not understood. Each
line's fields are also attributes of its record, for structured logs; `event` is then its text, which is constant.
"""

from __future__ import annotations

import json
import logging
import time
from json.encoder import encode_basestring_ascii as quoted
from typing import Final

from gateway.exchange import Exchange, RequestHead
from gateway.telemetry import OURS, json_line, sole_json_lines

WHO: Final = "access"
ACCESS: Final = logging.getLogger(f"{OURS}.{WHO}")
PATH_LENGTH: Final = 512  # characters of a path; 16 KiB of it may have come
REASON_LENGTH: Final = 200  # characters of a function's reason
EVENT: Final = "request.ended"
WORTH_A_WARNING: Final = frozenset(("failed", "aborted", "timed_out"))


def log_exchange(exchange: Exchange) -> None:
    """The line of an exchange that has ended; an end that somebody should look at is a warning."""
    level = logging.WARNING if exchange.state in WORTH_A_WARNING else logging.INFO
    if not ACCESS.isEnabledFor(level):
        return
    # A record, and what `logging` does with it, costs three times what the line does, and there is one per request.
    lines = sole_json_lines(ACCESS, level)
    if lines is not None:
        lines.write(json_line(EVENT, level, WHO, access_json(exchange)))
    else:
        fields = access_fields(exchange)
        ACCESS.log(level, access_text(fields), extra={**fields, "event": EVENT})


def access_json(exchange: Exchange) -> str:
    """What is said of an ended exchange, as members of a JSON object; times in milliseconds, sizes in bytes of body. No
    response, no `ttfb_ms`. By hand, at a quarter of the price of `json.dumps`."""
    began, head, head_at, status = exchange.began, exchange.head, exchange.head_at, exchange.status
    duration = ((exchange.ended_at or time.monotonic()) - began) * 1000
    first = f', "ttfb_ms": {(head_at - began) * 1000:.1f}' if head_at is not None else ""
    return (
        f'"id": "{exchange.id.hex()}", "method": {quoted(head.method.decode("ascii"))}, "path": {quoted(_path(head))}, '
        f'"function": {quoted(exchange.function)}, "status": {"null" if status is None else status}, '
        f'"state": "{exchange.state}", "bytes_in": {exchange.bytes_in}, '
        f'"bytes_out": {exchange.bytes_out - exchange.bytes_saved}, "duration_ms": {duration:.1f}, '
        f'"reason": {quoted(_printable(exchange.reason))}{first}'
    )


def access_fields(exchange: Exchange) -> dict[str, object]:
    """The same as objects."""
    fields: dict[str, object] = json.loads(f"{{{access_json(exchange)}}}")
    return fields


def access_text(fields: dict[str, object]) -> str:
    """The fields for people."""
    first = f" ttfb_ms={fields['ttfb_ms']}" if "ttfb_ms" in fields else ""
    why = f" reason={fields['reason']!r}" if fields["reason"] else ""
    return (
        "{method} {path} {status} {state} function={function} in={bytes_in} out={bytes_out}{first}"
        " duration_ms={duration_ms} id={id}{why}"
    ).format(**fields, first=first, why=why)


def _path(head: RequestHead) -> str:
    path = head.path.decode("ascii", "backslashreplace")
    return path if len(path) <= PATH_LENGTH else f"{path[:PATH_LENGTH]}...(+{len(path) - PATH_LENGTH})"


def _printable(text: str) -> str:
    """One line, whatever a function put into it."""
    return text[:REASON_LENGTH].encode("unicode_escape").decode("ascii") if text else ""
