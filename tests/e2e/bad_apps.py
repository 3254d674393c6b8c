"""What apps do wrong, and what then happens: the table of docs/apps.md, made by `python -m tests.e2e.bad_apps`.

Each row is tried on the real stack beside a stream of the same environment that does nothing wrong.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.e2e.command import REPOSITORY
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.wire import ConnectionCut, WireResponse

DOCUMENT = REPOSITORY / "docs" / "apps.md"
BEGIN, END = (
    "<!-- what bad apps do, made by `python -m tests.e2e.bad_apps`: begin -->",
    "<!-- what bad apps do: end -->",
)
SECRET = "in its own words"
SETTLES = 0.2
"""Seconds in which the log has what it will have."""
WAITS = 1.5
"""Seconds without a piece, of which there are fifty a second, after which a stream waits."""

ASGI, WEBSOCKET, WSGI = "ASGI", "ASGI WebSocket", "WSGI"
COROUTINE, THREAD = "`async def`", "`def`"
NATIVE, NATIVE_THREAD = "native `async def`", "native `def`"
HANDLERS = {
    ASGI: "asgi",
    WEBSOCKET: "asgi",
    WSGI: "wsgi",
    COROUTINE: "coroutine",
    THREAD: "thread",
    NATIVE: "native",
    NATIVE_THREAD: "native_thread",
}
"""Kind of handler → its name in handlers/misbehaving.py."""
ON_LOOP = (ASGI, WEBSOCKET, COROUTINE, NATIVE)
EVERY = tuple(HANDLERS)
HTTP = tuple(kind for kind in EVERY if kind != WEBSOCKET)


class Bad(NamedTuple):
    """A thing that apps do wrong."""

    path: str
    what: str
    kinds: tuple[str, ...]
    has_place: bool = True
    """Whether the log names the request and the line of the app."""


BAD = (
    Bad("raises-first", "raises before its response", EVERY),
    Bad("raises-between", "raises between two pieces", EVERY),
    Bad("raises-last", "raises after the end", (ASGI, WSGI, NATIVE, NATIVE_THREAD)),
    Bad("recursion", "recurses for ever", HTTP),
    Bad("memory", "`MemoryError`", HTTP),
    Bad("exits", "`sys.exit()`", HTTP),
    Bad("exits-at-once", "`os._exit()`, a crash", HTTP, has_place=False),
    Bad("exits-in-a-task", "`sys.exit()` in a task of its own", (ASGI, COROUTINE, NATIVE), has_place=False),
    Bad("silent", "begins no response", EVERY, has_place=False),
    Bad("half", "returns before the end of its response", (ASGI,)),
    Bad("wrong-value", "returns what is no response", EVERY, has_place=False),
    Bad("no-await", "returns a coroutine: an `await` is missing", (COROUTINE,)),
    Bad("wrong-head", "a status of a wrong type", (ASGI, WSGI)),
    Bad("wrong-type", "sends a piece of a wrong type", EVERY),
    Bad("out-of-order", "sends before it has begun", (ASGI, WEBSOCKET, WSGI)),
    Bad("starts-twice", "begins twice", (ASGI, WEBSOCKET, WSGI)),
    Bad("unknown", "sends a message that there is not", (ASGI, WEBSOCKET)),
    Bad("sends-after-the-end", "sends after the end", (ASGI, WEBSOCKET, NATIVE, NATIVE_THREAD)),
    Bad("too-much", "sends more than its Content-Length", (ASGI, WSGI, COROUTINE, THREAD)),
    Bad("too-little", "sends less than its Content-Length", (ASGI, WSGI, COROUTINE, THREAD)),
    Bad("unread", "never reads the body, of 1 MiB", (ASGI, WSGI, COROUTINE, THREAD), has_place=False),
    Bad("ignores", "goes on when its client has left", EVERY, has_place=False),
    Bad("blocks", "blocks the event loop", ON_LOOP),
    Bad("prints", "prints 2 MB", HTTP, has_place=False),
    Bad("leaks-tasks", "leaves 100 tasks behind", (ASGI, COROUTINE, NATIVE), has_place=False),
    Bad("leaks-threads", "leaves 20 threads behind", HTTP, has_place=False),
)
CASES = [(bad, kind) for bad in BAD for kind in bad.kinds]


@dataclass(frozen=True)
class Seen:
    """What came of it."""

    client: str
    log: str
    others: str


class Beside:
    """A stream that does nothing wrong, in the same environment. Read by a thread, so that its times are true."""

    def __init__(self, stack: Stack) -> None:
        self._connection = stack.connect()
        self._connection.request("GET", "/ticks")
        self._pieces = self._connection.pieces(self._connection.head())
        next(self._pieces)
        self._longest = 0.0
        self._is_lost = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def fate(self) -> str:
        """Leave it; what has become of it."""
        is_lost = self._is_lost
        assert self._thread.is_alive() or is_lost, "it has ended by itself"
        if not is_lost:
            self._connection.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.socket.close()
        return "lost" if is_lost else "wait" if self._longest > WAITS else "unharmed"

    def _run(self) -> None:
        latest = time.time()
        try:
            for piece in self._pieces:
                self._longest = max(self._longest, piece.time - latest)
                latest = piece.time
        except ConnectionCut:
            self._is_lost = True


def observe(stack: Stack, bad: Bad, kind: str) -> Seen:
    """Try it once."""
    beside = Beside(stack)
    try:
        lines, notes = len(stack.function.lines), len(stack.executions("noted"))
        client = (_converse if kind == WEBSOCKET else _ask)(stack, bad)
        if bad.path == "ignores":
            wait_for(lambda: len(stack.executions("noted")) > notes)
        if bad.has_place:
            stack.function.line(r"request [0-9a-f]{32}: ", after=lines)
        time.sleep(SETTLES)
    finally:
        fate = beside.fate()
    log = stack.function.lines[lines:]
    assert SECRET not in stack.gateway.output and not stack.mistakes()
    assert stack.get("/nothing-wrong"), "it goes on"
    return Seen(client, _said(log, bad), fate)


def _ask(stack: Stack, bad: Bad) -> str:
    with stack.connect() as connection:
        if bad.path == "unread":
            connection.request("POST", "/unread", body=bytes(1 << 20))
        else:
            connection.request("GET", f"/{bad.path}")
        if bad.path == "ignores":
            next(connection.pieces(connection.head()))
            return "has left"
        return _told(connection.response())


def _told(response: WireResponse) -> str:
    assert SECRET.encode() not in response.body and b"Traceback" not in response.body
    if response.value(b"content-type") == b"application/problem+json":
        return f"{response.status} `{json.loads(response.body)['type'].rpartition(':')[2]}`"
    return f"{response.status}, {'cut' if response.failure else 'whole'}"


def _converse(stack: Stack, bad: Bad) -> str:
    try:
        with connect(f"ws://{stack.authority}/{bad.path}", open_timeout=30) as client:
            if bad.path == "ignores":
                return "has left"
            while True:
                client.recv(timeout=30)
    except InvalidStatus as refused:
        return f"{refused.response.status_code}, whole"
    except ConnectionClosed as end:
        return f"close {end.rcvd.code}" if end.rcvd else "cut"


def _said(log: list[str], bad: Bad) -> str:
    """The first line that names the request, and the error's own, without what differs from run to run."""
    text = "\n".join(log)
    if "Runtime.ExitError" in text:
        return "Lambda's own: `Runtime.ExitError`"
    said = re.search(r"request [0-9a-f]{32}: (.*)((?:\n(?!\d\d:).*)*)", text)
    if said is None:
        assert not bad.has_place
        return "nothing"
    first = re.sub(r"(?:for [\d.]+ s so far, )?at /\S*/misbehaving\.py:\d+ in \w+", "at FILE:LINE", said[1])
    assert "FILE:LINE" in first or not bad.has_place, said[1]
    errors = re.findall(r"^(?:\w+\.)*(?:[A-Z]\w+): (.+)$", said[2], re.MULTILINE)
    return f"`{first.partition('. Await')[0]}`" + (f": {errors[-1]}" if errors else "")


def render(found: dict[tuple[Bad, str], Seen]) -> str:
    """The table; kinds of handler with the same end share a row."""
    lines = ["| the code | in | the client | the function's log | other streams |", "|---|---|---|---|---|"]
    for bad in BAD:
        ends: dict[Seen, list[str]] = {}
        for kind in bad.kinds:
            ends.setdefault(found[bad, kind], []).append(kind)
        for seen, kinds in ends.items():
            cells = (bad.what, ", ".join(kinds), seen.client, seen.log.replace("|", "\\|"), seen.others)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def documented() -> dict[tuple[str, str], Seen]:
    """What the table says, by code and kind."""
    said: dict[tuple[str, str], Seen] = {}
    table = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    for line in table.strip().splitlines()[2:]:
        what, kinds, client, log, others = line.strip("| ").replace("\\|", "|").split(" | ")
        said |= {(what, kind): Seen(client, log, others) for kind in kinds.split(", ")}
    return said


def start(kind: str, notes: Path) -> Stack:
    """One environment, which has served a request."""
    once = {"retry-count": 0, "breaker-failures": 0}
    stack = Stack(f"misbehaving.py:{HANDLERS[kind]}", notes, environments=1, serve=once)
    stack.get("/nothing-wrong")
    return stack


def main() -> int:
    """Try everything, and write the table."""
    found: dict[tuple[Bad, str], Seen] = {}
    for kind in EVERY:
        with tempfile.TemporaryDirectory() as notes:
            stack = start(kind, Path(notes))
            try:
                found |= {(bad, of): observe(stack, bad, kind) for bad, of in CASES if of == kind}
            finally:
                stack.stop()
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{render(found)}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
