"""For handlers of the gateway's own paths: accept a WebSocket in one step of the loop, or answer without one.

Knows RFC 6455's opening handshake and the connection that it came on; not what is spoken afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Final

from aiohttp.web import BaseRequest, StreamResponse

from gateway.client_connection import CLOSE, connection_of
from gateway.errors import Problem, RequestRefused
from gateway.response_writer import head_bytes
from protocol.frames import Headers

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
KEY_SIZE: Final = 16  # bytes, RFC 6455, section 4.1


def accept_websocket(
    request: BaseRequest, protocol: asyncio.Protocol | asyncio.BufferedProtocol, headers: Headers = ()
) -> StreamResponse:
    """Write the 101 and give the socket to `protocol`, without extensions or subprotocol; the handler returns the
    result at once.

    Nothing is awaited in between, so a frame that follows the 101 at once reaches `protocol`;
    `ClientConnection.hand_over` says in which order. Raises `RequestRefused` for what is not a WebSocket handshake.
    """
    key = check_handshake(request)
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    fields = ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", accept), *headers)
    return connection_of(request).hand_over(protocol, head_bytes(101, fields))


async def reply(request: BaseRequest, status: int, headers: Headers = (), body: bytes = b"") -> StreamResponse:
    """A whole small answer, such as a refused dial; the connection closes after it."""
    connection = connection_of(request)
    if connection.transport is not None:
        fields = (*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close"))
        connection.transport.write(head_bytes(status, fields) + body)
        await connection.linger()
        connection.close_in_time()
    return CLOSE


def check_handshake(request: BaseRequest) -> bytes:
    """Sec-WebSocket-Key; RFC 6455, section 4.2.1. Raises `RequestRefused` for what is not a WebSocket handshake."""
    headers = request.headers
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    if request.method != "GET" or headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in options:
        raise RequestRefused(Problem("bad-request", "This address takes WebSocket connections only."))
    if headers.get("sec-websocket-version") != "13":
        raise RequestRefused(Problem("bad-request", "The WebSocket version is not 13."))
    key = headers.get("sec-websocket-key", "")
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != KEY_SIZE:
        raise RequestRefused(Problem("bad-request", "Sec-WebSocket-Key is not 16 bytes in Base64."))
    return key.encode("ascii")
