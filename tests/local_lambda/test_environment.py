"""Environments: frozen, thawed, timed out, out of memory, crashed, never initialised; their variables and their log."""

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import struct
import sys
import termios
from pathlib import Path

import pytest

from local_lambda import FunctionSettings, InitError, check_init
from local_lambda.control_group import ControlGroups
from tests.local_lambda.conftest import Run
from tests.local_lambda.running import PATIENCE, Running, eventually, process_state

HELLO = "def handler(event, context): return 'hello'"
# Connects at the first event and writes until the kernel takes no more. At `?awake` it stays awake until we say enough.
SENDER = """
import socket
peer = None
def handler(event, context):
    global peer
    query = event["rawQueryString"]
    if query == "awake":
        peer.setblocking(True)
        said = b""
        while not said.endswith(b"enough"):
            said += peer.recv(100)
        return said.decode()
    peer = socket.create_connection(("127.0.0.1", int(query)))
    peer.setblocking(False)
    sent = 0
    try:
        while True:
            sent += peer.send(bytes(65536))
    except BlockingIOError:
        return sent
"""
STILLNESS = 1.2
"""Seconds in which nothing may arrive: twice the kernel's interval between two tries, and some."""


def network_freeze_missing() -> str:
    """Why this machine does not freeze networks, or ""."""
    try:
        ControlGroups.open().close()
    except OSError as error:
        return str(error)
    return ""


needs_network_freeze = pytest.mark.skipif(
    bool(network_freeze_missing()), reason=f"the network cannot be frozen here: {network_freeze_missing()}"
)


async def test_process_is_stopped_between_invocations(run: Run) -> None:
    function = await run(HELLO)
    for _ in range(3):
        assert await function.get() == (200, "hello")
        await eventually(lambda: process_state(function.only.pid) == "T")


@pytest.mark.parametrize(
    "new_session", [False, pytest.param(True, marks=needs_network_freeze)], ids=["same session", "new session"]
)
async def test_its_children_are_stopped_too(run: Run, new_session: bool) -> None:
    function = await run(
        "import subprocess\n"
        f"def handler(event, context): return subprocess.Popen(['sleep', '60'], start_new_session={new_session}).pid"
    )
    child = int((await function.get())[1])
    await eventually(lambda: process_state(child) == "T")
    function.pids.add(child)  # and must be gone at the end


async def test_freeze_none(run: Run, tmp_path: Path) -> None:
    function = await run(
        "import threading, time\n"
        "def tick(path):\n"
        "  while True:\n"
        "    open(path, 'a').write('x')\n"
        "    time.sleep(0.01)\n"
        "def handler(event, context):\n"
        "  threading.Thread(target=tick, args=[event['rawQueryString']], daemon=True).start()\n",
        freeze="none",
    )
    ticks = tmp_path / "ticks"
    await function.get(f"?{ticks}")
    await eventually(lambda: ticks.exists() and ticks.stat().st_size > 20)


def receive(peer: socket.socket, count: int, patience: float) -> int:
    """Read up to `count` bytes; return how many came before nothing came for `patience` seconds."""
    peer.settimeout(patience)
    received = 0
    try:
        while received < count:
            received += len(peer.recv(1 << 20))
    except TimeoutError:
        pass
    return received


def unacknowledged(peer: socket.socket) -> int:
    """Bytes that were sent and that the other side's kernel has not acknowledged (SIOCOUTQ, see tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)))[0])


async def send(function: Running) -> tuple[socket.socket, int]:
    """Have the function write to us, who do not read; return our socket and how much it wrote."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sent = int((await function.get(f"?{server.getsockname()[1]}"))[1])
        peer, _ = server.accept()
    return peer, sent


@needs_network_freeze
async def test_what_was_written_before_the_freeze_arrives_after_the_thaw(run: Run) -> None:
    function = await run(SENDER)
    peer, sent = await send(function)
    with peer:
        received = await asyncio.to_thread(receive, peer, sent, STILLNESS)
        assert received < sent  # what had reached our own receive buffer
        awake = asyncio.create_task(function.get("?awake"))
        assert received + await asyncio.to_thread(receive, peer, sent - received, PATIENCE) == sent
        peer.sendall(b"enough")
        assert await awake == (200, "enough")


@needs_network_freeze
async def test_frozen_environment_acknowledges_nothing(run: Run) -> None:
    function = await run(SENDER)
    peer, _ = await send(function)
    with peer:
        peer.sendall(b"are you there? ")
        await asyncio.sleep(STILLNESS)
        assert unacknowledged(peer) == 15
        awake = asyncio.create_task(function.get("?awake"))
        await eventually(lambda: unacknowledged(peer) == 0)
        peer.sendall(b"enough")
        assert await awake == (200, "are you there? enough")


async def test_kernel_delivers_for_a_process_that_is_only_stopped(run: Run) -> None:
    """Why the network must be frozen as well; and that the two tests above can fail."""
    function = await run(SENDER, freeze="process")
    peer, sent = await send(function)
    with peer:
        await eventually(lambda: process_state(function.only.pid) == "T")
        assert await asyncio.to_thread(receive, peer, sent, STILLNESS) == sent


async def test_timeout(run: Run) -> None:
    function = await run("import time\ndef handler(event, context): time.sleep(60)", timeout=0.5)
    waiting = asyncio.create_task(function.get())
    await eventually(lambda: function.service.environments and function.only.state == "busy")
    pid = function.only.pid
    assert await waiting == (502, "Internal Server Error")
    assert process_state(pid) == ""
    assert any(re.fullmatch(r"\S+Z \S+ Task timed out after 0\.50 seconds", t) for t in function.lines("platform"))
    assert function.report.endswith("\tStatus: timeout\t")
    assert 500 <= float(re.search(r"\tDuration: ([\d.]+) ms", function.report)[1]) < 1500  # type: ignore[index]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("sys.exit(0)", "Runtime exited without providing a reason"),
        ("sys.exit(3)", "Runtime exited with error: exit status 3"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
    ],
)
async def test_process_that_ends(run: Run, statement: str, message: str) -> None:
    function = await run(
        f"import os, sys\ndef handler(event, context):\n  if event['rawPath'] == '/': {statement}\n  return 'alive'"
    )
    assert await function.get() == (502, "Internal Server Error")
    assert any(text.endswith(f"Error: {message}\nRuntime.ExitError") for text in function.lines("platform"))
    assert function.report.endswith("\tStatus: error\tError Type: Runtime.ExitError\t")
    assert await function.get("again") == (200, "alive")  # in a new environment
    assert function.only.invocations == 1


async def test_memory(run: Run) -> None:
    function = await run(
        "import time\ndef handler(event, context):\n  hoard = b'x' * (200 << 20)\n  time.sleep(60)", memory=128
    )
    assert await function.get() == (502, "Internal Server Error")
    assert function.report.endswith("\tStatus: error\tError Type: Runtime.OutOfMemory\t")
    assert int(re.search(r"Max Memory Used: (\d+) MB", function.report)[1]) >= 128  # type: ignore[index]


async def test_process_killed_while_idle_is_replaced(run: Run) -> None:
    function = await run(HELLO)
    await function.get()
    os.kill(function.only.pid, signal.SIGKILL)
    await eventually(lambda: not function.service.environments)
    assert await function.get() == (200, "hello")


async def test_idle_environment_is_reaped(run: Run) -> None:
    function = await run(HELLO, idle_timeout=0.2)
    await function.get()
    pid = function.only.pid
    await eventually(lambda: not function.service.environments and process_state(pid) == "")


@pytest.mark.parametrize(
    ("source", "error_type", "text"),
    [
        ("def handler(", "Runtime.UserCodeSyntaxError", "def handler("),
        ("import nowhere", "Runtime.ImportModuleError", "No module named 'nowhere'"),
        ("1 / 0", "ZeroDivisionError", "division by zero"),
        ("x = 1", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'"),
        ("import sys; print('I cannot'); sys.exit(4)", "Runtime.ExitError", "exit status 4\nI cannot"),
    ],
)
async def test_init_error(run: Run, source: str, error_type: str, text: str) -> None:
    function = await run(source)
    assert await function.get() == (502, "Internal Server Error")
    (line,) = [line for line in function.lines("platform") if line.startswith("INIT_REPORT")]
    assert line.endswith(f"\tPhase: init\tStatus: error\tError Type: {error_type}")
    if error_type != "Runtime.ExitError":
        assert any(f"[ERROR] {error_type}: " in entry and text in entry for entry in function.lines("function"))
    assert not function.service.environments
    error = await check_init(function.settings)
    assert isinstance(error, InitError)
    assert error.type == error_type
    assert text in str(error)


async def test_check_init_of_a_good_function(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(HELLO)
    assert await check_init(FunctionSettings("app.handler", tmp_path)) is None


async def test_check_init_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    source = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    (tmp_path / "app.py").write_text(source)
    checking = asyncio.create_task(check_init(FunctionSettings("app.handler", tmp_path)))
    await eventually(lambda: mark.exists() and mark.read_text())
    checking.cancel()
    await asyncio.wait({checking})
    assert process_state(int(mark.read_text())) == ""


async def test_init_that_hangs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_lambda.environment.MINIMUM_INIT_TIMEOUT", 0.5)
    function = await run("import time; time.sleep(60)", timeout=0.5)
    assert await function.get() == (502, "Internal Server Error")
    assert any(text.endswith("Error Type: Sandbox.Timedout") for text in function.lines("platform"))


async def test_python_that_does_not_exist(run: Run) -> None:
    function = await run(HELLO, python="/nowhere/python")
    assert await function.get() == (502, "Internal Server Error")
    assert any(text.endswith("Error Type: Runtime.InvalidEntrypoint") for text in function.lines("platform"))
    assert not function.service.environments


async def test_variables(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_MAX_CONCURRENCY", "2")  # would have the runtime client fork workers
    monkeypatch.setenv("_LAMBDA_TELEMETRY_LOG_FD", "1")
    monkeypatch.setenv("OF_THE_CALLER", "passed")
    monkeypatch.setenv("OF_BOTH", "caller")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    function = await run(
        "import os, sys\ndef handler(event, context): return {**os.environ, 'cwd': os.getcwd(), 'path': sys.path[0]}",
        environment={"OF_BOTH": "function", "AWS_LAMBDA_MAX_CONCURRENCY": "3"},
        memory=256,
    )
    given = json.loads((await function.get())[1])
    root = str(function.settings.root)
    expected = {
        "_HANDLER": "app.handler",
        "_X_AMZN_TRACE_ID": given["_X_AMZN_TRACE_ID"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/function",
        "AWS_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": root,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "OF_THE_CALLER": "passed",
        "OF_BOTH": "function",
        "TZ": ":UTC",
        "cwd": root,
        "path": root,
    }
    assert expected.items() <= given.items()
    assert not {"AWS_LAMBDA_MAX_CONCURRENCY", "_LAMBDA_TELEMETRY_LOG_FD"} & given.keys()
    assert given["AWS_LAMBDA_LOG_STREAM_NAME"].endswith(f"[$LATEST]{function.only.id}")


async def test_temporary_folder_lives_as_long_as_its_environment(run: Run) -> None:
    function = await run("import tempfile\ndef handler(event, context): return tempfile.mkdtemp()")
    folders = [(await function.get())[1] for _ in range(2)]
    assert os.path.dirname(folders[0]) == os.path.dirname(folders[1])
    assert all(map(os.path.exists, folders))
    await function.service.reload()
    assert not any(map(os.path.exists, folders))


async def test_log_of_an_invocation(run: Run) -> None:
    function = await run(
        "import logging, os, sys\n"
        "def handler(event, context):\n"
        "  print('one')\n"
        "  print('two', file=sys.stderr)\n"
        "  logging.getLogger().warning('three')\n"
        "  os.write(1, b'four \\xff ' + b'x' * 300_000)\n"  # no newline, and longer than an entry may be
    )
    async with function.client.get(function.url) as response:
        request_id = response.headers["x-amzn-requestid"]
    await function.service.stop()
    texts = [line.text for line in function.log if line.environment]
    assert texts[0] == f"START RequestId: {request_id} Version: $LATEST"
    assert texts[1:3] == ["one", "two"]
    assert re.fullmatch(rf"\[WARNING\]\t\S+Z\t{request_id}\tthree", texts[3])
    assert texts[4].startswith("four \ufffd xxx")
    assert len(texts[4].encode(errors="replace")) <= 256 * 1024 + 2
    assert re.fullmatch(r"x+", texts[5])  # an entry, though no newline came
    assert len("".join([texts[4], texts[5]])) == 300_000 + 7
    assert texts[6] == f"END RequestId: {request_id}"
    pattern = (
        rf"REPORT RequestId: {request_id}\tDuration: [\d.]+ ms\tBilled Duration: (\d+) ms\tMemory Size: 1024 MB\t"
        r"Max Memory Used: (\d+) MB\tInit Duration: ([\d.]+) ms\t"
    )
    report = re.fullmatch(pattern, texts[7])
    assert report
    billed, memory, init = map(float, report.groups())
    assert billed > init > 0
    assert memory > 5
    assert len({line.environment for line in function.log if line.environment}) == 1


async def test_every_line_is_logged_before_the_report(run: Run) -> None:
    function = await run("def handler(event, context):\n  for n in range(20_000): print('line', n)")
    await function.get()
    assert function.lines("function") == [f"line {n}" for n in range(20_000)]
    assert function.log[-1].text == function.report
