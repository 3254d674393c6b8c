"""The two servers, each in processes of its own: uvicorn with the parser of `uvicorn[standard]`, and the real stack."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.cases import Site
from tests.conformance.other_apps import UVICORN
from tests.conformance.websocket_cases import MAX_MESSAGE
from tests.e2e.command import Command, CommandEnded
from tests.e2e.stack import Stack, free_port

ROOT = Path(__file__).parent
START_SECONDS = 30.0


@contextmanager
def uvicorn(app: str = "app:app", *flags: str) -> Iterator[Site]:
    """Raises `CommandEnded` where it does not come to listen."""
    port = free_port()
    server = Command(
        *("-m", "uvicorn", f"tests.conformance.{app}", "--port", str(port), "--http", "httptools"),
        *("--ws", "websockets-sansio", "--ws-max-size", str(MAX_MESSAGE), *(flags or ("--lifespan", "on"))),
        program=(sys.executable,),
    )
    try:
        _wait_for(port, server)
        yield Site(port, _another_uvicorn)
    finally:
        server.interrupt()
        server.stop()


@contextmanager
def dialback(notes: Path, handler: str = "app.py:handler") -> Iterator[Site]:
    """`notes`: an empty folder."""
    stack = Stack(handler, notes, environments=1, root=ROOT)
    try:
        yield Site(stack.port, _another_dialback)
    finally:
        stack.stop()


def _another_uvicorn(name: str, target: str) -> bytes | None:
    app, *flags = UVICORN[name]
    try:
        with uvicorn(f"other_apps:{app}", *flags) as site:
            return site.get(target)
    except CommandEnded:
        return None


def _another_dialback(name: str, target: str) -> bytes | None:
    with tempfile.TemporaryDirectory() as notes, dialback(Path(notes), f"other_apps.py:{name}") as site:
        return site.get(target)


def _wait_for(port: int, server: Command) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if server.exit_code is not None:
                raise CommandEnded(server.output) from None
            assert time.monotonic() < deadline, "uvicorn does not listen"
            time.sleep(0.05)
