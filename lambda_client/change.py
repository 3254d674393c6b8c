"""What a policy waits for: that something has changed, or a time."""

from __future__ import annotations

import asyncio


class Change:
    """Begins and ends with its owner; one coroutine waits at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._was_told = False  # since the last wait
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0

    async def wait(self, until: float) -> None:
        """Until something changed since the last wait, or a time of the loop's."""
        if not self._was_told:
            self._waiter, self._until = self._loop.create_future(), until
            timer = self._loop.call_at(until, self.tell)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._was_told = False

    def tell(self) -> None:
        self._was_told = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def tell_before(self, at: float) -> None:
        """The same where it matters from `at` on only: who looks by then is left in peace."""
        if self._waiter is None or at < self._until:
            self.tell()
