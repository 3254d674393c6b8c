"""Promise 1: a chunk is at the client within 50 ms of being written, and nothing waits for what follows."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from datetime import datetime

import pytest

from tests.e2e.command import REPOSITORY
from tests.e2e.lag import Lag
from tests.e2e.stack import Stack, free_port

AT_ONCE = 0.05
"""Seconds from writing to arrival."""
SHOWN = re.compile(r"^(\d\d:\d\d:\d\d\.\d\d\d)  \+(\d+\.\d+) s  (Chunk \d)$")


def test_make_demo_streams_five_lines_a_second_apart(lag: Lag) -> None:
    demo = subprocess.run(
        ["make", "demo", "ONCE=1", f"PORT={free_port()}"], cwd=REPOSITORY, capture_output=True, text=True, timeout=100
    )
    assert demo.returncode == 0, demo.stderr
    shown = [found for line in demo.stdout.splitlines() if (found := SHOWN.match(line))]
    assert [found[3] for found in shown] == [f"Chunk {number}" for number in range(1, 6)]
    times = [datetime.strptime(found[1], "%H:%M:%S.%f") for found in shown]
    for earlier, later in zip(times, times[1:], strict=False):
        assert abs((later - earlier).total_seconds() % 86400 - 1) < lag.allow(AT_ONCE)


@pytest.mark.parametrize("interval", [0.02, 0.2])
def test_each_chunk_arrives_within_50_ms_of_being_written(stack: Stack, lag: Lag, interval: float) -> None:
    stack.get("/hello")
    with stack.connect() as connection:
        connection.request("GET", f"/ticks?count={int(2 / interval)}&interval={interval}")
        response = connection.response()
    delays = [chunk.time - float(chunk.data.split()[1]) for chunk in response.chunks]
    assert len(delays) == int(2 / interval), "chunks were joined or cut"
    assert max(delays) < lag.allow(AT_ONCE), sorted(delays)[-5:]
    assert statistics.median(delays) < lag.allow(AT_ONCE) / 5


def test_each_piece_of_an_upload_is_answered_before_the_next_is_sent(stack: Stack, lag: Lag) -> None:
    stack.get("/hello")
    with stack.connect() as connection:
        connection.request("POST", "/echo", "Transfer-Encoding: chunked")
        response = None
        delays = []
        for number in range(20):
            sent = b"piece %d" % number
            began = time.monotonic()
            connection.chunk(sent)
            if response is None:
                response = connection.head()
                pieces = connection.pieces(response)
            assert next(pieces).data == sent
            delays.append(time.monotonic() - began)
            time.sleep(0.01)
        connection.chunk(b"")
        assert list(pieces) == []
    assert max(delays) < lag.allow(2 * AT_ONCE), sorted(delays)[-5:]


def test_the_head_does_not_wait_for_the_first_piece(stack: Stack, lag: Lag) -> None:
    """A head with a content type of its own leaves at once, so that a client sees that its request is being served."""
    stack.get("/hello")
    with stack.connect() as connection:
        connection.request("GET", "/slow_start?wait=0.5")
        began = time.monotonic()
        response = connection.head()
        assert response.status == 200 and time.monotonic() - began < lag.allow(2 * AT_ONCE) < 0.4
        assert [chunk.data for chunk in connection.pieces(response)] == [b"at last"]
        assert time.monotonic() - began > 0.45
