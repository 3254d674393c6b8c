"""`dialback lambda`: a local Lambda in the foreground; and how any local Lambda's log is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import click

from gateway import telemetry
from gateway.cli.foreground import StopSignals, explain_bind
from gateway.cli.target import Target
from local_lambda import FunctionSettings, LocalLambda, LogLine

STOP_GRACE = 2.0
"""Seconds that invocations get to finish when the command ends, or the code is replaced."""
NAME = "function"


def settings_for(target: Target, limits: Mapping[str, float], environment: Mapping[str, str]) -> FunctionSettings:
    """The function that `target` names, with `limits` as the flags give them, and these variables over the shell's."""
    return FunctionSettings(
        handler=target.handler,
        root=target.root,
        name=NAME,
        environments=int(limits["environments"]),
        timeout=limits["timeout"],
        memory=int(limits["memory"]),
        environment=environment,
    )


def log_to_terminal() -> Callable[[LogLine], None]:
    """A sink for a local Lambda's log: each line with its time and its environment's id."""

    def write(line: LogLine) -> None:
        text = line.text.rstrip().replace("\t", "  ")  # REPORT is written with tabs, and has one at its end
        telemetry.logger(line.environment or "lambda").info(text, time=line.time)

    return write


async def serve(target: Target, limits: Mapping[str, float], host: str, port: int) -> int:
    """Serve a Function URL until told to stop. Raises `CommandFailed` where the address cannot be had."""
    telemetry.configure("console", "info")
    log = telemetry.logger("lambda")
    for variable in ("DIALBACK_GATEWAY", "DIALBACK_SECRET"):
        if not os.environ.get(variable):
            log.warning(f"{variable} is not set: plain events are answered, a gateway's invitations are refused")
    service = LocalLambda(settings_for(target, limits, {}), log=log_to_terminal())
    with StopSignals() as signals:
        try:
            url = await service.start(host, port)
        except OSError as fault:
            raise explain_bind(fault, {"--port": (host, port)}, lambda flag, other: f"{flag} {other}") from None
        try:
            click.echo(f"Ready: {url}  ({target.shown})")
            await signals.asked()
        finally:
            await service.stop(grace=STOP_GRACE)
    return 0
