"""Each fault at each moment of a download and of an upload: what the client saw, what the function saw, and when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import process
from tests.e2e.stack import Stack
from tests.faults.proxy import Close, Cut, Fault, FaultProxy, HalfOpen, Stall, Truncate

GRACE = 2.0
PING = 0.25
LINGER = 0.4
"""Seconds, of the stacks that are hurt; the page says them."""
LONG = 8.0
"""Seconds that a black hole lasts: longer than a dial and the grace together."""
SLOW = 1.5
"""Seconds: longer than the gateway takes to see that a client has left whose upload it does not read."""
AWAY = 1.0
FROZEN = 2.0
"""Seconds: longer than three pings."""
HALF = 512 << 10
"""Bytes, see `moments.py`."""
PATIENCE = 30.0

MOMENTS = {
    "dial": "before the dial",
    "head": "before the head",
    "body": "mid-body",
    "end": "after the last byte",
}
DIRECTIONS = ("download", "upload")


class Lane:
    """A stack with a proxy between its halves, and one row after the other on it."""

    def __init__(self, proxy: FaultProxy, stack: Stack) -> None:
        self.proxy = proxy
        self.stack = stack
        self.client: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        proxy.target = ("127.0.0.1", stack.port)

    def later(self, seconds: float, action: Callable[[], Awaitable[None] | None]) -> None:
        async def run() -> None:
            await asyncio.sleep(seconds)
            if (waiting := action()) is not None:
                await waiting

        task = asyncio.ensure_future(run())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def next_socket(self, fault: Fault) -> None:
        """The next one that is dialled has this fault, those after it have none."""
        faults = itertools.chain((fault,), itertools.repeat(None))
        self.proxy.draw = lambda: next(faults) or Fault()

    def at_the_next_socket(self, action: Callable[[], None]) -> None:
        class Striking(Fault):
            async def run(self, connection: object) -> None:
                action()

        self.next_socket(Striking())

    def signal(self, number: signal.Signals, pids: list[int] | None = None) -> list[int]:
        """Signal these environments, or all that run; which they were. The others are the local Lambda's to thaw."""
        running = [pid for pid in self.stack.environments if process.state(pid) != "T"] if pids is None else pids
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return running


Strike = Callable[[Lane], None]


def reset(lane: Lane) -> None:
    lane.proxy.cut_all()


def close(lane: Lane) -> None:
    for connection in list(lane.proxy.connections):
        connection.close()


def half_open(lane: Lane) -> None:
    for connection in list(lane.proxy.connections):
        connection.half_open("far")


def black_hole(lane: Lane) -> None:
    for connection in list(lane.proxy.connections):
        connection.flowing.clear()


def truncate(lane: Lane) -> None:
    for connection in lane.proxy.connections:
        connection.fault = Truncate(20)


def away(lane: Lane, seconds: float = AWAY) -> None:
    lane.proxy.refuse()
    lane.proxy.cut_all()
    lane.later(seconds, lane.proxy.start)


def away_for_long(lane: Lane) -> None:
    away(lane, GRACE + 1)


def freeze(lane: Lane) -> None:
    stopped = lane.signal(signal.SIGSTOP)

    def go_on() -> None:
        lane.signal(signal.SIGCONT, stopped)

    lane.later(FROZEN, go_on)


def kill(lane: Lane) -> None:
    lane.signal(signal.SIGKILL)


def fall_ill(lane: Lane) -> None:
    for pid in lane.stack.environments:
        (lane.stack.notes / f"{pid}.unhealthy").touch()


def leave(lane: Lane) -> None:
    assert lane.client is not None
    raw = lane.client[1].get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lane.client[1].transport.abort()


def half_close(lane: Lane) -> None:
    assert lane.client is not None
    lane.client[1].write_eof()


def slowly(lane: Lane) -> None:
    """The dial takes its time, so that the client has left before it is answered."""
    lane.next_socket(Stall(0, SLOW))


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault: what it does at a moment, and before a dial."""

    name: str
    strike: Strike
    before_dial: Strike
    client_leaves: bool = False


KINDS = [
    Kind("the link's socket is reset", reset, lambda lane: lane.next_socket(Cut(0))),
    Kind("the link's socket is closed", close, lambda lane: lane.next_socket(Close(0))),
    Kind(
        "the gateway's side has gone, the function is not told",
        half_open,
        lambda lane: lane.next_socket(HalfOpen(0, LONG, "far")),
    ),
    Kind("black hole", black_hole, lambda lane: lane.next_socket(Stall(0, LONG))),
    Kind("cut in the middle of a frame", truncate, lambda lane: lane.next_socket(Truncate(100))),
    Kind(f"the gateway cannot be reached for {AWAY:g} s", away, away),
    Kind(f"the gateway cannot be reached for {GRACE + 1:g} s", away_for_long, away_for_long),
    Kind(
        f"the function's process stops for {FROZEN:g} s",
        freeze,
        lambda lane: lane.at_the_next_socket(lambda: freeze(lane)),
    ),
    Kind("the function's process is killed", kill, lambda lane: lane.at_the_next_socket(lambda: kill(lane))),
    Kind("the function says that it is unhealthy", fall_ill, fall_ill),
    Kind("the client resets", leave, slowly, client_leaves=True),
    Kind("the client closes its half", half_close, slowly, client_leaves=True),
]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times in ms since the fault."""

    fault: str
    moment: str
    direction: str
    client: str
    client_ms: int | None
    function: str
    function_ms: int | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.fault, self.moment, self.direction


def all_cases() -> Iterator[tuple[Kind, str, str]]:
    return itertools.product(KINDS, MOMENTS, DIRECTIONS)


def start(proxy: FaultProxy, notes: Path) -> Lane:
    """A lane for rows; its stack is the caller's to stop."""
    stack = Stack(
        "moments.py:handler",
        notes,
        environments=4,
        serve={
            "dial-address": proxy.url,
            "session-ping-interval": PING,
            "session-grace": GRACE,
            "linger": LINGER,
            "log-level": "debug",
        },
        gateways=[proxy.url],
    )
    return Lane(proxy, stack)


_numbers = itertools.count(1)


async def row(lane: Lane, kind: Kind, moment: str, direction: str) -> Row:
    """Play one, from parked to parked."""
    stack, key = lane.stack, f"row{next(_numbers)}"
    await _until_quiet(lane)
    lane.next_socket(Fault())
    lane.proxy.cut_all()
    await _until(lambda: not lane.proxy.connections)
    if not lane.proxy.is_listening:
        await lane.proxy.start()
    lane.client = reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    if moment == "dial":
        kind.before_dial(lane)
    halves = 2
    """That were sent."""
    struck_at = time.monotonic()
    if direction == "download":
        writer.write(f"GET /download?key={key}&wait={moment} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    else:
        writer.write(
            f"POST /upload?key={key}&wait={moment} HTTP/1.1\r\nHost: a\r\nContent-Length: {2 * HALF}\r\n\r\n".encode()
        )
        # What nobody reads yet stays in the client, and a FIN behind it: little, where the client is to leave.
        writer.write(bytes(1000 if kind.client_leaves and moment in ("dial", "head") else HALF))
        halves = 1
    reading = asyncio.ensure_future(_response(reader))
    try:
        if moment == "dial" and kind.client_leaves:
            await _until(lambda: lane.proxy.connections)
        if moment != "dial":
            if direction == "download":
                await _until(lambda: _noted(stack, key, {"head": "head", "body": "body", "end": "returned"}[moment]))
                if moment == "end":
                    await asyncio.wait_for(asyncio.shield(reading), PATIENCE)
            else:
                if moment == "end":
                    writer.write(bytes(HALF))
                    halves = 2
                await _until(lambda: _noted(stack, key, moment))
        if moment != "dial" or kind.client_leaves:
            struck_at = time.monotonic()
            kind.strike(lane)
        if not kind.client_leaves:
            (stack.notes / f"{key}.go").touch()
            writer.write(bytes(HALF) * (2 - halves))
        client, client_at = await asyncio.wait_for(reading, PATIENCE)
    finally:
        reading.cancel()
        writer.transport.abort()
    function, function_at = await _function(lane, key)
    if kind.client_leaves and client != "200, whole":
        client, client_at = "has left", None
    return Row(
        kind.name,
        MOMENTS[moment],
        direction,
        client,
        _ms(struck_at, client_at),
        function,
        _ms(struck_at, function_at),
    )


def _ms(since: float, at: float | None) -> int | None:
    return None if at is None or at < since else round((at - since) * 1000)


async def _response(reader: asyncio.StreamReader) -> tuple[str, float]:
    """What the client saw, and when."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut before the head", time.monotonic()
    status = head.split()[1]
    lengths = [line.partition(":")[2] for line in head.splitlines() if line.startswith("content-length:")]
    try:
        body = await reader.readexactly(int(lengths[0]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return f"{status}, cut", time.monotonic()
    at = time.monotonic()
    if status == "200":
        is_whole = body in (bytes(2 * HALF), str(2 * HALF).encode())
        return "200, whole" if is_whole else "200, WRONG", at
    return f"{status} `{json.loads(body)['type'].rpartition(':')[2]}`", at


def _noted(stack: Stack, key: str, name: str) -> list[float]:
    """When the function noted that."""
    return [float(words[1]) for line in stack.executions(key) if (words := line.split())[0] == name]


async def _function(lane: Lane, key: str) -> tuple[str, float | None]:
    """What became of the code, and when."""
    await _until_quiet(lane)
    lines = [line.split() for line in lane.stack.executions(key)]
    runs = sum(words[0] == "head" for words in lines)
    if not runs:
        return "not run", None
    ends = [words for words in lines if words[0] not in ("head", "body", "end")]
    if not ends:
        return "was killed", None
    how = "ran to its end" if ends[-1][0] == "returned" else "was cancelled"
    return how if runs == 1 else f"run again: {how}", float(ends[-1][1])


async def _until_quiet(lane: Lane) -> None:
    """Every environment is parked, or gone, and what the fault had left to do is done."""
    await _until(lambda: not lane.tasks and all(process.state(pid) == "T" for pid in lane.stack.environments))


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        for _ in iter(lambda: bool(condition()), True):
            await asyncio.sleep(0.005)
