"""The fleet of one function: which environment serves a request, how many there may be, when they go.

It knows environments and the Function URL; how a process is started or frozen is the environment's affair.
"""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from local_lambda.control_group import ControlGroups
from local_lambda.environment import Environment
from local_lambda.folders import OwnedFolder
from local_lambda.function_url import FunctionUrl, TooManyRequests
from local_lambda.runtime_api import Answer, FunctionError, Invocation
from local_lambda.settings import EnvironmentState, FunctionSettings, InitError, LogLine
from local_lambda.variables import region

CARETAKER = Path(__file__).with_name("caretaker.py")
CARETAKER_TIMEOUT = 5.0
"""Seconds for it to end what is left, at an orderly end; it gives up by itself after about two."""
CHECK_TIMEOUT = 60.0
"""Seconds for the init phase where it is only tried."""
ACCOUNT = "123456789012"
"""The account in the function's ARN: the one of AWS's documentation."""


class LocalLambda:
    """One function behind one Function URL. Begins with `start`, ends with `stop`."""

    def __init__(self, settings: FunctionSettings, *, log: Callable[[LogLine], None]) -> None:
        self._settings = settings
        self._log = log
        self._scratch: OwnedFolder | None = None
        self._groups: ControlGroups | None = None
        self._caretaker: asyncio.subprocess.Process | None = None
        self._front = FunctionUrl(self._submit, self._say)
        self._fleet: set[Environment] = set()
        self._idle: list[Environment] = []  # the last one used is the first one to be used again
        self._serving: dict[Environment, asyncio.Task[Answer | None]] = {}
        self._reapers: dict[Environment, asyncio.TimerHandle] = {}
        self._reaping: set[asyncio.Task[None]] = set()
        self._spare: tuple[Environment, Path] | None = None  # initialised, and waiting for `reload`; and its sources
        self._is_stopping = False
        self._sources: Path | None = None  # what environments import; None: what is on disk

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the Function URL; port 0 takes a free one. Raises OSError where the port is taken."""
        url = await self._front.open(host, port)
        self._scratch = _scratch()
        if self._settings.freeze == "auto":
            try:
                self._groups = ControlGroups.open()
            except OSError as error:
                self._say(f"Only the processes of idle environments are frozen, not their network: {error}")
        self._caretaker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(CARETAKER)),
            *(str(self._scratch.path), str(self._groups.path) if self._groups else ""),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return url

    async def prepare(self, settings: FunctionSettings | None = None) -> InitError | None:
        """Initialise an environment with the code as it is now, for the next `reload` to put into service.

        The sources that it imports are kept, and after that `reload` they are the function's code, whatever is saved
        meanwhile or later. Where it fails, say why, and change nothing.
        """
        assert self._scratch is not None
        sources = Path(tempfile.mkdtemp(".sources", dir=self._scratch.path))
        environment = self._environment(settings or self._settings, sources)
        starting = asyncio.create_task(environment.start())
        try:
            error = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await environment.stop()
            await asyncio.wait({starting})
            raise
        if error is not None:
            await _remove(sources)
            return error
        environment.rest()
        former, self._spare = self._spare, (environment, sources)
        if former is not None:
            await former[0].stop()
            await _remove(former[1])
        return None

    async def reload(self, settings: FunctionSettings | None = None, *, grace: float = 2.0) -> None:
        """New environments for all requests from now on: with the code that was prepared, else with what is on disk.
        Those at work get `grace` seconds, then they are ended."""
        self._settings = settings or self._settings
        old, old_sources = self._withdraw(), self._sources
        (spare, self._sources), self._spare = self._spare or (None, None), None
        if spare is not None and spare.state == "idle":
            self._enlist(spare)
            self._rest(spare)
        await self._retire(old, grace)
        if old_sources is not None:
            await _remove(old_sources)

    async def stop(self, *, grace: float = 2.0) -> None:
        """Take no more requests, give those at work `grace` seconds, and leave no process behind."""
        self._is_stopping = True
        self._front.refuse()
        old = self._withdraw()
        if self._spare is not None:
            old.append(self._spare[0])
        await self._retire(old, grace)
        await asyncio.gather(*self._reaping)
        await self._front.close()
        if self._groups is not None:
            self._groups.close()
            self._groups = None
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        if self._caretaker is not None:
            assert self._caretaker.stdin is not None
            self._caretaker.stdin.close()
            ending = asyncio.create_task(self._caretaker.wait())
            await asyncio.wait({ending}, timeout=CARETAKER_TIMEOUT)  # it ends what functions have left
            if not ending.done():
                self._caretaker.kill()
            await ending
            self._caretaker = None

    @property
    def environments(self) -> tuple[EnvironmentState, ...]:
        """Those that new requests may get, at this moment."""
        return tuple(environment.snapshot for environment in self._fleet)

    async def _submit(self, request_id: str, trace_id: str, event: bytes) -> Answer:
        """Have an event served, also if whoever awaits the answer is cancelled. Raises TooManyRequests."""
        arn = f"arn:aws:lambda:{region()}:{ACCOUNT}:function:{self._settings.name}"
        invocation = Invocation(request_id, event, arn, trace_id)
        while True:
            environment = self._take()
            was_idle = environment.state == "idle"
            task = asyncio.create_task(self._serve(environment, invocation))
            self._serving[environment] = task
            answer = await asyncio.shield(task)
            if answer is not None:
                return answer
            if not was_idle:  # each new one might end like this
                return FunctionError("Runtime.ExitError", "the process ended before it took its first event")

    def _take(self) -> Environment:
        """One that nobody uses. Raises TooManyRequests."""
        while self._idle and self._idle[-1].state == "ended":  # its process ended by itself, and is being cleared up
            self._forget(self._idle[-1])
        if self._idle:
            environment = self._idle.pop()
            self._reapers.pop(environment).cancel()
        elif len(self._fleet) < self._settings.environments and not self._is_stopping:
            environment = self._environment(self._settings, self._sources)
            self._enlist(environment)
        else:
            raise TooManyRequests
        return environment

    def _environment(self, settings: FunctionSettings, sources: Path | None) -> Environment:
        assert self._scratch is not None
        return Environment(settings, self._scratch.path, self._groups, self._log, sources=sources)

    def _enlist(self, environment: Environment) -> None:
        self._fleet.add(environment)
        environment.ended.add_done_callback(lambda _: self._forget(environment))

    async def _serve(self, environment: Environment, invocation: Invocation) -> Answer | None:
        try:
            if environment.state == "starting":
                error = await environment.start()
                if error is not None:
                    return FunctionError(error.type, error.message)
            return await environment.serve(invocation)
        finally:
            if environment.state in ("starting", "busy"):  # something went wrong that nobody foresaw
                await environment.stop()
            del self._serving[environment]
            if environment.state == "idle" and environment in self._fleet:
                self._rest(environment)

    def _rest(self, environment: Environment) -> None:
        self._idle.append(environment)
        loop = asyncio.get_running_loop()
        self._reapers[environment] = loop.call_later(self._settings.idle_timeout, self._reap, environment)

    def _reap(self, environment: Environment) -> None:
        self._forget(environment)
        task = asyncio.create_task(environment.stop())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    def _forget(self, environment: Environment) -> None:
        self._fleet.discard(environment)
        if environment in self._reapers:
            self._reapers.pop(environment).cancel()
        with contextlib.suppress(ValueError):
            self._idle.remove(environment)

    def _withdraw(self) -> list[Environment]:
        """Give no more requests to the environments that there are."""
        old = list(self._fleet)
        for environment in old:
            self._forget(environment)
        return old

    async def _retire(self, old: list[Environment], grace: float) -> None:
        await asyncio.gather(*(self._end(environment, grace) for environment in old))

    async def _end(self, environment: Environment, grace: float) -> None:
        task = self._serving.get(environment)
        if task is not None:
            await asyncio.wait({task}, timeout=grace)
        await environment.stop()
        if task is not None:
            await asyncio.wait({task})

    def _say(self, text: str) -> None:
        self._log(LogLine(time.time(), "", "platform", text))


async def check_init(settings: FunctionSettings, *, log: Callable[[LogLine], None] | None = None) -> InitError | None:
    """Start one environment, see whether the function can be initialised within `CHECK_TIMEOUT`, and end it again."""
    settings = replace(settings, timeout=min(settings.timeout, CHECK_TIMEOUT))
    scratch = _scratch()
    environment = Environment(settings, scratch.path, None, log or (lambda line: None))
    starting = asyncio.create_task(environment.start())
    try:
        return await asyncio.shield(starting)
    finally:
        await environment.stop()
        await asyncio.wait({starting})
        scratch.close()


async def serve(settings: FunctionSettings, host: str, port: int, *, log: Callable[[LogLine], None]) -> None:
    """Run a function in the foreground until cancelled. Raises OSError where the port is taken."""
    service = LocalLambda(settings, log=log)
    url = await service.start(host, port)
    try:
        log(LogLine(time.time(), "", "platform", f"Function URL: {url}"))
        await asyncio.Event().wait()
    finally:
        await service.stop()


async def _remove(folder: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _scratch() -> OwnedFolder:
    return OwnedFolder.create(Path(tempfile.gettempdir()), shutil.rmtree)
