"""A function called through its Function URL (AWS: "Invoking Lambda function URLs"): the invitation is POSTed.

Knows HTTP; nothing of queues or links.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from errno import ECONNREFUSED
from typing import Final

from aiohttp import DefaultResolver
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy
from yarl import URL

from gateway.invoke.answer import LOGGED, Answer, Outcome, read_forbidden, read_returned
from gateway.invoke.connection import MAX_ANSWER, Connection, Foreign, NoAddress, NotConnected, connect
from gateway.invoke.sigv4 import Signer, SigningFailed
from protocol.invitation import INVITATION_CONTENT_TYPE, INVITATION_KEY

__all__ = ["LONGEST_RETRY_AFTER", "MAX_ANSWER", "FunctionUrl"]

CONNECT_TIMEOUT: Final = 10.0  # seconds
ANSWER_TIMEOUT: Final = 960.0  # seconds; above the 900 that a function may take
IDLE_TIMEOUT: Final = 15.0  # seconds between two uses of a connection: less than any server's, or a POST is lost
LONGEST_RETRY_AFTER: Final = 60.0  # seconds; who asks for more is asked again all the same
LOGGED_HEADERS: Final = ("x-amzn-requestid", "x-amzn-errortype", "x-amz-function-error")

FIELDS: Final = {"Content-Type": INVITATION_CONTENT_TYPE, "User-Agent": "dialback", "Accept": "*/*"}


class FunctionUrl:
    """Begins with its pool, ends with `close`. It never retries: the pool decides what is tried again, and how many
    connections there are, since each invocation has one."""

    def __init__(
        self, url: str, *, tls: ssl.SSLContext | None = None, resolver: AbstractResolver | None = None
    ) -> None:
        """`tls`: which certificates are believed and shown; the system's authorities without it."""
        self._url = url
        self._at = URL(url)
        is_secure = self._at.scheme == "https"
        self._tls = (tls or ssl.create_default_context()) if is_secure else None
        self._resolver = resolver or DefaultResolver()
        self._signer = Signer.for_url(url)
        self._idle: list[Connection] = []  # the one that was used last is the last
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        line = f"POST {self._at.raw_path_qs} HTTP/1.1\r\nHost: {self._at.host_port_subcomponent}\r\n"
        self._line = line.encode()
        self._fields = _fields(FIELDS)

    async def invoke(self, token: str) -> Answer:
        body = json.dumps({INVITATION_KEY: token}).encode()
        fields = self._fields
        try:
            if self._signer is not None:
                fields = _fields(await self._signer.sign(self._url, FIELDS, body))
        except SigningFailed as error:
            return Answer(Outcome.UNSIGNED, " ".join(str(error).split())[:LOGGED])
        try:
            connection = self._kept() or await self._connected()
        except (OSError, NoAddress, NotConnected, ValueError) as error:
            return _failed(_class_of_dial(error), error)
        try:
            answer = await connection.post(
                b"%b%bContent-Length: %d\r\n\r\n%b" % (self._line, fields, len(body), body), ANSWER_TIMEOUT
            )
        except (OSError, Foreign) as error:
            return _failed(_class_of(error), error)
        self._keep(connection)
        return _judge(answer.status, answer.headers, answer.body)

    async def close(self) -> None:
        """End what is kept; what runs ends with the task that it runs in. Idempotent."""
        self._close_idle(0.0)
        await self._resolver.close()

    # connections

    def _kept(self) -> Connection | None:
        """The one that was used last, unless that is long ago or it has ended."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and self._loop.time() - connection.idle_since < IDLE_TIMEOUT:
                return connection
            connection.close()
        return None

    async def _connected(self) -> Connection:
        host, port = self._at.raw_host, self._at.port
        if not host or not port:
            raise ValueError("no host")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await connect(host, port, self._tls, self._resolver)
        except TimeoutError:
            raise TimeoutError(f"no connection in {CONNECT_TIMEOUT:g} s") from None

    def _keep(self, connection: Connection) -> None:
        if connection.is_usable:
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(IDLE_TIMEOUT, self._sweep)

    def _sweep(self) -> None:
        self._close_idle(IDLE_TIMEOUT)

    def _close_idle(self, seconds: float) -> None:
        """Those that have idled for so long."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        kept, self._idle = self._idle, []
        for connection in kept:
            if self._loop.time() - connection.idle_since < seconds:
                self._keep(connection)
            else:
                connection.close()


def _fields(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")


def _judge(status: int, headers: CIMultiDictProxy[str], body: bytes) -> Answer:
    error_type = headers.get("x-amzn-errortype", "")
    # Lambda names the same refusal with status 400 too (TooManyRequestsException, ThrottlingException).
    if status in (429, 503) or (status == 400 and ("Throttl" in error_type or "TooManyRequests" in error_type)):
        return Answer(Outcome.THROTTLED, _said(status, headers), _retry_after(headers.get("retry-after", "")))
    if status in (500, 502, 504) or "x-amz-function-error" in headers:
        answer = read_returned(body)  # of a process that has ended since
        return answer if answer.outcome is Outcome.UNHEALTHY else Answer(Outcome.ERROR, _said(status, headers))
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


def _failed(outcome: Outcome, error: Exception) -> Answer:
    why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error
    return Answer(outcome, f"{type(error).__name__}: {why}"[:LOGGED])


def _class_of_dial(error: Exception) -> Outcome:
    if isinstance(error, NoAddress):
        return Outcome.DNS
    if isinstance(error, ssl.SSLError):
        return Outcome.TLS
    if isinstance(error, TimeoutError):
        return Outcome.TIMEOUT
    is_refused = isinstance(error, NotConnected) and error.code == ECONNREFUSED
    return Outcome.CONNECTION_REFUSED if is_refused else Outcome.UNREACHABLE


def _class_of(error: Exception) -> Outcome:
    """Of what happened on a connection that stood."""
    if isinstance(error, Foreign):
        return Outcome.FOREIGN
    if isinstance(error, TimeoutError):
        return Outcome.TIMEOUT
    # In TLS 1.3 our handshake is over before our certificate was looked at (RFC 8446, section 4.4.2.4).
    is_alert = isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or "")
    return Outcome.TLS if is_alert else Outcome.BROKEN
