"""A client's WebSocket, for `async def` handlers: `ws = await request.websocket()`. Knows no link.

What happens on the WebSocket's own level (pings, fragments, the closing handshake) is the gateway's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from lambda_client.fields import encode_fields
from lambda_client.stream import Closed, NoWebSocket, Pair, Stream, WebSocketClosed

_REASON_LIMIT = 123  # bytes, RFC 6455 §5.5
_FINE = frozenset({1000, 1001, 1005})  # closes that end an `async for` as the end of a list does


class Messages(ABC):
    """A stream's messages, both ways. What implements it is a stream as well."""

    max_message: int
    closed: Closed | None
    is_accepted: bool

    @abstractmethod
    def accept(self, headers: list[Pair]) -> None: ...

    @abstractmethod
    async def receive_message(self) -> tuple[bytes, bool]:
        """The next, and whether it is text. Raises `WebSocketClosed`."""

    @abstractmethod
    async def send_message(self, data: bytes, text: bool) -> None:
        """Waits for room. Raises `WebSocketClosed`."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None:
        """Behind all that was sent. Idempotent."""

    @abstractmethod
    async def settle(self) -> None:
        """The code has returned: close what it has left open."""


class WebSocket:
    """Open from `request.websocket()` on; closed by the client, by `close`, or by the handler's end: with 1000 when it
    returns, with 1011 when it raises, with 1012 when the invocation's time is up.

    Several tasks may send; one at a time may receive.
    """

    def __init__(self, messages: Messages, subprotocol: str | None) -> None:
        self._messages = messages
        self.subprotocol = subprotocol
        """The one that was accepted."""

    @property
    def closed(self) -> Closed | None:
        """Code and reason, whoever closed; None while it is open. What came before may still be received."""
        return self._messages.closed

    async def receive(self) -> str | bytes:
        """The next message, text as str. Raises `WebSocketClosed`, and `RuntimeError` while another task receives."""
        data, text = await self._messages.receive_message()
        return data.decode() if text else data

    def __aiter__(self) -> WebSocket:
        return self

    async def __anext__(self) -> str | bytes:
        """Ends with a WebSocket that was closed properly (1000, 1001, 1005). Raises `WebSocketClosed` otherwise."""
        try:
            return await self.receive()
        except WebSocketClosed as closed:
            if closed.code in _FINE:
                raise StopAsyncIteration from None
            raise

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message, str as text, when there is room for it: a client that does not read holds this up. Cancelled
        while it waits, it has sent nothing.

        Raises `WebSocketClosed`; `ValueError` for one that is above the gateway's `websocket.max_message`, or no UTF-8;
        `TypeError` for what is no message.
        """
        text = isinstance(message, str)
        if isinstance(message, str):
            data = message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            data = bytes(message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        if len(data) > self._messages.max_message:
            raise ValueError(f"a message of {len(data)} bytes; the gateway takes {self._messages.max_message} at most")
        await self._messages.send_message(data, text)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it, behind all that was sent; nothing happens when it is closed. Waits for nobody's answer.

        Raises `ValueError` for a code that no close frame may have, or a reason above 123 bytes of UTF-8.
        """
        if not (3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))):
            raise ValueError(f"{code} is no code to close with: 1000 to 1014 but 1004 to 1006, or 3000 to 4999")
        if len(reason.encode()) > _REASON_LIMIT:
            raise ValueError(f"a reason has {_REASON_LIMIT} bytes at most")
        await self._messages.close(code, reason)

    def __repr__(self) -> str:
        return f"<WebSocket {'open' if self.closed is None else self.closed.code}>"


def accept(
    stream: Stream, subprotocol: str | None, headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
) -> WebSocket:
    """See `Request.websocket`."""
    if not isinstance(stream, Messages):
        raise NoWebSocket("the client has not asked for a WebSocket; look at `request.is_websocket` first")
    if stream.is_accepted:
        raise RuntimeError("the WebSocket was accepted already")
    fields = encode_fields(headers)
    if subprotocol is not None:
        if subprotocol not in (stream.subprotocols or ()):
            raise ValueError(f"the client has not offered {subprotocol!r}, but {stream.subprotocols}")
        fields.append((b"sec-websocket-protocol", subprotocol.encode()))
    stream.accept(fields)
    return WebSocket(stream, subprotocol)
