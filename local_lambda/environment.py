"""One environment: a process with AWS's runtime client that serves one invocation after the other, frozen in between.

It knows the Runtime API and the process; it knows nothing of HTTP fronts, nor of other environments.
"""

import asyncio
import contextlib
import mmap
import os
import re
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from local_lambda.control_group import ControlGroup, ControlGroups
from local_lambda.output import Output, Telemetry
from local_lambda.report import Report, failure_text
from local_lambda.runtime_api import Answer, FunctionError, Invocation, RuntimeApi
from local_lambda.settings import EnvironmentState, FunctionSettings, InitError, LogLine, State
from local_lambda.variables import variables

MINIMUM_INIT_TIMEOUT = 10.0
"""Seconds for the init phase, or the function's timeout if that is longer."""
MEMORY_INTERVAL = 0.25
"""Seconds between two looks at a busy process's memory."""
TERMINATION_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL."""
LAST_WORDS = 20
"""Log entries that explain why a process ended while it was initialised."""
TELEMETRY_VARIABLE = "_LAMBDA_TELEMETRY_LOG_FD"
"""Where AWS's runtime client looks for the pipe of its own entries."""
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


class Environment:
    """Begins with `start`; ends when its process ends, by itself or by `stop`. `ended` is then done."""

    def __init__(
        self,
        settings: FunctionSettings,
        scratch: Path,
        groups: ControlGroups | None,
        log: Callable[[LogLine], None],
        *,
        sources: Path | None = None,
    ) -> None:
        """`scratch`: a folder in which this environment may have one of its own; `sources`: one in which those that
        run the same code keep it (see `kept_sources`), or None to import what is on disk."""
        self.id = os.urandom(4).hex()
        self.state: State = "starting"
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._scratch = scratch / self.id
        self._sources = sources
        self._groups = groups
        self._log = log
        self._api = RuntimeApi(self._on_waiting, self._on_init_error)
        self._output = Output(self._forward)
        self._telemetry = Telemetry(self._forward)
        self._taken_file = tempfile.TemporaryFile()
        self._taken_file.write(bytes(1))
        self._taken_file.flush()
        self._taken = mmap.mmap(self._taken_file.fileno(), 1)
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._group: ControlGroup | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._polled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = False
        self._init_error: InitError | None = None
        self._init_duration = 0.0
        self._started = time.monotonic()
        self._invocations = 0
        self._peak_memory = 0

    @property
    def snapshot(self) -> EnvironmentState:
        age = time.monotonic() - self._started
        return EnvironmentState(self.id, self._pid, self.state, self._invocations, age)

    async def start(self) -> InitError | None:
        """Start the process and wait until it asks for its first event. Where it fails, the environment has ended."""
        error = await self._initialise()
        self._init_duration = time.monotonic() - self._started
        if error is None:
            self.state = "idle"
            return None
        duration = f"{self._init_duration * 1000:.2f} ms"
        self._say(f"INIT_REPORT Init Duration: {duration}\tPhase: init\tStatus: error\tError Type: {error.type}")
        return error

    async def serve(self, invocation: Invocation) -> Answer | None:
        """Give it one event; return when it waits for the next one, and is frozen, or when it has ended.

        None: its process had ended, or was ending, and no code has seen the event. Its state must be "idle" or "ended".
        """
        if self.state == "ended":
            return None
        self.state = "busy"
        self._polled = asyncio.get_running_loop().create_future()
        self._invocations += 1
        self._say(f"START RequestId: {invocation.id} Version: $LATEST")
        began = time.monotonic()
        self._sample_memory()  # a process that ends by itself cannot be asked any more
        self._taken[0] = 0
        self._thaw()
        self._api.give(invocation, time.time() + self._settings.timeout)
        failure = await self._outcome(began)
        duration = time.monotonic() - began
        if self.ended.done() and not self._taken[0]:
            self._say(f"RequestId: {invocation.id} The process ended before it took the event")
            return None
        self._output.drain()
        self._telemetry.drain()
        was_stopped = self._stopping
        if failure is None and self.state == "busy":
            self._freeze()
            self.state = "idle"
        elif was_stopped:
            self._say(f"RequestId: {invocation.id} The environment was stopped before it had answered")
        elif failure is not None:
            await self.stop()
            self._say(failure_text(invocation.id, failure))
        init = self._init_duration if self._invocations == 1 else None
        reported = None if was_stopped else failure  # whoever stops us needs no explanation
        report = Report(invocation.id, duration, init, self._settings.memory, self._peak_memory, reported)
        self._say(f"END RequestId: {invocation.id}")
        self._say(str(report))
        no_answer = FunctionError("Runtime.NoResponse", "the runtime asked for the next event without an answer")
        return self._api.answer or failure or no_answer

    def rest(self) -> None:
        """Freeze it before its first event, too. Its state must be "idle"."""
        self._freeze()

    async def stop(self) -> None:
        """End the process: one that is at work may take note of it (SIGTERM), then everything is killed."""
        self._stopping = True
        if self.state == "busy":
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.ended}, timeout=TERMINATION_GRACE)
        self._kill()
        await asyncio.wait({self.ended})

    async def _initialise(self) -> InitError | None:
        try:
            process = await self._spawn()
        except OSError as problem:
            await self._clear_up()
            return InitError("Runtime.InvalidEntrypoint", str(problem))
        self._watcher = asyncio.create_task(self._watch(process))
        if self._stopping:
            self._kill()
        limit = max(MINIMUM_INIT_TIMEOUT, self._settings.timeout)
        await asyncio.wait({self._polled, self.ended}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self._polled.done() and self.state == "starting":
            return None
        error = self._init_error
        if error is None and self.ended.done():
            error = InitError("Runtime.ExitError", self._exit_text(), tuple(self._last_words))
        elif error is None:
            error = InitError("Sandbox.Timedout", f"Init phase timed out after {limit:.2f} seconds")
        await self.stop()
        return error

    async def _spawn(self) -> asyncio.subprocess.Process:
        try:
            address = await self._api.open()
            self._scratch.mkdir()
            if self._groups is not None:
                self._group = self._groups.group(self.id)
            self._started = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                self._settings.python,
                str(BOOTSTRAP),
                str(os.getpid()),
                str(self._group.path if self._group else ""),
                str(self._settings.root),
                self._settings.handler,
                str(self._sources or ""),
                str(self._taken_file.fileno()),
                env=variables(self._settings, address, self.id, self._scratch)
                | {TELEMETRY_VARIABLE: str(self._telemetry.write_end)},
                cwd=self._settings.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._output.write_end,
                stderr=self._output.write_end,
                pass_fds=(self._telemetry.write_end, self._taken_file.fileno()),
                start_new_session=True,
            )
            return self._process
        finally:
            self._output.handed_over()
            self._telemetry.handed_over()
            self._taken_file.close()

    async def _outcome(self, began: float) -> FunctionError | None:
        """Wait for the end of an invocation and say what was wrong, if anything."""
        timeout = self._settings.timeout
        while True:
            remaining = began + timeout - time.monotonic()
            if remaining <= 0:
                self._kill()
                return FunctionError("Sandbox.Timedout", f"Task timed out after {timeout:.2f} seconds")
            await asyncio.wait(
                {self._polled, self.ended},
                timeout=min(remaining, MEMORY_INTERVAL),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self.ended.done():
                return FunctionError("Runtime.ExitError", self._exit_text())
            memory = self._sample_memory()
            if self._polled.done():
                return None
            if memory > self._settings.memory:
                self._kill()
                return FunctionError("Runtime.OutOfMemory", "Runtime exited with error: signal: killed")

    def _sample_memory(self) -> int:
        """Resident memory in MiB; the peak is kept for the REPORT."""
        memory, peak = _memory(self._pid)
        self._peak_memory = max(self._peak_memory, peak)
        return memory

    def _on_waiting(self) -> None:
        if not self._polled.done():
            self._polled.set_result(None)

    def _on_init_error(self, error: InitError) -> None:
        self._init_error = error

    def _freeze(self) -> None:
        if self._settings.freeze == "none":
            return
        self._signal(signal.SIGSTOP)
        if self._group is not None:
            self._group.shut()

    def _thaw(self) -> None:
        if self._settings.freeze == "none":
            return
        if self._group is not None:
            self._group.open()
        self._signal(signal.SIGCONT)

    @property
    def _pid(self) -> int:
        """Also the process group's and the session's id; 0 before there is a process."""
        return self._process.pid if self._process else 0

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)
        if self._group is not None:
            self._group.signal(number)

    def _kill(self) -> None:
        if self._process is not None and self.state != "ended":
            self._signal(signal.SIGKILL)
            if self._group is not None:
                self._group.kill()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Owns what belongs to the process, and clears up after it."""
        try:
            await process.wait()
        finally:  # also when the event loop is torn down: others wait for `ended`
            self._kill()  # what it started may still run
            await self._clear_up()

    async def _clear_up(self) -> None:
        self.state = "ended"
        self._output.close()
        self._telemetry.close()
        if self._group is not None:
            self._group.close()
            self._group = None
        await self._api.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self.ended.set_result(None)

    def _forward(self, text: str) -> None:
        if self._invocations == 0:
            self._last_words.append(text)
        self._log(LogLine(time.time(), self.id, "function", text))

    def _say(self, text: str) -> None:
        self._log(LogLine(time.time(), self.id, "platform", text))

    def _exit_text(self) -> str:
        code = self._process.returncode if self._process else 0
        if not code:
            return "Runtime exited without providing a reason"
        if code < 0:
            return f"Runtime exited with error: signal: {(signal.strsignal(-code) or str(-code)).lower()}"
        return f"Runtime exited with error: exit status {code}"


def _memory(pid: int) -> tuple[int, int]:
    """Resident memory of a process, now and at its highest, in MiB; zeros where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    kib = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
    return kib.get("VmRSS", 0) // 1024, kib.get("VmHWM", 0) // 1024
