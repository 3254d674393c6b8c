"""A stream of a link whose client asks for a WebSocket: messages as they come and go. See `link_stream`."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from lambda_client.link_stream import BURST, REASONS, LinkStream, wake
from lambda_client.stream import Closed, LambdaContext, Pair, WebSocketClosed
from lambda_client.websocket import Messages
from lambda_client.wire import frames

if TYPE_CHECKING:
    from lambda_client.link import Link

_NORMAL = 1000
_ABNORMAL = 1006
_SERVICE_RESTART = 1012


class WebSocketStream(LinkStream, Messages):
    """Begins as any request. Refused it is one; accepted it has messages until either side has closed."""

    def __init__(self, link: Link, number: int, opening: frames.Request, context: LambdaContext) -> None:
        super().__init__(link, number, opening, context)
        self.max_message: int = opening.options.get("max_message", frames.MAX_FRAME_SIZE)
        self.closed: Closed | None = None
        self.is_accepted = False
        self._came: deque[tuple[bytes, bool]] = deque()
        self._senders: deque[asyncio.Future[None]] = deque()
        self._has_last_words = False  # the time is up, and the client still listens

    # For the handler's code

    def accept(self, headers: list[Pair]) -> None:
        if self._is_connected():
            self._link.session.send_response(self.number, 101, headers)
            self._link.wake()
        self.is_accepted = True

    async def receive_message(self) -> tuple[bytes, bool]:
        while not self._came:
            if self.closed is not None:
                raise WebSocketClosed(self.closed)
            if self._reader is not None:
                raise RuntimeError("another task is receiving from the WebSocket")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = self._came.popleft()
        self._link.session.consume_message(self.number, self._loop.time())
        self._link.wake()
        return message

    async def send_message(self, data: bytes, text: bool) -> None:
        self._check_open()
        session = self._link.session
        while not session.is_writable(self.number):  # one of those who wait may have taken the room
            self._senders.append(room := self._loop.create_future())
            await room
            self._check_open()
        session.send_message(self.number, data, text=text)
        self._link.wake()
        self._burst += 1
        if self._burst >= BURST or self.is_cancelled:
            self._burst = 0
            await asyncio.sleep(0)

    async def close(self, code: int, reason: str) -> None:
        if self.has_finished or not self._is_connected():
            return
        session = self._link.session
        self.closed = self.closed or Closed(code, reason)
        self.has_finished = True
        session.send_close(self.number, code, reason.encode())
        session.send_data(self.number, b"", end=True)
        self._link.wake()
        self._wake_all()
        await asyncio.sleep(0)  # it leaves in it, also where the code is stopped next

    async def settle(self) -> None:
        await self.close(_SERVICE_RESTART if self._has_last_words else _NORMAL, "")

    # For the link

    def message_came(self, data: bytes, text: bool) -> None:
        if not self.has_finished:
            self._came.append((data, text))
            wake(self._reader)

    def close_came(self, code: int, reason: bytes) -> None:
        self._closes(Closed(code, reason.decode("utf-8", "replace")))

    def body_came(self, data: bytes, end: bool) -> None:
        """The end of the client's direction."""
        self._closes(Closed(1005, ""))

    def body_was_cut(self, reason: str) -> None:
        self._closes(Closed(_ABNORMAL, reason))

    def writable(self) -> None:
        while self._senders:
            wake(self._senders.popleft())
        super().writable()  # of a refusal's body

    def cancel(self, code: frames.Code) -> None:
        is_time = code is frames.Code.TIMEOUT
        self._has_last_words = is_time and self.closed is None
        self._closes(Closed(_SERVICE_RESTART if is_time else _ABNORMAL, REASONS[code]))
        super().cancel(code)

    # Inside

    def _check_open(self) -> None:
        if self.closed is not None and (self.has_finished or not self._has_last_words):
            raise WebSocketClosed(self.closed)
        if not self._is_connected():
            raise WebSocketClosed(Closed(_ABNORMAL, ""))

    def _closes(self, closed: Closed) -> None:
        if self.closed is None:
            self.closed = closed
        self._wake_all()

    def _wake_all(self) -> None:
        wake(self._reader)
        while self._senders:
            wake(self._senders.popleft())
