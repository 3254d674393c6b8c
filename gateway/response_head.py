"""A function's response head, judged before it reaches a client.

Knows HTTP's rules for heads; nothing of sockets or framing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

Pair = tuple[bytes, bytes]

HOP_BY_HOP: Final = frozenset(
    # RFC 9110, section 7.6.1, and the two Proxy fields of RFC 7235, which were meant for us, if for anyone
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade"
    b" proxy-authenticate proxy-authorization".split()
)
#: Trailer goes on where trailers may: that is the writer's to say, who chooses the framing.
NOT_IN_RESPONSES: Final = HOP_BY_HOP - {b"trailer"}
#: A handshake's answer is the gateway's, but for the subprotocol; and it has no body.
NOT_IN_UPGRADES: Final = HOP_BY_HOP | frozenset(
    b"content-length sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-version".split()
)
#: Fields that have no place in trailers (RFC 9110, section 6.5.1) or in interim responses: framing, routing, caching.
ONLY_IN_FINAL_HEADS: Final = HOP_BY_HOP | frozenset(
    b"authorization cache-control content-encoding content-length content-range content-type host max-forwards"
    b" set-cookie".split()
)
NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
NAMES_KEPT: Final = 256
DIGITS: Final = re.compile(rb"[0-9]{1,18}")
BODILESS_STATUSES: Final = frozenset((204, 205, 304))


class ResponseRefused(Exception):
    """The function's response cannot be sent; the text says why and holds nothing of it."""


@dataclass(slots=True)  # not frozen, which would make it twice as dear
class ResponseHead:
    """A head that may be sent as it is; lives from the frame that brought it to the client's socket."""

    status: int
    """200–599."""
    headers: list[Pair]
    """Without hop-by-hop fields but Trailer, and without Content-Length."""
    length: int | None
    """Content-Length: bytes of body to come, or (HEAD, 304) that would have come; None: not said."""
    is_bodiless: bool
    """HEAD, 204, 205 or 304: no body follows, whatever the head says (RFC 9112, section 6.3)."""


def judge_response(method: bytes, status: int, headers: Iterable[Pair], end: bool) -> ResponseHead:
    """Check and clean a head; `end`: no body follows.

    Raises `ResponseRefused` for a status outside 200–599, an invalid field, or a Content-Length that cannot be true.
    """
    if not 200 <= status <= 599:
        raise ResponseRefused(f"status {status} is not a final HTTP status")
    kept, length = _without_length(clean_fields(headers, NOT_IN_RESPONSES))
    is_bodiless = method == b"HEAD" or status in BODILESS_STATUSES
    if status == 204:
        length = None  # RFC 9110, section 8.6: never with 204
    elif status == 205:
        length = 0  # RFC 9110, section 15.3.6: it has no content, and clients look for its end
    if end and not is_bodiless and length:
        raise ResponseRefused(f"content-length is {length}, but there is no body")
    return ResponseHead(status, kept, length, is_bodiless)


def judge_upgrade(offered: Sequence[str], headers: Iterable[Pair]) -> list[Pair]:
    """The fields of a 101; `offered`: the client's subprotocols.

    Raises `ResponseRefused` for an invalid field, and for a subprotocol that was not offered (RFC 6455, section 4.2.2).
    """
    fields = clean_fields(headers, NOT_IN_UPGRADES)
    chosen = [value.decode("latin-1") for name, value in fields if name == b"sec-websocket-protocol"]
    if len(chosen) > 1 or not set(chosen) <= set(offered):
        raise ResponseRefused("the subprotocol is none that the client offered")
    return fields


def clean_fields(headers: Iterable[Pair], dropped: frozenset[bytes]) -> list[Pair]:
    """The fields without `dropped` and what Connection names; raises `ResponseRefused` for an invalid one."""
    kept: list[Pair] = []
    nominated: set[bytes] = set()
    for sent, value in headers:
        name = _lowered(sent)
        if name is None:
            raise ResponseRefused("a header name is not a token")
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise ResponseRefused(f"the value of {name.decode()} holds CR, LF or NUL")
        if name == b"connection":
            nominated.update(option.strip().lower() for option in value.split(b","))
        if name not in dropped:
            kept.append((name, value))
    # Framing is ours to decide: a peer cannot have it removed by naming it.
    nominated.discard(b"content-length")
    return [field for field in kept if field[0] not in nominated] if nominated else kept


@lru_cache(NAMES_KEPT)
def _lowered(name: bytes) -> bytes | None:
    """A field's name; None: it is no token. A frame bounds it, and so what is kept."""
    return name.lower() if NAME.fullmatch(name) else None


def _without_length(fields: list[Pair]) -> tuple[list[Pair], int | None]:
    said: bytes | None = None
    for name, value in fields:
        if name == b"content-length":
            if not DIGITS.fullmatch(value := value.strip()) or said not in (None, value):
                raise ResponseRefused("content-length is not one number")
            said = value
    if said is None:
        return fields, None
    return [field for field in fields if field[0] != b"content-length"], int(said)
