"""An exchange whose client asks for a WebSocket: one more way of its states, from the 101 to how it was closed.

Until the function accepts, or if it refuses, it is an exchange as any other. Nothing here awaits, and the sides are
called as there; what is said on the WebSocket's own level (pings, the closing handshake) is its edge's.
"""

from __future__ import annotations

import time

from gateway.errors import GatewayError, Problem
from gateway.exchange import Exchange
from gateway.machine import move
from gateway.response_head import ResponseRefused, judge_upgrade
from gateway.sides import ClientSide, RequestHead, StreamSide, WebSocketOffer, WebSocketSide
from gateway.websocket import ABNORMAL, NO_STATUS, is_close_code
from protocol.frames import Code, Headers


class WebSocketExchange(Exchange):
    """Begins and ends as `Exchange` does. Complete when both have closed; who closed first, and how, is `reason`."""

    __slots__ = ("offer", "_websocket", "_untaken", "_is_unread", "_farewell")

    def __init__(self, head: RequestHead, client: ClientSide) -> None:
        super().__init__(head, client)
        assert head.websocket is not None, "of a handshake alone"
        self.offer: WebSocketOffer = head.websocket
        self._websocket: WebSocketSide | None = None  # from the 101 until the client has closed
        self._untaken = 0  # messages that wait in a slow client's buffer
        self._is_unread = False  # the function has asked for no more, before it accepted
        self._farewell = (1000, b"")

    # from the pool

    def stream_opened(self, stream: StreamSide) -> None:
        """It has a stream, perhaps after another was given back."""
        self._is_unread = False
        super().stream_opened(stream)

    # from the link

    def response(
        self, status: int, headers: Headers, end: bool = False, body: bytes | bytearray | memoryview = b""
    ) -> None:
        """101 accepts; any other is an ordinary response."""
        if status != 101:
            if not self.is_ended and self.state != "detached":
                self._stream.reset(Code.NO_ERROR)  # there will be no messages
            super().response(status, headers, end, body)
            return
        if self.state == "request_sent":
            self._accept(headers)
        if body:
            self.data(body, end)

    def message(self, data: bytes, text: bool) -> None:
        """Of the function, whole."""
        websocket = self._websocket
        if self.is_ended:
            return
        if websocket is None:
            self._stream.consumed_message()
            return
        if text and not _is_utf8(data):
            self._fail(Problem("bad-response"), Code.MISMATCH, "a text message that is not UTF-8")
            return
        self.bytes_out += len(data)
        websocket.message(data, text)
        if websocket.is_paused:
            self._untaken += 1
        else:
            self._stream.consumed_message()

    def function_closes(self, code: int, reason: bytes) -> None:
        """How; that it has is said by the end of its direction."""
        self._farewell = (code, reason)

    def data(self, payload: bytes | bytearray | memoryview, end: bool = False) -> None:
        """A refusal's body; or the end of messages."""
        websocket = self._websocket
        if websocket is None:
            super().data(payload, end)
        elif end:
            code, reason = self._farewell
            if code != NO_STATUS and not (is_close_code(code) and _is_utf8(reason)):
                code, reason = 1011, b""
            self._websocket = None
            self.reason = f"the function closed ({code})"
            self._stream.reset(Code.NO_ERROR)
            move(self, "response_ended")
            websocket.close(code, reason.decode())
            self._end()

    def stopped(self, code: int) -> None:
        """The function reads no more; its last messages may be on their way."""
        self._was_heard = True
        if self.state == "messages":
            move(self, "request_ended")
            self._stream.reset(Code.NO_ERROR)
            self.client.upload_stopped()
        else:
            self._is_unread = True

    # from the client's side

    def client_message(self, data: bytes, text: bool) -> None:
        """Of the client, whole."""
        if self.state == "messages":
            self.bytes_in += len(data)
            self._stream.send_message(data, text)

    @property
    def is_writable(self) -> bool:
        """False: no more should be read of the client before `ClientSide.upload_writable`."""
        return self.state != "messages" or self._stream.is_writable

    def client_closes(self, stand_in: ClientSide, code: int, reason: bytes, why: str) -> None:
        """The client, or its edge in its place, has closed. The function is told, and `stand_in` ends it in time."""
        self._leave("client_closed", stand_in, code, reason, why)

    def detach(self, stand_in: ClientSide, reason: str) -> None:
        """The client has left without a word, perhaps before it was accepted."""
        if self._websocket is None:
            self.client.abort()
        self._leave("client_detached", stand_in, ABNORMAL, b"", reason)

    def client_resumed(self) -> None:
        """What the client was behind with has left for it."""
        if self._websocket is None:
            super().client_resumed()
        else:
            self._take()

    # inside

    def _accept(self, headers: Headers) -> None:
        try:
            websocket = self.client.accept(judge_upgrade(self.offer.subprotocols, headers))
        except ResponseRefused as refused:
            self._fail(Problem("bad-response", str(refused)), Code.MISMATCH)
        except GatewayError as error:
            self.refused(error.problem)
        except ConnectionError:
            self.client_gone()
        else:
            move(self, "websocket_accepted")
            if self.tie is not None:
                self.tie.answered(101, headers)
            self.status = 101
            self.head_at = time.monotonic()
            self.client = self._websocket = websocket
            if self._is_unread:
                self.stopped(Code.NO_ERROR)

    def _leave(self, trigger: str, stand_in: ClientSide, code: int, reason: bytes, why: str) -> None:
        is_told = self.state != "closing"  # else it has said that it does not want to know
        move(self, trigger)
        self.reason = why
        if is_told:
            self._stream.send_close(code, reason)
        self._websocket = None
        self._take()
        left, self.client = self.client, stand_in
        left.ended()

    def _take(self) -> None:
        untaken, self._untaken = self._untaken, 0
        for _ in range(untaken):
            self._stream.consumed_message()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
