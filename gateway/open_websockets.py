"""The clients' WebSockets of one listener: they count as its connections, and end with it."""

from __future__ import annotations

import asyncio
from typing import Protocol


class OpenWebSocket(Protocol):
    """One of them."""

    @property
    def function(self) -> str:
        """Whose it is."""

    def go_away(self) -> None:
        """The gateway stops: end when it suits. Idempotent."""

    def close_now(self) -> None:
        """It suits now. Idempotent."""

    def abort_now(self) -> None:
        """Be gone, without a word."""


class OpenWebSockets:
    """Begins and ends with the listener. Each enters when it is accepted and leaves when its connection is gone."""

    def __init__(self) -> None:
        self._open: set[OpenWebSocket] = set()
        self._empty: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def of(self, function: str) -> int:
        """How many are a function's."""
        return sum(1 for websocket in self._open if websocket.function == function)

    def add(self, websocket: OpenWebSocket) -> None:
        self._open.add(websocket)

    def discard(self, websocket: OpenWebSocket) -> None:
        self._open.discard(websocket)
        if not self._open and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def go_away(self) -> None:
        """Those that nobody speaks on close now, the others as soon as they fall quiet."""
        for websocket in list(self._open):
            websocket.go_away()

    async def end(self, timeout: float | None) -> None:
        """Close all, and cut those whose client has not answered within `timeout` seconds."""
        for websocket in list(self._open):
            websocket.close_now()
        if self._open:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._empty,), timeout=timeout)
        for websocket in list(self._open):
            websocket.abort_now()
