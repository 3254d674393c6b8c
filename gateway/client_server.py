"""The public listener's protocol factory: all clients' connections, their number and their end.

Knows connections, not what is served on them.
"""

from __future__ import annotations

import asyncio

from gateway.client_connection import ClientConnection
from gateway.limits import HttpLimits
from gateway.open_websockets import OpenWebSockets
from gateway.outgoing import Turn
from gateway.received_request import Front


class ClientServer:
    """The protocol factory of the public listener; lives as long as the listener."""

    def __init__(self, front: Front, limits: HttpLimits) -> None:
        self._front = front
        self._limits = limits
        self.connections: set[ClientConnection] = set()
        """Those whose socket is theirs: not those that became links or WebSockets."""
        self.websockets = OpenWebSockets()
        self.turn = Turn()

    @property
    def count(self) -> int:
        """Open connections, without those that became links."""
        return len(self.connections) + len(self.websockets)

    def close_idle(self) -> None:
        """Close the connections that serve no request; those that do are left to finish, WebSockets to fall quiet."""
        self.websockets.go_away()
        for connection in list(self.connections):
            if connection.is_idle:
                connection.close()

    async def shutdown(self, timeout: float | None = None) -> None:
        """End what is left within `timeout` seconds. Those whose client is slow to take its response may outlast it:
        `abort`."""
        ends = [connection.shutdown(timeout) for connection in self.connections]
        await asyncio.gather(*ends, self.websockets.end(timeout))

    def abort(self) -> None:
        """Cut what is left."""
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def __call__(self) -> ClientConnection:
        return ClientConnection(self, self._front, self._limits)
