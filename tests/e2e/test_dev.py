"""`dialback dev`: save, and new requests get the new code; a mistake keeps the old; and what it prints is of use."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import process
from tests.e2e.command import Command
from tests.e2e.dev import Dev
from tests.e2e.patience import wait_for
from tests.e2e.stack import free_port
from tests.e2e.wire import ConnectionCut

SOURCE = """
import asyncio
from dialback import Request, Response, stream_handler

WORD = "{word}"

@stream_handler
async def handler(request: Request) -> Response:
    async def body():
        for number in range(int(request.query.get("count", "1"))):
            yield f"{{WORD}} {{number}}\\n"
            await asyncio.sleep(0.1)
    if request.path == "/raise":
        raise RuntimeError("broken on purpose")
    return Response(body(), headers={{"content-type": "text/plain"}})
"""

SLOW = """
import time
from dialback import Request, stream_handler

time.sleep(2)

@stream_handler
async def handler(request: Request) -> str:
    return "at last"
"""


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    save(tmp_path, "first")
    with Dev("handler.py:handler", tmp_path) as dev:
        yield dev


def save(root: Path, word: str) -> None:
    (root / "handler.py").write_text(SOURCE.format(word=word))


def test_a_save_gives_new_requests_the_new_code_and_lets_streams_finish(dev: Dev, tmp_path: Path) -> None:
    assert dev.get("/") == b"first 0\n"
    with dev.connect() as connection:
        connection.request("GET", "/?count=12")
        response = connection.head()
        pieces = connection.pieces(response)
        next(pieces)
        (old,) = dev.command.environments()
        save(tmp_path, "second")
        wait_for(lambda: dev.get("/") == b"second 0\n")
        assert process.is_alive(old), "it did not wait for the stream"
        assert len(list(pieces)) == 11
    assert response.body == b"".join(b"first %d\n" % number for number in range(12))
    wait_for(lambda: not process.is_alive(old))


def test_a_stream_that_does_not_finish_in_two_seconds_is_cut(dev: Dev, tmp_path: Path) -> None:
    with dev.connect() as connection:
        connection.request("GET", "/?count=1000")
        pieces = connection.pieces(connection.head())
        next(pieces)
        save(tmp_path, "second")
        lines = len(dev.command.lines)
        dev.command.line("saved handler.py", after=max(0, lines - 5))
        noticed = time.monotonic()
        with pytest.raises(ConnectionCut):
            list(pieces)
        assert 1.5 < time.monotonic() - noticed < 3.5
    dev.command.line("GET / 200 aborted.* reason='new code took its place: ")
    assert dev.get("/") == b"second 0\n"


def test_a_syntax_error_keeps_the_old_code_and_is_printed(dev: Dev, tmp_path: Path) -> None:
    assert dev.get("/") == b"first 0\n"
    (tmp_path / "handler.py").write_text("def handler(:\n")
    dev.command.line("handler.py.*cannot run, the old code goes on")
    dev.command.line("SyntaxError")
    assert dev.get("/") == b"first 0\n"
    save(tmp_path, "third")
    wait_for(lambda: dev.get("/") == b"third 0\n")


def test_code_that_fails_on_import_keeps_the_old_code_and_is_printed(dev: Dev, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(SOURCE.format(word="x") + "\n1 / 0\n")
    dev.command.line("ZeroDivisionError")
    assert dev.get("/") == b"first 0\n"


def test_while_the_file_is_broken_new_environments_have_the_old_code(dev: Dev, tmp_path: Path) -> None:
    """Three at once, and then in place of one that was killed: nobody waits, nobody meets the broken file."""
    assert dev.get("/") == b"first 0\n"
    (tmp_path / "handler.py").write_text("def handler(:\n")
    dev.command.line("cannot run, the old code goes on")
    connections = [dev.connect() for _ in range(3)]
    for connection in connections:
        connection.request("GET", "/?count=10")
    for connection in connections:
        with connection:
            assert connection.response().body == b"".join(b"first %d\n" % number for number in range(10))
    assert len(dev.command.environments()) == 3
    for environment in dev.command.environments():
        os.kill(environment, signal.SIGKILL)
    wait_for(lambda: not dev.command.environments())
    assert dev.get("/") == b"first 0\n"


def test_what_the_code_reads_itself_is_as_on_disk_and_its_fault_is_told_at_once(tmp_path: Path) -> None:
    """Only sources are kept. An environment that cannot start for another file's sake is a 502, and no silence."""
    (tmp_path / "settings.toml").write_text('word = "first"\n')
    (tmp_path / "handler.py").write_text(
        "import tomllib\nfrom dialback import stream_handler\n\n"
        "with open('settings.toml', 'rb') as file: WORD = tomllib.load(file)['word']\n\n"
        "@stream_handler\ndef handler(request): return WORD\n"
    )
    with Dev("handler.py:handler", tmp_path) as dev:
        assert dev.get("/") == b"first"
        (tmp_path / "settings.toml").write_text("word: first\n")
        dev.command.line("saved settings.toml: the new code cannot run, the old code goes on")
        assert dev.get("/") == b"first"
        (environment,) = dev.command.environments()
        os.kill(environment, signal.SIGKILL)
        wait_for(lambda: not dev.command.environments())
        lines = len(dev.command.lines)
        began = time.monotonic()
        with dev.connect() as connection:
            connection.request("GET", "/")
            response = connection.response()
        assert time.monotonic() - began < 10
        assert (response.status, response.value(b"content-type")) == (502, b"application/problem+json")
        dev.command.line("TOMLDecodeError", after=lines)
        (tmp_path / "settings.toml").write_text('word = "third"\n')
        wait_for(lambda: dev.get("/") == b"third")


def test_a_module_that_the_handler_imports_is_reloaded_too(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text('WORD = "first"\n')
    (tmp_path / "handler.py").write_text(
        "from dialback import stream_handler\nfrom words import WORD\n\n"
        "@stream_handler\ndef handler(request): return WORD\n"
    )
    with Dev("handler.py:handler", tmp_path) as dev:
        assert dev.get("/") == b"first"
        (tmp_path / "words.py").write_text('WORD = "second"\n')
        wait_for(lambda: dev.get("/") == b"second")


def test_tracebacks_are_in_the_terminal_whole(dev: Dev) -> None:
    with dev.connect() as connection:
        connection.request("GET", "/raise")
        response = connection.response()
    assert response.status == 502 and b"on purpose" not in response.body
    dev.command.line("Traceback \\(most recent call last\\)")
    dev.command.line("RuntimeError: broken on purpose$")
    dev.command.line("GET /raise 502 failed")


def test_a_request_that_comes_before_ready_waits(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("import time\ntime.sleep(1)\n" + SOURCE.format(word="first"))
    dev = Dev("handler.py:handler", tmp_path)
    wait_for(lambda: is_listening(dev.port))
    with dev.connect() as early:
        early.request("GET", "/")
        with dev:
            assert early.response().body == b"first 0\n"
    assert "refused" not in dev.command.output


def test_environments_that_are_kept_awake_are_invoked_when_the_code_can_run(tmp_path: Path) -> None:
    save(tmp_path, "first")
    with Dev("handler.py:handler", tmp_path, DIALBACK_MIN_LEASED="2") as dev:
        wait_for(lambda: sum(" START " in line for line in dev.command.lines) == 2)
        assert "invocation." not in dev.command.output  # refused for the want of code, and tried again


def test_what_comes_before_the_code_can_run_waits_for_it(tmp_path: Path) -> None:
    """It was refused by a platform without environments, and tried again ever more seldom."""
    (tmp_path / "handler.py").write_text(SLOW)
    port = free_port()
    dev = Command("dev", "handler.py:handler", "--port", str(port), cwd=tmp_path)
    try:
        wait_for(lambda: is_listening(port))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.read() == b"at last"
    finally:
        dev.stop()
    assert "Ready: " in dev.output and "invocation." not in dev.output


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_says_where_to_curl(dev: Dev) -> None:
    assert f"Ready: {dev.url}/  (curl -N {dev.url}/)" in dev.command.lines


def test_a_busy_port_says_which_and_what_to_type(dev: Dev, tmp_path: Path) -> None:
    second = Command("dev", "handler.py:handler", "--port", str(dev.port), cwd=tmp_path)
    try:
        assert second.wait() == 1
    finally:
        second.stop()
    assert f"port {dev.port}" in second.output and f"--port {dev.port + 1}" in second.output
    assert "Traceback" not in second.output
    assert dev.get("/") == b"first 0\n"
