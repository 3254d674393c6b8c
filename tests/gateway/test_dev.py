"""`dialback dev` as a developer meets it: the real command, the real runtime client, saves and signals."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.gateway.command import PATIENCE, Command, is_alive, run

STREAM = """
import asyncio
from dialback import stream_handler

VERSION = "first"

@stream_handler
async def handler(request):
    async def body():
        yield VERSION
        while request.path == "/endless":
            await asyncio.sleep(0.05)
            yield "."
    if request.path == "/raise":
        raise RuntimeError("no luck today")
    return body()
"""
LOADS_FOR_EVER = """
import socket, time
socket.create_connection(("127.0.0.1", PORT))
time.sleep(600)
handler = None
"""
RELOAD_GRACE = 2.0
"""Seconds that running streams get on save; promised in the issue and in `--help`."""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "app.py"
    file.write_text(STREAM)
    return file


def dev(app: Path, *flags: str, **variables: str) -> Command:
    return Command("dev", "app.py:handler", "--port", "0", *flags, cwd=app.parent, **variables)


Get = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def get() -> Iterator[Get]:
    """Sends a GET for a path of a URL, and returns when the head of the response is there."""
    with contextlib.ExitStack() as connections:

        def send(url: str, path: str = "/", **fields: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=8)
            connections.callback(connection.close)
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
            return connection.getresponse()

        yield send


def test_streams_from_the_first_byte_on_and_leaves_nothing_behind(app: Path, get: Get) -> None:
    with dev(app) as command:
        url = command.ready()
        assert f"Ready: {url}  (curl -N {url})\n" in command.output
        assert get(url).read() == b"first"
        command.wait_for("REPORT RequestId")  # the environment is idle now, and frozen
        endless = get(url, "/endless")
        assert endless.read1(5) == b"first"
        started = command.descendants()
        assert started
        code, seconds = command.stop()
        assert code == 0
        assert seconds < RELOAD_GRACE + 2
        with pytest.raises(http.client.IncompleteRead):
            endless.read()
        assert not [pid for pid in started if is_alive(pid)]
        assert "Traceback" not in command.output
        with socket.create_server(("127.0.0.1", urlsplit(url).port or 0)):
            pass  # the port is free again


def test_a_save_gives_new_requests_the_new_code_and_old_streams_two_seconds(app: Path, get: Get) -> None:
    with dev(app) as command:
        url = command.ready()
        old = get(url, "/endless")
        assert old.read1(5) == b"first"
        saved = time.monotonic()
        app.write_text(STREAM.replace("first", "second"))
        command.wait_for("saved app.py: new requests get the new code")
        assert get(url).read() == b"second"
        with pytest.raises(http.client.IncompleteRead):
            old.read()
        assert time.monotonic() - saved < RELOAD_GRACE + 4  # the new code is tried first


def test_a_function_gets_from_the_gateway_what_it_would_get_when_deployed(app: Path, get: Get) -> None:
    app.write_text(STREAM.replace("yield VERSION", "yield VERSION * 1000"))
    flags = ("--affinity", "header:room", "--timeouts-queue-wait", "1", "--compression", "off")
    with dev(app, *flags, DIALBACK_COMPRESSION="gzip", DIALBACK_LISTEN="of another gateway") as command:
        url = command.ready()
        endless = get(url, "/endless", room="one")
        assert endless.read1(5) == b"first"
        assert get(url, room="one").status == 503, "its environment is busy, and no other will do"
        other = get(url, room="two", accept_encoding="gzip")
        assert other.status == 200 and other.headers["content-encoding"] is None, "flags win over variables"
    with dev(app, DIALBACK_COMPRESSION="gzip") as command:
        assert get(command.ready(), accept_encoding="gzip").headers["content-encoding"] == "gzip"


def test_a_handler_that_nothing_was_wrapped_around_is_hinted_at_once(app: Path, get: Get) -> None:
    app.write_text("class App:\n    async def __call__(self, scope, receive, send): ...\nhandler = App()\n")
    with dev(app) as command:
        url = command.ready()
        for _ in range(2):
            assert get(url).status == 502
        command.wait_for("missing 1 required positional argument: 'send'")
        assert command.output.count("is its handler made by stream_handler, asgi_handler") == 1


def test_all_that_is_wrong_in_flags_and_variables_is_said_at_once(app: Path) -> None:
    flags = ("--compression", "loud", "--cancel-after", "soon", "--admin", "nowhere")
    ended = run("dev", "app.py:handler", "--port", "0", *flags, cwd=app.parent, DIALBACK_AFFINITY="room")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    for name in ("--compression must", "--cancel-after must", "--admin is HOST:PORT", "DIALBACK_AFFINITY must"):
        assert name in ended.stderr


def test_code_that_cannot_run_changes_nothing_and_is_shown(app: Path, get: Get) -> None:
    with dev(app) as command:
        url = command.ready()
        for broken, said in (
            ("def handler(:\n", "SyntaxError"),
            (STREAM.replace("VERSION =", "no_such_name  #"), "NameError: name 'no_such_name' is not defined"),
            (STREAM.replace("def handler", "def handled"), "did you mean handled?"),
        ):
            seen = len(command.output)
            app.write_text(broken)
            command.wait_for("saved app.py: the new code cannot run, the old code goes on", after=seen)
            command.wait_for(said.replace("?", "[?]"), after=seen)
            assert get(url).read() == b"first"
            assert get(url).read() == b"first"  # while the environment of the one before may not be idle yet
        seen = len(command.output)
        app.unlink()
        command.wait_for("app.py cannot be read: No such file", after=seen)
        app.write_text(STREAM.replace("first", "mended"))
        command.wait_for("new requests get the new code")
        assert get(url).read() == b"mended"


@pytest.mark.parametrize("moved", ["part/app.py", "part"])
def test_a_handler_that_is_moved_away_is_told_and_the_old_code_goes_on(app: Path, get: Get, moved: str) -> None:
    """With its folder, too: then nothing is said of the file itself."""
    there, away = app.parent / moved, (app.parent / moved).with_name("moved.py")
    (app.parent / "part").mkdir()
    app.rename(app.parent / "part/app.py")
    with Command("dev", "part/app.py:handler", "--port", "0", cwd=app.parent) as command:
        url = command.ready()
        there.rename(away)
        command.wait_for("app.py cannot be read: No such file")
        assert get(url).read() == b"first"
        away.rename(there)
        command.wait_for("new requests get the new code")
        assert get(url).read() == b"first"


def test_a_module_beside_the_handler_reloads_it_and_what_is_no_source_does_not(app: Path, get: Get) -> None:
    helper = app.parent / "words.py"
    helper.write_text("WORD = 'one'")
    app.write_text(STREAM.replace('"first"', "__import__('words').WORD"))
    with dev(app) as command:
        url = command.ready()
        assert get(url).read() == b"one"
        for name in (
            ".git/x.py",
            ".venv/lib/x.py",
            "__pycache__/x.py",
            "app.log",
            ".#app.py",
            "app.py~",
            ".app.py.swp",
        ):
            file = app.parent / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x")
        helper.write_text("WORD = 'two'")
        command.wait_for("^.* saved words.py: new requests get the new code$")
        assert get(url).read() == b"two"
        assert command.output.count("saved") == 1


def test_no_reload_keeps_the_code(app: Path, get: Get) -> None:
    with dev(app, "--no-reload") as command:
        url = command.ready()
        assert get(url).read() == b"first"
        app.write_text(STREAM.replace("first", "second"))
        assert get(url).read() == b"first"
    assert "saved" not in command.output


def test_an_exception_is_a_502_for_the_client_and_a_traceback_in_the_terminal(app: Path, get: Get) -> None:
    with dev(app) as command:
        response = get(command.ready(), "/raise")
        assert response.status == 502
        body = response.read().decode()
        assert "no luck" not in body and "Traceback" not in body
        command.wait_for("RuntimeError: no luck today")
        assert "app.py" in command.wait_for("Traceback[^$]*?no luck today")[0]


def test_code_that_cannot_run_at_the_start_ends_with_1(app: Path) -> None:
    app.write_text(STREAM.replace("VERSION =", "no_such_name  #"))
    result = run("dev", "app.py:handler", "--port", "0", cwd=app.parent)
    assert result.returncode == 1
    assert "app.py:handler cannot run" in result.stderr
    assert "NameError: name 'no_such_name' is not defined" in result.stderr
    assert "Ready" not in result.stdout


def test_a_syntax_error_at_the_start_ends_with_2(app: Path) -> None:
    app.write_text("def handler(:\n")
    result = run("dev", "app.py:handler", "--port", "0", cwd=app.parent)
    assert result.returncode == 2
    assert "SyntaxError" in result.stderr


def test_a_busy_port_says_what_to_type(app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = run("dev", "app.py:handler", "--port", str(port), cwd=app.parent)
    assert result.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use by another program. Type: --port {port + 1}" in result.stderr


def test_a_file_that_shadows_ours_is_told(app: Path) -> None:
    (app.parent / "gateway.py").touch()
    with dev(app) as command:
        command.ready()
        assert "gateway.py has the name of a package of Dialback's" in command.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_code_is_loaded_ends_it(app: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, dev(app) as command:
        listener.settimeout(PATIENCE)
        app.write_text(LOADS_FOR_EVER.replace("PORT", str(listener.getsockname()[1])))
        listener.accept()[0].close()
        started = command.descendants()
        assert started
        code, seconds = command.stop(number)
        assert code == 0
        assert seconds < 5
        assert not [pid for pid in started if is_alive(pid)]
