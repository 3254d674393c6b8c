"""A command that serves until it is told to stop: its signals, its last words, and why it could not begin.

It knows how servers start and stop, and nothing of what they serve.
"""

from __future__ import annotations

import asyncio
import errno
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType

from gateway.cli.failure import CommandBroke, CommandFailed

STOP_SIGNALS = tuple(number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGHUP"))


class StopSignals:
    """Ctrl-C, SIGTERM and a terminal that is closed, while the block lasts: the first asks to stop, the second insists.

    Under `nohup`, which has SIGHUP ignored, a terminal may be closed.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._insisted = asyncio.Event()

    def __enter__(self) -> StopSignals:
        loop = asyncio.get_running_loop()
        # Not `loop.add_signal_handler`: Windows has none.
        self._former = {
            number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._take))
            for number in STOP_SIGNALS
            if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _take(self) -> None:
        (self._insisted if self._asked.is_set() else self._asked).set()

    async def asked(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    async def until_asked(self, serving: Coroutine[None, None, int]) -> int:
        """Await `serving`, for its result; or cancel it when a signal comes, and return 0."""
        task = asyncio.ensure_future(serving)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if is_stopping := not task.done():
                task.cancel()
                await asyncio.wait({task})
        return 0 if is_stopping and task.cancelled() else task.result()

    async def stop(self, stop: Callable[[float], Awaitable[None]], grace: float) -> None:
        """Await `stop(grace)`, in seconds, which may be long; when somebody insists, start over as `stop(0)`."""
        gentle = asyncio.ensure_future(stop(grace))
        insisted = asyncio.ensure_future(self._insisted.wait())
        await asyncio.wait({gentle, insisted}, return_when=asyncio.FIRST_COMPLETED)
        insisted.cancel()
        if gentle.done():
            return gentle.result()
        gentle.cancel()
        await asyncio.wait({gentle})
        await stop(0.0)


def run(serving: Coroutine[None, None, int]) -> int:
    """Run a command's coroutine to its end, and return its exit code."""
    with asyncio.Runner() as runner:
        return runner.run(serving)


def require_fast_http_parser() -> None:
    """Refuse aiohttp's pure-Python parser: slower by far, and once less strict than the other (CVE-2026-111750)."""
    from aiohttp import http_parser

    if not hasattr(http_parser, "HttpRequestParserC"):
        raise CommandFailed(
            "aiohttp runs without its C parser, which the gateway needs. Unset AIOHTTP_NO_EXTENSIONS, or type:\n"
            f"    {sys.executable} -m pip install --force-reinstall --only-binary=:all: aiohttp"
        )


def explain_bind(fault: OSError, flags: dict[str, tuple[str, int]], advice: Callable[[str, int], str]) -> CommandFailed:
    """Why an address could not be listened on.

    `flags`: the host and port that each flag stands for; `advice(flag, port)`: what to type for another port.
    """
    named = re.search(r"\(?'([^']*)', (\d+)", str(fault))
    port = int(named[2]) if named else next(iter(flags.values()))[1]
    flag, (host, _) = next(((flag, at) for flag, at in flags.items() if at[1] == port), next(iter(flags.items())))
    if fault.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else port - 1
        return CommandBroke(f"port {port} of {host} is in use by another program. Type: {advice(flag, other)}")
    if fault.errno in (errno.EACCES, errno.EPERM):
        return CommandBroke(f"port {port} needs more rights than this user has. Type: {advice(flag, 8080)}")
    if fault.errno == errno.EADDRNOTAVAIL or isinstance(fault, socket.gaierror):
        named_by = "--host" if flag == "--port" else flag
        return CommandBroke(f"this machine has no address {host}; {named_by} must name one of its own")
    return CommandBroke(f"cannot listen on {host}, port {port}: {fault.strerror or fault}")
