"""A function called through its Function URL (AWS: "Invoking Lambda function URLs"): the invitation is POSTed.

Knows HTTP; nothing of queues or links.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from typing import Any, Final

import aiohttp
from aiohttp import abc

from gateway.invoke.answer import Answer, Outcome, read_forbidden, read_returned
from gateway.invoke.sigv4 import Signer
from protocol.invitation import INVITATION_CONTENT_TYPE, INVITATION_KEY

CONNECT_TIMEOUT: Final = 10.0  # seconds
ANSWER_TIMEOUT: Final = 960.0  # seconds; above the 900 that a function may take
IDLE_TIMEOUT: Final = 15.0  # seconds between two uses of a connection: less than any server's, or a POST is lost
TCP_KEEPALIVE: Final = 60  # seconds; what idles longer is forgotten by NATs on the way
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
        if self._signer is not None:
            headers = await self._signer.sign(self._url, headers, body)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return _judge(response.status, await _read(response.content))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            return Answer(Outcome.UNREACHABLE, f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        await self._session.close()


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The whole answer, up to the limit; what is cut there is no answer of ours."""
    body = b""
    while len(body) < MAX_ANSWER and (part := await content.read(MAX_ANSWER - len(body))):
        body += part
    return body


def _judge(status: int, body: bytes) -> Answer:
    if status == 200:
        return read_returned(body)
    if status == 403:
        return read_forbidden(body)
    if status in (429, 503):
        return Answer(Outcome.THROTTLED, f"status {status}")
    if status in (500, 502, 504):
        return Answer(Outcome.ERROR, f"status {status}")
    return Answer(Outcome.FOREIGN, f"status {status}")
