"""Frames to bytes and back: exact bytes, limits at their boundary, every malformed field."""

from __future__ import annotations

import inspect
from http import HTTPStatus
from typing import Any, get_args

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import decode, encode, encode_fixed, peek_fixed
from protocol.errors import LocalError, ProtocolError
from protocol.flow import MAX_FIRST_CREDIT
from tests.protocol.wire_strategies import frames

EXCHANGE = bytes(range(16))


@given(frames)
def test_what_is_encoded_is_decoded_the_same(frame: fr.Frame) -> None:
    message = encode(frame)
    assert decode(message) == frame
    assert decode(bytearray(message)) == frame
    assert len(message) <= fr.MAX_FRAME_SIZE
    assert msgpack.unpackb(message)[0] == message[1] < 0x80, "an array whose first element is a positive fixint"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (fr.Data(1, b"abc"), "93 14 ce 00000001 c6 00000003 616263"),
        (fr.Data(0xFFFFFFFF, b"", end=True), "93 15 ce ffffffff c6 00000000"),
        (fr.Message(258, b"x", text=True, last=False), "93 18 ce 00000102 c6 00000001 78"),
        (fr.Message(2, b"x", text=True), "93 19 ce 00000002 c6 00000001 78"),
        (fr.Message(2, b"x", text=False, last=False), "93 1a ce 00000002 c6 00000001 78"),
        (fr.Message(2, b"", text=False), "93 1b ce 00000002 c6 00000000"),
        (fr.Ack(7), "92 02 07"),
        (fr.Park(1, 2, 3), "94 06 01 02 03"),
        (fr.Credit(1, 1 << 40), "93 20 01 cf 0000010000000000"),
        (fr.Trailers(3, [(b"a", b"b"), (b"a", b"")]), "93 13 03 94 c40161 c40162 c40161 c400"),
    ],
)
def test_the_exact_bytes(frame: fr.Frame, expected: str) -> None:
    assert encode(frame) == bytes.fromhex(expected)
    assert decode(bytes.fromhex(expected)) == frame


RECORDS = [*get_args(fr.Frame), *get_args(ev.Event)]


@pytest.mark.interpreted("any object for any field")
@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_record_is_its_arguments_in_their_order(kind: type[fr.Record]) -> None:
    names = list(inspect.signature(kind).parameters)
    assert names == list(kind.__slots__)
    given = [bytes([number]) for number in range(len(names))]
    record = kind(*given)
    assert [getattr(record, name) for name in names] == given
    assert record == kind(**dict(zip(names, given, strict=True)))
    for at in range(len(names)):
        assert record != kind(*given[:at], b"another", *given[at + 1 :])
    assert not hasattr(record, "__dict__"), "it has room for nothing else"


def test_records_of_two_types_are_never_equal() -> None:
    assert ev.StreamClosed(1) != ev.StreamWritable(1)
    assert ev.Parked(1) != fr.Release(1) != (1,)
    assert repr(fr.Park(1, 2, 3)) == "Park(lease=1, last_stream=2, received=3)"


def test_options_that_were_not_given_belong_to_one_frame() -> None:
    first, second = fr.Welcome(0, 1), fr.Welcome(0, 1)
    first.options["grace"] = 1
    assert second.options == {}


def test_a_payload_that_fills_a_frame_is_the_largest() -> None:
    message = encode(fr.Data(1, bytes(fr.MAX_DATA_SIZE)))
    assert len(message) == fr.MAX_FRAME_SIZE
    decoded = decode(message)
    assert isinstance(decoded, fr.Data) and len(decoded.payload) == fr.MAX_DATA_SIZE
    with pytest.raises(LocalError):
        encode(fr.Data(1, bytes(fr.MAX_DATA_SIZE + 1)))
    with pytest.raises(ProtocolError):
        decode(b"\x93\x14\xce\0\0\0\1\xc6" + (fr.MAX_DATA_SIZE + 1).to_bytes(4, "big") + bytes(fr.MAX_DATA_SIZE + 1))


def test_a_head_of_64_kib_is_the_largest() -> None:
    def head(size: int) -> fr.Trailers:
        return fr.Trailers(1, [(b"a", bytes(size))])

    largest = fr.MAX_HEAD_SIZE - len(encode(head(60_000))) + 60_000
    message = encode(head(largest))
    assert len(message) == fr.MAX_HEAD_SIZE and decode(message) == head(largest)
    with pytest.raises(LocalError):
        encode(head(largest + 1))
    larger = msgpack.packb([0x13, 1, [b"a", bytes(largest + 1)]])
    assert len(larger) == fr.MAX_HEAD_SIZE + 1
    with pytest.raises(ProtocolError):
        decode(larger)


def test_2048_header_fields_are_the_most() -> None:
    most = fr.Response(1, 200, [(b"a", b"b")] * fr.MAX_HEADER_FIELDS, {})
    assert decode(encode(most)) == most
    with pytest.raises(LocalError, match="a malformed Response: 2049 header fields; the limit is 2048"):
        encode(fr.Response(1, 200, [(b"a", b"b")] * (fr.MAX_HEADER_FIELDS + 1), {}))
    with pytest.raises(LocalError, match="a malformed Response: its status"):
        encode(fr.Response(1, 600))
    with pytest.raises(ProtocolError):
        decode(msgpack.packb([0x11, 1, 200, [b"a", b"b"] * (fr.MAX_HEADER_FIELDS + 1), {}]))


def test_numbers_of_an_enumeration_travel_as_numbers() -> None:
    assert decode(encode(fr.Response(1, HTTPStatus.NOT_FOUND))) == fr.Response(1, 404, [])
    assert encode(fr.Stop(1, fr.Code.CANCELLED)) == encode(fr.Stop(1, 1))


def test_the_payload_of_data_is_a_view_and_not_a_copy() -> None:
    message = bytearray(encode(fr.Data(1, b"abc")))
    decoded = decode(message)
    assert isinstance(decoded, fr.Data)
    message[-1:] = b"C"
    assert bytes(decoded.payload) == b"abC"


# A good frame of each kind, as its fields.
GOOD: dict[int, list[Any]] = {
    0x01: [0, 1, {"grace": 1, "ping": 1, "credit": 1, "unacked": 1, "frames": 1, "features": ["x"]}],
    0x02: [0],
    0x03: [1, "token", 1, 1000, 0, {}],
    0x04: [1, {"linger": 1}],
    0x05: [1],
    0x06: [1, 0, 0],
    0x07: [1, 0],
    0x10: [1, EXCHANGE, b"GET", b"/", [b"a", b"b"], {"end": True, "client": ["127.0.0.1", 1], "websocket": ["x"]}],
    0x11: [1, 200, [b"a", b"b"], {"end": True}],
    0x12: [1, 103, []],
    0x13: [1, []],
    0x1C: [1, 1000, b""],
    0x20: [1, 0],
    0x21: [1, 0, {"reason": "x"}],
    0x22: [1, 0],
}

COUNT: list[Any] = [-1, 1 << 63, (1 << 64) - 1, 1.0, None, True, "1", b"1", [], {}]
STREAM = [0, -1, 1 << 32, 1.0, None, True, "1"]
BYTES: list[Any] = ["text", None, 1, [], {}]
HEADERS = [[b"a"], ["a", "b"], [b"a", "b"], [b"a", 1], [[b"a", b"b"]], {b"a": b"b"}, b"", None, 0, {}]
OPTIONS: list[Any] = [[], None, 0, b"", "", {b"end": True}, {1: 1}]
STATUS = [100, 102, 199, 600, -200, 200.0, "200", None, True]
BAD: list[tuple[int, int, list[Any]]] = [
    (0x01, 0, COUNT),
    (0x01, 1, COUNT),
    (
        0x01,
        2,
        [
            *OPTIONS,
            {"grace": -1},
            {"ping": 1.5},
            {"credit": None},
            {"frames": "1"},
            {"features": "a"},
            {"features": [1]},
        ],
    ),
    (0x02, 0, COUNT),
    (0x03, 0, COUNT),
    (0x03, 1, [b"token", None, 1, []]),
    (0x03, 2, COUNT),
    (0x03, 3, COUNT),
    (0x03, 4, COUNT),
    (0x03, 5, OPTIONS),
    (0x04, 0, COUNT),
    (0x04, 1, [*OPTIONS, {"linger": -1}, {"linger": 0.1}]),
    (0x05, 0, COUNT),
    (0x06, 0, COUNT),
    (0x06, 1, COUNT),
    (0x06, 2, COUNT),
    (0x07, 0, COUNT),
    (0x07, 1, COUNT),
    (0x10, 0, STREAM),
    (0x10, 1, [EXCHANGE[:-1], EXCHANGE + b"x", b"", "0123456789abcdef", None]),
    (0x10, 2, BYTES),
    (0x10, 3, BYTES),
    (0x10, 4, HEADERS),
    (
        0x10,
        5,
        [
            *OPTIONS,
            {"end": 1},
            {"window": MAX_FIRST_CREDIT + 1},
            {"window": -1},
            {"window": True},
            {"scheme": b"http"},
            {"client": []},
            {"client": ["a"]},
            {"client": [1, "a"]},
            {"client": ["a", 1, 2]},
            {"client": "a1"},
            {"version": 1.1},
            {"expect": "yes"},
            {"websocket": True},
            {"websocket": [b"x"]},
            {"max_message": 0},
            {"max_message": "1"},
        ],
    ),
    (0x11, 0, STREAM),
    (0x11, 1, STATUS),
    (0x11, 2, HEADERS),
    (0x11, 3, [*OPTIONS, {"end": 0}, {"end": None}]),
    (0x12, 0, STREAM),
    (0x12, 1, [100, 101, 200, -103, 103.0, None]),
    (0x12, 2, HEADERS),
    (0x13, 0, STREAM),
    (0x13, 1, HEADERS),
    (0x1C, 0, STREAM),
    (0x1C, 1, [999, 5000, -1, None, 1000.0]),
    (0x1C, 2, [bytes(124), "", None]),
    (0x20, 0, STREAM),
    (0x20, 1, COUNT),
    (0x21, 0, STREAM),
    (0x21, 1, COUNT),
    (0x21, 2, [*OPTIONS, {"reason": b"x"}, {"reason": 1}]),
    (0x22, 0, STREAM),
    (0x22, 1, COUNT),
]


def test_the_good_frames_are_good_and_every_field_is_tried() -> None:
    for kind, fields in GOOD.items():
        decode(msgpack.packb([kind, *fields]))
    assert {(kind, at) for kind, at, _ in BAD} == {
        (kind, at) for kind, fields in GOOD.items() for at in range(len(fields))
    }


@pytest.mark.parametrize(("kind", "at", "value"), [(kind, at, value) for kind, at, values in BAD for value in values])
def test_a_malformed_field_is_refused(kind: int, at: int, value: Any) -> None:
    fields = list(GOOD[kind])
    if fields[at] == value and type(fields[at]) is type(value):
        pytest.fail("this one is good")
    fields[at] = value
    with pytest.raises(ProtocolError):
        decode(msgpack.packb([kind, *fields]))


@pytest.mark.parametrize("kind", GOOD)
def test_a_field_too_many_or_too_few_is_refused(kind: int) -> None:
    for fields in ([*GOOD[kind], 0], [*GOOD[kind], {}], GOOD[kind][:-1], []):
        if not (kind == 0x02 and fields == GOOD[kind]):
            with pytest.raises(ProtocolError):
                decode(msgpack.packb([kind, *fields]))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91",
        b"\x92\x02",
        b"\x92\x02\x00\x00",  # and one byte more
        b"\x92\x02\x00\x92\x02\x00",
        b"\x81\x02\x00",
        b"\x02",
        b"\x92\xa1\x02\x00",
        b"\x92\xc3\x00",  # true is no type
        b"\x92\xcb\x40\x00\x00\x00\x00\x00\x00\x00\x00",  # 2.0 is no type
        b"\x91\x23",  # HANDOVER is reserved
        b"\x92\x60\x00",  # an extension that nobody named
        b"\x92\x7f\x00",
        b"\x92\x00\x00",
        b"\x92\xff\x00",  # a negative fixint
        b"\xdc\x00\x03\x14\xce\0\0\0\1\xc6\0\0\0\0",  # DATA in another width
        b"\x93\x14\x01\xc4\x01x",
        b"\x93\x14\x01\xc4\x08xxxxxxxx",
        b"\x93\x14\xcd\x00\x01\xc6\0\0\0\2xxx",
        b"\x93\x14\xce\0\0\0\1\xc6\0\0\0\1",  # declares more than it has
        b"\x93\x14\xce\0\0\0\1\xc6\0\0\0\1xy",  # and less
        b"\x93\x19\xce\0\0\0\1\xc6\xff\xff\xff\xff",
        b"\x93\x14\xce\0\0\0\0\xc6\0\0\0\0",  # stream 0
        b"\x93\x14\xce\0\0\0\1\xc6\0\0\0",
        b"\x93\x04\x01\xdf\xff\xff\xff\xff",  # a map of four billion
        b"\xdd\xff\xff\xff\xff\x02",
        b"\x91" * 2000,  # deeper than msgpack goes
        b"\x92\x02\xc7\x00\x01",  # an extension type of msgpack's
        b"\x92\x02\xd6\xff\0\0\0\0",  # a timestamp
        b"\x93\x21\x01\x00\x81\xa6reason\xa2\xff\xfe",  # no UTF-8
    ],
)
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(message)


@pytest.mark.parametrize(
    "frame",
    [
        fr.Response(1, 99),
        fr.Response(1, 200, [("a", "b")]),  # type: ignore[list-item]
        fr.Response(0, 200),
        fr.Response(1, 200, [], {"end": 1}),
        fr.Response(1, 200, [], {"body": "text"}),
        fr.Informational(1, 101),
        fr.Request(1, b"short", b"GET", b"/"),
        fr.Request(1, EXCHANGE, b"GET", b"/", [], {"window": MAX_FIRST_CREDIT + 1}),
        fr.Request(1, EXCHANGE, b"GET", b"/", [], {"something": object()}),
        fr.Request(1, EXCHANGE, b"GET", b"/", [], {"something": 1 << 70}),
        fr.Request(1, EXCHANGE, b"GET", b"/", [], {"scheme": "\udc80"}),
        fr.Request(1, EXCHANGE, b"GET", b"/", [], {1: 2}),  # type: ignore[dict-item]
        fr.Request(1, EXCHANGE, b"GET", bytes(fr.MAX_HEAD_SIZE)),
        fr.Close(1, 999),
        fr.Close(1, 1000, bytes(124)),
        fr.Credit(1, -1),
        fr.Ack(1 << 63),
        fr.Reset(1, 0, {"reason": b"bytes"}),
        fr.Lease(1, "x" * fr.MAX_HEAD_SIZE, 1, 1, 0),
        fr.Trailers(1, [(b"a", bytearray(b"b"))]),  # type: ignore[list-item]
    ],
)
def test_what_the_peer_would_refuse_is_not_sent(frame: fr.Frame) -> None:
    with pytest.raises(LocalError):
        encode(frame)


def test_what_is_of_another_type_is_not_sent() -> None:
    with pytest.raises((LocalError, TypeError)):  # the latter from a compiled frame, at once
        encode(fr.Request(1, EXCHANGE, "GET", b"/"))  # type: ignore[arg-type]


def test_the_first_12_bytes_are_enough_to_know_a_fixed_frame() -> None:
    message = encode(fr.Data(5, b"0123456789"))
    assert peek_fixed(message[:12], len(message)) == (0x14, 5, 10)
    assert peek_fixed(message[:11], len(message)) is None
    assert peek_fixed(encode(fr.Request(1, EXCHANGE, b"GET", b"/")), 40) is None
    with pytest.raises(ProtocolError):
        peek_fixed(message[:12], len(message) + 1)


def test_a_message_above_1_mib_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="1 MiB"):
        decode(bytes(fr.MAX_FRAME_SIZE + 1))


@pytest.mark.parametrize("kind", [0x14, 0x15, 0x18, 0x19, 0x1A, 0x1B], ids=hex)
def test_a_fixed_frame_is_its_12_bytes_and_its_pieces(kind: int) -> None:
    message = encode_fixed(kind, 5, [b"ab", memoryview(b"cde"), bytearray(b"f")])
    assert message == bytes([0x93, kind]) + b"\xce\0\0\0\5\xc6\0\0\0\6abcdef"
    assert msgpack.unpackb(message) == [kind, 5, b"abcdef"], "plain msgpack to any reader"
    assert peek_fixed(message[:12], len(message)) == (kind, 5, 6)
    assert encode(decode(message)) == message
    assert len(encode_fixed(kind, 1, [bytes(fr.MAX_DATA_SIZE)])) == fr.MAX_FRAME_SIZE
    with pytest.raises(LocalError):
        encode_fixed(kind, 1, [bytes(fr.MAX_DATA_SIZE), b"x"])


def test_there_is_a_good_frame_of_every_kind() -> None:
    made = {type(decode(msgpack.packb([kind, *fields]))) for kind, fields in GOOD.items()}
    assert made | {fr.Data, fr.Message} == set(get_args(fr.Frame))


@pytest.mark.parametrize("kind", GOOD, ids=hex)
def test_a_frame_that_is_cut_short_or_followed_by_more_is_refused(kind: int) -> None:
    message = msgpack.packb([kind, *GOOD[kind]])
    damaged = [message[:size] for size in range(len(message))]
    for wrong in (*damaged, message + b"\0", message + message, b"\0" + message, b"\x91" + message):
        with pytest.raises(ProtocolError):
            decode(wrong)


def test_every_type_that_the_table_does_not_have_is_refused() -> None:
    # Also DATA and messages that are not in their fixed width, and the reserved and extension types.
    for kind in sorted(set(range(-32, 257)) - set(GOOD)):
        for fields in ([], [1], [1, b"x"], [1, {}], [1, 0, 0]):
            with pytest.raises(ProtocolError):
                decode(msgpack.packb([kind, *fields]))


@pytest.mark.parametrize(("kind", "at"), {(kind, at): None for kind, at, _ in BAD})
def test_a_value_of_msgpacks_own_kinds_is_refused_in_every_field(kind: int, at: int) -> None:
    for value in (msgpack.ExtType(1, b""), msgpack.ExtType(5, b"12345678"), msgpack.Timestamp(1), [[[]]], float("nan")):
        with pytest.raises(ProtocolError):
            decode(msgpack.packb([kind, *GOOD[kind][:at], value, *GOOD[kind][at + 1 :]]))


@pytest.mark.parametrize("kind", [kind for kind, fields in GOOD.items() if type(fields[-1]) is dict], ids=hex)
def test_options_with_unknown_keys_are_ignored_but_never_a_known_one_beside_them(kind: int) -> None:
    *fields, known = GOOD[kind]
    unknown = {"x": 1, "": None, "continues": [1, 2], "deep": {"er": [{"still": b"good"}]}}
    frame = decode(msgpack.packb([kind, *fields, known | unknown]))
    assert frame == decode(encode(frame))
    assert msgpack.unpackb(encode(frame))[-1] == known | unknown
    for name in known:
        with pytest.raises(ProtocolError):
            decode(msgpack.packb([kind, *fields, known | unknown | {name: -1}]))


@pytest.mark.parametrize(
    "kind, fields",
    [
        (0x10, lambda size: [1, EXCHANGE, b"GET", b"/" * size, [], {}]),
        (0x11, lambda size: [1, 200, [b"a", b"v" * size], {}]),
        (0x12, lambda size: [1, 103, [b"a", b"v" * size]]),
        (0x13, lambda size: [1, [b"n" * size, b""]]),
        (0x21, lambda size: [1, 0, {"reason": "x" * size}]),
    ],
)
def test_64_kib_are_the_most_of_every_frame_that_may_grow(kind: int, fields: Any) -> None:
    size = 60_000 + fr.MAX_HEAD_SIZE - len(msgpack.packb([kind, *fields(60_000)]))
    largest = msgpack.packb([kind, *fields(size)])
    assert len(largest) == fr.MAX_HEAD_SIZE and encode(decode(largest)) == largest
    with pytest.raises(ProtocolError, match="64 KiB"):
        decode(msgpack.packb([kind, *fields(size + 1)]))
