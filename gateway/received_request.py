"""A request as aiohttp's parser made it, on its connection, and the face of who answers it. Nothing is judged yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from gateway.errors import Problem

if TYPE_CHECKING:
    from gateway.client_connection import ClientConnection


class ReceivedRequest:
    __slots__ = ("asks_upgrade", "connection", "content", "message")

    def __init__(self, connection: ClientConnection, message: Any, content: StreamReader) -> None:
        self.connection = connection
        self.message = message
        """Of the C parser: no tuple, as its type is."""
        self.content = content
        """The body, as far as it has come."""
        self.asks_upgrade = "upgrade" in message.headers

    @property
    def has_body(self) -> bool:
        return self.content is not EMPTY_PAYLOAD


class Front(Protocol):
    """Who answers what comes on a connection. Neither method waits, and neither raises."""

    def serve(self, request: ReceivedRequest) -> None:
        """The connection's next; it becomes `current` unless it is answered at once."""

    def refuse(self, connection: ClientConnection, problem: Problem, is_head_request: bool = False) -> None:
        """Answer what is no request, and close."""

    def connections_full(self, most: int) -> None:
        """One more than `most` has come."""
