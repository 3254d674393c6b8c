"""What a function's process writes to stdout and stderr, cut into log entries."""

import asyncio
import os
from collections.abc import Callable

ENTRY_LIMIT = 256 * 1024
"""Bytes of one log entry, as in CloudWatch Logs; a longer line is cut into several."""
READ_SIZE = 64 * 1024
"""Bytes read at a time: what a pipe holds."""
DRAIN_READS = 16
"""How often at most `drain` reads: a function that never stops writing must not stop us."""


class Output:
    """A pipe. Begins before the process that gets `write_end`, ends with `close`, after it."""

    def __init__(self, forward: Callable[[str], None]) -> None:
        """`forward` is called with each entry, without its newline."""
        self._forward = forward
        self._rest = b""
        self._closed = False
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        asyncio.get_running_loop().add_reader(self._read_end, self._read)

    def handed_over(self) -> None:
        """The process has its own copy of `write_end`, or will never have one: close ours."""
        os.close(self.write_end)

    def drain(self) -> None:
        """Forward what has been written so far, so that what is logged next comes after it."""
        for _ in range(DRAIN_READS):
            if self._closed or not self._read():
                break

    def close(self) -> None:
        """Forward what is left, a last line without a newline too."""
        self.drain()
        if self._rest:
            self._entry(self._rest)
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
        self._closed = True

    def _read(self) -> bool:
        """Read once; say whether there may be more."""
        try:
            chunk = os.read(self._read_end, READ_SIZE)
        except BlockingIOError:
            return False
        if not chunk:  # nobody can write any more; the loop would say so for ever
            asyncio.get_running_loop().remove_reader(self._read_end)
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._entry(line)
        while len(self._rest) >= ENTRY_LIMIT:
            self._entry(self._rest[:ENTRY_LIMIT])
            self._rest = self._rest[ENTRY_LIMIT:]
        return True

    def _entry(self, line: bytes) -> None:
        # The runtime client writes a traceback as one entry, with carriage returns between its lines.
        self._forward(line.decode(errors="replace").rstrip("\r").replace("\r", "\n"))
