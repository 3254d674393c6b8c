"""An ASGI app's lifespan: its startup before the first request of an environment, its state, its shutdown.

Source: the ASGI specification's "Lifespan Protocol" (2.0). Lambda tells no environment that it ends, so that `shutdown`
runs in tests alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

LOG = logging.getLogger("dialback")

Message = MutableMapping[str, Any]


class StartupFailed(RuntimeError):
    """The app could not start; the text is what it said. The invocation fails with it, and the next one tries again."""


class ShutdownFailed(RuntimeError):
    """The app could not end in good order; the text is what it said."""


class AppLifespan:
    """An async context manager that gives the state: what the app put into its scope. Entered and left once."""

    def __init__(self, app: Callable[..., Awaitable[None]], *, is_needed: bool) -> None:
        """`is_needed`: an app that raises has failed. Else it is one that knows no lifespan."""
        self._app = app
        self._is_needed = is_needed
        self._state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._news: asyncio.Queue[str] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._failure: str | None = None
        self._error: BaseException | None = None

    async def __aenter__(self) -> dict[str, Any]:
        """Raises `StartupFailed`."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._news.put_nowait("lifespan.startup")
        try:
            await self._started.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._failure is not None:
            self._task.cancel()
            raise StartupFailed(self._failure) from self._error
        return self._state

    async def __aexit__(self, *_: object) -> None:
        """Raises `ShutdownFailed`."""
        assert self._task is not None
        self._news.put_nowait("lifespan.shutdown")
        await self._stopped.wait()
        if self._failure is not None:
            raise ShutdownFailed(self._failure) from self._error

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if self._failure is not None:  # which it has said itself
                return
            if self._is_needed or self._started.is_set():
                self._failure, self._error = f"the app's lifespan raised {error!r}", error
                LOG.error("the app's lifespan failed", exc_info=error)
                return
            LOG.info("the app knows no lifespan: it raised %r", error)
        finally:
            self._started.set()
            self._stopped.set()

    async def _receive(self) -> Message:
        return {"type": await self._news.get()}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        of, _, result = kind.removeprefix("lifespan.").partition(".")
        event = {"startup": self._started, "shutdown": self._stopped}.get(of)
        if event is None or result not in ("complete", "failed"):
            raise RuntimeError(f"Unexpected ASGI message '{kind}' in a lifespan.")
        if event.is_set() or (event is self._stopped and not self._started.is_set()):
            raise RuntimeError(f"Unexpected ASGI message '{kind}': the lifespan is past that, or has not come to it.")
        if result == "failed":
            self._failure = f"the app's {of} failed: {message.get('message') or 'it did not say why'}"
        event.set()
