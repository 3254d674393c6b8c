"""The way to a client: pieces of a response at once; the ends of small ones, but for the first, at the turn's end.

Each write wakes whoever reads it, and that costs as much as making a response; a burst of writes costs it once. Pieces
of long responses do not wait: there it gave nothing. Knows transports and the loop.
"""

from __future__ import annotations

import asyncio
from typing import Final

SMALL: Final = 16 << 10  # bytes for one client up to which the end of a response may wait for the turn's

Piece = bytes | bytearray | memoryview


class Turn:
    """Of one loop: the turn that runs. Begins and ends with its listener."""

    def __init__(self) -> None:
        self._waiting: list[Outgoing] = []
        self._has_first = False

    def takes_first(self) -> bool:
        """Whether no response has ended in it so far, so that this may leave at once."""
        if self._has_first:
            return False
        if not self._waiting:
            self._end_soon()
        self._has_first = True
        return True

    def wait(self, outgoing: Outgoing) -> None:
        """Flush it at the end."""
        if not (self._waiting or self._has_first):
            self._end_soon()
        self._waiting.append(outgoing)

    def _end_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._has_first = False
        for outgoing in waiting:
            outgoing.flush()


class Outgoing:
    """The way to one client, over its transport; whoever ends that flushes first. What comes after its end is dropped:
    that a client has left is told by `connection_lost`, and until then asyncio would log each write as a mistake."""

    __slots__ = ("_turn", "_waiting", "transport")

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        self.transport = transport
        self._turn = turn
        self._waiting = b""

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken."""
        return len(self._waiting) + self.transport.get_write_buffer_size()

    def write(self, *pieces: Piece) -> None:
        """At once, with what waits before it; views of buffers are used up when this returns."""
        data = b"".join((self._waiting, *pieces)) if self._waiting else b"".join(pieces)
        self._waiting = b""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def write_last(self, *pieces: Piece) -> None:
        """The last of a response, in this turn."""
        data = b"".join((self._waiting, *pieces))
        if len(data) > SMALL or self._turn.takes_first():
            self._waiting = b""
            self.write(data)
        else:
            self._wait(data)

    def hold(self, data: bytes) -> None:
        """For what follows in this turn, or its end."""
        self._wait(self._waiting + data)

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self.write()

    def _wait(self, data: bytes) -> None:
        if not self._waiting:
            self._turn.wait(self)
        self._waiting = data
