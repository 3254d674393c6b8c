"""The whole service: reload, stop, being killed, and what is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from local_lambda import FunctionSettings, LocalLambda
from local_lambda.folders import PREFIX
from tests.local_lambda.conftest import Run
from tests.local_lambda.running import alive, eventually, process_state
from tests.local_lambda.test_function_url import WAIT

HELLO = "def handler(event, context): return 'hello'"
ORPHANAGE = """
import asyncio, sys
from pathlib import Path
from local_lambda import FunctionSettings, serve
settings = FunctionSettings("app.handler", Path(sys.argv[1]))
asyncio.run(serve(settings, "127.0.0.1", 0, log=lambda line: print(line.text, flush=True)))
"""
WARM_P50 = 0.050
"""Seconds; some 2 ms on a machine with nothing else to do. A process started per event would take longer."""


async def test_reload_runs_the_new_code_at_once(run: Run, tmp_path: Path) -> None:
    function = await run(WAIT)
    mark = tmp_path / "mark"
    waiting = asyncio.create_task(function.get(f"?mark={mark}"))
    await eventually(mark.exists)
    old = function.only.pid
    function.write("def handler(event, context): return 'new'")
    reloading = asyncio.create_task(function.service.reload(grace=30.0))
    await eventually(lambda: not function.service.environments)
    assert await function.get() == (200, "new")
    mark.unlink()  # the old code finishes within its grace
    assert await waiting == (200, "done")
    await reloading
    assert process_state(old) == ""
    assert await function.get() == (200, "new")


async def test_reload_ends_what_does_not_finish(run: Run, tmp_path: Path) -> None:
    function = await run(WAIT)
    mark = tmp_path / "mark"
    waiting = asyncio.create_task(function.get(f"?mark={mark}"))
    await eventually(mark.exists)
    old = function.only.pid
    await function.service.reload(grace=0.1)
    assert process_state(old) == ""
    assert await waiting == (502, "Internal Server Error")


async def test_prepared_code_is_initialised_before_it_serves(run: Run) -> None:
    function = await run("def handler(event, context): return 'old'")
    assert await function.get() == (200, "old")
    function.write("def handler(event, context): return 'new'")
    assert await function.service.prepare() is None
    assert await function.get() == (200, "old")
    await function.service.reload()
    prepared = function.only
    assert (prepared.state, process_state(prepared.pid)) == ("idle", "T")
    assert await function.get() == (200, "new")
    assert function.only.pid == prepared.pid


async def test_code_that_cannot_be_prepared_is_not_used(run: Run, tmp_path: Path) -> None:
    function = await run(WAIT)
    mark = tmp_path / "mark"
    waiting = asyncio.create_task(function.get(f"?mark={mark}"))
    await eventually(mark.exists)
    function.write("def handler(")
    error = await function.service.prepare()
    assert error is not None and error.type == "Runtime.UserCodeSyntaxError"
    function.service.hold()
    assert (await function.get())[0] == 429  # one more environment would run into the error
    mark.unlink()
    assert await waiting == (200, "done")
    function.write("def handler(event, context): return 'mended'")
    assert await function.service.prepare() is None
    await function.service.reload()
    assert await function.get() == (200, "mended")


async def test_an_environment_that_was_prepared_for_nothing_is_ended(run: Run) -> None:
    function = await run(HELLO)
    await function.service.prepare()
    await function.service.prepare()
    assert not function.service.environments
    # `stop`, and that nothing is left behind: the fixture's


async def test_reload_with_other_settings(run: Run) -> None:
    function = await run(
        "import os\ndef handler(event, context): return os.environ['COLOUR']", environment={"COLOUR": "red"}
    )
    assert await function.get() == (200, "red")
    other = FunctionSettings("app.handler", function.settings.root, environment={"COLOUR": "blue"})
    await function.service.reload(other)
    assert await function.get() == (200, "blue")


async def test_each_environment_serves_one_invocation_at_a_time(run: Run) -> None:
    function = await run(
        "import os, time\n"
        "busy = False\n"
        "def handler(event, context):\n"
        "  global busy\n"
        "  assert not busy\n"
        "  busy = True\n"
        "  time.sleep(0.01)\n"
        "  busy = False\n"
        "  return {'pid': os.getpid(), 'id': event['rawQueryString']}\n",
        environments=4,
    )
    turns = asyncio.Semaphore(4)

    async def one(number: int) -> None:
        async with turns:
            async with function.client.get(f"{function.url}?{number}") as response:
                assert (response.status, (await response.json())["id"]) == (200, str(number))

    await asyncio.gather(*map(one, range(100)))
    environments = function.service.environments
    assert len(environments) <= 4
    assert sum(environment.invocations for environment in environments) == 100


async def test_warm_invocations_are_quick(run: Run) -> None:
    function = await run(HELLO)
    await function.get()
    durations = []
    for _ in range(50):
        began = time.perf_counter()
        await function.get()
        durations.append(time.perf_counter() - began)
    assert sorted(durations)[25] < WARM_P50


async def test_port_in_use(run: Run) -> None:
    function = await run(HELLO)
    second = LocalLambda(function.settings, log=function.log.append)
    with pytest.raises(OSError, match="in use"):
        await second.start("127.0.0.1", int(function.url.rstrip("/").rpartition(":")[2]))
    await second.stop()


async def test_stop_leaves_nothing_behind(run: Run) -> None:
    before = left_behind(os.getpid())
    function = await run(
        "import subprocess\n"
        "def handler(event, context): return subprocess.Popen(['sleep', '60'], start_new_session=True).pid"
    )
    child = int((await function.get())[1])
    environment = function.only.pid
    own = left_behind(os.getpid()) - before
    assert own
    await function.service.stop()
    assert process_state(environment) == ""
    assert not own & left_behind(os.getpid())
    if any("cgroup" in path for path in own):  # the group knows also those that left the process group
        assert not alive(child)
    else:
        os.kill(child, signal.SIGKILL)


async def test_nothing_survives_the_death_of_the_parent(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os\ndef handler(event, context): return os.getpid()")
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ORPHANAGE,
        str(tmp_path),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        assert parent.stdout is not None
        while not (line := (await parent.stdout.readline()).decode()).startswith("Function URL: "):
            assert line
        function = await run(HELLO)
        async with function.client.get(line.split()[-1]) as response:
            pid = int(await response.text())
        assert left_behind(parent.pid)
    finally:
        parent.kill()
        await parent.wait()
    await eventually(lambda: process_state(pid) == "")
    await (await run(HELLO)).get()  # the next one clears up
    assert not left_behind(parent.pid)


def left_behind(owner: int) -> set[str]:
    """What the local Lambdas of a process have on this machine: control groups and temporary folders."""
    folders = [Path(tempfile.gettempdir()), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    return {str(path) for folder in folders for path in folder.glob(f"{PREFIX}{owner}.*")}
