"""The `websocket` scope of ASGI applications.

Source: the ASGI specification's "HTTP & WebSocket" (3.0, spec version 2.4: `send` raises an OSError when the client has
gone) with the extension "WebSocket Denial Response". What it leaves open is done as uvicorn does it, but for what a
client sees of an app that returns without closing or raises: 1000 and 1011, where uvicorn ends the connection without a
close frame (1006).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lambda_client.asgi import AppCall, AppError, Message, Scope, header_fields
from lambda_client.place import log_failure
from lambda_client.response import check_status
from lambda_client.stream import Closed, Stream, WebSocketClosed
from lambda_client.websocket import Messages, WebSocket, accept

_SCHEMES = {"http": "ws", "https": "wss"}
_HANDSHAKE = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]  # not on the link; Engine.IO goes by them


class WebSocketCycle(AppCall):
    """A WebSocket as the app sees it, from `websocket.connect` to `websocket.disconnect`."""

    def __init__(self, stream: Stream, scope: Scope) -> None:
        del scope["method"]
        scope |= {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "scheme": _SCHEMES[scope["scheme"]],
            "headers": [*scope["headers"], *_HANDSHAKE],
            "subprotocols": list(stream.subprotocols or ()),
            "extensions": {"websocket.http.response": {}},
        }
        super().__init__(stream, scope)
        assert isinstance(stream, Messages), "a stream with subprotocols has messages"
        self._messages: Messages = stream
        self._websocket: WebSocket | None = None
        self._state = "connecting"  # then "open", "closed"; or "refusing", "closed"
        self._is_connected = False  # the app has received `websocket.connect`
        self._decided = asyncio.Event()  # accepted, refused, or left: what comes can be told
        self._receiving = asyncio.Lock()

    @property
    def _has_begun(self) -> bool:
        return self._state != "connecting"

    def _left(self) -> None:
        self._decided.set()

    async def _returned(self) -> BaseException | None:
        if self._websocket is not None:
            await self._messages.settle()
        elif self._state != "closed":
            how = "before the end of its" if self._has_begun else "without an"
            return AppError(f"the app returned {how} answer: `websocket.accept`, `websocket.close` or a whole response")
        return None

    async def _fail(self, error: BaseException) -> None:
        """Code that ends by what it was told at the client's close has not failed; whatever else it raises then is
        known to nobody but the log."""
        websocket = self._websocket
        if websocket is None or websocket.closed is None:
            await super()._fail(error)
        else:
            if not isinstance(error, WebSocketClosed):
                log_failure(
                    self._stream, f"the app failed after its WebSocket was closed: {type(error).__name__}", error
                )
            await self._messages.settle()

    # For the app

    async def receive(self) -> Message:
        """`websocket.connect` first; once the app has answered, messages; then `websocket.disconnect`."""
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        await self._decided.wait()
        async with self._receiving:
            closed = self._messages.closed or Closed(1006, "")
            if self._websocket is not None:
                try:
                    message = await self._websocket.receive()
                except WebSocketClosed as error:
                    closed = Closed(error.code, error.reason)
                else:
                    return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}
        return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}

    async def send(self, message: Message) -> None:
        """Answer the handshake, send or close; returns when there is room for more.

        Raises `RuntimeError` for a message out of order, `TypeError`, `ValueError` for one that is wrong in itself, and
        `WebSocketClosed`, an OSError, when the client has gone.
        """
        kind = message["type"]
        step = _STEPS.get((self._state, kind))
        if step is None:
            if self._state == "closed":
                raise RuntimeError(
                    f"Unexpected ASGI message '{kind}', after sending 'websocket.close' or response already completed."
                )
            raise RuntimeError(f"Expected ASGI message {_EXPECTED[self._state]}, but got '{kind}'.")
        await step(self, message)

    async def _accept(self, message: Message) -> None:
        fields = header_fields(message.get("headers", ()))
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        self._websocket = accept(self._stream, message.get("subprotocol"), pairs)
        self._state = "open"
        self._decided.set()

    async def _send(self, message: Message) -> None:
        assert self._websocket is not None, "it is open"
        data = message.get("bytes")
        await self._websocket.send(message["text"] if data is None else data)

    async def _close(self, message: Message) -> None:
        assert self._websocket is not None, "it is open"
        await self._websocket.close(message.get("code", 1000), message.get("reason") or "")
        self._state = "closed"

    async def _refuse(self, message: Message) -> None:
        self._stream.begin(403, [], ends=True)
        self._refused()

    async def _begin_refusal(self, message: Message) -> None:
        self._stream.begin(check_status(message["status"]), header_fields(message.get("headers", ())))
        self._state = "refusing"

    async def _send_refusal(self, message: Message) -> None:
        is_last = not message.get("more_body", False)
        await self._stream.send(message.get("body", b""), ends=is_last)
        if is_last:
            self._refused()

    def _refused(self) -> None:
        self._state = "closed"
        self._decided.set()


#: What an app may send, by state and message.
_STEPS: dict[tuple[str, str], Callable[[WebSocketCycle, Message], Awaitable[None]]] = {
    ("connecting", "websocket.accept"): WebSocketCycle._accept,
    ("connecting", "websocket.close"): WebSocketCycle._refuse,
    ("connecting", "websocket.http.response.start"): WebSocketCycle._begin_refusal,
    ("refusing", "websocket.http.response.body"): WebSocketCycle._send_refusal,
    ("open", "websocket.send"): WebSocketCycle._send,
    ("open", "websocket.close"): WebSocketCycle._close,
}
_EXPECTED = {
    "connecting": "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'",
    "refusing": "'websocket.http.response.body'",
    "open": "'websocket.send' or 'websocket.close'",
}
