"""One request and its response, as a handler's code sees them. Knows neither where they come from nor what runs it.

Two things implement it: a stream on a link (`link_stream`), and a buffered invocation (`buffered`). What runs a handler
(`plain`, `asgi`, `wsgi`, `native`) is written against this class alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from lambda_client.wire import frames

Pair = tuple[bytes, bytes]

BODYLESS_STATUSES = frozenset({204, 205, 304})


class LambdaContext(Protocol):
    """What is used of AWS's context object (AWS, "Using the Lambda context object to retrieve Python function
    information")."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


class ClientDisconnected(ConnectionResetError):
    """Nobody waits for the response any more: the client is gone or cut its upload, the link is lost, or the
    invocation's time is up. Its text says which.

    Raised where a handler reads the request's body: `request.body`, `read()`, `text()`, `json()`, of a `def` handler
    `request.file` too; and where writing is a call, of a WSGI app or on an `HttpResponseStream`. So code in a thread is
    told, which cannot be cancelled; code that does neither looks at `request.cancelled`. A generator's write is its
    `yield`, and raises nothing but `GeneratorExit`: it is closed there.
    """


class Refused(Exception):
    """No code has seen the request."""


class Closed(NamedTuple):
    """How a WebSocket was closed (RFC 6455 §7.4): 1005 without a code, 1006 without a close frame, 1012 at the end of
    the invocation's time."""

    code: int
    reason: str


class WebSocketClosed(ConnectionError):
    """A WebSocket is closed: nothing more will come, and nothing can be sent. A handler may let it pass."""

    def __init__(self, closed: Closed) -> None:
        super().__init__(f"the WebSocket is closed ({closed.code}{': ' if closed.reason else ''}{closed.reason})")
        self.code = closed.code
        self.reason = closed.reason


class NoWebSocket(RuntimeError):
    """The client has sent an ordinary request."""


class LengthMismatch(RuntimeError):
    """A response's body is longer or shorter than its Content-Length says: it must not look whole."""


class Stream(ABC):
    """Begins with a request, ends when its response has ended and its code has stopped. Of the event loop alone."""

    def __init__(self, opening: frames.Request, identity: str, context: LambdaContext) -> None:
        self.opening = opening
        self.id = identity
        self.context = context
        self.is_cancelled = False
        self.is_abandoned = False  # cancelled, and not waited for any longer
        self.has_finished = False
        self.code: object = None  # the user's, that runs
        self.on_left: Callable[[Callable[[], object]], None] | None = None  # takes what would cancel the code now
        self._left: int | None = None  # bytes of the declared Content-Length that are still to come
        self.is_bodyless = opening.method == b"HEAD"

    @abstractmethod
    async def read(self) -> bytes | None:
        """The next piece of the request's body, as it came; None at its end.

        Raises `ClientDisconnected`.
        """

    @property
    @abstractmethod
    def is_read(self) -> bool:
        """Whether all of the request's body has been read."""

    @abstractmethod
    def stop_reading(self) -> None:
        """What is unread of the request is not wanted: a `read` that waits, and every later one, raises."""

    @abstractmethod
    def inform(self, status: int, headers: list[Pair]) -> None:
        """Send an interim response, 102 to 199, before the head. Ignored where none can be sent."""

    @property
    def subprotocols(self) -> list[str] | None:
        """Those that the client offers in its WebSocket handshake; None for an ordinary request."""
        offered: list[str] | None = self.opening.options.get("websocket")
        return offered

    def remaining_time(self) -> float:
        """Seconds until the code is stopped, never below 0."""
        return max(0.0, self.context.get_remaining_time_in_millis() / 1000)

    def begin(self, status: int, headers: list[Pair], *, ends: bool = False) -> None:
        """Send the response's head. `ends`: no body follows. A response without a body by its nature ends here."""
        declared = next((value for name, value in headers if name == b"content-length"), None)
        self.is_bodyless = self.is_bodyless or status in BODYLESS_STATUSES
        if declared is not None and not self.is_bodyless:
            if not declared.isdigit():
                raise ValueError(f"not a Content-Length: {declared!r}")
            self._left = int(declared)
            if ends and self._left:
                raise LengthMismatch(f"no body for a Content-Length of {self._left}")
        ends = ends or self.is_bodyless
        self._begin(status, headers, ends)  # which may refuse the head: then nothing has ended
        self.has_finished = ends

    async def send(self, data: bytes, *, ends: bool = False) -> None:
        """Send a piece of the body at once; returns when there is room for the next. Ignored after the end.

        Raises `ClientDisconnected`, `LengthMismatch`.
        """
        if self.has_finished:
            return
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (ends and self._left):
                raise LengthMismatch(_mismatch(self._left))
        self.has_finished = ends
        await self._send(data, ends)

    def finish(self, trailers: Iterable[Pair] = ()) -> None:
        """End the response. Idempotent. Raises `LengthMismatch` when bytes are missing."""
        if self.has_finished:
            return
        if self._left:
            raise LengthMismatch(_mismatch(self._left))
        self._finish(list(trailers))
        self.has_finished = True

    @abstractmethod
    def _begin(self, status: int, headers: list[Pair], ends: bool) -> None: ...

    @abstractmethod
    async def _send(self, data: bytes, ends: bool) -> None: ...

    @abstractmethod
    def _finish(self, trailers: list[Pair]) -> None: ...


def _mismatch(left: int) -> str:
    how = f"{abs(left)} bytes {'over' if left < 0 else 'short of'} its Content-Length"
    return f"the body is {how}: count bytes, not characters, or leave it out"
