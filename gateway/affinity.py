"""Which requests belong together: those with the same value in a header or a cookie.

Reads heads, the requests' and the responses'; whose environment a value is, is known by `bonds`. A value is a client's
to choose and may open a session: only its digest is kept, and nothing of it is ever logged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from gateway.response_head import NAME, Pair
from protocol.frames import Headers

OFF: Final = "off"
DIGEST_SIZE: Final = 16  # bytes: nobody finds two values with one digest, which besides is keyed
_KEY: Final = os.urandom(32)


@dataclass(frozen=True, slots=True)
class Affinity:
    """Where the value is; made once for each route, at start."""

    is_cookie: bool
    name: bytes
    """A header's is lower-cased, a cookie's is not (RFC 6265, section 5.4)."""

    @classmethod
    def read(cls, text: str) -> Affinity | None:
        """`header:NAME`, `cookie:NAME` or `off`. Raises ValueError, whose text says what would be right."""
        if text == OFF:
            return None
        place, _, name = text.partition(":")
        if place not in ("header", "cookie") or not name.isascii() or not NAME.fullmatch(name.encode()):
            raise ValueError('must be "header:NAME", "cookie:NAME" or "off", with a NAME as HTTP has it')
        return cls(place == "cookie", name.encode() if place == "cookie" else name.lower().encode())

    def tie(self, headers: Headers) -> Tie:
        """Of a request with these fields."""
        if not self.is_cookie:
            return Tie(self, self._header(headers))
        pairs = (pair for name, value in headers if name == b"cookie" for pair in value.split(b";"))
        return Tie(self, self._cookie(pairs))

    def told(self, headers: Iterable[Pair]) -> bytes | None:
        """The digest of the value that a response gives its client, to be sent again; None: it gives none."""
        if not self.is_cookie:
            return self._header(headers)
        pairs = [value.partition(b";")[0] for name, value in headers if name == b"set-cookie"]
        return self._cookie(reversed(pairs))  # of several with this name the last one stays

    def _header(self, headers: Iterable[Pair]) -> bytes | None:
        return self._digest(next((value for name, value in headers if name == self.name), b""))

    def _cookie(self, pairs: Iterable[bytes]) -> bytes | None:
        for pair in pairs:
            name, equals, value = pair.partition(b"=")
            if equals and name.strip() == self.name:
                return self._digest(value.strip().strip(b'"'))
        return None

    def _digest(self, value: bytes) -> bytes | None:
        value = value.strip()
        if not value:
            return None
        # Two routes that look in the same place share their values.
        return blake2b(b"%d%b=%b" % (self.is_cookie, self.name, value), digest_size=DIGEST_SIZE, key=_KEY).digest()


Answered = Callable[["Tie", int, Headers], None]


class Tie:
    """What holds one request to an environment. Begins and ends with its exchange."""

    __slots__ = ("affinity", "is_first", "listener", "value")

    def __init__(self, affinity: Affinity, value: bytes | None) -> None:
        self.affinity = affinity
        self.value = value
        """The digest of what the request says; None: nothing, and only its response can bind a value."""
        self.is_first = False
        """It was given to an environment that nothing had bound its value to."""
        self.listener: Answered | None = None
        """Who binds: set with each stream."""

    def answered(self, status: int, headers: Headers) -> None:
        """Its stream has a final response head, or the 101 of a WebSocket."""
        if self.listener is not None:
            self.listener(self, status, headers)
