"""The face that a request shows to the connection that it came on."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import Problem


class CurrentRequest(Protocol):
    """What a connection tells the request that it is serving."""

    def body_arrived(self) -> None:
        """Something came: of its body, or of what is behind it."""

    def client_gone(self, reason: str) -> None: ...
    def half_closed(self) -> None:
        """The client sends nothing more, and may be reading."""

    def client_paused(self) -> None: ...
    def client_resumed(self) -> None: ...
    def held_back(self) -> None:
        """Nothing is read of it just now; said every quarter of a second while that lasts."""

    def body_broken(self, problem: Problem) -> None:
        """What should be its body is not."""

    def stop(self) -> None:
        """The gateway cannot wait for its end."""
