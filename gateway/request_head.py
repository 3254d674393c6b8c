"""A client's parsed request becomes a `RequestHead`, or is refused with the problem that answers it.

aiohttp's parser (llhttp, strict) has refused by then what is not HTTP: bare LF, folded lines, controls in values,
Content-Length beside Transfer-Encoding, missing or doubled Host. What it lets through and we do not is here, with
the exact limits, which it cannot keep.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp.http_writer import HttpVersion10, HttpVersion11

from gateway.errors import Problem, RequestRefused
from gateway.forwarding import Forwarding, is_clients_to_say, is_host
from gateway.limits import HttpLimits
from gateway.received_request import ReceivedRequest
from gateway.response_head import HOP_BY_HOP, Pair
from gateway.sides import RequestHead

VERSIONS: Final = {HttpVersion11: "1.1", HttpVersion10: "1.0"}
#: llhttp also takes RTSP's and ICE's methods, in requests of those protocols, and says HTTP/1.0 of them.
NOT_HTTP_METHODS: Final = frozenset(
    "SOURCE DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH PRI".split()
)
ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#@\s]+)([/?].*)?", re.IGNORECASE)
MAX_CONTENT_LENGTH: Final = (1 << 63) - 1  # bytes; llhttp takes 2**64 - 1 and then sees no body
KNOWN_SIZE: Final = 2 << 10  # bytes of a head up to which its judgement is kept for a connection's next request
LINE_OVERHEAD: Final = len("  HTTP/1.1")
FIELD_OVERHEAD: Final = len(": \r\n")
LINE_END: Final = len("\r\n")


def read_request_head(request: ReceivedRequest, limits: HttpLimits, forwarding: Forwarding) -> RequestHead:
    """What goes to the function; raises `RequestRefused` with 400, 414, 417, 431, 501 or 505."""
    message, connection, has_body = request.message, request.connection, request.has_body
    said = (message.raw_headers, message.path, message.method, message.version)
    if connection.known is not None and connection.known[0] == said:
        return connection.known[1]
    version = VERSIONS.get(message.version)
    if version is None:
        raise _refusal("version-not-supported")
    method = message.method
    if method in NOT_HTTP_METHODS:
        raise _refusal("bad-request")
    if method == "CONNECT":
        raise _refusal("not-implemented", "CONNECT is not served.")
    # The parser decodes as UTF-8 with surrogates: this gives the client's bytes again.
    sent_target = message.path.encode("utf-8", "surrogateescape")
    fields = [(name.lower(), value) for name, value in message.raw_headers]
    size = _check_sizes(method, sent_target, fields, limits)
    target, authority = _origin_form(sent_target)
    named = dict(fields)
    _check_framing(version, named)
    host = named.get(b"host", b"") if authority is None else authority
    if not is_host(host):
        raise _refusal("bad-request", "Host is not a host.")
    origin = forwarding.origin(fields, connection.peer, connection.scheme, host, connection.port)
    head = RequestHead(
        method=method.encode("ascii"),
        target=target,
        headers=_forwarded(fields, named, authority) + origin.fields,
        scheme=origin.scheme,
        client=origin.client,
        version=version,
        has_body=has_body,
        expects_continue=_expects_continue(version, named, has_body),
    )
    connection.known = (said, head) if size <= KNOWN_SIZE else None
    return head


def _refusal(name: str, detail: str = "") -> RequestRefused:
    return RequestRefused(Problem(name, detail))


def _check_sizes(method: str, target: bytes, fields: list[Pair], limits: HttpLimits) -> int:
    line = len(method) + len(target) + LINE_OVERHEAD
    if line > limits.request_line:
        raise _refusal("target-too-long")
    if len(fields) > limits.header_count:
        raise _refusal("header-too-large", f"At most {limits.header_count} fields.")
    size = sum([len(name) + len(value) for name, value in fields])
    # A field cannot be too large where all of them together are not: the usual case needs no second look.
    if size > limits.header_field and any(len(name) + len(value) > limits.header_field for name, value in fields):
        raise _refusal("header-too-large", f"A field may have {limits.header_field} bytes.")
    whole = line + LINE_END + size + FIELD_OVERHEAD * len(fields)
    if whole > limits.head:
        raise _refusal("header-too-large", f"The request line and all fields together may have {limits.head} bytes.")
    return whole


def _origin_form(target: bytes) -> tuple[bytes, bytes | None]:
    """The target as an origin server gets it, and the authority of an absolute one (RFC 9112, section 3.2)."""
    if not target.isascii():
        raise _refusal("bad-request", "The target has bytes outside ASCII; escape them.")
    if b"#" in target:
        raise _refusal("bad-request", "A target has no fragment.")
    if target.startswith(b"/") or target == b"*":
        return target, None
    match = ABSOLUTE_FORM.fullmatch(target)
    if not match:
        raise _refusal("bad-request", "The target is neither a path nor an http URL.")
    rest = match[2] or b""
    return (rest if rest.startswith(b"/") else b"/" + rest), match[1]


def _check_framing(version: str, named: dict[bytes, bytes]) -> None:
    coding = named.get(b"transfer-encoding")
    if coding is not None:
        if version == "1.0":  # RFC 9112, section 6.1: a message that pretends
            raise _refusal("bad-request", "HTTP/1.0 has no Transfer-Encoding.")
        if coding.lower() != b"chunked":
            raise _refusal("not-implemented", "The only transfer coding known here is chunked.")
    if int(named.get(b"content-length", b"0")) > MAX_CONTENT_LENGTH:
        raise _refusal("bad-request", "Content-Length is beyond all bounds.")


def _expects_continue(version: str, named: dict[bytes, bytes], has_body: bool) -> bool:
    expectation = named.get(b"expect")
    if expectation is None or version == "1.0":  # RFC 9110, section 10.1.1: ignored from HTTP/1.0
        return False
    if expectation.lower() != b"100-continue":
        raise _refusal("expectation-failed")
    return has_body


def _forwarded(fields: list[Pair], named: dict[bytes, bytes], authority: bytes | None) -> tuple[Pair, ...]:
    """The fields without those that were for us, hop-by-hop, named by Connection, and Expect, and those that a client
    has no business to say."""
    dropped = HOP_BY_HOP | {b"expect"}
    if b"connection" in named:
        options = b",".join(value for name, value in fields if name == b"connection")
        nominated = {option.strip().lower() for option in options.split(b",")}
        dropped |= nominated - {b"host", b"content-length"}
    if authority is not None:  # RFC 9112, section 3.2.2: it replaces what Host says
        dropped |= {b"host"}
    kept = tuple([field for field in fields if field[0] not in dropped and is_clients_to_say(field[0])])
    return kept if authority is None else ((b"host", authority), *kept)
