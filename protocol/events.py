"""What a session tells its driver: past tense, in the order in which it happened.

Each prints itself in one short line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from protocol.frames import Bytes, Headers, Request, Response


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Function: the gateway has spoken; what was unacknowledged is on its way again."""

    resumed: bool


@dataclass(frozen=True, slots=True)
class LeaseOffered:
    """Gateway: answer at once with `grant` or `decline`."""

    lease: int
    invitation: str
    places: int
    remaining: float  # seconds

    def __repr__(self) -> str:  # the invitation is a secret
        return f"LeaseOffered(lease={self.lease}, places={self.places}, remaining={self.remaining:.1f})"


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    lease: int
    linger: float  # seconds


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """Function: park when the streams have ended, without lingering."""

    lease: int


@dataclass(frozen=True, slots=True)
class Parked:
    """The lease is over and both sides are silent."""

    lease: int


@dataclass(frozen=True, slots=True)
class StreamOpened:
    stream: int
    request: Request


@dataclass(frozen=True, slots=True)
class InformationalReceived:
    stream: int
    status: int
    headers: Headers

    def __repr__(self) -> str:
        return f"InformationalReceived(stream={self.stream}, status={self.status})"


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """`end`: no body follows."""

    stream: int
    response: Response
    end: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """`data` may be a view of the driver's buffer: use or copy it before the next call, and `consume` as many bytes
    when they have been taken."""

    stream: int
    data: Bytes
    end: bool

    def __repr__(self) -> str:
        return f"DataReceived(stream={self.stream}, {len(self.data)} B{', end' if self.end else ''})"


@dataclass(frozen=True, slots=True)
class TrailersReceived:
    """The peer's direction ended with these."""

    stream: int
    headers: Headers

    def __repr__(self) -> str:
        return f"TrailersReceived(stream={self.stream}, {len(self.headers)} fields)"


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A whole WebSocket message; call `consume_message` when it has been taken."""

    stream: int
    data: bytes
    text: bool

    def __repr__(self) -> str:
        return f"MessageReceived(stream={self.stream}, {len(self.data)} B)"


@dataclass(frozen=True, slots=True)
class CloseReceived:
    stream: int
    code: int
    reason: bytes


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer ended its direction, not cleanly."""

    stream: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The peer asks us to end our direction."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True)
class CreditGranted:
    """The peer granted the first credit of a direction that began with none (Expect: 100-continue)."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamWritable:
    """Little is queued again: more may be sent."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """Both directions have ended and everything was handed to the socket: the place is free, the number forgotten."""

    stream: int


@dataclass(frozen=True, slots=True)
class PingDue:
    """Gateway: send a WebSocket ping."""


@dataclass(frozen=True, slots=True)
class SocketDead:
    """Give this socket up. The session goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Every stream is lost. Close the socket and drop the session."""

    reason: str


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
