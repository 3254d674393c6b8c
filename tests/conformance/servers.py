"""The two servers, each in processes of its own: uvicorn with the parser of `uvicorn[standard]`, and the real stack."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.cases import Site
from tests.conformance.websocket_cases import MAX_MESSAGE
from tests.e2e.command import Command
from tests.e2e.stack import Stack, free_port

ROOT = Path(__file__).parent
START_SECONDS = 30.0


@contextmanager
def uvicorn() -> Iterator[Site]:
    port = free_port()
    server = Command(
        *("-m", "uvicorn", "tests.conformance.app:app", "--port", str(port), "--http", "httptools", "--lifespan", "on"),
        *("--ws", "websockets-sansio", "--ws-max-size", str(MAX_MESSAGE)),
        program=(sys.executable,),
    )
    try:
        _wait_for(port)
        yield Site(port)
    finally:
        server.interrupt()
        server.stop()


@contextmanager
def dialback(notes: Path) -> Iterator[Site]:
    """`notes`: an empty folder."""
    stack = Stack("app.py:handler", notes, environments=1, root=ROOT)
    try:
        yield Site(stack.port)
    finally:
        stack.stop()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "uvicorn does not listen"
            time.sleep(0.05)
