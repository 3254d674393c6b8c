"""Fixtures: a function's folder, and a local Lambda that is stopped at the end and has left no process behind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.local_lambda.running import Running

Run = Callable[..., Awaitable[Running]]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Start a function from its source: `await run(source, timeout=1.0, ...)`."""
    started: list[Running] = []

    async def start(source: str, **settings: Any) -> Running:
        root = tmp_path / f"function{len(started)}"
        root.mkdir()
        running = await Running(root, source, **settings).start()
        started.append(running)
        return running

    yield start
    for running in started:
        await running.stop()
