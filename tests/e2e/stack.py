"""The whole thing in processes of their own: `dialback lambda` with a handler, and `dialback serve` in front of it."""

from __future__ import annotations

import itertools
import random
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e import process
from tests.e2e.command import REPOSITORY, Command, CommandEnded
from tests.e2e.held import PROBED
from tests.e2e.wire import Connection

HANDLERS = REPOSITORY / "tests" / "e2e" / "handlers"
PORTS = range(20000, 32768)
"""Below the ports that the kernel gives to clients: what is free now is still free in a moment."""
ATTEMPTS = 5
_ports = itertools.cycle(random.sample(PORTS, len(PORTS)))


class Stack:
    """One gateway, one function, and what they tell. Begins with the constructor, ends with `stop`."""

    def __init__(
        self,
        handler: str,
        notes: Path,
        *,
        environments: int = 10,
        memory: int = 1024,
        timeout: float = 900,
        root: Path = HANDLERS,
        serve: Mapping[str, object] | None = None,
        config: Callable[[str], str] | None = None,
        gateway_secret: str = "",
        gateways: Sequence[str] = (),
        probe: Path | None = None,
    ) -> None:
        """`handler`: FILE.py:NAME below `root`; `notes`: a folder for what the function notes; `serve`: flags of
        `dialback serve`, by their names without the dashes; `config`: the text of its file, given the Function URL;
        `gateway_secret`: in place of the one that both share; `gateways`: what else the function may dial; `probe`: the
        file that the gateway writes when it is asked by `held`."""
        self.notes = notes
        self.secret = secrets.token_urlsafe(32)
        self._gateway_secret = gateway_secret or self.secret
        self._flags, self._config, self._probe = serve or {}, config, probe
        limits = ("--environments", str(environments), "--memory", str(memory), "--timeout", str(timeout))
        for attempt in range(ATTEMPTS):
            self.port, function_port = free_port(), free_port()
            self.function_url = f"http://127.0.0.1:{function_port}/"
            self.function = Command(
                *("lambda", handler, "--port", str(function_port), "--root", str(root), *limits),
                cwd=root,
                environment={
                    "DIALBACK_SECRET": self.secret,
                    "DIALBACK_GATEWAY": ",".join((f"ws://127.0.0.1:{self.port}", *gateways)),
                    "E2E_NOTES": str(notes),
                },
            )
            try:
                self.start_gateway()
                self.function.ready()
                return
            except CommandEnded as failure:
                self._end()
                if "is in use" not in str(failure) or attempt == ATTEMPTS - 1:
                    raise
            except BaseException:
                self._end()
                raise

    def start_gateway(self) -> None:
        """Start the gateway; once more, on the same port, after it was stopped."""
        self.admin_port = free_port()
        flags: dict[str, object] = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": f"127.0.0.1:{self.admin_port}",
            "log-format": "console",
            **self._flags,
        }
        if self._config is None:
            flags["function-url"] = self.function_url
        else:
            flags["config"] = file = self.notes / "dialback.toml"
            file.write_text(self._config(self.function_url))
        self.gateway = Command(
            "serve",
            *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
            environment={"DIALBACK_SECRET": self._gateway_secret, "E2E_PROBE": str(self._probe)},
            program=PROBED if self._probe else (),
        )
        self.url = self.gateway.ready()
        self.authority = urlsplit(self.url).netloc

    def connect(self, *, receive_buffer: int | None = None) -> Connection:
        """A raw connection to the gateway; use it in a `with`."""
        return Connection(("127.0.0.1", self.port), receive_buffer=receive_buffer)

    def get(self, target: str, *headers: str) -> bytes:
        """The body of a GET that must end well, over a connection of its own."""
        with self.connect() as connection:
            connection.request("GET", target, *headers)
            response = connection.response()
            assert (response.status, response.failure) == (200, None), (response, response.body[:500])
            return response.body

    @property
    def environments(self) -> list[int]:
        """The environments' process ids."""
        return self.function.environments()

    @property
    def environment(self) -> int:
        """The process id of the only environment."""
        (pid,) = self.environments
        return pid

    @property
    def is_network_frozen(self) -> bool:
        """Whether an idle environment's network is frozen with it; else the local Lambda has said why not."""
        return not any("not their network" in line for line in self.function.lines)

    def gauge(self, name: str) -> float:
        """What the gateway's metrics say: the sum of `dialback_NAME` over all its labels."""
        with Connection(("127.0.0.1", self.admin_port)) as connection:
            connection.request("GET", "/metrics")
            text = connection.response().body.decode()
        return sum(float(value) for value in re.findall(rf"^dialback_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def executions(self, name: str) -> list[str]:
        """The lines that the function noted under `name`."""
        file = self.notes / name
        return file.read_text().splitlines() if file.exists() else []

    def interrupt(self) -> None:
        """Begin to stop both, so that several stacks stop side by side."""
        for command in (self.gateway, self.function):
            command.interrupt()

    def stop(self) -> None:
        """Stop both; nothing of them may be left."""
        codes, left = self._end()
        assert not left, "processes are left"
        assert not any(codes), (codes, self.gateway.output[-2000:], self.function.output[-2000:])

    def _end(self) -> tuple[list[int], list[int]]:
        """Exit codes, and the process ids of what is left."""
        commands = [command for name in ("gateway", "function") if (command := self.__dict__.get(name))]
        below = {pid for command in commands for pid in process.descendants(command.pid)}
        for command in commands:
            command.interrupt()
        return [command.stop() for command in commands], [pid for pid in below if process.is_alive(pid)]

    def mistakes(self) -> list[str]:
        """Lines of the gateway's log that only a mistake of its own writes."""
        return [line for line in self.gateway.lines if re.search(r"error: |Traceback|own mistake", line)]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment, and that was not given before."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
