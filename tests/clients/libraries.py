"""The clients that are Python libraries, each used as its own documentation says."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import aiohttp
import httpx
import requests

from tests.clients.seen import Ask, Leaving, Reads, Seen


class Requests:
    reads, shows_trailers = Reads.AFTER, False
    cut_error, timeout_error = "ChunkedEncodingError", "ReadTimeout"

    def fetch(self, ask: Ask, seen: Seen) -> None:
        try:
            with requests.request(ask.method, ask.url, data=ask.body, stream=True, timeout=ask.timeout) as response:
                seen.status = response.status_code
                seen.headers = {name.lower(): value for name, value in response.headers.items()}
                for piece in response.iter_content(None):
                    seen.add(piece)
                    if len(seen.pieces) == ask.leave_after:
                        return
        except Leaving:
            pass
        except requests.RequestException as error:
            seen.error = type(error).__name__


class Httpx:
    reads, shows_trailers = Reads.AFTER, False
    cut_error, timeout_error = "RemoteProtocolError", "ReadTimeout"

    def fetch(self, ask: Ask, seen: Seen) -> None:
        try:
            with httpx.stream(ask.method, ask.url, content=ask.body, timeout=ask.timeout) as response:
                seen.status, seen.headers = response.status_code, dict(response.headers)
                for piece in response.iter_bytes():
                    seen.add(piece)
                    if len(seen.pieces) == ask.leave_after:
                        return
        except Leaving:
            pass
        except httpx.HTTPError as error:
            seen.error = type(error).__name__


class AsyncHttpx(Httpx):
    def fetch(self, ask: Ask, seen: Seen) -> None:
        asyncio.run(self._fetch(ask, seen))

    async def _fetch(self, ask: Ask, seen: Seen) -> None:
        async with httpx.AsyncClient(timeout=ask.timeout) as client:
            with suppress(Leaving):
                try:
                    async with client.stream(ask.method, ask.url, content=async_body(ask)) as response:
                        seen.status, seen.headers = response.status_code, dict(response.headers)
                        async for piece in response.aiter_bytes():
                            seen.add(piece)
                            if len(seen.pieces) == ask.leave_after:
                                return
                except httpx.HTTPError as error:
                    seen.error = type(error).__name__


class Aiohttp:
    reads, shows_trailers = Reads.ALWAYS, False
    cut_error, timeout_error = "ClientPayloadError", "SocketTimeoutError"

    def fetch(self, ask: Ask, seen: Seen) -> None:
        asyncio.run(self._fetch(ask, seen))

    async def _fetch(self, ask: Ask, seen: Seen) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=ask.timeout)
        data = io.BytesIO(ask.body) if isinstance(ask.body, bytes) else async_body(ask)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.request(ask.method, ask.url, data=data) as response:
                    seen.status = response.status
                    seen.headers = {name.lower(): value for name, value in response.headers.items()}
                    async for piece in response.content.iter_any():
                        seen.add(piece)
                        if len(seen.pieces) == ask.leave_after:
                            return
            except aiohttp.ClientError as error:
                if not isinstance(error.__cause__, Leaving):
                    seen.error = type(error).__name__


def async_body(ask: Ask) -> bytes | AsyncIterator[bytes] | None:
    return ask.body if ask.body is None or isinstance(ask.body, bytes) else _awaited(ask.body)


async def _awaited(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece
