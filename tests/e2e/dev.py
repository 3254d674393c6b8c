"""A `dialback dev` that runs as people run it."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import process
from tests.e2e.command import Command
from tests.e2e.stack import free_port
from tests.e2e.wire import Connection


class Dev:
    """A `dialback dev`, for the length of a `with`; nothing of it may be left after that."""

    def __init__(self, target: str, root: Path, **environment: str) -> None:
        self.port = free_port()
        self.expected = 0
        self.command = Command("dev", target, "--port", str(self.port), cwd=root, environment=environment)

    def __enter__(self) -> Dev:
        self.url = self.command.ready()
        return self

    def __exit__(self, *_: object) -> None:
        left = process.descendants(self.command.pid)
        assert self.command.stop() in (0, self.expected), self.command.output
        assert not [pid for pid in left if process.is_alive(pid)]

    def connect(self) -> Connection:
        return Connection(("127.0.0.1", self.port))

    def get(self, target: str) -> bytes:
        with self.connect() as connection:
            connection.request("GET", target)
            response = connection.response()
            assert (response.status, response.failure) == (200, None)
            return response.body
