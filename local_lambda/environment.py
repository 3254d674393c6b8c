"""One environment: one process with AWS's runtime client that serves one invocation after the other, frozen in between.

It knows the Runtime API and the process; it knows nothing of HTTP fronts, nor of other environments.
"""

import asyncio
import contextlib
import math
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local_lambda.control_group import ControlGroup, ControlGroups
from local_lambda.runtime_api import FunctionError, Invocation, RuntimeApi
from local_lambda.settings import EnvironmentState, FunctionSettings, InitError, LogLine, State
from local_lambda.variables import variables

MINIMUM_INIT_TIMEOUT = 10.0
"""Seconds for the init phase, or the function's timeout if that is longer."""
MEMORY_INTERVAL = 0.25
"""Seconds between two looks at a busy process's memory."""
TERMINATION_GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL."""
DRAIN_TIMEOUT = 1.0
"""Seconds to wait for the last output of a process that is gone."""
LINE_LIMIT = 256 * 1024
"""Bytes of one log entry, as in CloudWatch Logs; a longer line is cut into several."""
BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


class Environment:
    """Begins with `start`; ends when its process ends, by itself or by `stop`. `ended` is then done."""

    def __init__(
        self, settings: FunctionSettings, groups: ControlGroups | None, log: Callable[[LogLine], None]
    ) -> None:
        self.id = os.urandom(4).hex()
        self.state: State = "starting"
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._groups = groups
        self._log = log
        self._api = RuntimeApi(self._on_waiting, self._on_init_error)
        self._group: ControlGroup | None = None
        self._polled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._init_error: InitError | None = None
        self._init_duration = 0.0
        self._started = time.monotonic()
        self._invocations = 0
        self._peak_memory = 0

    @property
    def snapshot(self) -> EnvironmentState:
        return EnvironmentState(
            self.id, self._process.pid, self.state, self._invocations, time.monotonic() - self._started
        )

    async def start(self) -> InitError | None:
        """Start the process and wait until it asks for its first event. Where it fails, the environment has ended."""
        address = await self._api.open()
        self._scratch = tempfile.mkdtemp(prefix="local-lambda-")
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
            env=variables(self._settings, address, self.id, self._scratch),
            cwd=self._settings.root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._watcher = asyncio.create_task(self._watch())
        limit = max(MINIMUM_INIT_TIMEOUT, self._settings.timeout)
        await asyncio.wait({self._polled, self.ended}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        self._init_duration = time.monotonic() - self._started
        if self._polled.done() and not self.ended.done():
            self.state = "idle"
            return None
        error = self._init_error
        if error is None and self.ended.done():
            error = InitError("Runtime.ExitError", self._exit_text())
        elif error is None:
            error = InitError("Sandbox.Timedout", f"Init phase timed out after {limit:.2f} seconds")
        self._say(
            f"INIT_REPORT Init Duration: {self._init_duration * 1000:.2f} ms\tPhase: init\tStatus: error\t"
            f"Error Type: {error.type}"
        )
        await self.stop()
        return error

    async def serve(self, invocation: Invocation) -> None:
        """Give it one event; return when it waits for the next one, and is frozen, or when it has ended."""
        self.state = "busy"
        self._polled = asyncio.get_running_loop().create_future()
        self._invocations += 1
        self._say(f"START RequestId: {invocation.id} Version: $LATEST")
        began = time.monotonic()
        invocation.deadline = time.time() + self._settings.timeout
        self._thaw()
        self._api.give(invocation)
        failure = await self._outcome(began)
        duration = time.monotonic() - began
        if failure is None:
            self._freeze()
            self.state = "idle"
        else:
            invocation.settle(failure)
            self._say(_failure_text(invocation.id, failure))
            await self.stop()
        self._report(invocation, duration, failure)

    async def stop(self) -> None:
        """End the process: one that is at work may take note of it (SIGTERM), then everything is killed."""
        if self.state in ("starting", "busy") and not self.ended.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.ended}, timeout=TERMINATION_GRACE)
        self._kill()
        await asyncio.wait({self.ended})

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
            memory, self._peak_memory = _memory(self._process.pid)
            if self._polled.done():
                return None
            if memory > self._settings.memory:
                self._kill()
                return FunctionError("Runtime.OutOfMemory", "Runtime exited with error: signal: killed")

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
            self._group.freeze()

    def _thaw(self) -> None:
        if self._settings.freeze == "none" or self.ended.done():
            return
        if self._group is not None:
            self._group.thaw()
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _kill(self) -> None:
        if not self.ended.done():
            self._signal(signal.SIGKILL)
            if self._group is not None:
                self._group.kill()

    async def _watch(self) -> None:
        """Owns what belongs to the process: forwards its output, and clears up after it."""
        output = asyncio.create_task(self._forward_output())
        await self._process.wait()
        self._kill()  # what it started may still run, and hold its output open
        await asyncio.wait({output}, timeout=DRAIN_TIMEOUT)
        output.cancel()
        await self._api.close()
        if self._group is not None:
            self._group.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        self.state = "ended"
        self.ended.set_result(None)

    async def _forward_output(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while chunk := await self._process.stdout.read(LINE_LIMIT):
            *lines, rest = (rest + chunk).split(b"\n")
            while len(rest) >= LINE_LIMIT:
                lines.append(rest[:LINE_LIMIT])
                rest = rest[LINE_LIMIT:]
            for line in lines:
                self._forward(line)
        if rest:
            self._forward(rest)

    def _forward(self, line: bytes) -> None:
        # The runtime client writes a traceback as one entry, with carriage returns between its lines.
        text = line.decode(errors="replace").rstrip("\r").replace("\r", "\n")
        self._log(LogLine(time.time(), self.id, "function", text))

    def _say(self, text: str) -> None:
        self._log(LogLine(time.time(), self.id, "platform", text))

    def _exit_text(self) -> str:
        code = self._process.returncode or 0
        if code == 0:
            return "Runtime exited without providing a reason"
        if code < 0:
            return f"Runtime exited with error: signal: {signal.strsignal(-code) or -code}".lower().replace("r", "R", 1)
        return f"Runtime exited with error: exit status {code}"

    def _report(self, invocation: Invocation, duration: float, failure: FunctionError | None) -> None:
        """END and REPORT. The init phase of a new environment is billed with its first invocation, as since August 2025."""
        init = self._init_duration * 1000 if self._invocations == 1 else 0.0
        fields = [
            f"REPORT RequestId: {invocation.id}",
            f"Duration: {duration * 1000:.2f} ms",
            f"Billed Duration: {math.ceil(duration * 1000 + init)} ms",
            f"Memory Size: {self._settings.memory} MB",
            f"Max Memory Used: {self._peak_memory} MB",
        ]
        if init:
            fields.append(f"Init Duration: {init:.2f} ms")
        if failure is not None:
            timed_out = failure.type == "Sandbox.Timedout"
            fields.append("Status: timeout" if timed_out else f"Status: error\tError Type: {failure.type}")
        self._say(f"END RequestId: {invocation.id}")
        self._say("\t".join(fields))


def _failure_text(request_id: str, failure: FunctionError) -> str:
    if failure.type == "Sandbox.Timedout":
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        return f"{stamp} {request_id} {failure.message}"
    return f"RequestId: {request_id} Error: {failure.message}\n{failure.type}"


def _memory(pid: int) -> tuple[int, int]:
    """Resident memory of a process, now and at its highest, in MiB; zeros where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    kib = {name: int(value) for name, value in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE)}
    return kib.get("VmRSS", 0) // 1024, kib.get("VmHWM", 0) // 1024
