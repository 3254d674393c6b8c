"""The benchmarks' client and origin: what counts as a response was one, whole, of the size asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvloop", reason="not on this platform")

from benchmarks import client, subject

MIB = 1 << 20


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subject.Subject]:
    started = subject.origin(Path(tmp_path_factory.mktemp("bench")))
    yield started
    started.stop()


def test_bodies_of_the_size_that_was_asked_for_pass_both_ways(origin: subject.Subject) -> None:
    for streams in (1, 3):
        assert client.download(origin.port, MIB, streams) > 0
        assert client.upload(origin.port, MIB, streams) > 0


def test_ticks_come_with_their_delay(origin: subject.Subject) -> None:
    streams = client.TickStreams(origin.port, 5, 0.02)
    delays = streams.delays(1.0)
    streams.close()
    assert 50 <= len(delays) <= 260
    assert all(0 < delay < 5 for delay in delays)


def test_paced_requests_are_counted_where_they_are_answered(origin: subject.Subject) -> None:
    assert 2 <= client.paced(origin.port, 2, 0.05, 0.5) <= 20


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ],
    ids=["an error", "a cut response"],
)
def test_what_is_no_whole_success_is_not_measured(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(client.Broken):
            client.download(listener.getsockname()[1], MIB)
        thread.join()


def test_cpu_is_what_the_process_used(origin: subject.Subject) -> None:
    before = origin.measured.cpu()
    client.download(origin.port, 64 * MIB)
    used = origin.measured.cpu() - before
    assert 0.001 < used < 60
