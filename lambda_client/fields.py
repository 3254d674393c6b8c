"""Header fields, query fields, cookies: ordered, repeatable, read as mappings. Knows neither request nor response."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload
from urllib.parse import parse_qsl, unquote

Pairs = list[tuple[bytes, bytes]]
_T = TypeVar("_T")

# RFC 9110 §5.6.2 (names are tokens) and §5.5 (no CR, LF or NUL in a value: they would split the head).
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_FORBIDDEN = re.compile(rb"[\r\n\0]").search


class Fields(Mapping[str, str]):
    """Fields in their order, each name with one or more values. `fields[name]` is the first value."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def _key(self, name: str) -> str:
        return name

    def __getitem__(self, name: str) -> str:
        return self._values[self._key(name)][0]

    # Spelled out although Mapping has it: with its own signature a handler sees what it gets.
    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | _T) -> str | _T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """The first value, or `default`."""
        values = self._values.get(self._key(name))
        return values[0] if values else default

    def getlist(self, name: str) -> list[str]:
        """Every value, in the order in which they came; empty when there is none."""
        return list(self._values.get(self._key(name), ()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._key(name) in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"


class Query(Fields):
    """The fields of a query string, percent-decoded as UTF-8."""

    __slots__ = ()

    def __init__(self, query_string: bytes) -> None:
        super().__init__(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))


class Headers(Fields):
    """Header fields: names are case-insensitive, values are read as latin-1 (RFC 9110 §5.5). `raw` has the bytes."""

    __slots__ = ("raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.raw = tuple(raw)
        super().__init__((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self.raw)

    def _key(self, name: str) -> str:
        return name.lower()


def parse_cookies(headers: Headers) -> dict[str, str]:
    """Name → value of every cookie of the request (RFC 6265 §5.4); of equal names the first, whose path is longest."""
    cookies: dict[str, str] = {}
    for value in headers.getlist("cookie"):
        for item in value.split(";"):
            name, equals, content = item.strip().partition("=")
            if equals and name:
                cookies.setdefault(name.strip(), unquote(content.strip().strip('"')))
    return cookies


def encode_fields(fields: object) -> Pairs:
    """A mapping or pairs of str or bytes as header fields for the wire: lower-case names, bytes.

    Raises `TypeError` for another shape, `ValueError` for a name that is no token and a value with CR, LF or NUL.
    """
    if fields is None:
        return []
    items = fields.items() if isinstance(fields, Mapping) else fields
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes)):
        raise TypeError(f"headers are a mapping or (name, value) pairs, not {type(fields).__name__}")
    pairs: Pairs = []
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise TypeError(f"a header is a (name, value) pair, not {item!r}")
        pairs.append((_encode_name(item[0]), _encode_value(item[0], item[1])))
    return pairs


def _encode_name(name: object) -> bytes:
    if not isinstance(name, (str, bytes)):
        raise TypeError(f"a header's name is str or bytes, not {type(name).__name__}")
    encoded = name if isinstance(name, bytes) else name.encode("latin-1", "replace")
    if not _NAME(encoded):
        raise ValueError(f"not a header name: {name!r}")
    return encoded.lower()


def _encode_value(name: object, value: object) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, (str, bytes)):
        raise TypeError(
            f"header {name!r}: the value is str or bytes, not {type(value).__name__}; "
            'for several values give pairs, headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")]'
        )
    try:
        encoded = value if isinstance(value, bytes) else value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"header {name!r}: characters beyond latin-1; percent-encode them, or give bytes") from None
    if _FORBIDDEN(encoded):
        raise ValueError(f"header {name!r}: CR, LF or NUL in the value")
    return encoded.strip(b" \t")
