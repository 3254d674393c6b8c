"""A local Lambda in a test: its function's source, its log, its client, and the wait for something to become true."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from local_lambda import EnvironmentState, FunctionSettings, LocalLambda, LogLine
from local_lambda.folders import PREFIX

PATIENCE = 10.0
"""Seconds within which what must happen has happened, on a busy machine too."""


class Running:
    """A started `LocalLambda` with one function. Begins with `start`, ends with `stop`."""

    def __init__(self, root: Path, source: str, **settings: Any) -> None:
        self.settings = FunctionSettings("app.handler", root, **settings)
        self.log: list[LogLine] = []
        self.service = LocalLambda(self.settings, log=self.log.append)
        self.url = ""
        self.pids: set[int] = set()
        self.write(source)

    def write(self, source: str) -> None:
        (self.settings.root / "app.py").write_text(source)

    async def start(self) -> "Running":
        self.url = await self.service.start("127.0.0.1", 0)
        self.client = aiohttp.ClientSession()
        return self

    async def stop(self) -> None:
        self.pids |= {state.pid for state in self.service.environments}
        await self.client.close()
        await self.service.stop(grace=0.0)
        assert not [pid for pid in self.pids if alive(pid)]

    async def get(self, path: str = "", **options: Any) -> tuple[int, str]:
        return await self.request("GET", path, **options)

    async def request(self, method: str, path: str = "", **options: Any) -> tuple[int, str]:
        async with self.client.request(method, self.url + path, **options) as response:
            return response.status, await response.text()

    @property
    def only(self) -> EnvironmentState:
        (environment,) = self.service.environments
        self.pids.add(environment.pid)
        return environment

    @property
    def scratch(self) -> Path:
        """The service's temporary folder."""
        (folder,) = Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getpid()}.*")
        return folder

    def lines(self, source: str) -> list[str]:
        return [line.text for line in self.log if line.source == source]

    @property
    def report(self) -> str:
        return [text for text in self.lines("platform") if text.startswith("REPORT")][-1]


def process_state(pid: int) -> str:
    """The third field of /proc/PID/stat, see proc(5): "T" is stopped, "S" asleep; "" where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    """A zombie is not: its children's children are for the machine's first process to reap."""
    return process_state(pid) not in ("", "Z")


async def eventually(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds; fail where it does not within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.005)
