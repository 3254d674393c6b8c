"""A stream of a link: the request's body as it comes, response as it goes, the task that runs the handler's code."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lambda_client.place import log_failure, place_now, place_of
from lambda_client.response import await_advice
from lambda_client.stream import ClientDisconnected, LambdaContext, LengthMismatch, Pair, Refused, Stream
from lambda_client.wire import events, frames

if TYPE_CHECKING:
    from lambda_client.link import Link

LOG = logging.getLogger("dialback")

BURST = 64  # pieces sent without waiting before other streams get a turn of the loop

#: Why code is stopped, as `ClientDisconnected` tells it.
REASONS = {
    frames.Code.CANCELLED: "the client is gone, or the gateway has given the request up",
    frames.Code.TIMEOUT: "the invocation's time is up",
    frames.Code.LOST: "the link to the gateway is lost",
}


class LinkStream(Stream):
    """Begins with REQUEST. Its own direction ends only when the handler's code has stopped; then its task ends."""

    def __init__(self, link: Link, number: int, opening: frames.Request, context: LambdaContext) -> None:
        super().__init__(opening, opening.exchange.hex(), context)
        self.number = number
        self._link = link
        self._pieces: deque[bytes] = deque()
        self._is_body_over = bool(opening.options.get("end")) or "websocket" in opening.options
        self._cut: str | None = None  # why no more of the body will come
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._burst = 0
        self._code = frames.Code.CANCELLED
        self._ends_at = link.ends_at
        self._loop = link.loop
        self.task = self._loop.create_task(self._run(), name=self.id)

    # For the handler's code

    async def read(self) -> bytes | None:
        while not self._pieces:
            if self._cut is not None:
                raise ClientDisconnected(self._cut)
            if self._is_body_over:
                return None
            if self._reader is not None:
                raise RuntimeError("the request's body is being read by another task")
            self._link.session.start_reading(self.number)
            self._link.wake()
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        piece = self._pieces.popleft()
        self._link.consume(self.number, len(piece))
        return piece

    @property
    def is_read(self) -> bool:
        return self._is_body_over and not self._pieces

    def stop_reading(self) -> None:
        self._link.session.stop(self.number, frames.Code.NO_ERROR)
        self._link.wake()
        self._pieces.clear()
        self.body_was_cut("the handler has read enough")

    def inform(self, status: int, headers: list[Pair]) -> None:
        if self._is_connected():
            self._link.session.send_informational(self.number, status, headers)
            self._link.wake()

    def remaining_time(self) -> float:
        return max(0.0, self._ends_at - self._loop.time())

    def _begin(self, status: int, headers: list[Pair], ends: bool) -> None:
        if self._is_connected():
            self._link.session.send_response(self.number, status, headers, end=ends)
            self._link.wake()

    async def _send(self, data: bytes, ends: bool) -> None:
        session = self._link.session
        if not self._is_connected():
            if self.is_cancelled:  # and the code has taken no notice: it is stopped where it writes
                raise ClientDisconnected(self._cut)
            await asyncio.sleep(0)
            return
        if not (data or ends):
            return
        session.send_data(self.number, data, end=ends)
        self._link.wake()
        self._burst += 1
        if not session.is_writable(self.number):
            self._burst = 0
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None
        elif self._burst >= BURST or self.is_cancelled:
            self._burst = 0
            await asyncio.sleep(0)  # last words leave in it: a RESET would take them back

    def _finish(self, trailers: list[Pair]) -> None:
        if not self._is_connected():
            return
        if trailers:
            self._link.session.send_trailers(self.number, trailers)
        else:
            self._link.session.send_data(self.number, b"", end=True)
        self._link.wake()

    def _is_connected(self) -> bool:
        """Whether anybody may still read the response: also where only the time is up, until the code is abandoned."""
        return not self._is_forsaken and self._link.session.is_open(self.number)

    @property
    def _is_forsaken(self) -> bool:
        return self.is_abandoned or (self.is_cancelled and self._code is not frames.Code.TIMEOUT)

    # For the link

    def body_came(self, data: bytes, end: bool) -> None:
        if data and not self.is_cancelled:
            self._pieces.append(data)
        self._is_body_over = self._is_body_over or end
        wake(self._reader)

    def body_was_cut(self, reason: str) -> None:
        if not self.is_cancelled:
            self._cut = reason or "the client ended its request early"
        wake(self._reader)

    def writable(self) -> None:
        wake(self._writer)

    def cancel(self, code: frames.Code) -> None:
        """Stop the code, then end the stream with `code`. Idempotent, but that a client may leave when time is up."""
        if self._is_forsaken:
            return
        was_cancelled, self.is_cancelled = self.is_cancelled, True
        self._code = code
        self._cut = REASONS[code]
        if self.task.done():
            self._end(code)  # the end of the response waits for credit that nobody will give
        if self.task.done() or was_cancelled:
            return
        self._pieces.clear()
        wake(self._reader)
        wake(self._writer)  # where code runs on
        if self.on_left is not None:
            self.on_left(self.task.cancel)
            return
        self.task.add_done_callback(self._end_unbegun)
        self.task.cancel()

    def abandon(self) -> None:
        """The code does not stop in time: end the stream without it. What it still does reaches nobody."""
        advice = "let `CancelledError` pass, or look at `request.cancelled`"
        LOG.error("request %s: the code did not stop%s: %s", self.id, place_now(self), advice)
        self.is_abandoned = True
        self._end(self._code)
        self.task.cancel()

    def _end_unbegun(self, task: asyncio.Task[None]) -> None:
        """The client left before the code's first step: asyncio never entered `_run`."""
        if task.cancelled():
            self._stop(self._code)

    async def _run(self) -> None:
        code = frames.Code.INTERNAL
        try:
            await self._link.run(self)
            code = frames.Code.NO_ERROR if self.has_finished else frames.Code.INTERNAL
        except asyncio.CancelledError:
            if not self.is_cancelled:
                LOG.exception("request %s: the handler's code was cancelled from within", self.id)
        except KeyboardInterrupt as error:
            self._stop(code)
            # Nobody asks for a task's own.
            asyncio.get_running_loop().call_soon((_ for _ in ()).throw, error)
        except Refused:
            code = frames.Code.REFUSED
        except LengthMismatch as error:
            code = frames.Code.MISMATCH
            LOG.error("request %s: %s%s", self.id, error, place_of(error, self.code))
        except BaseException as error:  # `SystemExit` among them: others are served here
            if not self.is_cancelled:
                said = ": ".join(filter(None, (type(error).__name__, await_advice(error))))
                log_failure(self, f"the handler raised {said}", error)
        # Code that took the end of its time for the end of its response has ended it well.
        has_ended_well = code is frames.Code.NO_ERROR and not self._is_forsaken
        self._stop(self._code if self.is_cancelled and not has_ended_well else code)

    def _stop(self, code: frames.Code) -> None:
        """The code has stopped."""
        self._end(code)
        self._link.code_stopped(self)

    def _end(self, code: frames.Code) -> None:
        """Both directions: ours ends now if it has not, and what is unread of the request is not wanted."""
        session = self._link.session
        self._pieces.clear()
        if not session.is_ended:
            if not self.has_finished or self._is_forsaken:
                session.reset(self.number, code)
            session.stop(self.number, code)
            self._link.wake()


def open_stream(link: Link, number: int, opening: frames.Request, context: LambdaContext) -> LinkStream:
    """The stream of a REQUEST, whose code is about to run."""
    if "websocket" not in opening.options:
        return LinkStream(link, number, opening, context)
    from lambda_client.websocket_stream import WebSocketStream  # most functions have none

    return WebSocketStream(link, number, opening, context)


def wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


#: What a stream does when its session tells of it: of messages, a WebSocket's alone.
STREAM_EVENTS: dict[type, Callable[[Any, Any], None]] = {
    events.DataReceived: lambda stream, event: stream.body_came(bytes(event.data), event.end),
    events.TrailersReceived: lambda stream, event: stream.body_came(b"", True),
    events.MessageReceived: lambda stream, event: stream.message_came(event.data, event.text),
    events.CloseReceived: lambda stream, event: stream.close_came(event.code, event.reason),
    events.StreamReset: lambda stream, event: stream.body_was_cut(event.reason),
    events.StreamStopped: lambda stream, event: stream.cancel(frames.Code.CANCELLED),
    events.StreamWritable: lambda stream, event: stream.writable(),
}
