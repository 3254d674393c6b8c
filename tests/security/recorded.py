"""The corpus of requests.toml: what is sent, and what must become of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

FILE = Path(__file__).parent / "corpus" / "requests.toml"
START = "POST /a HTTP/1.1\r\nHost: x\r\n"
REPEATED = re.compile(r"<(\d+)\*([^>]+)>")
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Follows each case on its connection: who reads the case in another way does not see it, or sees something else."""


@dataclass(frozen=True)
class Case:
    """One row."""

    name: str
    rule: str
    sent: bytes
    statuses: tuple[int, ...]
    """Of the refusal, any of them; empty: it is served."""
    saw: list[str]
    """What functions see, as `METHOD target body`; `NEXT` not among it."""
    closes: bool
    waits: bool
    together: bool
    has: dict[str, str] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)

    @property
    def is_followed(self) -> bool:
        """`NEXT` is served on the same connection."""
        return not (self.statuses or self.closes or self.waits)


def cases() -> list[Case]:
    """All of them, in their order."""
    return [_case(row) for row in tomllib.loads(FILE.read_text(encoding="utf-8"))["case"]]


def _case(row: dict[str, Any]) -> Case:
    raw = row.get("raw") or START + row["fields"] + "\r\n" + row.get("body", "")
    status = row.get("status", ())
    sent = REPEATED.sub(lambda match: int(match[1]) * match[2], raw).encode("latin-1")
    return Case(
        name=row["name"],
        rule=row["rule"],
        sent=sent,
        statuses=(status,) if isinstance(status, int) else tuple(status),
        saw=row.get("saw", []),
        closes=row.get("closes", False),
        waits=row.get("waits", False),
        together=row.get("together", False),
        has=row.get("has", {}),
        lacks=row.get("lacks", []),
    )
