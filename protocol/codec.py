"""Frames to bytes and back (docs/protocol.md §1). Strict both ways: what the peer would refuse is never sent.

Knows nothing of order, credit or state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import chain
from struct import Struct
from typing import Any, Final, TypeAlias

import msgpack  # type: ignore[import-untyped]

from protocol.errors import LocalError, ProtocolError
from protocol.flow import MAX_FIRST_CREDIT
from protocol.frames import (
    DATA_OVERHEAD,
    MAX_CLOSE_REASON,
    MAX_DATA_SIZE,
    MAX_FRAME_SIZE,
    MAX_HEAD_SIZE,
    MAX_HEADER_FIELDS,
    MAX_OFFSET,
    MAX_STREAM,
    Ack,
    Bytes,
    Close,
    Credit,
    Data,
    Frame,
    Informational,
    Lease,
    Leased,
    Message,
    Park,
    Parked,
    Release,
    Request,
    Reset,
    Response,
    Stop,
    Trailers,
    Welcome,
)

DATA: Final = 0x14
DATA_END: Final = 0x15
TEXT_MORE: Final = 0x18
BINARY: Final = 0x1B
UNCOUNTED: Final = frozenset({Welcome.TYPE, Ack.TYPE})

# What msgpack may allocate for one message.
_LENGTHS: Final[dict[str, int]] = {
    "max_str_len": MAX_HEAD_SIZE,
    "max_bin_len": MAX_HEAD_SIZE,
    "max_array_len": 2 * MAX_HEADER_FIELDS,
    "max_map_len": 256,
    "max_ext_len": 0,
}

_FIXED: Final = Struct(">BBBIBI")  # array of 3, type, uint 32 stream, bin 32 length


# Fixed-width frames: DATA and the four of messages


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
    if len(message) < DATA_OVERHEAD or message[0] != 0x93:
        return None
    kind = message[1]
    if not (kind == DATA or kind == DATA_END or TEXT_MORE <= kind <= BINARY):
        return None
    _, _, wide_stream, stream, wide_size, size = _FIXED.unpack_from(message)
    if wide_stream != 0xCE or wide_size != 0xC6 or size != length - DATA_OVERHEAD or stream == 0:
        raise ProtocolError("a fixed-width frame that does not fill its message")
    return kind, stream, size


# Every other frame: what each field, and each option that is known, must be


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_OFFSET


def _is_stream(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_STREAM


def _is_bytes(value: Any) -> bool:
    return type(value) is bytes


def _is_str(value: Any) -> bool:
    return type(value) is str


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_exchange(value: Any) -> bool:
    return type(value) is bytes and len(value) == 16


_ONLY_BYTES: Final = frozenset((bytes,))


def _is_headers(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) % 2 == 0
        and len(value) <= 2 * MAX_HEADER_FIELDS
        and set(map(type, value)) <= _ONLY_BYTES
    )


def _is_final(value: Any) -> bool:
    return type(value) is int and (value == 101 or 200 <= value <= 599)


def _is_interim(value: Any) -> bool:
    return type(value) is int and 102 <= value <= 199


def _is_close_code(value: Any) -> bool:
    return type(value) is int and 1000 <= value <= 4999


def _is_close_reason(value: Any) -> bool:
    return type(value) is bytes and len(value) <= MAX_CLOSE_REASON


def _is_window(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_FIRST_CREDIT


def _is_message_limit(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_OFFSET


def _is_client(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is str and _is_count(value[1])


def _is_names(value: Any) -> bool:
    return type(value) is list and all(type(name) is str for name in value)


_Check: TypeAlias = Callable[[Any], bool]


def _options(**known: _Check) -> _Check:
    """A map with str keys, of which those that are known have the right kind of value."""

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for key, item in value.items():
            known_check = known.get(key)
            if not (known_check(item) if known_check is not None else type(key) is str):
                return False
        return True

    return check


_WELCOME_OPTIONS: Final = _options(
    grace=_is_count, ping=_is_count, credit=_is_count, unacked=_is_count, frames=_is_count, features=_is_names
)
_REQUEST_OPTIONS: Final = _options(
    end=_is_bool,
    window=_is_window,
    scheme=_is_str,
    client=_is_client,
    version=_is_str,
    expect=_is_bool,
    websocket=_is_names,
    max_message=_is_message_limit,
    cancel_after=_is_count,
)


class _Shape:
    """How one type of frame is on the wire: its fields in their order, and what each of them must be."""

    __slots__ = ("checks", "fields", "headers", "make")

    def __init__(self, make: Any, checks: tuple[_Check, ...]) -> None:
        self.make: Callable[..., Frame] = make
        self.checks = checks
        self.fields = tuple(zip(make.__slots__, checks))  # noqa: B905 - a test compares the two with the specification
        self.headers = checks.index(_is_headers) if _is_headers in checks else None


_SHAPES: Final[dict[int, _Shape]] = {
    Welcome.TYPE: _Shape(Welcome, (_is_count, _is_count, _WELCOME_OPTIONS)),
    Ack.TYPE: _Shape(Ack, (_is_count,)),
    Lease.TYPE: _Shape(Lease, (_is_count, _is_str, _is_count, _is_count, _is_count, _options())),
    Leased.TYPE: _Shape(Leased, (_is_count, _options(linger=_is_count))),
    Release.TYPE: _Shape(Release, (_is_count,)),
    Park.TYPE: _Shape(Park, (_is_count, _is_count, _is_count)),
    Parked.TYPE: _Shape(Parked, (_is_count, _is_count)),
    Request.TYPE: _Shape(Request, (_is_stream, _is_exchange, _is_bytes, _is_bytes, _is_headers, _REQUEST_OPTIONS)),
    Response.TYPE: _Shape(Response, (_is_stream, _is_final, _is_headers, _options(end=_is_bool, body=_is_bytes))),
    Informational.TYPE: _Shape(Informational, (_is_stream, _is_interim, _is_headers)),
    Trailers.TYPE: _Shape(Trailers, (_is_stream, _is_headers)),
    Close.TYPE: _Shape(Close, (_is_stream, _is_close_code, _is_close_reason)),
    Credit.TYPE: _Shape(Credit, (_is_stream, _is_count)),
    Reset.TYPE: _Shape(Reset, (_is_stream, _is_count, _options(reason=_is_str))),
    Stop.TYPE: _Shape(Stop, (_is_stream, _is_count)),
}


_PLAIN_TYPES: Final = frozenset((int, bytes, str, dict))
_PACK: Final = msgpack.Packer(use_bin_type=True).pack  # making one costs as much as packing a small frame


def _plain(value: Any) -> Any:
    """A field as msgpack takes it: headers flat, a `Code` or an `HTTPStatus` as its number."""
    if isinstance(value, (list, tuple)):
        return list(chain.from_iterable(value))
    return int(value) if isinstance(value, IntEnum) else value


def _fault(name: str, value: Any) -> str:
    """What the peer would not take, without a byte of it."""
    if name == "headers" and type(value) is list and len(value) > 2 * MAX_HEADER_FIELDS:
        return f"{len(value) // 2} header fields; the limit is {MAX_HEADER_FIELDS}"
    return f"its {name}"


def encode(frame: Frame) -> bytes:
    """The frame's message. Raises `LocalError` when a field is not what the peer takes, or the whole is too large."""
    if isinstance(frame, Data):
        return encode_fixed(data_type(frame.end), frame.stream, (frame.payload,))
    if isinstance(frame, Message):
        return encode_fixed(message_type(frame.text, frame.last), frame.stream, (frame.payload,))
    values: list[Any] = [frame.TYPE]
    for name, check in _SHAPES[frame.TYPE].fields:
        value = getattr(frame, name)
        if type(value) not in _PLAIN_TYPES:
            value = _plain(value)
        if not check(value):
            raise LocalError(f"a malformed {type(frame).__name__}: {_fault(name, value)}")
        values.append(value)
    try:
        message: bytes = _PACK(values)
    except (TypeError, ValueError, OverflowError) as error:  # an option's value, or text that UTF-8 cannot hold
        raise LocalError(f"a malformed {type(frame).__name__}: {error}") from None
    if len(message) > MAX_HEAD_SIZE:
        raise LocalError(f"{type(frame).__name__} of {len(message)} bytes; the limit is {MAX_HEAD_SIZE}")
    return message


def with_body(response: bytes, body: Bytes) -> bytes | None:
    """A RESPONSE with its whole body in it. None for another frame, or where options (0x80: none) or size forbid it."""
    if response[1] != Response.TYPE or response[-1] != 0x80 or len(response) + len(body) > MAX_HEAD_SIZE - 9:
        return None
    return bytes(response[:-1] + _PACK({"body": body}))


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
    if len(message) > MAX_HEAD_SIZE:
        raise ProtocolError("a frame without a body above 64 KiB")
    try:
        fields = msgpack.unpackb(message, raw=False, strict_map_key=True, **_LENGTHS)
    except (ValueError, msgpack.UnpackException) as error:  # msgpack's own kinds, all of which mean the same here
        raise ProtocolError(f"not msgpack: {type(error).__name__}") from None
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise ProtocolError("not a frame")
    shape = _SHAPES.get(fields[0])
    if shape is None:
        raise ProtocolError("a frame of unknown type")
    checks, values = shape.checks, fields[1:]
    if len(values) != len(checks):
        raise ProtocolError(f"a malformed {shape.make.__name__}")
    for check, value in zip(checks, values):  # noqa: B905 - as was checked
        if not check(value):
            raise ProtocolError(f"a malformed {shape.make.__name__}")
    if (at := shape.headers) is not None:
        flat = values[at]
        values[at] = list(zip(flat[::2], flat[1::2]))  # noqa: B905 - an even number, as was checked
    return shape.make(*values)
