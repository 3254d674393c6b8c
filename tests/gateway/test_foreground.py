"""How a serving command takes its signals: the first asks, the second insists."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal

import pytest

from gateway.cli.failure import CommandFailed
from gateway.cli.foreground import StopSignals, explain_bind


class Server:
    """Stops gently only when `drained` is set; notes how it was stopped."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.drained = asyncio.Event()
        self.stops: list[float] = []

    async def stop(self, grace: float) -> None:
        self.stops.append(grace)
        self.began.set()
        if grace:
            await self.drained.wait()


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_asks_and_the_second_insists(number: signal.Signals) -> None:
    server = Server()
    with StopSignals() as signals:
        send(number)
        await signals.asked()
        stopping = asyncio.create_task(signals.stop(server.stop, 30.0))
        await server.began.wait()
        send(number)
        await stopping
    assert server.stops == [30.0, 0.0]


async def test_who_does_not_insist_waits() -> None:
    server = Server()
    with StopSignals() as signals:
        send(signal.SIGTERM)
        await signals.asked()
        server.drained.set()
        await signals.stop(server.stop, 30.0)
    assert server.stops == [30.0]


async def test_a_signal_cancels_what_serves() -> None:
    ended = asyncio.Event()

    async def serve() -> int:
        try:
            send(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1

    with StopSignals() as signals:
        assert await signals.until_asked(serve()) == 0
    assert ended.is_set()


async def test_what_ends_by_itself_gives_its_result_or_its_fault() -> None:
    async def serve(code: int) -> int:
        if code == 2:
            raise CommandFailed("no")
        return code

    with StopSignals() as signals:
        assert await signals.until_asked(serve(1)) == 1
        with pytest.raises(CommandFailed):
            await signals.until_asked(serve(2))


async def test_a_cancelled_command_cancels_what_serves() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def serve() -> int:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 0

    with StopSignals() as signals:
        task = asyncio.create_task(signals.until_asked(serve()))
        await began.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert ended.is_set()


async def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


async def test_nohup_means_what_it_says() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(98, "error while attempting to bind on address ('127.0.0.1', 90): in use"), "Type: --admin 91"),
        (OSError(98, "error while attempting to bind on address ('127.0.0.1', 80): in use"), "Type: --listen 81"),
        (PermissionError(13, "error while attempting to bind on address ('127.0.0.1', 80)"), "Type: --listen 8080"),
        (OSError(99, "error while attempting to bind on address ('10.9.9.9', 80)"), "no address 127.0.0.1"),
        (OSError(24, "Too many open files"), "Too many open files"),
    ],
)
def test_why_an_address_cannot_be_had(fault: OSError, said: str) -> None:
    flags = {"--listen": ("127.0.0.1", 80), "--admin": ("127.0.0.1", 90)}
    failure = explain_bind(fault, flags, lambda flag, port: f"{flag} {port}")
    assert said in failure.message
    assert failure.exit_code == 1


@pytest.mark.parametrize("flag", ["--host", "--listen"])
def test_an_address_that_is_not_here_is_the_fault_of_the_flag_that_named_it(flag: str) -> None:
    fault = OSError(errno.EADDRNOTAVAIL, "error while attempting to bind on address ('10.9.9.9', 80)")
    flags = {"--port" if flag == "--host" else flag: ("10.9.9.9", 80)}
    assert explain_bind(fault, flags, lambda flag, port: "").message.endswith(
        f"no address 10.9.9.9; {flag} must name one of its own"
    )
