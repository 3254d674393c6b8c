"""A bare function, for what stands behind the gateway where its own price is to be seen, not a function's:
`python -m benchmarks.workload.bare_function PORT`.

It takes invocations as a Function URL does (AWS: "Invoking Lambda function URLs") and dials back (docs/protocol.md §3,
§4). With one place, which `BENCH_PLACES` says, it serves one tiny response in each lease over the link that it keeps,
parks at once, and answers the invocation; with more its lease has no end, and `/tiny` and `/ticks` are served as by the
origin behind nginx. It trusts whoever asks, is never frozen, keeps nothing for a replay, and does as little as it can:
some 0.1 ms for an invocation, where the local Lambda with its Runtime API and its processes takes five.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.workload import bodies
from protocol.codec import UNCOUNTED, decode, encode
from protocol.dial import Dial, Limits
from protocol.frames import Ack, Code, Data, Lease, Leased, Park, Parked, Request, Reset, Response, Stop
from protocol.invitation import INVITATION_KEY, read

HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ANSWER: Final = (
    "HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
    "Connection: keep-alive\r\nx-amzn-RequestId: 2c2f1b5e-9d0b-4a59-a1c9-6bb0d6c4a5d1\r\n"
    "X-Amzn-Trace-Id: root=1-5f84c7a1-4f0a5b3c2d1e0f9a8b7c6d5e;parent=0a1b2c3d4e5f6071;sampled=0\r\n\r\n{}"
)
HEADERS: Final = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(bodies.TINY)))
PLACES: Final = int(os.environ.get("BENCH_PLACES", "1"))
TICK_HEADERS: Final = ((b"content-type", b"text/plain; charset=utf-8"),)
LEASE_TIME: Final = 900_000  # milliseconds
ACKNOWLEDGED: Final = 1024  # frames at a time
BACKLOG: Final = 4096


class Link(asyncio.Protocol):
    """An environment and its socket; `Function` has a stack of those that are idle."""

    def __init__(self, token: str) -> None:
        self._session = os.urandom(16)
        self._dial = Dial(self._session, 1, 0, Limits(), invitation=token)
        self._url = urlsplit(read(token)[0].url)
        self._head = b""
        self._is_open = False
        self._is_leased = False
        self._received = 0  # counted frames
        self._lease = 0
        self._last_stream = 0
        self._token = token
        self._parked: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._ticks: dict[int, asyncio.TimerHandle] = {}  # by stream
        self._unsent: list[bytes] = []  # messages

    async def serve(self, token: str) -> None:
        """One lease, until it is parked."""
        self._token, self._lease = token, self._lease + 1
        self._parked = self._loop.create_future()
        if self._is_open:
            self._offer()
        else:
            host, port = self._url.hostname or "", self._url.port or 80
            await self._loop.create_connection(lambda: self, host, port)
        await self._parked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        fields = [
            ("Host", self._url.netloc),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),  # RFC 6455's own
            ("Sec-WebSocket-Version", "13"),
            *self._dial.to_headers(),
        ]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        self._transport.write(f"GET {self._url.path} HTTP/1.1\r\n{head}\r\n".encode())

    def data_received(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        if not self._is_open:
            head, found, data = data.partition(HEAD_END)
            if not found:
                self._head = head
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._is_open = True
            self._offer()
        while len(data) >= 2:
            size, begin = data[1], 2
            if size == 126:
                size, begin = int.from_bytes(data[2:4], "big"), 4
            if len(data) < begin + size:
                break
            if data[0] == 0x82:  # a binary message
                self._frame(data[begin : begin + size])
            elif data[0] == 0x89:  # a ping, of no bytes
                self._transport.write(b"\x8a\x80" + bytes(4))
            data = data[begin + size :]
        self._head = data

    def connection_lost(self, error: Exception | None) -> None:
        if self._parked is not None and not self._parked.done():
            self._parked.set_exception(error or ConnectionError("the gateway closed the link"))

    def _frame(self, message: bytes) -> None:
        frame = decode(message)
        self._received += frame.TYPE not in UNCOUNTED
        if PLACES > 1 and self._received % ACKNOWLEDGED == 0:
            self._send(encode(Ack(self._received)))
        if type(frame) is Request:
            self._last_stream = frame.stream
            if frame.target.startswith(b"/ticks"):
                self._begin_ticks(frame.stream, bodies.numbers(urlsplit(frame.target.decode()).query))
                return
            self._send(encode(Response(frame.stream, 200, HEADERS, {"body": bodies.TINY.encode()})))
            if self._is_leased:  # it voided the PARK before
                self._park()
        elif type(frame) is Stop:
            if frame.stream in self._ticks:
                self._ticks.pop(frame.stream).cancel()
                self._send(encode(Reset(frame.stream, Code.CANCELLED)))
        elif type(frame) is Leased and PLACES == 1:  # behind its REQUEST
            self._is_leased = True
            self._park()
        elif type(frame) is Parked and self._parked is not None:
            self._is_leased = False
            self._parked.set_result(None)

    def _begin_ticks(self, stream: int, wanted: dict[str, float]) -> None:
        """Without an end, up to the stream's first credit: five hundred chunks and more."""
        self._send(encode(Response(stream, 200, TICK_HEADERS)))
        self._tick(stream, self._loop.time() + wanted["wait"], wanted["interval"])

    def _tick(self, stream: int, due: float, interval: float) -> None:
        self._send(encode(Data(stream, bodies.tick())))
        self._ticks[stream] = self._loop.call_at(due, self._tick, stream, due + interval, interval)

    def _park(self) -> None:
        self._send(encode(Park(self._lease, self._last_stream, self._received)))

    def _offer(self) -> None:
        self._send(encode(Lease(self._lease, self._token, PLACES, LEASE_TIME, self._received)))

    def _send(self, *frames: bytes) -> None:
        """Masked with zeros: what they cost the gateway is the same."""
        for frame in frames:
            size = len(frame)
            length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
            self._unsent.append(b"\x82" + length + bytes(4) + frame)
        if len(self._unsent) == len(frames):
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """What became ready in one turn of the loop leaves in one write, as a function's does."""
        unsent, self._unsent = self._unsent, []
        self._transport.write(b"".join(unsent))


class Function(asyncio.Protocol):
    """A connection on which invocations come, one after the other."""

    idle: Final[list[Link]] = []
    tasks: Final[set[asyncio.Task[Any]]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(HEAD_END)
        length = LENGTH.search(head)
        if found and len(body) >= int(length[1] if length else 0):
            self._data = b""
            task = asyncio.get_running_loop().create_task(self._invoked(json.loads(body)[INVITATION_KEY]))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _invoked(self, token: str) -> None:
        link = self.idle.pop() if self.idle else Link(token)
        await link.serve(token)
        self.idle.append(link)
        text = json.dumps({"dialback": 1, "lease": 1, "outcome": "parked", "awake": 1})
        self._transport.write(ANSWER.format(len(text), text).encode())


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Function, "127.0.0.1", port, backlog=BACKLOG)
    print("Ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
