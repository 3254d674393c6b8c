"""How late this machine wakes whoever sleeps: what a busy machine adds to every time that a test measures."""

from __future__ import annotations

import threading
import time

NAP = 0.005
"""Seconds."""
HOPS = 3
"""Processes that a chunk passes: function, gateway, test; each may wait as long as we did."""


class Lag:
    """Sleeps and looks at the clock beside a test. Begins with the constructor, ends with `stop`."""

    def __init__(self) -> None:
        self.worst = 0.0
        """The longest oversleeping so far, in seconds; a millisecond on a quiet machine."""
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def allow(self, seconds: float) -> float:
        """`seconds`, and what the machine may have added."""
        return seconds + HOPS * self.worst

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            began = time.monotonic()
            time.sleep(NAP)
            self.worst = max(self.worst, time.monotonic() - began - NAP)
