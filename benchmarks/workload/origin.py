"""A bare HTTP/1.1 server for what stands behind nginx and the other proxy: `python -m benchmarks.workload.origin PORT`.

It trusts whoever asks, and does as little as it can: a proxy's price is to be seen, not an origin's.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from typing import Final, cast

import uvloop

from benchmarks.workload import bodies

HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
TEXT_HEAD: Final = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\r\n{}"
CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
TINY: Final = TEXT_HEAD.format(len(bodies.TINY), bodies.TINY).encode()
TICK_CHUNK: Final = b"%x\r\n%b\r\n"
BULK_CHUNK: Final = TICK_CHUNK % (len(bodies.CHUNK), bodies.CHUNK)
BACKLOG: Final = 4096


class Origin(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._left = 0  # bytes of an upload that are still to come; -1: chunked
        self._received = 0
        self._bulk: Iterator[bytes] | None = None
        self._is_paused = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=256 << 10)

    def connection_lost(self, error: Exception | None) -> None:
        self._bulk = None
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._send_bulk()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._upload(data)
            return
        self._head += data
        head, found, rest = self._head.partition(HEAD_END)
        if not found:
            return
        self._head = b""
        if head.startswith(b"GET /tiny "):
            self._transport.write(TINY)
            return
        path, _, query = head.split(b" ", 2)[1].decode().partition("?")
        wanted = bodies.numbers(query)
        if path == "/sink":
            length = LENGTH.search(head)
            self._left, self._received = int(length[1]) if length else -1, 0
            self._upload(rest)
        elif path == "/bulk":
            self._transport.write(CHUNKED_HEAD)
            self._bulk = iter(bodies.bulk(int(wanted["size"])))
            self._send_bulk()
        else:
            self._transport.write(CHUNKED_HEAD + TICK_CHUNK % (bodies.TICK_SIZE, bodies.tick()))
            due = self._loop.time() + wanted["wait"]
            self._timer = self._loop.call_at(due, self._tick, due, wanted["interval"], int(wanted["count"]))

    def _upload(self, data: bytes) -> None:
        self._received += len(data)
        if self._left > 0:
            self._left -= len(data)
        elif data.endswith(LAST_CHUNK):
            self._left = 0
        if not self._left:
            text = f"{self._received}\n"
            self._transport.write(TEXT_HEAD.format(len(text), text).encode())

    def _send_bulk(self) -> None:
        while self._bulk is not None and not self._is_paused:
            if next(self._bulk, None) is None:
                self._bulk = None
                self._transport.write(LAST_CHUNK)
            else:
                self._transport.write(BULK_CHUNK)

    def _tick(self, due: float, interval: float, left: int) -> None:
        if not left:
            self._transport.write(LAST_CHUNK)
            return
        self._transport.write(TICK_CHUNK % (bodies.TICK_SIZE, bodies.tick()))
        due += interval
        self._timer = self._loop.call_at(due, self._tick, due, interval, left - 1)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=BACKLOG)
    print("Ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
