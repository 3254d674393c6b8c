"""The command: what it says to somebody who typed something wrong, and that what it tells to type works."""

from __future__ import annotations

import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import shadows
from gateway.cli.target import TargetError, check_source, parse
from protocol import session
from tests.gateway.command import ROOT, Command, is_alive, run

SECRET = "s" * 32
HANDLER = """
from dialback import stream_handler

@stream_handler
def handler(request):
    yield "one "
    yield "two"
"""
PLAIN = "def handler(event, context):\n    return {'path': event['rawPath']}\n"


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# --- FILE.py:NAME ----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for file in ("app.py", "examples/chunks.py", "a.b/app.py", "app.v2.py", "data.txt"):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HANDLER)
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("def handler(:\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "app.py").write_text(HANDLER)
    return folder


@pytest.mark.parametrize(
    ("text", "root", "task_root", "handler"),
    [
        ("app.py:handler", None, "project", "app.handler"),
        ("./examples/chunks.py:handler", None, "project", "examples/chunks.handler"),
        ("examples/chunks.py:handler", "examples", "project/examples", "chunks.handler"),
        ("../outside/app.py:handler", None, "outside", "app.handler"),
        ("../outside/app.py:handler", "..", "", "outside/app.handler"),
        ("a.b/app.py:handler", "a.b", "project/a.b", "app.handler"),
    ],
)
def test_task_root_and_handler(project: Path, text: str, root: str | None, task_root: str, handler: str) -> None:
    target = parse(text, Path(root) if root else None, directory=project)
    assert target.root == project.parent / task_root
    assert target.handler == handler


@pytest.mark.parametrize(
    ("text", "root", "said"),
    [
        ("app.py", None, "Type: app.py:handler"),
        ("empty.py", None, "empty.py is a file without a function. Put one into it:\n    from dialback import"),
        ("broken.py", None, "Type: broken.py:handler"),
        ("nothing.py", None, "is not FILE.py:NAME"),
        ("app:handler", None, "did you mean app.py:handler?"),
        ("examples.chunks:handler", None, "did you mean examples/chunks.py:handler?"),
        ("examples/chunk.py:handler", None, "did you mean examples/chunks.py:handler?"),
        ("none/app.py:handler", None, "there is no folder"),
        ("data.txt:handler", None, "must end in .py"),
        ("app.py:", None, "type: app.py:handler"),
        ("app.py:handler()", None, "no name of a function"),
        ("app.py:app.handler", None, "no name of a function"),
        ("a.b/app.py:handler", None, "has a dot in its name"),
        ("app.v2.py:handler", None, "has a dot in its name"),
        ("app.py:handler", "examples", "is not inside --root examples"),
        ("app.py:handler", "none", "--root none is no folder"),
    ],
)
def test_a_wrong_target_is_answered_with_the_right_one(project: Path, text: str, root: str | None, said: str) -> None:
    with pytest.raises(TargetError, match=re.escape(said)):
        parse(text, Path(root) if root else None, directory=project)


@pytest.mark.parametrize(
    "source",
    [
        HANDLER,
        "handler = make()",
        "handler = None\ndef choose():\n    global handler\n    handler = make()\nchoose()",
        "handler = 3\nhandler = make()",
        "from elsewhere import handler",
        "from elsewhere import other as handler",
        "from elsewhere import *",
        "try:\n    import a\nexcept ImportError:\n    handler = 1",
        "if x:\n    pass\nelse:\n    handler: object = 1",
        "a, (handler, b) = c",
        "def handler(): ...\nhandler = wrap(handler)",
    ],
)
def test_every_way_to_bind_a_name_is_seen(project: Path, source: str) -> None:
    (project / "app.py").write_text(source)
    check_source(parse("app.py:handler", directory=project), must_stream=True)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def handle(): ...", "did you mean handle?"),
        ("def main(): ...\ndef other(): ...", "its functions are: main, other"),
        ("x = 1", "it has no function at all. Put one into it:\n    from dialback import stream_handler"),
        ("handler = 3", "'handler' in app.py is a value, no function; it has no function at all. Put one into it:"),
        ("handler: dict = {}\ndef main(): ...", "is a value, no function; its functions are: main"),
        ("def f():\n    handler = 1", "its functions are: f"),
        ("def handler(:\n  pass", "SyntaxError"),
        ("x = '\0'", "null"),
        (PLAIN, "from dialback import stream_handler"),
        ("async def handler(request): ...", "is a plain function"),
    ],
)
def test_a_source_that_cannot_serve_is_said_without_running_it(project: Path, source: str, said: str) -> None:
    (project / "app.py").write_text(source)
    with pytest.raises(TargetError, match=re.escape(said)):
        check_source(parse("app.py:handler", directory=project), must_stream=True)


def test_of_an_apps_names_its_handler_is_the_one_to_type(project: Path) -> None:
    app = "app = FastAPI()\n@app.get('/')\ndef home(): ...\nhandler = asgi_handler(app)\n"
    (project / "app.py").write_text(app)
    for wrong in ("main", "home_page", "application"):
        with pytest.raises(TargetError, match=r"did you mean handler\?"):
            check_source(parse(f"app.py:{wrong}", directory=project), must_stream=True)


def test_a_local_lambda_takes_plain_functions(project: Path) -> None:
    (project / "app.py").write_text(PLAIN)
    check_source(parse("app.py:handler", directory=project), must_stream=False)


# --- small commands --------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_a_way_to_begin(tmp_path: Path) -> None:
    said = run("--help", cwd=tmp_path).stdout
    for command in ("dev", "serve", "lambda", "check", "secret", "init"):
        assert re.search(rf"^  {command} +[A-Z]", said, re.MULTILINE)
        assert run(command, "--help", cwd=tmp_path).returncode == 0
    assert "dialback dev handler.py:handler" in said


def test_version(tmp_path: Path) -> None:
    says = run("--version", cwd=tmp_path).stdout
    assert re.fullmatch(r"dialback \S+, (compiled|interpreted)\n", says)
    assert ("compiled" in says) == str(session.__file__).endswith(".so"), "it is what it says"


def test_secrets_are_long_enough_and_never_the_same(tmp_path: Path) -> None:
    first, second = (run("secret", cwd=tmp_path).stdout.strip() for _ in range(2))
    assert first != second
    assert len(first.encode()) >= 32


def test_init_writes_a_handler_that_dev_takes_and_never_over_another(tmp_path: Path) -> None:
    assert "dialback dev handler.py:handler" in run("init", cwd=tmp_path).stdout
    check_source(parse("handler.py:handler", directory=tmp_path), must_stream=True)
    (tmp_path / "handler.py").write_text("mine")
    again = run("init", cwd=tmp_path)
    assert again.returncode == 1
    assert "dialback init another_handler.py" in again.stderr
    assert (tmp_path / "handler.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dev", "nothing.py:handler"], "there is no file nothing.py"),
        (["lambda", "nothing.py:handler"], "there is no file nothing.py"),
        (["serve"], "add: --function-url"),
        (["serve", "--linger", "x"], "--linger must be a number"),
        (["serve", "--config", "nothing.toml"], "nothing.toml cannot be read"),
        (["check"], "dialback check dialback.toml"),
        (["sevre"], "serve"),
    ],
)
def test_what_is_missing_or_wrong_ends_with_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_says_every_problem_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('lingr = 1\nlisten = "x"\n')
    result = run("check", "d.toml", cwd=tmp_path)
    assert result.returncode == 1
    for said in ("did you mean linger?", "d.toml: listen is HOST:PORT", "DIALBACK_SECRET is not set", "no function"):
        assert said in result.stderr


def test_check_of_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('listen = "[::]:80"\ndial_address = "ws://a:80"\nfunction_url = "http://b/"\n')
    result = run("check", "d.toml", cwd=tmp_path, DIALBACK_SECRET=SECRET)
    assert result.returncode == 0
    assert "nothing is wrong" in result.stdout
    assert "note: functions refuse ws://a:80" in result.stdout
    assert SECRET not in result.stdout + result.stderr


def test_check_finds_files_that_shadow_ours(tmp_path: Path) -> None:
    for file in ("protocol.py", "gateway/__init__.py", "lambda_client/notes.txt", "sub/protocol.py", "mine.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    result = run("check", "--root", str(tmp_path), cwd=tmp_path.parent)
    assert result.returncode == 1
    assert "my_protocol.py" in result.stderr
    assert "my_gateway" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_our_own_files_in_a_task_root_shadow_nothing(tmp_path: Path) -> None:
    assert shadows.find(ROOT) == []
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "__init__.py").touch()
    assert len(shadows.find(tmp_path)) == 1
    record = tmp_path / "dialback-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("protocol/__init__.py,sha256=x,1\n")
    assert shadows.find(tmp_path) == []


# --- servers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
def test_serve_says_which_port_is_busy_and_what_to_type(tmp_path: Path, busy_port: int, flag: str) -> None:
    addresses = {"--listen": "127.0.0.1:0", "--admin": "127.0.0.1:0", flag: f"127.0.0.1:{busy_port}"}
    options = [text for pair in addresses.items() for text in pair]
    result = run("serve", "--function-url", "http://127.0.0.1:1/", *options, cwd=tmp_path, DIALBACK_SECRET=SECRET)
    assert result.returncode == 1
    assert f"port {busy_port} of 127.0.0.1 is in use" in result.stderr
    assert f"Type: {flag} 127.0.0.1:{busy_port + 1}" in result.stderr


def test_serve_refuses_the_slow_http_parser(tmp_path: Path) -> None:
    result = run(
        "serve", "--function-url", "http://a/", cwd=tmp_path, DIALBACK_SECRET=SECRET, AIOHTTP_NO_EXTENSIONS="1"
    )
    assert result.returncode == 2
    assert "Unset AIOHTTP_NO_EXTENSIONS" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_local_lambda_serves_any_handler_and_leaves_nothing_behind(project: Path, number: signal.Signals) -> None:
    (project / "app.py").write_text(PLAIN)
    with Command("lambda", "app.py:handler", "--port", "0", cwd=project) as command:
        url = command.ready()
        with urllib.request.urlopen(f"{url}some/path") as response:
            assert response.read() == b'{"path":"/some/path"}'
        started = command.descendants()
        assert started
        code, seconds = command.stop(number)
        assert code == 0
        assert seconds < 4
        assert not [pid for pid in started if is_alive(pid)]
        assert "REPORT RequestId" in command.output
        assert "DIALBACK_SECRET is not set" in command.output


def test_a_gateway_and_a_local_lambda_from_two_commands(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # free again when the block ends; both sides must know it before either runs
    shared = {"DIALBACK_SECRET": SECRET}
    dial = f"ws://127.0.0.1:{port}"
    with (
        Command("lambda", "app.py:handler", "--port", "0", cwd=project, DIALBACK_GATEWAY=dial, **shared) as function,
        Command(
            *("serve", "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--log-format", "json"),
            *("--function-url", function.ready()),
            cwd=project,
            **shared,
        ) as gateway,
    ):
        with urllib.request.urlopen(gateway.ready()) as response:
            assert response.read() == b"one two"
        assert gateway.stop(signal.SIGTERM)[0] == 0
        assert function.stop()[0] == 0
        assert '"status": 200' in gateway.output
        assert SECRET not in gateway.output + function.output
