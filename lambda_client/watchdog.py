"""Names code that blocks the event loop: all streams of the environment wait for it, and so does the link.

A thread asks the loop for a sign of life several times a limit, but only while a stream runs. It trusts no clock across
its own waits: one that took longer than it was to take was a freeze, which stops everything and blocks nothing, unless
the loop's thread has spent the time computing, as code in C does that keeps the interpreter to itself.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from lambda_client.place import users_part
from lambda_client.request import CURRENT_REQUEST

if TYPE_CHECKING:
    from lambda_client.stream import Stream

LOG = logging.getLogger("dialback")

SIGNS = 4  # that are asked for in the limit: a block is named a quarter of it late, a half where streams just ended
_ADVICE = (
    "Await what waits (`await asyncio.sleep(…)`, an async client), give what does not to a thread "
    "(`await asyncio.to_thread(…)`), or make the handler a `def`."
)


class Watchdog:
    """Begins with its environment, its thread with the first stream. That sleeps, untimed, while no stream runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: str) -> None:
        """`limit`: seconds from which the loop counts as blocked, as `DIALBACK_BLOCKED_LOOP` says them; 0: never.

        Raises `ValueError`.
        """
        try:
            self._limit = float(limit)
        except ValueError:
            raise ValueError(f"DIALBACK_BLOCKED_LOOP is a number of seconds, not {limit!r}") from None
        self._loop = loop
        self._streams: set[Stream] = set()
        self._awake = threading.Event()  # the thread looks, or is about to
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._looped = 0  # identifies the loop's thread,
        self._clock: int | None = None  # and the clock of the processor time that it has spent
        self._counted = 0.0, 0.0  # seconds of both clocks

    # In the loop

    def begin(self, stream: Stream) -> None:
        self._streams.add(stream)
        if not self._awake.is_set() and 0 < self._limit < threading.TIMEOUT_MAX:
            self._wake()

    def end(self, stream: Stream) -> None:
        self._streams.discard(stream)

    def stop(self) -> None:
        self._stopped.set()
        self._wake()

    def _wake(self) -> None:
        self._looped = threading.get_ident()
        if hasattr(time, "pthread_getcpuclockid"):  # not on macOS
            self._clock = time.pthread_getcpuclockid(self._looped)
        self._counted = time.monotonic(), self._spent()
        if self._thread is None and not self._stopped.is_set():
            self._thread = threading.Thread(target=self._run, name="dialback-watchdog", daemon=True)
            self._thread.start()
        self._awake.set()

    # In the thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._awake.clear()  # first: a stream that begins while we look wakes us
            if not (self._waiting() or self._stopped.is_set()):
                self._awake.wait()
            self._awake.set()
            self._look()
            if not self._waiting():  # who follows at once need not pay for waking us
                self._stopped.wait(self._limit / SIGNS)
                self._count(0.0)

    def _waiting(self) -> list[Stream]:
        """The streams that run. Code that was left behind goes on when the loop does."""
        return [stream for stream in list(self._streams) if not stream.is_abandoned]

    def _look(self) -> None:
        """Ask for one sign of life, and see how long it takes."""
        step = self._limit / SIGNS
        sign = threading.Event()
        try:
            self._loop.call_soon_threadsafe(sign.set)
        except RuntimeError:  # the loop is closed
            self._stopped.set()
            return
        blocked = more = self._count(step)
        is_over = is_named = False
        while waiting := self._waiting():
            if blocked >= self._limit and not is_named:
                is_named = True
                # Who was kept from looking finds the code a little further on.
                self._name(blocked, "at" if more <= step else "just before", waiting)
            if is_over or self._stopped.wait(step):
                break
            blocked += (more := self._count(step))
            if is_over := sign.is_set():
                blocked -= step  # and nothing is left, unless the interpreter was kept from us
        if is_named:
            LOG.warning("the event loop goes on, after %.1f s", blocked)

    def _count(self, step: float) -> float:
        """Seconds since the last count, of which the loop's thread had as many too."""
        (before, spent), self._counted = self._counted, (time.monotonic(), self._spent())
        return max(min(self._counted[0] - before, step), self._counted[1] - spent)

    def _spent(self) -> float:
        """Seconds of processor time that the loop's thread has had."""
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # it has ended
            return 0.0

    def _name(self, blocked: float, at: str, waiting: list[Stream]) -> None:
        """Log where the loop's thread is, whose code it runs, and who waits for it."""
        frame = sys._current_frames().get(self._looped)
        if frame is None:  # the thread has ended
            return
        whose = _request_of(asyncio.current_task(self._loop), waiting)
        place, stack = users_part(frame)
        LOG.error(
            "%sthe event loop is blocked, for %.1f s so far, %s %s. %s\nRequests that wait for it: %s\n%s",
            f"request {whose}: " if whose else "",
            blocked,
            at,
            place,
            _ADVICE,
            ", ".join(stream.id for stream in waiting),
            stack,
        )


def _request_of(task: asyncio.Task[Any] | None, waiting: list[Stream]) -> str:
    """The id of the request whose code a task runs; empty where that cannot be known."""
    if task is None:
        return ""
    if (name := task.get_name()) in [stream.id for stream in waiting]:
        return name
    get_context = getattr(task, "get_context", None)  # of Python 3.12 and newer
    request = get_context().get(CURRENT_REQUEST) if get_context is not None else None
    return "" if request is None else request.id
