"""RFC 6455's opening handshake: checked strictly, and accepted in one step of the loop, or answered without.

Functions dial in by it, on the gateway's own paths, and clients ask functions for a WebSocket. Knows the connection
that it came on; not what is spoken afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Final

from gateway.errors import Problem, RequestRefused
from gateway.received_request import ReceivedRequest
from gateway.response_head import NAME
from gateway.response_writer import head_bytes
from gateway.sides import WebSocketOffer
from protocol.frames import Headers

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
KEY_SIZE: Final = 16  # bytes, RFC 6455, section 4.1


def accept_websocket(
    request: ReceivedRequest, protocol: asyncio.Protocol | asyncio.BufferedProtocol, headers: Headers = ()
) -> None:
    """Write the 101 and give the socket to `protocol`, without extensions or subprotocol.

    A frame that follows the 101 at once reaches `protocol`; `ClientConnection.hand_over` says in which order, and what
    it raises. Raises `RequestRefused` too for what is not a WebSocket handshake.
    """
    request.connection.hand_over(protocol, upgrade_head(check_handshake(request), headers))


def upgrade_head(key: bytes, headers: Headers) -> bytes:
    """The 101 that answers `key`, without extensions: permessage-deflate costs up to 300 KiB for each client, and lets
    one byte ask for a thousand."""
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    fields = ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept), *headers)
    return head_bytes(101, fields)


def reply(request: ReceivedRequest, status: int, headers: Headers = (), body: bytes = b"") -> None:
    """A whole small answer, such as a refused dial; the connection closes after it."""
    connection = request.connection
    if connection.transport is not None:
        fields = (*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close"))
        connection.outgoing.write(head_bytes(status, fields) + body)
        connection.finish(linger=True)


def asks_websocket(request: ReceivedRequest) -> bool:
    """Whether it says that it is a handshake; whether it is one is `read_offer`'s to say."""
    return any("websocket" in value.lower() for value in request.message.headers.getall("upgrade", ()))


def read_offer(request: ReceivedRequest, max_message: int) -> WebSocketOffer:
    """A client's handshake. Raises `RequestRefused` for what is none, of an old version too."""
    key = check_handshake(request)
    lists = request.message.headers.getall("sec-websocket-protocol", ())
    names = [name.strip() for names in lists for name in names.split(",")]
    if len(set(names)) != len(names) or not all(NAME.fullmatch(name.encode("utf-8", "replace")) for name in names):
        raise RequestRefused(Problem("bad-request", "Sec-WebSocket-Protocol is no list of different names."))
    return WebSocketOffer(key, tuple(names), max_message)


def check_handshake(request: ReceivedRequest) -> bytes:
    """Sec-WebSocket-Key; RFC 6455, section 4.2.1. Raises `RequestRefused` for what is not a WebSocket handshake."""
    message = request.message
    headers = message.headers
    options = {option.strip().lower() for value in headers.getall("connection", ()) for option in value.split(",")}
    if message.method != "GET" or message.version != (1, 1) or request.has_body:
        raise RequestRefused(Problem("bad-request", "A WebSocket begins with a GET of HTTP/1.1, without a body."))
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in options:
        raise RequestRefused(Problem("bad-request", "Upgrade: websocket and Connection: Upgrade are needed."))
    if headers.get("sec-websocket-version") != "13":
        raise RequestRefused(Problem("websocket-version"))
    if len(headers.getall("sec-websocket-key", ())) > 1:
        raise RequestRefused(Problem("bad-request", "Sec-WebSocket-Key is there twice."))
    key = headers.get("sec-websocket-key", "")
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != KEY_SIZE:
        raise RequestRefused(Problem("bad-request", "Sec-WebSocket-Key is not 16 bytes in Base64."))
    return bytes(key, "ascii")
