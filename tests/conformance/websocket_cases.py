"""What is tried of WebSockets: frames by hand, and what comes back, message by message."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tests.conformance.cases import CASES, Case, Observed, Site, describe, of
from tests.e2e.wire import Connection, ConnectionCut, WireResponse

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\1\2\3\4"
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
MAX_MESSAGE = 1 << 20
"""Bytes, of both servers."""


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    final: bool = True

    def encode(self) -> bytes:
        size = len(self.payload)
        head = bytes([(0x80 if self.final else 0) | self.opcode])
        head += bytes([0x80 | size]) if size < 126 else b""
        head += struct.pack("!BH", 0xFE, size) if 126 <= size < 1 << 16 else b""
        head += struct.pack("!BQ", 0xFF, size) if size >= 1 << 16 else b""
        key = int.from_bytes((MASK * (size // 4 + 1))[:size], "big")
        return head + MASK + (int.from_bytes(self.payload, "big") ^ key).to_bytes(size, "big")


class TooLarge(Frame):
    """The beginning of a message above the limit."""

    def encode(self) -> bytes:
        return b"\x82\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big") + MASK + bytes(100)


def close(code: int | None = None, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def next_frame(connection: Connection) -> Frame:
    """Raises `ConnectionCut`."""
    first, size = connection.exactly(2)
    if size == 126:
        size = int.from_bytes(connection.exactly(2), "big")
    elif size == 127:
        size = int.from_bytes(connection.exactly(8), "big")
    return Frame(first & 15, connection.exactly(size), bool(first & 0x80))


def talk(
    *frames: Frame, replies: int = 0, leaves: bool = False, headers: tuple[str, ...] = ()
) -> Callable[[Case, Site], Observed]:
    """Send `frames` when there were `replies` replies to what came before the last of them, and read to the end;
    or leave without a word."""

    def run(case: Case, site: Site) -> Observed:
        with site.connect() as connection:
            connection.request("GET", case.target, *UPGRADE, *headers)
            try:
                head = connection.head()
            except ConnectionCut:
                return {"end": "no response"}
            if head.status != 101:
                try:
                    list(connection.pieces(head))
                except ConnectionCut as cut:
                    head.failure = cut.how
                return described(head)
            for frame in frames[: -1 if replies else None]:
                connection.send(frame.encode())
            observed = described(head)
            del observed["pieces in time"], observed["end"], observed["framing"], observed["interim"]
            observed["messages"], observed["close"] = _heard(connection, replies)
            if leaves:
                connection.reset()
                return observed
            if replies:
                with suppress(OSError):  # it has been closed by then
                    connection.send(frames[-1].encode())
                more, observed["close"] = _heard(connection, 0)
                observed["messages"] += more
            return observed

    return run


def described(head: WireResponse) -> Observed:
    """Names of fields in one case: each server spells those that are its own in its way."""
    observed = describe(head)
    observed["headers"] = [(name.lower(), value) for name, value in observed["headers"]]
    return observed


def _heard(connection: Connection, most: int) -> tuple[list[Any], str]:
    """Messages, and how it was closed, if it was."""
    messages: list[Any] = []
    opcode, whole = 0, b""
    try:
        while True:
            frame = next_frame(connection)
            if frame.opcode == CLOSE:
                code = int.from_bytes(frame.payload[:2], "big") if frame.payload else "no code"
                connection.send(Frame(CLOSE, frame.payload[:2]).encode())
                return messages, f"{code} {frame.payload[2:].decode()}".strip()
            if frame.opcode == PONG:
                messages.append(("pong", frame.payload))
            elif frame.opcode == PING:
                connection.send(Frame(PONG, frame.payload).encode())
                continue
            else:
                opcode, whole = frame.opcode or opcode, whole + frame.payload
                if not frame.final:
                    continue
                kind, content = {TEXT: "text", BINARY: "bytes"}[opcode], whole
                messages.append((kind, content if len(content) < 2000 else f"{len(content)} bytes"))
                whole = b""
            if most and len(messages) == most:
                return messages, "open"
    except (ConnectionCut, OSError):
        return messages, "no close frame"


def scope(case: Case, site: Site) -> Observed:
    """Each entry of the scope is an aspect of its own."""
    observed = talk(Frame(TEXT, b"x"), close(1000), replies=1, headers=case.headers)(case, site)
    said = json.loads(observed["messages"][0][1])
    said["headers"] = [pair for pair in said["headers"] if pair[0] in ("x-one", "sec-websocket-protocol")]
    del said["server"]
    return {f"scope.{name}": value for name, value in said.items()}


def leaves_in_a_message(case: Case, site: Site) -> Observed:
    with site.connect() as connection:
        connection.request("GET", case.target, *UPGRADE)
        connection.head()
        connection.send(Frame(TEXT, b"the beginning", final=False).encode())
        time.sleep(0.1)
    return {}


HELLO, BYE = Frame(TEXT, b"hello"), close(1000)
WEBSOCKET_CASES: list[Case] = [
    *of(
        "WebSocket: the handshake",
        ("its scope", "/ws_scope/KEY/a%20b?q=%20", {"headers": ("X-One: 1", "X-One: 2"), "run": scope}),
        (
            "its scope, with subprotocols",
            "/ws_scope/KEY",
            {"headers": ("Sec-WebSocket-Protocol: a, b",), "run": scope},
        ),
        (
            "a subprotocol and fields",
            "/ws_offers/KEY",
            {"run": talk(BYE, replies=1, headers=("Sec-WebSocket-Protocol: a, b",))},
        ),
        ("closed before it is accepted", "/ws_refuses/KEY", {"run": talk(), "notes": 2}),
        ("a refusal with status and body", "/ws_answers/KEY", {"run": talk(), "notes": 1}),
    ),
    *of(
        "WebSocket: messages",
        ("text", "/ws_echo/KEY", {"run": talk(Frame(TEXT, "grüße".encode()), BYE, replies=1), "notes": 2}),
        ("bytes", "/ws_echo/KEY/1", {"run": talk(Frame(BINARY, b"\0\xff"), BYE, replies=1), "notes": 2}),
        ("empty ones", "/ws_echo/KEY", {"run": talk(Frame(TEXT), Frame(BINARY), BYE, replies=2), "notes": 3}),
        ("the largest", "/ws_echo/KEY", {"run": talk(Frame(BINARY, bytes(MAX_MESSAGE)), BYE, replies=1), "notes": 2}),
        ("one too large", "/ws_hears/KEY", {"run": talk(TooLarge(BINARY)), "notes": 1}),
        (
            "in fragments",
            "/ws_echo/KEY",
            {
                "run": talk(Frame(TEXT, b"one ", False), Frame(0, b"", False), Frame(0, b"two"), BYE, replies=1),
                "notes": 2,
            },
        ),
        (
            "a ping among fragments",
            "/ws_echo/KEY",
            {"run": talk(Frame(TEXT, b"a", False), Frame(PING, b"p"), Frame(0, b"b"), BYE, replies=2), "notes": 2},
        ),
        ("a ping", "/ws_echo/KEY", {"run": talk(Frame(PING, b"there?"), BYE, replies=1), "notes": 1}),
        ("text that is no UTF-8", "/ws_hears/KEY", {"run": talk(Frame(TEXT, b"\xff")), "notes": 1}),
        ("a hundred in their order", "/ws_in_order/KEY", {"run": talk(BYE, replies=100)}),
        ("a large one from the app", "/ws_large/KEY", {"run": talk(BYE, replies=1)}),
        ("the key that is not used is None", "/ws_both/KEY", {"run": talk(BYE, replies=2)}),
    ),
    *of(
        "WebSocket: its end",
        ("the client closes", "/ws_echo/KEY", {"run": talk(HELLO, BYE, replies=1), "notes": 2}),
        (
            "the client closes, code and reason",
            "/ws_echo/KEY",
            {"run": talk(HELLO, close(4321, b"so"), replies=1), "notes": 2},
        ),
        ("the client closes, no code", "/ws_echo/KEY", {"run": talk(HELLO, close(), replies=1), "notes": 2}),
        ("a close of one byte", "/ws_echo/KEY", {"run": talk(HELLO, Frame(CLOSE, b"x"), replies=1), "notes": 2}),
        ("the client vanishes", "/ws_echo/KEY", {"run": talk(HELLO, BYE, replies=1, leaves=True), "notes": 2}),
        ("the client vanishes in a message", "/ws_echo/KEY", {"run": leaves_in_a_message, "notes": 1}),
        ("sends when the client has closed", "/ws_hears/KEY", {"run": talk(HELLO, BYE), "notes": 4}),
        ("receives when the client has closed", "/ws_hears_on/KEY", {"run": talk(HELLO, BYE), "notes": 3}),
        ("the app closes, code and reason", "/ws_closes/KEY", {"run": talk(), "notes": 2}),
        ("the app closes", "/ws_closes_plainly/KEY", {"run": talk(), "notes": 1}),
    ),
    *of(
        "WebSocket: an app that fails",
        ("raises before it accepts", "/ws_raises_first/KEY", {"run": talk(), "notes": 1}),
        ("raises when it is open", "/ws_raises/KEY", {"run": talk(HELLO), "notes": 1}),
        ("returns before it accepts", "/ws_returns_first/KEY", {"run": talk()}),
        ("returns when it is open", "/ws_returns/KEY", {"run": talk(HELLO)}),
        ("sends before it accepts", "/ws_says_first/KEY", {"run": talk(BYE), "notes": 1}),
        ("accepts twice", "/ws_accepts_twice/KEY", {"run": talk(BYE), "notes": 1}),
        ("sends an unknown message", "/ws_unknown/KEY", {"run": talk(BYE), "notes": 1}),
        ("sends a number", "/ws_says_a_number/KEY", {"run": talk(BYE), "notes": 1}),
    ),
]
ALL_CASES = [*CASES, *WEBSOCKET_CASES]
