"""The whole service: reload, stop, being killed, and what is left behind."""

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from local_lambda import FunctionSettings, LocalLambda, service
from local_lambda.folders import PREFIX
from tests.local_lambda.conftest import Run
from tests.local_lambda.running import PATIENCE, alive, eventually, process_state
from tests.local_lambda.test_function_url import WAIT

HELLO = "def handler(event, context): return 'hello'"
KEPT = """
import time
from package import words
def handler(event, context):
    from package import late  # imported with the first event, which the first environment had before anything broke
    time.sleep(0.3 if event["rawQueryString"] else 0)
    return f"{words.WORD} {late.WORD}"
"""
IMPORT_ERROR = "Runtime.ImportModuleError"
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
    assert "Status: error" not in function.report  # nothing went wrong that somebody should look into
    assert any("was stopped before it had answered" in text for text in function.lines("platform"))
    assert not any("Runtime.ExitError" in line.text for line in function.log)


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


async def test_code_that_cannot_be_prepared_is_not_used(run: Run) -> None:
    """Not by the environments that there are, nor by those that are started later."""
    function = await run("", environments=3)
    root = function.settings.root
    (root / "package").mkdir()
    (root / "package" / "words.py").write_text("WORD = 'old'")
    (root / "package" / "late.py").write_text("WORD = 'late'")
    function.write(KEPT)
    assert await function.service.prepare() is None
    await function.service.reload()
    assert await function.get() == (200, "old late")
    for broken in ("def handler(", "raise RuntimeError('on import')", None):
        if broken is None:
            shutil.rmtree(root / "package")
            (root / "app.py").unlink()
        else:
            function.write(broken)
            (root / "package" / "words.py").write_text(broken)
        error = await function.service.prepare()
        assert error is not None and error.type in ("Runtime.UserCodeSyntaxError", "RuntimeError", IMPORT_ERROR)
        pid = function.only.pid
        answers = await asyncio.gather(*(function.get("?sleep") for _ in range(3)))  # two more environments
        assert answers == [(200, "old late")] * 3
        assert len(function.service.environments) == 3
        for environment in function.service.environments:
            os.kill(environment.pid, signal.SIGKILL)
        await eventually(lambda: not function.service.environments)
        assert await function.get() == (200, "old late")
        assert function.only.pid != pid
    function.write("def handler(event, context): return 'mended'")
    assert await function.service.prepare() is None
    await function.service.reload()
    assert await function.get() == (200, "mended")
    assert len(list(function.scratch.glob("*.sources"))) == 1


async def test_kept_code_says_that_it_is_the_file_on_disk(run: Run) -> None:
    function = await run(
        "import inspect, os\n"
        "def handler(event, context):\n"
        "  if event['rawQueryString']: raise RuntimeError('on purpose')\n"
        "  return [__file__, os.getcwd(), inspect.getsourcefile(handler), __spec__.cached]\n"
    )
    root = function.settings.root
    assert await function.service.prepare() is None
    await function.service.reload()
    file = str(root / "app.py")
    cached = importlib.util.cache_from_source(file)
    assert json.loads((await function.get())[1]) == [file, str(root), file, cached]
    assert (await function.get("?raise"))[0] == 502
    assert any(f'File "{file}", line 3, in handler' in text for text in function.lines("function"))
    assert not any("kept_sources" in text for text in function.lines("function"))


async def test_what_is_saved_twice_in_a_second_is_no_stale_bytecode(run: Run) -> None:
    function = await run("", environment={"PYTHONDONTWRITEBYTECODE": ""})
    file = function.settings.root / "app.py"
    second = int(time.time())
    for number, word in enumerate(("one", "two", "six")):  # sources of one size, with times of one second
        function.write(f"def handler(event, context): return '{word}'")
        os.utime(file, ns=(0, second * 10**9 + number))
        assert await function.service.prepare() is None
        await function.service.reload()
        assert await function.get() == (200, word)
    os.utime(file, ns=(0, (second - 60) * 10**9))
    await function.service.prepare()
    assert list(function.settings.root.glob("__pycache__/app.*.pyc"))  # where nothing speaks against it, it is kept


async def test_packages_of_an_interpreter_in_the_task_root_are_not_copied(run: Run) -> None:
    function = await run(
        "import sys\n"
        "sys.path.append(__file__.replace('app.py', '.venv/lib/site-packages'))\n"
        "import large\n"
        "def handler(event, context): return large.WORD\n"
    )
    packages = function.settings.root / ".venv" / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "large.py").write_text("WORD = 'from site-packages'")
    assert await function.service.prepare() is None
    await function.service.reload()
    assert await function.get() == (200, "from site-packages")
    copies = [path.name for path in function.scratch.glob("*.sources/**/*.py")]
    assert copies == ["app.py"]


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


async def test_an_event_that_meets_a_dying_process_goes_to_another_one(run: Run, tmp_path: Path) -> None:
    """Half of these met it before anybody knew, and were answered 502."""
    noted = tmp_path / "noted"
    function = await run(
        "def handler(event, context):\n"
        f"  with open({str(noted)!r}, 'a') as file: file.write(event['rawQueryString'] + ' ')\n"
    )
    for number in range(16):
        assert await function.get(f"?{number}") == (200, "null")
        pid = function.only.pid
        await eventually(lambda pid=pid: process_state(pid) == "T")
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(number % 4 * 0.0005)
        assert await function.get(f"?{number}+") == (200, "null")
    events = noted.read_text().split()
    assert events == [f"{number}{again}" for number in range(16) for again in ("", "+")]  # each exactly once
    assert any("ended before it took the event" in text for text in function.lines("platform"))


async def test_an_event_that_was_taken_is_not_given_to_another_one(run: Run, tmp_path: Path) -> None:
    """Whatever the function did to its descriptors before it ended."""
    noted = tmp_path / "noted"
    function = await run(
        "import os\n"
        "def handler(event, context):\n"
        f"  with open({str(noted)!r}, 'a') as file: file.write('x')\n"
        "  os.closerange(0, 1000)\n"
        "  os._exit(0)\n"
    )
    assert await function.get() == (502, "Internal Server Error")
    assert noted.read_text() == "x"
    used = re.search(r"Max Memory Used: (\d+) MB", function.report)  # although nobody can look any more
    assert used and int(used[1]) > 5


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
    assert not alive(child)


async def test_a_caretaker_that_does_not_end_is_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CARETAKER_TIMEOUT", 0.1)
    function = await run(HELLO)
    (caretaker,) = caretakers(os.getpid())
    os.kill(caretaker, signal.SIGSTOP)
    await asyncio.wait_for(function.service.stop(), PATIENCE)
    assert not alive(caretaker)


def caretakers(owner: int) -> list[int]:
    """Those of the local Lambdas of a process."""
    lists = (task / "children" for task in Path(f"/proc/{owner}/task").iterdir())
    pids = [int(pid) for children in lists for pid in children.read_text().split()]
    return [pid for pid in pids if "caretaker.py" in Path(f"/proc/{pid}/cmdline").read_text()]


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
    await eventually(lambda: process_state(pid) == "" and not left_behind(parent.pid))


def left_behind(owner: int) -> set[str]:
    """What the local Lambdas of a process have on this machine: control groups and temporary folders."""
    folders = [Path(tempfile.gettempdir()), Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")]
    return {str(path) for folder in folders for path in folder.glob(f"{PREFIX}{owner}.*")}
