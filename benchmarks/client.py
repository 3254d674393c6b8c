"""A lean HTTP/1.1 client on raw sockets: it finds the end of a response, and looks at nothing else of it.

Its own CPU is told beside each figure (`client_cpu`), so that it can be seen not to be the bottleneck.
"""

from __future__ import annotations

import heapq
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.workload.bodies import CHUNK

BUFFER: Final = 1 << 20  # bytes taken at once
LAST_CHUNK: Final = b"0\r\n\r\n"
TICK: Final = re.compile(rb"T(\d{19})\.")
LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TIMEOUT: Final = 60.0  # seconds without a byte, after which something is broken
AT_ONCE: Final = 100  # streams that are opened before the first of them must have answered


class Broken(Exception):
    """A response was not what it should have been; there is nothing to measure."""


def request(target: str, *, method: str = "GET", length: int | None = None) -> bytes:
    size = "" if length is None else f"content-length: {length}\r\n"
    return f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n{size}\r\n".encode()


def connect(port: int, *, receive_buffer: int | None = None, tls: bool = False) -> socket.socket:
    """A connection to a subject; its certificate is not looked at."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(TIMEOUT)
    connection.connect(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(connection, server_hostname="localhost")
    return connection


def first_byte(connection: socket.socket, target: str = "/tiny") -> float:
    """Seconds from a request to the first byte of its 200; the rest is read as well. Raises `Broken`."""
    sent = time.perf_counter()
    connection.sendall(request(target))
    data = connection.recv(BUFFER)
    seconds = time.perf_counter() - sent
    if not data.startswith(b"HTTP/1.1 200"):
        raise Broken(data[:300].decode(errors="replace"))
    while not _is_complete(data):
        data += _some(connection)
    return seconds


def paced(port: int, connections: int, pause: float, seconds: float) -> int:
    """How many requests were answered in `seconds` where each connection waits `pause` seconds after an answer."""
    answered, until = 0, time.monotonic() + seconds
    with _connections(port, connections) as opened, select.epoll() as epoll:
        by_number = {connection.fileno(): connection for connection in opened}
        due = [(time.monotonic() + pause * place / connections, number) for place, number in enumerate(by_number)]
        for number in by_number:
            epoll.register(number, select.EPOLLIN)
        while (now := time.monotonic()) < until:
            while due and due[0][0] <= now:
                by_number[heapq.heappop(due)[1]].sendall(request("/tiny"))
            for number, _ in epoll.poll(max(0.0, min(until, due[0][0] if due else until) - now)):
                data = by_number[number].recv(BUFFER)
                if not data.startswith(b"HTTP/1.1 200"):
                    raise Broken(data[:300].decode(errors="replace"))
                while not _is_complete(data):
                    data += _some(by_number[number])
                answered += 1
                heapq.heappush(due, (time.monotonic() + pause, number))
    return answered


def download(port: int, size: int, streams: int = 1) -> float:
    """Seconds that `streams` responses of `size` bytes of body each took, side by side. Raises `Broken`."""
    with _connections(port, streams) as connections:
        began = time.perf_counter()
        for connection in connections:
            connection.sendall(request(f"/bulk?size={size}"))
        buffer = bytearray(BUFFER)
        taken = dict.fromkeys(connections, 0)
        for connection in _until_done(connections, select.EPOLLIN):
            count = connection.recv_into(buffer)
            if not taken[connection] and not buffer.startswith(b"HTTP/1.1 200"):
                raise Broken(bytes(buffer[:300]).decode(errors="replace"))
            taken[connection] += count
            if not count:
                raise Broken(f"cut after {taken[connection]} of {size} bytes")
            if taken[connection] > size and buffer[max(0, count - 5) : count] == LAST_CHUNK[-min(count, 5) :]:
                connection.setblocking(True)
        return time.perf_counter() - began


def upload(port: int, size: int, streams: int = 1) -> float:
    """Seconds that `streams` requests with bodies of `size` bytes took, until all were answered. Raises `Broken`."""
    with _connections(port, streams) as connections:
        began = time.perf_counter()
        for connection in connections:
            connection.sendall(request("/sink", method="POST", length=size))
        left = dict.fromkeys(connections, size)
        chunk = memoryview(CHUNK)
        for connection in _until_done(connections, select.EPOLLOUT):
            at = (size - left[connection]) % len(CHUNK)
            left[connection] -= connection.send(chunk[at : at + left[connection]])
            if not left[connection]:
                connection.settimeout(TIMEOUT)
        for connection in connections:
            data = b""
            while not _is_complete(data):
                data += _some(connection)
            if b"%d\n" % size not in data:
                raise Broken(data[:300].decode(errors="replace"))
        return time.perf_counter() - began


class TickStreams:
    """Many open responses, each with a chunk of 100 bytes every `interval` seconds. Begins when all of them have
    answered; ends with `close`."""

    def __init__(self, port: int, streams: int, interval: float) -> None:
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._buffer = bytearray(BUFFER)
        self._answered: set[int] = set()
        for number in range(streams):
            connection = connect(port)
            wait = interval * (number % AT_ONCE) / AT_ONCE
            connection.sendall(request(f"/ticks?count=1000000&interval={interval}&wait={wait:.4f}"))
            connection.setblocking(False)
            self._open[connection.fileno()] = connection
            self._epoll.register(connection, select.EPOLLIN)
            while number - len(self._answered) >= AT_ONCE:
                self._take(TIMEOUT)
        while len(self._answered) < streams:
            self._take(TIMEOUT)

    def delays(self, seconds: float) -> list[float]:
        """From making to arrival, in seconds, of each chunk that comes in the next `seconds`. Raises `Broken`."""
        delays: list[float] = []
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            delays += self._take(left, is_patient=False)
        return delays

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._epoll.close()

    def _take(self, seconds: float, *, is_patient: bool = True) -> list[float]:
        ready = self._epoll.poll(seconds)
        if not ready and is_patient:
            raise Broken(f"only {len(self._answered)} of {len(self._open)} streams answered")
        delays = []
        for number, _ in ready:
            size = self._open[number].recv_into(self._buffer)
            now = time.monotonic_ns()
            data = bytes(memoryview(self._buffer)[:size])
            if not data or (number not in self._answered and not data.startswith(b"HTTP/1.1 200")):
                raise Broken(f"a stream of ticks ended: {data[:300].decode(errors='replace')}")
            self._answered.add(number)
            delays += [(now - int(made)) / 1e9 for made in TICK.findall(data)]
        return delays


@contextmanager
def _connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as closing:
        yield [closing.enter_context(connect(port)) for _ in range(count)]


def _until_done(connections: list[socket.socket], wanted: int) -> Iterator[socket.socket]:
    """Those that are ready, again and again, until each was made to block again by whoever is done with it."""
    with select.epoll() as epoll:
        waiting = {connection.fileno(): connection for connection in connections}
        for connection in connections:
            connection.setblocking(False)
            epoll.register(connection, wanted)
        while waiting:
            ready = epoll.poll(TIMEOUT)
            if not ready:
                raise Broken(f"nothing moved for {TIMEOUT:.0f} s")
            for number, _ in ready:
                connection = waiting[number]
                yield connection
                if connection.gettimeout() != 0:
                    del waiting[number]
                    epoll.unregister(number)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(BUFFER)
    if not data:
        raise Broken("the connection was closed before its response was whole")
    return data


def _is_complete(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    length = LENGTH.search(head)
    return len(body) >= int(length[1]) if length else body.endswith(LAST_CHUNK)
