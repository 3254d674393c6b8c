"""A function called through its Function URL (AWS: "Invoking Lambda function URLs"): the invitation is POSTed.

Knows HTTP; nothing of queues or links.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
from aiohttp import abc
from multidict import CIMultiDictProxy

from gateway.invoke.answer import LOGGED, Answer, Outcome, read_forbidden, read_returned
from gateway.invoke.sigv4 import Signer, SigningFailed
from protocol.invitation import INVITATION_CONTENT_TYPE, INVITATION_KEY

CONNECT_TIMEOUT: Final = 10.0  # seconds
ANSWER_TIMEOUT: Final = 960.0  # seconds; above the 900 that a function may take
IDLE_TIMEOUT: Final = 15.0  # seconds between two uses of a connection: less than any server's, or a POST is lost
TCP_KEEPALIVE: Final = 60  # seconds; what idles longer is forgotten by NATs on the way
LONGEST_RETRY_AFTER: Final = 60.0  # seconds; who asks for more is asked again all the same
LOGGED_HEADERS: Final = ("x-amzn-requestid", "x-amzn-errortype", "x-amz-function-error")
MAX_ANSWER: Final = 64 << 10  # bytes that are read of an answer: ours has some hundred


def _keepalive_socket(info: Any) -> socket.socket:
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # not on every system
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), TCP_KEEPALIVE)
    return made


class FunctionUrl:
    """Begins with its pool, ends with `close`. It never retries: the pool decides what is tried again."""

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        tls: ssl.SSLContext | None = None,
        resolver: abc.AbstractResolver | None = None,
    ) -> None:
        """`connections`: as many as invocations may run at once, or they would wait for each other. `tls`: which
        certificates are believed and shown; the system's authorities without it."""
        connector = aiohttp.TCPConnector(
            limit=connections,
            keepalive_timeout=IDLE_TIMEOUT,
            ssl=tls or True,
            resolver=resolver,
            socket_factory=_keepalive_socket,
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=ANSWER_TIMEOUT)
        self._url = url
        self._signer = Signer.for_url(url)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def invoke(self, token: str) -> Answer:
        body = json.dumps({INVITATION_KEY: token}).encode()
        headers = {"Content-Type": INVITATION_CONTENT_TYPE, "User-Agent": "dialback"}
        try:
            if self._signer is not None:
                headers = await self._signer.sign(self._url, headers, body)
        except SigningFailed as error:
            return Answer(Outcome.UNSIGNED, " ".join(str(error).split())[:LOGGED])
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return _judge(response.status, response.headers, await _read(response.content))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            why = getattr(error, "certificate_error", error)  # of what is cut at its end, the reason comes first
            return Answer(_class_of(error), f"{type(error).__name__}: {why}"[:LOGGED])

    async def close(self) -> None:
        await self._session.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The whole answer, up to the limit; what is cut there is no answer of ours."""
    body = b""
    while len(body) < MAX_ANSWER and (part := await content.read(MAX_ANSWER - len(body))):
        body += part
    return body


def _judge(status: int, headers: CIMultiDictProxy[str], body: bytes) -> Answer:
    error_type = headers.get("x-amzn-errortype", "")
    # Lambda names the same refusal with status 400 too (TooManyRequestsException, ThrottlingException).
    if status in (429, 503) or (status == 400 and ("Throttl" in error_type or "TooManyRequests" in error_type)):
        return Answer(Outcome.THROTTLED, _said(status, headers), _retry_after(headers.get("retry-after", "")))
    if status in (500, 502, 504) or "x-amz-function-error" in headers:
        return Answer(Outcome.ERROR, _said(status, headers))
    if status == 200:
        return read_returned(body)
    if status == 403:
        return read_forbidden(body)
    return Answer(Outcome.FOREIGN, _said(status, headers))


def _said(status: int, headers: CIMultiDictProxy[str]) -> str:
    """For the log; the platform's own id of the invocation finds its lines in the function's log."""
    named = (f"{name} {headers[name]}" for name in LOGGED_HEADERS if name in headers)
    return ", ".join((f"status {status}", *named))[:LOGGED]


def _retry_after(value: str) -> float:
    """Seconds from now (RFC 9110, section 10.2.3); 0 for what is neither a number nor a date."""
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return min(max(0.0, (at - datetime.now(at.tzinfo or timezone.utc)).total_seconds()), LONGEST_RETRY_AFTER)


#: The first that fits; what is thrown after the connection stood is `BROKEN`, unless it is an alert of TLS.
CLASSES: Final[tuple[tuple[type[BaseException], Outcome], ...]] = (
    (aiohttp.ClientConnectorDNSError, Outcome.DNS),
    (aiohttp.ClientSSLError, Outcome.TLS),
    (ssl.SSLError, Outcome.TLS),
    (asyncio.TimeoutError, Outcome.TIMEOUT),
    (aiohttp.ClientConnectorError, Outcome.UNREACHABLE),
    (aiohttp.ClientResponseError, Outcome.FOREIGN),
    (aiohttp.ClientError, Outcome.BROKEN),
    (OSError, Outcome.BROKEN),
    (ValueError, Outcome.UNREACHABLE),
)


def _class_of(error: BaseException) -> Outcome:
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno == errno.ECONNREFUSED:
        return Outcome.CONNECTION_REFUSED
    cause = error.__cause__
    # In TLS 1.3 our handshake is over before our certificate was looked at (RFC 8446, section 4.4.2.4).
    if isinstance(cause, ssl.SSLError) and "_ALERT_" in (cause.reason or ""):
        return Outcome.TLS
    return next(outcome for kind, outcome in CLASSES if isinstance(error, kind))
