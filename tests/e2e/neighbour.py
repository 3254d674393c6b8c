"""A healthy stream beside whatever tests do to the gateway; it must not notice."""

from __future__ import annotations

import threading

from tests.e2e.lag import Lag
from tests.e2e.stack import Stack

COUNT, INTERVAL = 100_000, 0.02
LATEST = 0.05
"""Seconds that one of its chunks may be late, besides what the machine adds."""


class Neighbour:
    """A stream of a chunk each 20 ms, as long as many tests. Begins with the constructor, ends with `leave`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._connection = stack.connect()
        self._connection.request("GET", f"/ticks?count={COUNT}&interval={INTERVAL}")
        self._pieces = self._connection.pieces(self._connection.head())
        self._faults: list[str] = []
        self._latest = 0.0
        self._lag = Lag()
        self._chunks = 0
        self._news = threading.Condition()
        self._is_leaving = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def check(self) -> None:
        """Fail unless every chunk so far came in its turn and in time, and the next two come as well."""
        with self._news:
            next_but_one = self._chunks + 2
            self._news.wait_for(lambda: self._faults or self._chunks >= next_but_one, timeout=5)
            assert not self._faults and self._chunks >= next_but_one, self._faults or "the neighbour's stream stopped"
            assert self._latest < self._lag.allow(LATEST), f"a chunk of the neighbour's was {self._latest:.3f} s late"
        assert not self._stack.mistakes()

    def leave(self) -> None:
        """End it."""
        self._is_leaving = True
        self._thread.join()
        self._connection.socket.close()
        self._lag.stop()

    def _run(self) -> None:
        try:
            for number, chunk in enumerate(self._pieces):
                index, written, _ = chunk.data.split()
                with self._news:
                    self._chunks += 1
                    if int(index) != number:
                        self._faults.append(f"chunk {index!r} came in place of {number}")
                    self._latest = max(self._latest, chunk.time - float(written))
                    self._news.notify_all()
                if self._is_leaving:
                    return
        except Exception as error:
            with self._news:
                self._faults.append(repr(error))
                self._news.notify_all()
