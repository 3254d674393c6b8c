"""An HTTP/1.1 client over a plain socket that hides nothing: every byte, every chunk with its time, how it ended.

It takes nothing on trust: what does not follow RFC 9112 is a `WireFault`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

TIMEOUT = 30.0
"""Seconds without a byte."""
READ_SIZE = 256 << 10
AT_ONCE = 64 << 10
"""Bytes of a body that are sent before anything is read."""

Pair = tuple[bytes, bytes]


class WireFault(Exception):
    """What came is not HTTP/1.1."""


class ConnectionCut(Exception):
    """The connection ended in the middle of a message; `how` is "eof" or "reset"."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


@dataclass
class Chunk:
    """A piece of a body as the sender framed it."""

    data: bytes
    time: float
    """Unix time at which its last byte was here."""


@dataclass
class WireResponse:
    """One response, as far as it came."""

    status: int
    headers: list[Pair]
    interim: list[tuple[int, list[Pair]]]
    """The 1xx responses before it."""
    chunks: list[Chunk] = field(default_factory=list)
    trailers: list[Pair] = field(default_factory=list)
    failure: str | None = None
    """None: it ended as it said that it would. "eof" or "reset": it was cut."""

    @property
    def body(self) -> bytes:
        return b"".join(chunk.data for chunk in self.chunks)

    def values(self, name: bytes) -> list[bytes]:
        """All values of one field, in their order."""
        return [value for key, value in self.headers if key.lower() == name]

    def value(self, name: bytes) -> bytes | None:
        """The only value of a field that may be there once."""
        found = self.values(name)
        assert len(found) <= 1, (name, found)
        return found[0] if found else None


class Connection:
    """One TCP connection; use it in a `with`."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int | None = None) -> None:
        """`receive_buffer`: bytes that the kernel may hold for us (it doubles them), to keep a slow reader honest."""
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(TIMEOUT)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self._buffer = bytearray()
        self._methods: list[str] = []
        self._upload: threading.Thread | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        if self._upload is not None and self.socket.fileno() >= 0:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        if self._upload is not None:
            self._upload.join(TIMEOUT)
        self.socket.close()

    # Out

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, target: str, *headers: str, body: bytes | None = None, host: bool = True) -> None:
        """Send a request; `headers` are whole lines. `body` gets a Content-Length, and goes out while we read on."""
        lines = [f"{method} {target} HTTP/1.1", *(["Host: test"] if host else []), *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        if self._upload is not None:
            self._upload.join(TIMEOUT)  # a request begins after the one before
        self._methods.append(method)
        self.send("\r\n".join((*lines, "", "")).encode("latin-1"))
        if body and len(body) <= AT_ONCE:
            self.send(body)
        elif body:
            # A full duplex answer fills every buffer on the way unless it is read meanwhile.
            self._upload = threading.Thread(target=self._send_quietly, args=(body,), daemon=True)
            self._upload.start()

    def _send_quietly(self, body: bytes) -> None:
        with contextlib.suppress(OSError):  # a server may answer without reading all of it, and close
            self.socket.sendall(body)

    def chunk(self, data: bytes) -> None:
        """A piece of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def reset(self) -> None:
        """Leave without a goodbye: a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    # In

    def head(self) -> WireResponse:
        """The next response as far as its head, with the interim responses before it. Raises `ConnectionCut`."""
        interim: list[tuple[int, list[Pair]]] = []
        while True:
            status, headers = self.next_head()
            if status >= 200 or status == 101:
                return WireResponse(status, headers, interim)
            interim.append((status, headers))

    def next_head(self) -> tuple[int, list[Pair]]:
        """The next head, interim or final."""
        line = self._line()
        match = re.fullmatch(rb"HTTP/1\.1 (\d\d\d) ?([^\r\n]*)", line)
        if not match:
            raise WireFault(f"status line {line!r}")
        return int(match[1]), self._fields()

    def response(self) -> WireResponse:
        """The next response to its end, or as far as it comes."""
        method = self._methods.pop(0) if self._methods else "GET"
        response = self.head()
        try:
            for _ in self.pieces(response, method):
                pass
        except ConnectionCut as cut:
            response.failure = cut.how
        return response

    def pieces(self, response: WireResponse, method: str = "GET") -> Iterator[Chunk]:
        """The body's pieces as they come, also kept in `response.chunks`. Raises `ConnectionCut`."""
        if method == "HEAD" or response.status in (204, 304) or response.status == 101:
            return
        if response.value(b"transfer-encoding") is not None:
            if response.value(b"content-length") is not None or response.value(b"transfer-encoding") != b"chunked":
                raise WireFault(f"framing {response.headers!r}")
            while data := self._chunk():
                response.chunks.append(Chunk(data, time.time()))
                yield response.chunks[-1]
            response.trailers = self._fields()
        elif (length := response.value(b"content-length")) is not None:
            left = int(length)
            while left:
                data = self._some(left)
                left -= len(data)
                response.chunks.append(Chunk(data, time.time()))
                yield response.chunks[-1]
        else:
            while data := self._until_eof():
                response.chunks.append(Chunk(data, time.time()))
                yield response.chunks[-1]

    def exactly(self, size: int) -> bytes:
        """So many bytes of a connection that is HTTP's no more. Raises `ConnectionCut`."""
        self._need(size)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def is_closed_by_peer(self) -> bool:
        """Wait for the end of the connection; False where more bytes came instead."""
        return not self._buffer and not self._until_eof()

    def _until_eof(self) -> bytes:
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            return data
        try:
            return self.socket.recv(READ_SIZE)
        except ConnectionResetError:
            raise ConnectionCut("reset") from None

    def _chunk(self) -> bytes:
        size = self._line()
        if not re.fullmatch(rb"[0-9a-fA-F]+", size):
            raise WireFault(f"chunk size {size!r}")
        length = int(size, 16)
        if not length:
            return b""
        self._need(length + 2)
        data = bytes(self._buffer[:length])
        if self._buffer[length : length + 2] != b"\r\n":
            raise WireFault("a chunk without its end")
        del self._buffer[: length + 2]
        return data

    def _fields(self) -> list[Pair]:
        fields = []
        while line := self._line():
            name, colon, value = line.partition(b":")
            if not colon or not re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise WireFault(f"field {line!r}")
            fields.append((name, value.strip(b" \t")))
        return fields

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _some(self, most: int) -> bytes:
        if not self._buffer:
            self._fill()
        data = bytes(self._buffer[:most])
        del self._buffer[: len(data)]
        return data

    def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            self._fill()

    def _fill(self) -> None:
        try:
            data = self.socket.recv(READ_SIZE)
        except ConnectionResetError:
            raise ConnectionCut("reset") from None
        if not data:
            raise ConnectionCut("eof")
        self._buffer += data
