"""Promise 6, functions that were let in: what they send wrong ends their own link or stream alone, and the client whose
request it was is told so: a problem document before the response's head, a broken message after it.

The frames are written by hand, from docs/protocol.md alone.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.e2e.patience import PATIENCE
from tests.e2e.stack import Stack
from tests.e2e.trap import Caught, Trap, dialled, first_dial

RESPONSE, DATA, DATA_END, CREDIT, RESET, STOP = 0x11, 0x14, 0x15, 0x20, 0x21, 0x22
MISMATCH = 5
LEASE, LEASED, REQUEST = 0x03, 0x04, 0x10
PLAIN = [b"content-type", b"text/plain"]


def frame(kind: int, *fields: Any) -> bytes:
    return bytes(msgpack.packb([kind, *fields]))


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    return struct.pack(">BBBIBI", 0x93, DATA_END if end else DATA, 0xCE, stream, 0xC6, len(payload)) + payload


class Serving:
    """A function by hand: dialled in, leased, with one open stream."""

    def __init__(self, port: int, token: str, link: ClientConnection) -> None:
        self.link = link
        link.send(frame(LEASE, 1, token, 1, 60_000, 0, {}))
        kind, self.stream, _, method, target, _, self.options = self.next()
        assert (kind, method, target) == (REQUEST, b"GET", b"/trap")
        assert self.next()[0] == LEASED

    def next(self) -> list[Any]:
        """The next frame."""
        message = self.link.recv(PATIENCE)
        assert isinstance(message, bytes)
        return list(msgpack.unpackb(message))

    def send(self, *frames: bytes) -> None:
        for message in frames:
            self.link.send(message)

    def close_code(self) -> int | None:
        with pytest.raises(ConnectionClosed):
            while True:
                self.next()
        return self.link.protocol.close_code

    def stop_code(self) -> int:
        """The code of the STOP with which the gateway gives the stream up; the link lives on."""
        while True:
            kind, number, *rest = self.next()
            if kind == STOP:
                assert number == self.stream
                self.link.ping().wait(PATIENCE)
                return int(rest[0])


@contextmanager
def serving(stack: Stack, trap: Trap) -> Iterator[tuple[Serving, Caught]]:
    with Caught(stack, trap) as caught, dialled(stack.port, first_dial(caught.token)) as link:
        yield Serving(stack.port, caught.token, link), caught


def test_a_function_written_from_the_specification_is_served(trapped: Stack, trap: Trap) -> None:
    with serving(trapped, trap) as (function, caught):
        number = function.stream
        function.send(frame(RESPONSE, number, 200, PLAIN, {}), data(number, b"by "), data(number, b"hand", end=True))
    assert (caught.response.status, caught.response.body) == (200, b"by hand")
    assert caught.response.failure is None


Frames = Callable[[int], list[bytes]]
BREAKS_THE_PROTOCOL: dict[str, tuple[Frames, bool]] = {
    "data before the head": (lambda n: [data(n, b"x")], False),
    "a status that is none": (lambda n: [frame(RESPONSE, n, 99, PLAIN, {})], False),
    "an odd list of headers": (lambda n: [frame(RESPONSE, n, 200, [b"a"], {})], False),
    "a header of text": (lambda n: [frame(RESPONSE, n, 200, ["a", "b"], {})], False),
    "a head of more than 64 KiB": (lambda n: [frame(RESPONSE, n, 200, [b"a", bytes(65 << 10)], {})], False),
    "credit that is taken back": (lambda n: [frame(CREDIT, n, -1)], False),
    "a message on a stream that is none of messages": (lambda n: [frame(0x19, n, b"hello")], False),
    "two heads": (lambda n: [frame(RESPONSE, n, 200, PLAIN, {}), frame(RESPONSE, n, 200, PLAIN, {})], True),
    "more than its credit": (lambda n: [frame(RESPONSE, n, 200, PLAIN, {}), data(n, bytes(70_000))], True),
    "an unknown code": (lambda n: [frame(RESPONSE, n, 200, PLAIN, {}), frame(RESET, n, -1, {})], True),
}


@pytest.mark.parametrize("case", BREAKS_THE_PROTOCOL)
def test_a_function_that_breaks_the_protocol_loses_its_link(trapped: Stack, trap: Trap, case: str) -> None:
    frames, has_begun = BREAKS_THE_PROTOCOL[case]
    with serving(trapped, trap) as (function, caught):
        function.send(*frames(function.stream))
        assert function.close_code() == 1002
    if has_begun:
        assert caught.response.status == 200 and caught.response.failure
    else:
        assert (caught.response.status, caught.problem) == (502, "function-lost")


BAD_RESPONSES: dict[str, list[bytes]] = {
    "a line break in a value": [b"a", b"1\r\nset-cookie: stolen"],
    "a name that is no token": [b"a b", b"1"],
    "a length that is no number": [b"content-length", b"many"],
    "two lengths": [b"content-length", b"1", b"content-length", b"2"],
}


@pytest.mark.parametrize("case", BAD_RESPONSES)
def test_a_response_that_is_not_http_is_a_502_and_the_link_lives_on(trapped: Stack, trap: Trap, case: str) -> None:
    with serving(trapped, trap) as (function, caught):
        function.send(frame(RESPONSE, function.stream, 200, BAD_RESPONSES[case], {}))
        assert function.stop_code() == MISMATCH
    assert (caught.response.status, caught.problem) == (502, "bad-response")
    assert b"stolen" not in caught.response.body


@pytest.mark.parametrize(("body", "end"), [(b"hell", True), (b"hello!", True), (b"hello!", False)])
def test_a_body_of_another_length_than_it_said_never_looks_whole(
    trapped: Stack, trap: Trap, body: bytes, end: bool
) -> None:
    with serving(trapped, trap) as (function, caught):
        number = function.stream
        function.send(frame(RESPONSE, number, 200, [b"content-length", b"5"], {}), data(number, body, end=end))
        if not end:
            assert function.stop_code() == MISMATCH
        caught.done()
    assert caught.response.status == 200 and caught.response.failure


@pytest.mark.parametrize(
    ("code", "status", "problem"), [(3, 502, "function-error"), (4, 504, "function-timeout"), (7, 502, "function-lost")]
)
def test_a_stream_that_is_reset_before_its_head_says_why(
    trapped: Stack, trap: Trap, code: int, status: int, problem: str
) -> None:
    with serving(trapped, trap) as (function, caught):
        function.send(
            frame(RESET, function.stream, code, {"reason": "echo-me-not"}), frame(STOP, function.stream, code)
        )
        caught.done()
    assert (caught.response.status, caught.problem) == (status, problem)
    assert b"echo-me-not" not in caught.response.body


def test_a_link_that_does_not_come_back_breaks_its_responses_when_the_grace_is_over(trapped: Stack, trap: Trap) -> None:
    """`session.grace` is 1 s in this gateway's configuration."""
    with serving(trapped, trap) as (function, caught):
        function.send(frame(RESPONSE, function.stream, 200, PLAIN, {}), data(function.stream, b"begun"))
        time.sleep(0.1)
        function.link.socket.shutdown(socket.SHUT_RDWR)
        cut_at = time.monotonic()
        caught.done()
        assert 0.8 < time.monotonic() - cut_at < 3
    assert caught.response.body == b"begun" and caught.response.failure


def test_an_invocation_that_returns_without_dialling_is_a_502(trapped: Stack, trap: Trap) -> None:
    with Caught(trapped, trap) as caught:
        pass
    assert (caught.response.status, caught.problem) == (502, "invoke-failed")


def test_an_invocation_that_never_dials_is_a_504_in_time(trapped: Stack, trap: Trap) -> None:
    """`timeouts.dial_back` of this function is 1 s."""
    with Caught(trapped, trap) as caught:
        began = time.monotonic()
        caught.done()
        assert 0.8 < time.monotonic() - began < 3
    assert (caught.response.status, caught.problem) == (504, "dial-back-timeout")
