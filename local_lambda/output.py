"""What a function's process writes to stdout and stderr, cut into log entries."""

import asyncio
import os
from collections.abc import Callable

ENTRY_LIMIT = 256 * 1024
"""Bytes of one log entry, as in CloudWatch Logs; a longer line is cut into several."""
READ_SIZE = 64 * 1024
"""Bytes read at a time: what a pipe holds."""
FRAME_HEADER = 16
"""Bytes before the entry in a frame of the runtime client's."""
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
        self._rest = self._flush(self._rest)

    def close(self) -> None:
        """Forward what is left."""
        self.drain()
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
        self._rest = self._cut(self._rest + chunk)
        return True

    def _cut(self, data: bytes) -> bytes:
        """Forward the entries that are whole; what is left."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._entry(line)
        while len(rest) >= ENTRY_LIMIT:
            self._entry(rest[:ENTRY_LIMIT])
            rest = rest[ENTRY_LIMIT:]
        return rest

    def _flush(self, rest: bytes) -> bytes:
        """A last line without a newline is an entry too."""
        if rest:
            self._entry(rest)
        return b""

    def _entry(self, line: bytes) -> None:
        self._forward(line.decode(errors="replace").rstrip("\r"))


class Telemetry(Output):
    """The pipe of the runtime client's own entries (log records, the errors of handlers), which frames them.

    A frame: type, length, 4 bytes each, time in 8, the entry (awslambdaric, FramedTelemetryLogSink). Without it the
    client writes to stdout, and an entry without a newline would run into the next one.
    """

    def __init__(self, forward: Callable[[str], None]) -> None:
        super().__init__(forward)
        self._unwanted = 0  # bytes of an entry above the limit that are still to come

    def _cut(self, data: bytes) -> bytes:
        while True:
            dropped = data[: self._unwanted]
            data = data[len(dropped) :]
            self._unwanted -= len(dropped)
            size = int.from_bytes(data[4:8], "big")
            taken = FRAME_HEADER + min(size, ENTRY_LIMIT)
            if len(data) < max(taken, FRAME_HEADER):
                return data
            self._entry(data[FRAME_HEADER:taken].rstrip(b"\n"))
            self._unwanted = size - (taken - FRAME_HEADER)
            data = data[taken:]

    def _flush(self, rest: bytes) -> bytes:
        return rest  # the rest of a frame is still to come
