"""`dialback dev`: a gateway and a local Lambda in one process, with new code at every save.

The function's code runs in the local Lambda's environments only; here it is read as text and nothing of it imported.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import click
from watchfiles import Change, DefaultFilter, awatch

from gateway import keys, telemetry
from gateway.cli import shadows
from gateway.cli.failure import EXIT_FAILED, CommandFailed
from gateway.cli.foreground import StopSignals, explain_bind, require_fast_http_parser
from gateway.cli.local import STOP_GRACE, log_to_terminal, settings_for
from gateway.cli.target import Target, TargetError, check_source
from gateway.config import Config, ConfigError
from gateway.keys import Address
from gateway.server import Gateway
from gateway.sources import load
from local_lambda import FunctionSettings, LocalLambda

LOOPBACK = "127.0.0.1"
WILDCARDS = {"0.0.0.0": LOOPBACK, "::": "::1"}
"""Where to connect to a listener on every address."""
SECRET_BYTES = 32
IDLE_TIMEOUT = 3600.0
"""Seconds; far longer than Lambda's, since what holds the last code that ran must outlive the work on the next."""
SHOWN_CHANGES = 5
"""Names of saved files in one log line."""
RELOADED_SUFFIXES = (".py", ".toml", ".yaml", ".yml", ".html", ".jinja", ".jinja2", ".j2", ".sql")
"""What code is made of, and what it tends to read once, at import. A function's own output must not restart it."""


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The flags of `dialback dev` that are about serving."""

    host: str
    port: int
    admin: str | None
    is_reloading: bool
    flags: Mapping[str, str]
    """Values of `keys.DEV_KEYS`, by name."""


class SourceFilter(DefaultFilter):
    """Saved source files: without editors' temporary files, tool caches, virtual environments and what is hidden.

    A folder that is moved tells nothing of the files in it: that of the handler counts as the handler itself.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._root = target.root
        self._folders = frozenset(target.file.parents)

    def __call__(self, change: Change, path: str) -> bool:
        if change is not Change.modified and Path(path) in self._folders:
            return True
        inside = Path(path).relative_to(self._root)
        is_hidden = any(part.startswith(".") for part in inside.parts)
        return inside.suffix in RELOADED_SUFFIXES and not is_hidden and super().__call__(change, path)


class DevLoop:
    """One `dialback dev`. Begins and ends with `run`."""

    def __init__(self, target: Target, limits: Mapping[str, float], options: DevOptions) -> None:
        """Raises `CommandFailed` for options that cannot be."""
        self._target = target
        self._limits = limits
        self._options = options
        self._secret = secrets.token_urlsafe(SECRET_BYTES)
        self._host = WILDCARDS.get(options.host, options.host)
        if options.port == 0 and not Address(options.host, 0).is_loopback:
            raise CommandFailed(f"--port 0 needs --host {LOOPBACK}: invitations must name the port")
        self._config(f"http://{LOOPBACK}/")  # what is wrong is said before anything is started
        self._log = telemetry.logger("dev")

    async def run(self) -> int:
        """Serve until told to stop; returns the exit code. Raises `CommandFailed` where it cannot begin."""
        require_fast_http_parser()
        telemetry.configure("console", "info")
        for file in shadows.find(self._target.root):
            self._log.warning(shadows.advice(file, self._target.root))
        # No environment before it is known where the function shall dial: what comes before "Ready" waits.
        service = LocalLambda(replace(self._settings({}), environments=0), log=log_to_terminal())
        with StopSignals() as signals:
            function_url = await service.start(LOOPBACK, 0)
            gateway = Gateway(self._config(function_url), log=telemetry.logger("gateway"))
            try:
                await self._start(gateway)
                return await signals.until_asked(self._serve(gateway, service))
            finally:
                # At the same time: streams get the grace once, whichever side they would end at.
                # Neither is left half done because the other one failed.
                ends = gateway.stop(STOP_GRACE), service.stop(grace=STOP_GRACE)
                for fault in await asyncio.gather(*ends, return_exceptions=True):
                    if fault is not None:
                        raise fault

    async def _start(self, gateway: Gateway) -> None:
        try:
            await gateway.start(wake=False)
        except OSError as fault:
            flags = {"--port": (self._options.host, self._options.port)}
            raise explain_bind(fault, flags, lambda flag, port: f"{flag} {port}") from None

    async def _serve(self, gateway: Gateway, service: LocalLambda) -> int:
        """From the bound port on; never returns but for code that cannot run."""
        address = Address(self._host, urlsplit(gateway.url).port or self._options.port)
        settings = self._settings(self._variables(address))
        if fault := await self._fault(service, settings):
            self._log.error(f"{self._target.shown} cannot run:\n{fault}")
            return EXIT_FAILED
        await service.reload(settings, grace=0)
        gateway.wake()
        reloading = asyncio.ensure_future(self._reload_on_save(gateway, service, settings))
        try:
            await asyncio.sleep(0)  # in its first step the watch is set up: what is saved after "Ready" is seen
            click.echo(f"Ready: http://{address}/  (curl -N http://{address}/)")
            await reloading
            await asyncio.Event().wait()
        finally:
            reloading.cancel()
            await asyncio.gather(reloading, return_exceptions=True)
        return 0

    async def _reload_on_save(self, gateway: Gateway, service: LocalLambda, settings: FunctionSettings) -> None:
        """Give new requests the saved code, as long as it runs. Ends where there is nothing to watch with."""
        if not self._options.is_reloading:
            return
        root = self._target.root
        try:
            async for changes in awatch(root, watch_filter=SourceFilter(self._target)):
                names = ", ".join(sorted({str(Path(path).relative_to(root)) for _, path in changes})[:SHOWN_CHANGES])
                if fault := await self._fault(service, settings):
                    self._log.error(f"saved {names}: the new code cannot run, the old code goes on:\n{fault}")
                    continue
                self._log.info(f"saved {names}: new requests get the new code")
                gateway.retire_links()
                await service.reload(settings, grace=STOP_GRACE)
        except (OSError, RuntimeError) as fault:
            self._log.warning(
                f"saves are not noticed any more: {fault}. Start again after each change, or use a smaller --root"
            )

    async def _fault(self, service: LocalLambda, settings: FunctionSettings) -> str:
        """Why the code as it is now cannot run; empty where it can, and then an environment with it is ready."""
        try:
            check_source(self._target, must_stream=True)
        except TargetError as error:
            return str(error)
        refused = await service.prepare(settings)
        return f"{refused.type}: {refused.message}" if refused else ""

    def _settings(self, variables: Mapping[str, str]) -> FunctionSettings:
        return replace(settings_for(self._target, self._limits, variables), idle_timeout=IDLE_TIMEOUT)

    def _config(self, function_url: str) -> Config:
        options, dial_address = self._options, f"ws://{Address(self._host, self._options.port)}"
        flags = {
            **options.flags,
            keys.FUNCTION_URL.name: function_url,
            keys.LISTEN.name: str(Address(options.host, options.port)),
            keys.ADMIN.name: options.admin or "off",
            **({keys.DIAL_ADDRESS_KEY.name: dial_address} if options.port else {}),
        }
        known = {key.variable for key in keys.DEV_KEYS}
        variables = {name: text for name, text in os.environ.items() if name in known}
        try:
            return load(flags=flags, environ={**variables, keys.SECRET_KEY.variable: self._secret})
        except ConfigError as error:
            raise CommandFailed(str(error)) from None

    def _variables(self, address: Address) -> dict[str, str]:
        allowance = {} if address.is_loopback else {"DIALBACK_ALLOW_INSECURE": "1"}
        return {"DIALBACK_GATEWAY": f"ws://{address}", "DIALBACK_SECRET": self._secret, **allowance}
