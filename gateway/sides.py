"""What an exchange carries and whom it talks to: the request's head, and the faces of the client's side and the link's.

Shapes, no behaviour. The HTTP side implements `ClientSide`, the link's side `StreamSide`; neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from gateway.errors import Problem
from gateway.response_head import ResponseHead
from protocol.flow import INITIAL_WINDOW
from protocol.frames import Code, Headers
from protocol.stream import WRITABLE_MARK

#: Bytes of a request's body after which a stream takes more only where its function has read.
READ_MARK: Final = INITIAL_WINDOW + WRITABLE_MARK


@dataclass(frozen=True, slots=True)
class WebSocketOffer:
    """What a client's handshake says beyond an ordinary request (RFC 6455, section 4.1)."""

    key: bytes
    """Sec-WebSocket-Key."""
    subprotocols: tuple[str, ...]
    """Those offered, in the client's order."""
    max_message: int
    """Bytes of a message, both ways."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A client's request without its body; immutable, made by `ingress`, carried to the function as it is."""

    method: bytes
    target: bytes
    """Origin form (`*` for OPTIONS), byte for byte as it was sent."""
    headers: Headers
    """Names lower-cased, in their order; without hop-by-hop fields."""
    scheme: str = "http"
    client: tuple[str, int] = ("", 0)
    version: str = "1.1"
    has_body: bool = False
    expects_continue: bool = False
    """The client waits for 100 Continue: the request's credit starts at 0 (docs/protocol.md, streams)."""
    websocket: WebSocketOffer | None = None
    """None: an ordinary request."""

    @property
    def path(self) -> bytes:
        """The target without its query, which may hold secrets."""
        return self.target.partition(b"?")[0]


class ClientSide(Protocol):
    """The exchange's hand towards the client; no method blocks, and none raises because the client has gone."""

    @property
    def is_paused(self) -> bool:
        """The client reads too slowly: what was written is taken, but no more credit should be given."""

    def informational(self, status: int, headers: Headers) -> None: ...
    def continue_(self) -> None:
        """100 Continue."""

    def head(self, head: ResponseHead, end: bool, body: bytes | bytearray | memoryview = b"") -> None:
        """The final head, with the whole body where `body` is not empty. `end`: nothing follows."""

    def data(self, payload: bytes | bytearray | memoryview, end: bool) -> None:
        """Written or copied before it returns."""

    def end(self, trailers: Headers) -> None: ...
    def accept(self, headers: Headers) -> WebSocketSide:
        """Write the 101; who takes this one's place. Raises `RequestRefused`, or ConnectionError where the client has
        left, with nothing written."""

    def problem(self, problem: Problem) -> None:
        """A whole response, in place of the function's."""

    def abort(self) -> None:
        """Cut the connection, so that a response that began never looks whole."""

    def upload_writable(self) -> None:
        """The stream takes request data again."""

    def upload_stopped(self) -> None:
        """The function wants no more of the request; what still comes is nobody's."""

    def returned(self) -> None:
        """The exchange is `accepted` again and needs another stream."""

    def ended(self) -> None:
        """The last call: the exchange is in a terminal state, or goes on without this side."""


class WebSocketSide(ClientSide, Protocol):
    """The hand towards a client whose WebSocket was accepted. `abort` closes, as its exchange's problem says."""

    def message(self, data: bytes, text: bool) -> None: ...
    def close(self, code: int, reason: str) -> None:
        """The closing handshake, behind what was written."""


class StreamSide(Protocol):
    """The exchange's hand towards the function: one stream on a link. No method blocks or minds an ended stream."""

    @property
    def id(self) -> int: ...
    @property
    def is_writable(self) -> bool:
        """False: little more should be sent before `Exchange.writable`."""

    def send(self, data: bytes, end: bool) -> None:
        """Request body; kept by reference until it is sent."""

    def send_trailers(self, headers: Headers) -> None: ...
    def send_message(self, data: bytes, text: bool) -> None:
        """A WebSocket message, whole; kept by reference until it is sent."""

    def send_close(self, code: int, reason: bytes) -> None:
        """How the client's WebSocket was closed, and the end of our direction."""

    def consumed(self, size: int) -> None:
        """That many response bytes have gone on: grant credit."""

    def consumed_message(self) -> None:
        """The oldest message that came has gone on: grant credit."""

    def cancel(self, code: Code) -> None:
        """Both directions: RESET and STOP."""

    def stop(self, code: Code) -> None:
        """Ask the function to end its direction."""

    def reset(self, code: Code) -> None:
        """End ours, unfinished."""
