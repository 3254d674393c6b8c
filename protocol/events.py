"""What a session tells its driver: past tense, in the order in which it happened.

Each prints itself in one short line.
"""

from __future__ import annotations

from typing import TypeAlias

from protocol.frames import Bytes, Headers, Record, Request, Response


class Welcomed(Record):
    """Function: the gateway has spoken; what was unacknowledged is on its way again."""

    __slots__ = ("resumed",)

    def __init__(self, resumed: bool) -> None:
        self.resumed = resumed


class LeaseOffered(Record):
    """Gateway: answer at once with `grant` or `decline`."""

    __slots__ = ("lease", "invitation", "places", "remaining")

    def __init__(self, lease: int, invitation: str, places: int, remaining: float) -> None:
        self.lease = lease
        self.invitation = invitation
        self.places = places
        self.remaining = remaining  # seconds

    def __repr__(self) -> str:  # the invitation is a secret
        return f"LeaseOffered(lease={self.lease}, places={self.places}, remaining={self.remaining:.1f})"


class LeaseGranted(Record):
    __slots__ = ("lease", "linger")

    def __init__(self, lease: int, linger: float) -> None:
        self.lease = lease
        self.linger = linger  # seconds


class LeaseReleased(Record):
    """Function: park when the streams have ended, without lingering."""

    __slots__ = ("lease",)

    def __init__(self, lease: int) -> None:
        self.lease = lease


class Parked(Record):
    """The lease is over and both sides are silent."""

    __slots__ = ("lease",)

    def __init__(self, lease: int) -> None:
        self.lease = lease


class StreamOpened(Record):
    __slots__ = ("stream", "request")

    def __init__(self, stream: int, request: Request) -> None:
        self.stream = stream
        self.request = request


class InformationalReceived(Record):
    __slots__ = ("stream", "status", "headers")

    def __init__(self, stream: int, status: int, headers: Headers) -> None:
        self.stream = stream
        self.status = status
        self.headers = headers

    def __repr__(self) -> str:
        return f"InformationalReceived(stream={self.stream}, status={self.status})"


class ResponseReceived(Record):
    """`end`: no more follows; `body` is all of the body then."""

    __slots__ = ("stream", "response", "end", "body")

    def __init__(self, stream: int, response: Response, end: bool, body: bytes = b"") -> None:
        self.stream = stream
        self.response = response
        self.end = end
        self.body = body


class DataReceived(Record):
    """`data` may be a view of the driver's buffer: use or copy it before the next call, and `consume` as many bytes
    when they have been taken."""

    __slots__ = ("stream", "data", "end")

    def __init__(self, stream: int, data: Bytes, end: bool) -> None:
        self.stream = stream
        self.data = data
        self.end = end

    def __repr__(self) -> str:
        return f"DataReceived(stream={self.stream}, {len(self.data)} B{', end' if self.end else ''})"


class TrailersReceived(Record):
    """The peer's direction ended with these."""

    __slots__ = ("stream", "headers")

    def __init__(self, stream: int, headers: Headers) -> None:
        self.stream = stream
        self.headers = headers

    def __repr__(self) -> str:
        return f"TrailersReceived(stream={self.stream}, {len(self.headers)} fields)"


class MessageReceived(Record):
    """A whole WebSocket message; call `consume_message` when it has been taken."""

    __slots__ = ("stream", "data", "text")

    def __init__(self, stream: int, data: bytes, text: bool) -> None:
        self.stream = stream
        self.data = data
        self.text = text

    def __repr__(self) -> str:
        return f"MessageReceived(stream={self.stream}, {len(self.data)} B)"


class CloseReceived(Record):
    __slots__ = ("stream", "code", "reason")

    def __init__(self, stream: int, code: int, reason: bytes) -> None:
        self.stream = stream
        self.code = code
        self.reason = reason


class StreamReset(Record):
    """The peer ended its direction, not cleanly."""

    __slots__ = ("stream", "code", "reason")

    def __init__(self, stream: int, code: int, reason: str) -> None:
        self.stream = stream
        self.code = code
        self.reason = reason


class StreamStopped(Record):
    """The peer asks us to end our direction."""

    __slots__ = ("stream", "code")

    def __init__(self, stream: int, code: int) -> None:
        self.stream = stream
        self.code = code


class CreditGranted(Record):
    """The peer granted the first credit of a direction that began with none (Expect: 100-continue)."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class StreamWritable(Record):
    """Little is queued again: more may be sent."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class StreamClosed(Record):
    """Both directions have ended and everything was handed to the socket: the place is free, the number forgotten."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class PingDue(Record):
    """Gateway: send a WebSocket ping."""

    __slots__ = ()


class SocketDead(Record):
    """Give this socket up. The session goes on."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class SessionEnded(Record):
    """Every stream is lost. Close the socket and drop the session."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


Event: TypeAlias = (
    Welcomed
    | LeaseOffered
    | LeaseGranted
    | LeaseReleased
    | Parked
    | StreamOpened
    | InformationalReceived
    | ResponseReceived
    | DataReceived
    | TrailersReceived
    | MessageReceived
    | CloseReceived
    | StreamReset
    | StreamStopped
    | CreditGranted
    | StreamWritable
    | StreamClosed
    | PingDue
    | SocketDead
    | SessionEnded
)
