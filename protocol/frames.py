"""Frames: types, sizes and codec (docs/protocol.md §1). Knows nothing of order, credit or state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any, ClassVar, Final, TypeAlias

import msgpack  # type: ignore[import-untyped]

from protocol.errors import LocalError, ProtocolError

MAX_FRAME_SIZE: Final = 1 << 20  # bytes, one WebSocket message, the envelope included
MAX_HEAD_SIZE: Final = 64 << 10  # bytes, a frame that carries headers
DATA_OVERHEAD: Final = 12  # bytes before the payload of a fixed-width frame
MAX_DATA_SIZE: Final = MAX_FRAME_SIZE - DATA_OVERHEAD  # bytes of payload
#: Bytes of payload at which bodies are cut; larger frames cost the usual clients three times the CPU (page faults).
DATA_SIZE: Final = 64 << 10
MAX_STREAM: Final = (1 << 32) - 1
MAX_OFFSET: Final = (1 << 63) - 1  # body offsets and counts; half of what 64 bits hold, so that sums never wrap
MAX_CLOSE_REASON: Final = 123  # bytes, RFC 6455 §5.5

Bytes: TypeAlias = bytes | bytearray | memoryview
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
Options: TypeAlias = dict[str, Any]

# What msgpack may allocate for one message.
_LENGTHS: Final[dict[str, int]] = {
    "max_str_len": MAX_HEAD_SIZE,
    "max_bin_len": MAX_HEAD_SIZE,
    "max_array_len": 4096,
    "max_map_len": 256,
    "max_ext_len": 0,
}

_FIXED: Final = Struct(">BBBIBI")  # array of 3, type, uint 32 stream, bin 32 length


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


@dataclass(frozen=True, slots=True)
class Trailers:
    TYPE: ClassVar[int] = 0x13
    stream: int
    headers: Headers = ()


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

DATA: Final = 0x14
DATA_END: Final = 0x15
TEXT_MORE: Final = 0x18
BINARY: Final = 0x1B
UNCOUNTED: Final = frozenset({Welcome.TYPE, Ack.TYPE})


def is_fixed(kind: int) -> bool:
    """Whether frames of this type are fixed-width: DATA and the four of messages."""
    return kind in (DATA, DATA_END) or TEXT_MORE <= kind <= BINARY


def encode_fixed(kind: int, stream: int, pieces: Sequence[Bytes]) -> bytes:
    """A DATA or message frame whose payload is the pieces one after the other, in one copy."""
    size = sum(map(len, pieces))
    if size > MAX_DATA_SIZE:
        raise LocalError(f"payload of {size} bytes; a frame holds {MAX_DATA_SIZE}")
    return b"".join((_FIXED.pack(0x93, kind, 0xCE, stream, 0xC6, size), *pieces))


def data_type(end: bool) -> int:
    return DATA_END if end else DATA


def message_type(text: bool, last: bool) -> int:
    return TEXT_MORE + (0 if text else 2) + (1 if last else 0)


def peek_fixed(message: Bytes, length: int) -> tuple[int, int, int] | None:
    """(type, stream, payload size) when a message of `length` bytes begins as a fixed-width frame, else None.

    Raises `ProtocolError` when the declared payload does not fill the message.
    """
    if len(message) < DATA_OVERHEAD or message[0] != 0x93 or not is_fixed(message[1]):
        return None
    _, kind, wide_stream, stream, wide_size, size = _FIXED.unpack_from(message)
    if wide_stream != 0xCE or wide_size != 0xC6 or size != length - DATA_OVERHEAD or stream == 0:
        raise ProtocolError("a fixed-width frame that does not fill its message")
    return kind, stream, size


# What each field must be: (name, check). Decoding is strict, encoding trusts its own side.


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_OFFSET


def _is_stream(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_STREAM


def _is_bytes(value: Any) -> bool:
    return type(value) is bytes


def _is_str(value: Any) -> bool:
    return type(value) is str


def _is_exchange(value: Any) -> bool:
    return type(value) is bytes and len(value) == 16


def _is_options(value: Any) -> bool:
    return type(value) is dict and all(type(key) is str for key in value)


def _is_headers(value: Any) -> bool:
    return type(value) is list and len(value) % 2 == 0 and all(type(item) is bytes for item in value)


def _is_final(value: Any) -> bool:
    return type(value) is int and (value == 101 or 200 <= value <= 599)


def _is_interim(value: Any) -> bool:
    return type(value) is int and 102 <= value <= 199


def _is_close_code(value: Any) -> bool:
    return type(value) is int and 1000 <= value <= 4999


def _is_close_reason(value: Any) -> bool:
    return type(value) is bytes and len(value) <= MAX_CLOSE_REASON


_Check = Callable[[Any], bool]
_SHAPES: Final[dict[int, tuple[Callable[..., Frame], tuple[_Check, ...]]]] = {
    Welcome.TYPE: (Welcome, (_is_count, _is_count, _is_options)),
    Ack.TYPE: (Ack, (_is_count,)),
    Lease.TYPE: (Lease, (_is_count, _is_str, _is_count, _is_count, _is_count, _is_options)),
    Leased.TYPE: (Leased, (_is_count, _is_options)),
    Release.TYPE: (Release, (_is_count,)),
    Park.TYPE: (Park, (_is_count, _is_count, _is_count)),
    Parked.TYPE: (Parked, (_is_count, _is_count)),
    Request.TYPE: (Request, (_is_stream, _is_exchange, _is_bytes, _is_bytes, _is_headers, _is_options)),
    Response.TYPE: (Response, (_is_stream, _is_final, _is_headers, _is_options)),
    Informational.TYPE: (Informational, (_is_stream, _is_interim, _is_headers)),
    Trailers.TYPE: (Trailers, (_is_stream, _is_headers)),
    Close.TYPE: (Close, (_is_stream, _is_close_code, _is_close_reason)),
    Credit.TYPE: (Credit, (_is_stream, _is_count)),
    Reset.TYPE: (Reset, (_is_stream, _is_count, _is_options)),
    Stop.TYPE: (Stop, (_is_stream, _is_count)),
}


def _plain(value: Any) -> Any:
    """Headers flattened for the wire; everything else as it is."""
    if type(value) in (list, tuple):
        return [part for pair in value for part in pair]
    return value


def encode(frame: Frame) -> bytes:
    """The frame's message. Raises `LocalError` when it is too large for its kind."""
    if isinstance(frame, Data):
        return encode_fixed(data_type(frame.end), frame.stream, (frame.payload,))
    if isinstance(frame, Message):
        return encode_fixed(message_type(frame.text, frame.last), frame.stream, (frame.payload,))
    fields = [_plain(getattr(frame, name)) for name in frame.__slots__]
    message: bytes = msgpack.packb([frame.TYPE, *fields], use_bin_type=True)
    limit = MAX_HEAD_SIZE if hasattr(frame, "headers") else MAX_FRAME_SIZE
    if len(message) > limit:
        raise LocalError(f"{type(frame).__name__} of {len(message)} bytes; the limit is {limit}")
    return message


def decode(message: Bytes) -> Frame:
    """The frame in one message. Raises `ProtocolError` for anything that is not exactly one (docs/protocol.md §1)."""
    if len(message) > MAX_FRAME_SIZE:
        raise ProtocolError("a frame above 1 MiB")
    fixed = peek_fixed(message, len(message))
    if fixed is not None:
        kind, stream, _ = fixed
        payload = memoryview(message)[DATA_OVERHEAD:]
        if kind in (DATA, DATA_END):
            return Data(stream, payload, kind == DATA_END)
        return Message(stream, payload, text=kind < TEXT_MORE + 2, last=bool(kind & 1))
    try:
        fields = msgpack.unpackb(message, raw=False, strict_map_key=True, **_LENGTHS)
    except (ValueError, msgpack.UnpackException) as error:  # msgpack's own kinds, all of which mean the same here
        raise ProtocolError(f"not msgpack: {type(error).__name__}") from None
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise ProtocolError("not a frame")
    shape = _SHAPES.get(fields[0])
    if shape is None:
        raise ProtocolError("a frame of unknown type")
    make, checks = shape
    values = fields[1:]
    if len(values) != len(checks) or not all(check(value) for check, value in zip(checks, values)):  # noqa: B905 - lengths are equal; strict= is slower
        raise ProtocolError(f"a malformed {make.__name__}")
    if _is_headers in checks:
        if len(message) > MAX_HEAD_SIZE:
            raise ProtocolError("a head above 64 KiB")
        at = checks.index(_is_headers)
        flat = values[at]
        values[at] = list(zip(flat[::2], flat[1::2]))  # noqa: B905
    return make(*values)
