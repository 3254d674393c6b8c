"""Which responses are compressed on their way to a client, with which coding, and what their heads then say.

Content negotiation as RFC 9110 has it (sections 8.4, 8.8.3 and 12.5). Knows heads; the work is in `compressors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from gateway.compressors import CODINGS, Compressor, Compressors
from gateway.exchange import Exchange
from gateway.response_head import Pair, ResponseHead
from gateway.sides import RequestHead

OFF: Final = "off"
PIP_LINE: Final = "pip install 'dialback[compression]'"
SMALLEST: Final = 1024  # bytes of a body that says its length: what fits into a packet gains nothing
#: Partial content is of the representation that its client has; the others have none (RFC 9110, section 15).
STATUSES_LEFT_ALONE: Final = frozenset((204, 205, 206, 304))
#: What is encoded or a part already, and what vouches for the bytes as they are (RFC 9530, RFC 3230, RFC 1864).
FIELDS_LEFT_ALONE: Final = frozenset(
    b"content-encoding content-range content-digest repr-digest digest content-md5".split()
)
#: Beside text/*, +json, +xml and +text: what mime-db (https://github.com/jshttp/mime-db) says is compressible. The rest
#: is so already (pictures, sound, films, archives, fonts of the web, PDF), or unknown.
COMPRESSIBLE: Final = frozenset(
    b"application/dart application/ecmascript application/eot application/graphql application/javascript"
    b" application/json application/json5 application/n-quads application/n-triples application/ndjson"
    b" application/postscript application/rtf application/sql application/tar application/toml application/typescript"
    b" application/vnd.apple.mpegurl application/vnd.ms-fontobject application/wasm application/x-javascript"
    b" application/x-mpegurl application/x-ndjson application/x-ns-proxy-autoconfig application/x-sh application/x-tar"
    b" application/x-www-form-urlencoded application/xml application/xml-dtd application/yaml font/otf font/ttf"
    b" image/bmp image/vnd.microsoft.icon image/x-icon image/x-ms-bmp message/rfc822".split()
)
COMPRESSIBLE_KIND: Final = re.compile(rb"text/.+|.+\+(?:json|xml|text)")
WEIGHT: Final = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")  # RFC 9110, section 12.4.2
ALIASES: Final = {b"x-gzip": b"gzip"}  # section 8.4.1.3


@dataclass(frozen=True, slots=True)
class Compression:
    """What a route grants; made once, at start."""

    codings: tuple[str, ...]
    """The one that the gateway likes best first."""

    @classmethod
    def read(cls, text: str) -> Compression | None:
        """Codings, comma-separated, or `off`. Raises ValueError, whose text says what would be right."""
        if text == OFF:
            return None
        codings = tuple(part.strip() for part in text.split(","))
        if len(set(codings)) < len(codings) or not set(codings) <= set(CODINGS):
            raise ValueError(f'must be "{OFF}", or of {", ".join(CODINGS)} those that may be used, each once')
        absent = [name for name in codings if not CODINGS[name].is_installed]
        if absent:
            raise ValueError(f"names {' and '.join(absent)}, for which the library is missing; type: {PIP_LINE}")
        return cls(codings)

    def begin(
        self, exchange: Exchange, head: ResponseHead, end: bool, compressors: Compressors
    ) -> tuple[ResponseHead, Compressor | None]:
        """The head as it is sent, and what compresses the body behind it; `end`: none follows."""
        if end and not head.is_bodiless:
            return head, None
        head, codings = self.judge(exchange.head, head)
        for coding in codings:
            compressor = None if end else compressors.begin(coding, exchange)
            if end or compressor is not None:
                return _encoded(head, coding), compressor
        return head, None

    def judge(self, request: RequestHead, head: ResponseHead) -> tuple[ResponseHead, tuple[str, ...]]:
        """The head as it stands for all codings, and those that its client takes, the best first."""
        if head.status == 304:
            return _not_modified(request, head), ()
        fields = dict(head.headers)
        if not _may_be_transformed(request, head, fields):
            return head, ()
        codings, takes_identity = self._accepted(request)
        if not _is_worth_it(head, fields) and (takes_identity or not codings):
            return head, ()
        return _varying(head), codings

    def _accepted(self, request: RequestHead) -> tuple[tuple[str, ...], bool]:
        """The codings that the client prefers to none, and whether none would do."""
        weights = accepted(value for name, value in request.headers if name == b"accept-encoding")
        others = weights.get(b"*", 0.0)
        identity = weights.get(b"identity")
        weighed = [(weights.get(name.encode(), others), name) for name in self.codings]
        least = identity or 0.0
        ordered = sorted((pair for pair in weighed if pair[0] > 0 and pair[0] >= least), key=lambda pair: -pair[0])
        takes_identity = identity > 0 if identity is not None else weights.get(b"*", 1.0) > 0
        return tuple(name for _, name in ordered), takes_identity


def accepted(values: Iterable[bytes]) -> dict[bytes, float]:
    """Of Accept-Encoding: each coding's weight, 0 where it is not acceptable. What is not in the form is left out."""
    weights: dict[bytes, float] = {}
    for item in b",".join(values).split(b","):
        coding, _, parameter = item.strip().lower().partition(b";")
        weight = parameter.strip().removeprefix(b"q=").strip() if parameter else b"1"
        if coding and WEIGHT.fullmatch(weight):
            coding = coding.strip()
            weights[ALIASES.get(coding, coding)] = float(weight)
    return weights


def _may_be_transformed(request: RequestHead, head: ResponseHead, fields: dict[bytes, bytes]) -> bool:
    if head.status in STATUSES_LEFT_ALONE or not FIELDS_LEFT_ALONE.isdisjoint(fields):
        return False
    if any(name == b"range" for name, _ in request.headers):
        return False
    controls = [value for name, value in (*head.headers, *request.headers) if name == b"cache-control"]
    return not any(part.strip().lower() == b"no-transform" for value in controls for part in value.split(b","))


def _is_worth_it(head: ResponseHead, fields: dict[bytes, bytes]) -> bool:
    if head.length is not None and head.length < SMALLEST:
        return False
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind in COMPRESSIBLE or COMPRESSIBLE_KIND.fullmatch(kind) is not None


def _varying(head: ResponseHead) -> ResponseHead:
    """Caches are told that it depends on Accept-Encoding, also where this client takes none (RFC 9110, 12.5.5)."""
    varies = {part.strip().lower() for name, value in head.headers if name == b"vary" for part in value.split(b",")}
    if varies & {b"*", b"accept-encoding"}:
        return head
    return replace(head, headers=[*head.headers, (b"vary", b"accept-encoding")])


def _not_modified(request: RequestHead, head: ResponseHead) -> ResponseHead:
    """What the client has is the encoded one, if it asks with its weak tag: then that is what the answer is about."""
    asked = [tag.strip() for name, value in request.headers if name == b"if-none-match" for tag in value.split(b",")]
    headers: list[Pair] = []
    for name, value in head.headers:
        is_weakened = name == b"etag" and b"W/" + value in asked
        headers.append((name, b"W/" + value if is_weakened else value))
    return replace(head, headers=headers)


def _encoded(head: ResponseHead, coding: str) -> ResponseHead:
    """The head of the same response in that coding. Its parts and its bytes are others."""
    headers = []
    for name, value in head.headers:
        if name == b"etag" and not value.startswith(b"W/"):
            value = b"W/" + value
        if name != b"accept-ranges":
            headers.append((name, value))
    return replace(head, headers=[*headers, (b"content-encoding", coding.encode())], length=None)
