"""Frames: their types and sizes (docs/protocol.md §1). Knows nothing of bytes (`codec`), order, credit or state."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar, Final, TypeAlias

MAX_FRAME_SIZE: Final = 1 << 20  # bytes, one WebSocket message, the envelope included
MAX_HEAD_SIZE: Final = 64 << 10  # bytes, a frame that carries headers
DATA_OVERHEAD: Final = 12  # bytes before the payload of a fixed-width frame
MAX_DATA_SIZE: Final = MAX_FRAME_SIZE - DATA_OVERHEAD  # bytes of payload
#: Bytes of payload at which bodies are cut; larger frames cost the usual clients three times the CPU (page faults).
DATA_SIZE: Final = 64 << 10
MAX_STREAM: Final = (1 << 32) - 1
MAX_OFFSET: Final = (1 << 63) - 1  # body offsets and counts; half of what 64 bits hold, so that sums never wrap
MAX_CLOSE_REASON: Final = 123  # bytes, RFC 6455 §5.5
MAX_HEADER_FIELDS: Final = 2048  # in one frame; what a head of 64 KiB may make a receiver allocate

Bytes: TypeAlias = bytes | bytearray | memoryview
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
Options: TypeAlias = dict[str, Any]


class Code(IntEnum):
    """Why a direction of a stream ended early (docs/protocol.md §5.3)."""

    NO_ERROR = 0
    CANCELLED = 1
    REFUSED = 2
    INTERNAL = 3
    TIMEOUT = 4
    MISMATCH = 5
    TOO_BIG = 6
    SHUTDOWN = 7
    LOST = 8


class Record:
    """What a frame and an event are: equal by type and fields, which are its slots in the order of its arguments. Not
    changed once it is made.

    Written out: a cold start waits 80 times as long for frozen dataclasses, and 3 times as long for an instance; for
    named tuples 10 and 1.5 times, and those of two types are equal.
    """

    __slots__: ClassVar[tuple[str, ...]] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class Welcome(Record):
    __slots__ = ("received", "epoch", "options")
    TYPE: ClassVar[int] = 0x01

    def __init__(self, received: int, epoch: int, options: Options | None = None) -> None:
        self.received = received
        self.epoch = epoch
        self.options = options or {}


class Ack(Record):
    __slots__ = ("received",)
    TYPE: ClassVar[int] = 0x02

    def __init__(self, received: int) -> None:
        self.received = received


class Lease(Record):
    __slots__ = ("lease", "invitation", "places", "remaining", "received", "options")
    TYPE: ClassVar[int] = 0x03

    def __init__(
        self, lease: int, invitation: str, places: int, remaining: int, received: int, options: Options | None = None
    ) -> None:
        self.lease = lease
        self.invitation = invitation
        self.places = places
        self.remaining = remaining  # milliseconds
        self.received = received
        self.options = options or {}

    def __repr__(self) -> str:  # the invitation is a secret
        return f"Lease(lease={self.lease}, places={self.places}, remaining={self.remaining})"


class Leased(Record):
    __slots__ = ("lease", "options")
    TYPE: ClassVar[int] = 0x04

    def __init__(self, lease: int, options: Options | None = None) -> None:
        self.lease = lease
        self.options = options or {}


class Release(Record):
    __slots__ = ("lease",)
    TYPE: ClassVar[int] = 0x05

    def __init__(self, lease: int) -> None:
        self.lease = lease


class Park(Record):
    __slots__ = ("lease", "last_stream", "received")
    TYPE: ClassVar[int] = 0x06

    def __init__(self, lease: int, last_stream: int, received: int) -> None:
        self.lease = lease
        self.last_stream = last_stream
        self.received = received


class Parked(Record):
    __slots__ = ("lease", "received")
    TYPE: ClassVar[int] = 0x07

    def __init__(self, lease: int, received: int) -> None:
        self.lease = lease
        self.received = received


class Request(Record):
    __slots__ = ("stream", "exchange", "method", "target", "headers", "options")
    TYPE: ClassVar[int] = 0x10

    def __init__(
        self,
        stream: int,
        exchange: bytes,
        method: bytes,
        target: bytes,
        headers: Headers = (),
        options: Options | None = None,
    ) -> None:
        self.stream = stream
        self.exchange = exchange  # 16 bytes, the client request's own id
        self.method = method
        self.target = target  # undecoded path and query
        self.headers = headers
        self.options = options or {}

    def __repr__(self) -> str:  # a query may hold secrets
        path = self.target.partition(b"?")[0]
        return f"Request(stream={self.stream}, {self.method.decode('latin-1')} {path.decode('latin-1')})"


class Response(Record):
    __slots__ = ("stream", "status", "headers", "options")
    TYPE: ClassVar[int] = 0x11

    def __init__(self, stream: int, status: int, headers: Headers = (), options: Options | None = None) -> None:
        self.stream = stream
        self.status = status
        self.headers = headers
        self.options = options or {}

    def __repr__(self) -> str:
        return f"Response(stream={self.stream}, status={self.status})"


class Informational(Record):
    __slots__ = ("stream", "status", "headers")
    TYPE: ClassVar[int] = 0x12

    def __init__(self, stream: int, status: int, headers: Headers = ()) -> None:
        self.stream = stream
        self.status = status
        self.headers = headers

    def __repr__(self) -> str:
        return f"Informational(stream={self.stream}, status={self.status})"


class Trailers(Record):
    __slots__ = ("stream", "headers")
    TYPE: ClassVar[int] = 0x13

    def __init__(self, stream: int, headers: Headers = ()) -> None:
        self.stream = stream
        self.headers = headers

    def __repr__(self) -> str:
        return f"Trailers(stream={self.stream}, {len(self.headers)} fields)"


class Data(Record):
    """A piece of a body. `payload` is a view of the message that was decoded: copy what must outlive it."""

    __slots__ = ("stream", "payload", "end")
    TYPE: ClassVar[int] = 0x14

    def __init__(self, stream: int, payload: Bytes, end: bool = False) -> None:
        self.stream = stream
        self.payload = payload
        self.end = end

    def __repr__(self) -> str:
        return f"Data(stream={self.stream}, {len(self.payload)} B{', end' if self.end else ''})"


class Message(Record):
    """A client's WebSocket message, or a piece of one (`last` false)."""

    __slots__ = ("stream", "payload", "text", "last")
    TYPE: ClassVar[int] = 0x18

    def __init__(self, stream: int, payload: Bytes, text: bool, last: bool = True) -> None:
        self.stream = stream
        self.payload = payload
        self.text = text
        self.last = last

    def __repr__(self) -> str:
        return f"Message(stream={self.stream}, {len(self.payload)} B{'' if self.last else ', more'})"


class Close(Record):
    __slots__ = ("stream", "code", "reason")
    TYPE: ClassVar[int] = 0x1C

    def __init__(self, stream: int, code: int, reason: bytes = b"") -> None:
        self.stream = stream
        self.code = code
        self.reason = reason


class Credit(Record):
    __slots__ = ("stream", "offset")
    TYPE: ClassVar[int] = 0x20

    def __init__(self, stream: int, offset: int) -> None:
        self.stream = stream
        self.offset = offset


class Reset(Record):
    __slots__ = ("stream", "code", "options")
    TYPE: ClassVar[int] = 0x21

    def __init__(self, stream: int, code: int, options: Options | None = None) -> None:
        self.stream = stream
        self.code = code
        self.options = options or {}


class Stop(Record):
    __slots__ = ("stream", "code")
    TYPE: ClassVar[int] = 0x22

    def __init__(self, stream: int, code: int) -> None:
        self.stream = stream
        self.code = code


Frame: TypeAlias = (
    Welcome
    | Ack
    | Lease
    | Leased
    | Release
    | Park
    | Parked
    | Request
    | Response
    | Informational
    | Trailers
    | Data
    | Message
    | Close
    | Credit
    | Reset
    | Stop
)
