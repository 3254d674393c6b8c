"""A client's WebSocket: RFC 6455's edge. Messages go to the exchange whole and come from it whole; pings, the closing
handshake and clients that have gone are dealt with here, and the function is told how it ended.

Begins with the 101, on the transport that the HTTP server gave up. It has no task: one timer, and what the transport
calls. Knows its exchange; of functions nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

from gateway.detached import Detached
from gateway.leave_probe import LeaveProbe
from gateway.limits import HttpLimits
from gateway.message_parser import MessageParser
from gateway.open_websockets import OpenWebSockets
from gateway.silent_side import SilentSide
from gateway.terms import Terms
from gateway.websocket import BINARY, PING, PONG, TEXT, FramingError, close_frame, frame_header
from gateway.websocket_exchange import WebSocketExchange

QUIET: Final = 1.0  # seconds without a message, after which a WebSocket is closed while the gateway drains
GOING_AWAY: Final = 1001
COME_BACK: Final = 1012
_STOPPING: Final = "the gateway is stopping"


class ClientWebSocket(SilentSide, asyncio.Protocol):
    """Implements `WebSocketSide`. Ends with its connection, which may outlive the exchange by the closing handshake."""

    __slots__ = (
        "is_paused", "_exchange", "_terms", "_limits", "_siblings", "_loop", "_transport", "_parser", "_probe",
        "_timer", "_heard_at", "_spoke_at", "_pinged_at", "_taken", "_taken_at", "_has_closed", "_is_deaf",
        "_is_leaving",
    )  # fmt: skip

    def __init__(self, exchange: WebSocketExchange, terms: Terms, limits: HttpLimits, siblings: OpenWebSockets) -> None:
        """It is one of `siblings` while it lives."""
        self.is_paused = False
        self._exchange = exchange
        self._terms = terms
        self._limits = limits
        self._siblings = siblings
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = MessageParser(self, limits.websocket_message)
        self._probe: LeaveProbe | None = None  # while reading was ever paused
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._spoke_at = self._taken_at = self._loop.time()
        self._pinged_at = 0.0  # of a ping that nothing has followed; 0: none
        self._taken = 0  # bytes of messages that the client has taken, when last looked at
        self._has_closed = False  # our close frame is written
        self._is_deaf = False  # nothing that still comes is looked at
        self._is_leaving = False

    # The exchange's hand towards the client

    def message(self, data: bytes, text: bool) -> None:
        """A message of the function."""
        self._spoke_at = self._loop.time()
        self._write(b"".join((frame_header(TEXT if text else BINARY, len(data)), data)))

    def close(self, code: int, reason: str) -> None:
        """Our close frame, then the client's, for which it has its time."""
        if self._has_closed:
            return
        self._write(close_frame(code, reason))
        self._has_closed = True
        self._resume()
        limits, transport = self._limits, self._transport
        is_behind = transport is not None and transport.get_write_buffer_size() > 0
        self._arm(max(limits.flush, limits.websocket_close) if is_behind else limits.websocket_close, self._abort)

    def abort(self) -> None:
        """The exchange has failed, or is given up: its problem says how to close."""
        problem = self._exchange.problem
        code = problem.kind.close_code if problem is not None else 1011
        self.close(GOING_AWAY if self._is_leaving and code == COME_BACK else code, "")

    def upload_writable(self) -> None:
        """The stream takes messages again."""
        if self._parser.is_paused:
            self._resume()

    def upload_stopped(self) -> None:
        """The function reads no more; the client's close and pongs are to be seen all the same."""
        self._resume()

    # The listener's

    @property
    def function(self) -> str:
        return self._exchange.function

    def go_away(self) -> None:
        """The gateway drains: close when nothing was said for a while."""
        if not (self._is_leaving or self._has_closed):
            self._is_leaving = True
            self._arm(0.0, self._leave_if_quiet)

    def close_now(self) -> None:
        """The gateway ends."""
        self._is_leaving = True
        self._end(GOING_AWAY, _STOPPING)

    def abort_now(self) -> None:
        self._abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.resume_reading()
        self._siblings.add(self)
        self._arm(0.0, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._pinged_at = 0.0
        if not self._is_deaf:
            self._feed(data)

    def eof_received(self) -> bool:
        """A client that closes its half has gone."""
        self._abort()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._siblings.discard(self)
        self._has_closed = self._is_deaf = True
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.close()
        self._transport = self._timer = self._probe = None
        self._lose("client left")

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self._exchange.client_resumed()

    # The parser's side

    def message_received(self, data: bytes, text: bool) -> None:
        exchange = self._exchange
        self._spoke_at = self._heard_at
        exchange.client_message(data, text)
        if not exchange.is_writable and not self._has_closed:
            self._pause()

    def ping_received(self, payload: bytes) -> None:
        if not (self._has_closed or self.is_paused):  # who pings and never reads gets no answer
            self._write(frame_header(PONG, len(payload)) + payload)

    def pong_received(self) -> None:
        """It was heard, as any byte is."""

    def close_received(self, code: int, reason: bytes) -> None:
        """The client's half of the closing handshake, the first or the second."""
        self._is_deaf = True
        if not self._has_closed:
            self._write(close_frame(code, reason.decode()))
            self._has_closed = True
            self._tell(code, reason, f"the client closed ({code})")
        if self._transport is not None:
            self._transport.close()
        self._arm(self._limits.websocket_close, self._abort)

    # Inside

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._has_closed and not self._transport.is_closing():
            self._transport.write(data)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except FramingError as error:
            self._break(error)

    def _break(self, error: FramingError) -> None:
        """Fail the connection (RFC 6455, section 7.1.7). Nothing more is understood; what comes is read for a while,
        lest the reset of a close with unread bytes take our close frame from the client."""
        self._is_deaf = True
        was_open = not self._has_closed
        self.close(error.code, str(error))
        self._arm(self._limits.linger, self._abort)
        if self._transport is not None and self._transport.can_write_eof() and not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError:  # the client's reset is in the kernel, and asyncio has not read it yet
                self._abort()
        if was_open:
            self._tell(error.code, str(error).encode(), f"the client is closed ({error.code}): {error}")

    def _end(self, code: int, why: str) -> None:
        """Close in the gateway's own name, and tell the function."""
        if not self._has_closed:
            self.close(code, why)
            self._tell(code, why.encode(), why)

    def _tell(self, code: int, reason: bytes, why: str) -> None:
        exchange = self._exchange
        if exchange.client is self and not exchange.is_ended:
            stand_in = Detached(exchange, self._terms, why, at_least=self._limits.websocket_close)
            exchange.client_closes(stand_in, code, reason, why)

    def _lose(self, why: str) -> None:
        exchange = self._exchange
        if exchange.client is self and not exchange.is_ended:
            exchange.detach(Detached(exchange, self._terms, why, at_least=self._limits.websocket_close), why)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _pause(self) -> None:
        """The function does not read: neither do we. The parser keeps what came."""
        self._parser.is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()
            if self._probe is None:
                self._probe = LeaveProbe(self._loop, self._transport, looked=_nothing, left=self._abort)
            self._probe.begin()

    def _resume(self) -> None:
        parser = self._parser
        if not parser.is_paused:
            return
        parser.is_paused = False
        self._heard_at = self._loop.time()
        if not self._is_deaf:
            self._feed(b"")
        if not parser.is_paused and self._transport is not None:
            if self._probe is not None:
                self._probe.end()
            self._transport.resume_reading()

    def _arm(self, delay: float, action: Callable[[], Any]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, action) if self._transport is not None else None

    def _look(self) -> None:
        """The one timer of an open WebSocket: for the exchange's whole time, for a client that takes nothing, and for
        one that is idle."""
        exchange, now = self._exchange, self._loop.time()
        left = exchange.began + self._terms.exchange - time.monotonic()
        if left <= 0:
            exchange.timed_out("exchange-timeout")
            return
        due = self._due(now)
        if due is None:
            self._lose_client()
        else:
            self._arm(min(due, left), self._look)

    def _due(self, now: float) -> float | None:
        """Seconds until something may be due; None: the client counts as gone."""
        assert self._transport is not None, "it has a timer only while it has a transport"
        limits, unsent = self._limits, self._transport.get_write_buffer_size()
        interval = limits.websocket_ping_interval or self._terms.response_idle
        taken = self._exchange.bytes_out - unsent
        if taken != self._taken or not unsent:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at >= self._terms.response_idle:
            return None
        if unsent or self._parser.is_paused or not limits.websocket_ping_interval:
            # A ping would wait behind what it has not taken; or its pong would, behind what the function does not read:
            # then it is no question, but a write, by which alone a client may be seen to have gone (docs/security.md).
            if not unsent and limits.websocket_ping_interval:
                self._write(frame_header(PING, 0))
            self._pinged_at = 0.0
            return min(interval, self._terms.response_idle / 4)
        if self._pinged_at:
            left = self._pinged_at + limits.websocket_ping_timeout - now
            return left if left > 0 else None
        quiet = self._heard_at + interval - now
        if quiet > 0:
            return quiet
        self._write(frame_header(PING, 0))
        self._pinged_at = now
        return limits.websocket_ping_timeout

    def _lose_client(self) -> None:
        self._lose("the client takes nothing" if not self._pinged_at else "the client does not answer pings")
        self._abort()

    def _leave_if_quiet(self) -> None:
        if self._has_closed:
            return
        left = self._spoke_at + QUIET - self._loop.time()
        if left > 0:
            self._arm(left, self._leave_if_quiet)
        else:
            self._end(GOING_AWAY, _STOPPING)


def _nothing() -> None:
    """A look of the probe is none of ours."""
