"""A lean WebSocket client for many sockets at once (RFC 6455): some are idle, some have messages echoed.

It knows what servers send here: its own text back, and pings, which it answers. Its key for masking is zero, which
costs whoever unmasks as much as any other.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from benchmarks.client import AT_ONCE, BUFFER, TICK, TIMEOUT, Broken, connect
from benchmarks.workload.bodies import TICK_SIZE, tick

UPGRADE: Final = (
    b"GET /echo HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT, PING, PONG = 0x81, 0x89, 0x8A
MASKED: Final = 0x80
NO_MASK: Final = bytes(4)
TEXT_HEAD: Final = bytes((TEXT, MASKED | TICK_SIZE)) + NO_MASK
ECHO_SIZE: Final = 2 + TICK_SIZE  # bytes of a message's frame that comes back


@dataclass(slots=True)
class Echoed:
    """What was seen, in seconds."""

    latencies: list[float] = field(default_factory=list)
    """From the sending of each message to its arrival."""
    lags: list[float] = field(default_factory=list)
    """From the moment at which it was due to its sending: what this client was too late."""


class Echoes:
    """Open WebSockets. Begins with the constructor, ends with `close`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}  # of frames that have begun to come

    def open(self, count: int) -> list[int]:
        """So many more, idle; their numbers. Raises `Broken`."""
        opened: list[int] = []
        while len(opened) < count:
            batch = [connect(self._port) for _ in range(min(AT_ONCE, count - len(opened)))]
            for connection in batch:
                connection.sendall(UPGRADE)
            for connection in batch:
                self._open[connection.fileno()] = connection
                head = connection.recv(BUFFER)
                while not head.endswith(b"\r\n\r\n") and (more := connection.recv(BUFFER)):
                    head += more
                if not head.startswith(b"HTTP/1.1 101 "):
                    raise Broken(head[:300].decode(errors="replace"))
                connection.setblocking(False)
                self._epoll.register(connection, select.EPOLLIN)
                opened.append(connection.fileno())
        return opened

    def echo(self, active: list[int], interval: float, seconds: float) -> Echoed:
        """For `seconds`, each of `active` sends a message every `interval` seconds, one after the other; returns when
        all have come back. Raises `Broken`."""
        seen = Echoed()
        began = time.monotonic()
        until = began + seconds
        due = deque((began + interval * place / len(active), number) for place, number in enumerate(active))
        sent = 0
        while (now := time.monotonic()) < until:
            while due[0][0] <= now:
                at, number = due.popleft()
                self._open[number].send(TEXT_HEAD + tick())
                seen.lags.append(now - at)
                due.append((at + interval, number))
                sent += 1
            self._take(min(until, due[0][0]) - now, seen)
        patience = time.monotonic() + TIMEOUT
        while len(seen.latencies) < sent:
            self._take(1.0, seen)
            if time.monotonic() > patience:
                raise Broken(f"{sent - len(seen.latencies)} of {sent} messages did not come back")
        return seen

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._epoll.close()

    def _take(self, seconds: float, seen: Echoed) -> None:
        for number, _ in self._epoll.poll(max(0.0, seconds)):
            data = self._open[number].recv(BUFFER)
            now = time.monotonic_ns()
            if not data:
                raise Broken("a WebSocket was cut")
            if number in self._rests:
                data = self._rests.pop(number) + data
            while data:
                kind, size = data[0], 2 + data[1] if len(data) > 1 else ECHO_SIZE
                if len(data) < size:
                    self._rests[number] = data
                    break
                if kind == PING:
                    self._open[number].send(bytes((PONG, MASKED | size - 2)) + NO_MASK + data[2:size])
                elif kind == TEXT and size == ECHO_SIZE and (made := TICK.match(data, 2)):
                    seen.latencies.append((now - int(made[1])) / 1e9)
                else:
                    raise Broken(f"no echo: {data[:100]!r}")
                data = data[size:]
