"""What every client is asked, and what it has seen: the words that the tests and the clients share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Leaving(Exception):
    """Raised by a request's body: its client leaves in the middle of the upload."""


@dataclass(frozen=True)
class Ask:
    """A request, and how long its client stays."""

    url: str
    method: str = "GET"
    body: bytes | Iterator[bytes] | None = None
    """An iterator is sent piece by piece, each when it is there; it may raise `Leaving`."""
    leave_after: int | None = None
    """Pieces of the response after which the client leaves."""
    timeout: float = 30.0
    """Seconds without a byte, in whatever way this client counts them."""


@dataclass
class Seen:
    """The response as its client shows it, while it comes."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """The Unix time at which each was there, and its bytes."""
    trailers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    """In the client's own words; empty where it saw none."""

    def add(self, piece: bytes) -> None:
        self.pieces.append((time.time(), piece))

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


class Reads(Enum):
    AFTER = "when it has sent all"
    BETWEEN = "when it has the next piece to send"
    ALWAYS = "when it comes"


class Client(Protocol):
    """One HTTP client, and what its users may expect of it."""

    reads: Reads
    """When it reads the response to a request that it is still sending."""
    shows_trailers: bool
    cut_error: str
    """Its error when a response is cut after its head."""
    timeout_error: str

    def fetch(self, ask: Ask, seen: Seen) -> None:
        """Fills `seen` until the response has ended, or the client has left."""
