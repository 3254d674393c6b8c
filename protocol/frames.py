"""Frames: their types and sizes (docs/protocol.md §1). Knows nothing of bytes (`codec`), order, credit or state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Welcome:
    TYPE: ClassVar[int] = 0x01
    received: int
    epoch: int
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ack:
    TYPE: ClassVar[int] = 0x02
    received: int


@dataclass(frozen=True, slots=True)
class Lease:
    TYPE: ClassVar[int] = 0x03
    lease: int
    invitation: str
    places: int
    remaining: int  # milliseconds
    received: int
    options: Options = field(default_factory=dict)

    def __repr__(self) -> str:  # the invitation is a secret
        return f"Lease(lease={self.lease}, places={self.places}, remaining={self.remaining})"


@dataclass(frozen=True, slots=True)
class Leased:
    TYPE: ClassVar[int] = 0x04
    lease: int
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Release:
    TYPE: ClassVar[int] = 0x05
    lease: int


@dataclass(frozen=True, slots=True)
class Park:
    TYPE: ClassVar[int] = 0x06
    lease: int
    last_stream: int
    received: int


@dataclass(frozen=True, slots=True)
class Parked:
    TYPE: ClassVar[int] = 0x07
    lease: int
    received: int


@dataclass(frozen=True, slots=True)
class Request:
    TYPE: ClassVar[int] = 0x10
    stream: int
    exchange: bytes  # 16 bytes, the client request's own id
    method: bytes
    target: bytes  # undecoded path and query
    headers: Headers = ()
    options: Options = field(default_factory=dict)

    def __repr__(self) -> str:  # a query may hold secrets
        path = self.target.partition(b"?")[0]
        return f"Request(stream={self.stream}, {self.method.decode('latin-1')} {path.decode('latin-1')})"


@dataclass(frozen=True, slots=True)
class Response:
    TYPE: ClassVar[int] = 0x11
    stream: int
    status: int
    headers: Headers = ()
    options: Options = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Response(stream={self.stream}, status={self.status})"


@dataclass(frozen=True, slots=True)
class Informational:
    TYPE: ClassVar[int] = 0x12
    stream: int
    status: int
    headers: Headers = ()

    def __repr__(self) -> str:
        return f"Informational(stream={self.stream}, status={self.status})"


@dataclass(frozen=True, slots=True)
class Trailers:
    TYPE: ClassVar[int] = 0x13
    stream: int
    headers: Headers = ()

    def __repr__(self) -> str:
        return f"Trailers(stream={self.stream}, {len(self.headers)} fields)"


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a body. `payload` is a view of the message that was decoded: copy what must outlive it."""

    TYPE: ClassVar[int] = 0x14
    stream: int
    payload: Bytes
    end: bool = False

    def __repr__(self) -> str:
        return f"Data(stream={self.stream}, {len(self.payload)} B{', end' if self.end else ''})"


@dataclass(frozen=True, slots=True)
class Message:
    """A client's WebSocket message, or a piece of one (`last` false)."""

    TYPE: ClassVar[int] = 0x18
    stream: int
    payload: Bytes
    text: bool
    last: bool = True

    def __repr__(self) -> str:
        return f"Message(stream={self.stream}, {len(self.payload)} B{'' if self.last else ', more'})"


@dataclass(frozen=True, slots=True)
class Close:
    TYPE: ClassVar[int] = 0x1C
    stream: int
    code: int
    reason: bytes = b""


@dataclass(frozen=True, slots=True)
class Credit:
    TYPE: ClassVar[int] = 0x20
    stream: int
    offset: int


@dataclass(frozen=True, slots=True)
class Reset:
    TYPE: ClassVar[int] = 0x21
    stream: int
    code: int
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stop:
    TYPE: ClassVar[int] = 0x22
    stream: int
    code: int


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
