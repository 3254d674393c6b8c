"""Responses as bytes on a client's connection: heads, chunks, trailers, problem documents.

The writing half of `ClientSide`. Knows HTTP/1.1's framing (RFC 9112) and the way to one client; nothing of exchanges,
streams or tasks.
"""

from __future__ import annotations

import socket
import struct
import time
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Final

from gateway.compressors import Compressor
from gateway.errors import CONTENT_TYPE, Problem
from gateway.outgoing import Outgoing, Piece
from gateway.response_head import ResponseHead
from protocol.frames import Headers

LAST_CHUNK: Final = b"0\r\n\r\n"
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds


class Framing(Enum):
    """How the client finds the body's end."""

    NONE = "no body"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "the connection's end"


class StatusLines(dict[int, bytes]):
    """By their status; one without a phrase is said without."""

    def __missing__(self, status: int) -> bytes:
        return b"HTTP/1.1 %d \r\n" % status


class HttpDate:
    """The Date field, made once a second; lives as long as the process."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        """With its name and its end."""
        second = int(time.time())
        if second != self._second:
            self._second, self._line = second, b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


STATUS_LINES: Final = StatusLines(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
)
DATE: Final = HttpDate()


class ResponseWriter:
    """One response on one connection: begins with the request, ends when its last byte is on its way.

    A head waits for the body's first piece, or else for the end of the loop's turn: most responses are one write.
    """

    __slots__ = (
        "_outgoing",
        "_request_id",
        "_is_http11",
        "_framing",
        "keep_alive",
        "awaits_continue",
        "is_paused",
        "compressor",
    )

    def __init__(self, outgoing: Outgoing, request_id: str, is_http11: bool, keep_alive: bool) -> None:
        self._outgoing = outgoing
        self._request_id = request_id.encode("ascii")
        self._is_http11 = is_http11
        self._framing = Framing.NONE
        self.keep_alive = keep_alive
        """Another request may follow on the connection; settled when the head is written."""
        self.awaits_continue = False
        """The client holds its body back for 100 Continue. Answered otherwise, it may send the body or not: close
        then."""
        self.is_paused = False
        """The transport holds as much as it may; set by the connection."""
        self.compressor: Compressor | None = None
        """What the body passes through, as its head says."""

    def informational(self, status: int, headers: Headers) -> None:
        """An interim response, to those who know them (RFC 9110, section 15.2)."""
        if self._is_http11:
            self._outgoing.write(STATUS_LINES[status], *_lines(headers), b"\r\n")

    def continue_(self) -> None:
        """100 Continue."""
        self.awaits_continue = False
        self._outgoing.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def head(self, head: ResponseHead, end: bool, body: Piece = b"") -> None:
        """The final head, and in one write with it the whole body, where `body` is not empty. `end`: nothing
        follows."""
        if self.awaits_continue:
            self.keep_alive = False
        parts: list[Piece] = [STATUS_LINES[head.status]]
        framing = self._frame(head, end and not body)
        has_date = has_id = False
        for name, value in head.headers:
            if name == b"date":
                if has_date:
                    continue
                has_date = True
            elif name == b"x-request-id":
                has_id = True
            elif name == b"trailer" and self._framing is not Framing.CHUNKED:
                continue  # what it announces would be dropped
            parts += (name, b": ", value, b"\r\n")
        if not has_date:
            parts.append(DATE.line())
        if not has_id:
            parts += (b"x-request-id: ", self._request_id, b"\r\n")
        parts.append(framing)
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        elif not self._is_http11:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        if body:
            parts += self._framed(body, end)
        if end:
            self._outgoing.write_last(*parts)
        else:
            self._outgoing.hold(b"".join(parts))

    def data(self, payload: Piece, end: bool) -> None:
        """A piece of the body, written before this returns; `payload` may be a view of a buffer that is used again."""
        if end:
            self._outgoing.write_last(*self._framed(payload, end))
        else:
            self._outgoing.write(*self._framed(payload, end))

    def end(self, trailers: Headers) -> None:
        """The end; only chunked bodies can have trailers, elsewhere they are dropped (RFC 9110, section 6.5.1)."""
        if self.compressor is not None:
            rest, self.compressor = self.compressor.encode(b"", True), None
            self.data(rest, False)
        if self._framing is Framing.CHUNKED:
            self._outgoing.write_last(b"0\r\n", *_lines(trailers), b"\r\n")

    def problem(self, problem: Problem, is_head_request: bool = False) -> None:
        """A whole response that says what is wrong."""
        body = problem.document(self._request_id.decode("ascii"))
        headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store")]
        if (seconds := problem.retry_after or problem.kind.retry_after) is not None:
            headers.append((b"retry-after", b"%d" % seconds))
        headers += problem.kind.fields
        self.head(ResponseHead(problem.status, headers, len(body), is_head_request), is_head_request)
        if not is_head_request:
            self.data(body, True)

    def abort(self) -> None:
        """Cut the connection. Where only its end would end the body, by a reset, since a plain end would look clean."""
        self.keep_alive = False
        transport = self._outgoing.transport
        self._outgoing.flush()
        if self._framing is Framing.CLOSE and not transport.is_closing():
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.abort()

    def _framed(self, payload: Piece, end: bool) -> tuple[Piece, ...]:
        """A piece of the body as it is written."""
        if self.compressor is not None:
            payload = self.compressor.encode(payload, end)
        size = len(payload)
        if self._framing is not Framing.CHUNKED:
            return (payload,) if size else ()
        if size:
            return b"%x\r\n" % size, payload, b"\r\n0\r\n\r\n" if end else b"\r\n"
        return (LAST_CHUNK,) if end else ()  # a chunk of no bytes would be the last

    def _frame(self, head: ResponseHead, end: bool) -> bytes:
        """Choose the framing; return the fields that say it."""
        if head.is_bodiless:
            return b"" if head.length is None else b"content-length: %d\r\n" % head.length
        if end:
            return b"content-length: 0\r\n"
        if head.length is not None:
            self._framing = Framing.LENGTH
            return b"content-length: %d\r\n" % head.length
        if self._is_http11:
            self._framing = Framing.CHUNKED
            return b"transfer-encoding: chunked\r\n"
        self._framing = Framing.CLOSE
        self.keep_alive = False
        return b""


def head_bytes(status: int, headers: Headers) -> bytes:
    """A head outside an exchange, with Date."""
    return b"".join((STATUS_LINES[status], DATE.line(), *_lines(headers), b"\r\n"))


def _lines(headers: Headers) -> list[bytes]:
    return [b"%b: %b\r\n" % field for field in headers]
