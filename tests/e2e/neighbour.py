"""A healthy stream beside whatever a test does to the gateway; it must not notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.stack import Stack
from tests.e2e.wire import WireResponse

TICKS, INTERVAL = 15, 0.02
NEIGHBOUR_DELAY = 0.1
"""Seconds that a chunk of the healthy stream may be late."""


@contextmanager
def healthy_stream(stack: Stack) -> Iterator[None]:
    """A stream beside the block, which must not notice anything."""
    result: list[WireResponse] = []

    def run() -> None:
        with stack.connect() as connection:
            connection.request("GET", f"/ticks?count={TICKS}&interval={INTERVAL}")
            began.set()
            result.append(connection.response())

    began = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    try:
        yield
    finally:
        thread.join()
    (response,) = result
    assert response.failure is None and len(response.chunks) == TICKS
    assert max(chunk.time - float(chunk.data.split()[1]) for chunk in response.chunks) < NEIGHBOUR_DELAY
    assert not stack.mistakes()
