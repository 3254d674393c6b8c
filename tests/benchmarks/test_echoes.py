"""The WebSocket client of the benchmarks: every message it sends comes back or it says so, and it answers pings."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="not among what is installed")

from benchmarks import subject
from benchmarks.client import Broken, TickStreams
from benchmarks.echoes import Echoes

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"
FRAME = 2 + 4 + 100


@pytest.fixture(scope="module")
def uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subject.Subject]:
    started = subject.uvicorn(Path(tmp_path_factory.mktemp("bench")))
    yield started
    started.stop()


def test_those_that_talk_get_all_back_beside_those_that_do_not(uvicorn: subject.Subject) -> None:
    sockets = Echoes(uvicorn.port)
    sockets.open(5)
    seen = sockets.echo(sockets.open(3), 0.05, 1.0)
    sockets.close()
    assert 3 <= len(seen.latencies) == len(seen.lags) <= 61
    assert min(seen.latencies) > 0
    assert min(seen.lags) >= 0


def against(serve: Callable[[socket.socket], None], seconds: float) -> list[float]:
    """Latencies of one socket's message before a server that does that after the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(UPGRADED)
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        sockets = Echoes(listener.getsockname()[1])
        try:
            return sockets.echo(sockets.open(1), 60.0, seconds).latencies
        finally:
            sockets.close()
            thread.join()


def test_a_frame_that_comes_in_pieces_is_read_whole_and_a_ping_is_answered() -> None:
    answered: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        message = connection.recv(FRAME, socket.MSG_WAITALL)
        connection.sendall(b"\x89\x02hi\x81")
        answered.append(connection.recv(8, socket.MSG_WAITALL))
        connection.sendall(b"\x64" + message[6:50])
        connection.sendall(message[50:])
        connection.recv(1)

    assert len(against(serve, 0.1)) == 1
    assert answered == [b"\x8a\x82\0\0\0\0hi"]


@pytest.mark.parametrize(
    "answer", [b"\x88\x02\x03\xe8", b"\x81\x05hello", b""], ids=["a close", "other text", "the end"]
)
def test_what_is_no_echo_is_not_measured(answer: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(FRAME, socket.MSG_WAITALL)
        connection.sendall(answer)

    with pytest.raises(Broken):
        against(serve, 0.1)


def test_nothing_ticks_for_clients_that_have_left(uvicorn: subject.Subject) -> None:
    """It would be charged to whatever is measured next."""
    streams = TickStreams(uvicorn.port, 50, 0.01)
    before = uvicorn.measured.cpu()
    streams.delays(1.0)
    ticking = uvicorn.measured.cpu() - before
    streams.close()
    time.sleep(0.5)
    before = uvicorn.measured.cpu()
    time.sleep(1.0)
    assert uvicorn.measured.cpu() - before < ticking / 4
