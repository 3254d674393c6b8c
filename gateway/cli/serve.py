"""`dialback serve`: one gateway in the foreground, from its listeners to its last request."""

from __future__ import annotations

import click

from gateway import telemetry
from gateway.cli.failure import CommandFailed
from gateway.cli.foreground import StopSignals, explain_bind, require_fast_http_parser
from gateway.config import Config
from gateway.server import Gateway


async def serve(config: Config) -> int:
    """Serve until told to stop; open requests get `stop_grace`. Raises `CommandFailed` where it cannot begin."""
    require_fast_http_parser()
    telemetry.configure(config.log.format, config.log.level)
    log = telemetry.logger("gateway")
    for note in config.notes():
        log.warning(note)
    gateway = Gateway(config, log=log)
    with StopSignals() as signals:
        try:
            await gateway.start()
        except OSError as fault:
            raise _cannot_listen(config, fault) from None
        click.echo(f"Ready: {gateway.url}")
        await signals.asked()
        log.info("stopping", grace=config.stop_grace)
        await signals.stop(gateway.stop, config.stop_grace)
    return 0


def _cannot_listen(config: Config, fault: OSError) -> CommandFailed:
    flags = {"--listen": (config.listen.host, config.listen.port)}
    if config.admin is not None:
        flags["--admin"] = (config.admin.host, config.admin.port)
    return explain_bind(fault, flags, lambda flag, port: f"{flag} {flags[flag][0]}:{port}")
