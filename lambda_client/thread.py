"""Code that blocks, in a thread of the executor: a handler's call and its iterator, from first to last in one thread.

The thread hands pieces over one at a time and waits while too much is held; the loop takes them as an async iterator.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from lambda_client.response import Prepared, close
from lambda_client.stream import ClientDisconnected

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

HELD_LIMIT = 64 << 10  # bytes handed over and not yet taken above which the thread waits
UNREAD = "nobody reads the response any more"
PIECE_COST = 64  # bytes added to each piece's length, so that tiny ones are bounded too

_T = TypeVar("_T")


class ThreadRun:
    """Begins when the executor takes it, ends when the code has returned. Async-iterate it for the pieces."""

    def __init__(self, executor: Executor, call: Callable[[ThreadRun], Prepared]) -> None:
        """`call` runs in the thread. It returns the response, or has said `begin` and `put` itself before."""
        self._loop = asyncio.get_running_loop()
        self.prepared: asyncio.Future[Prepared] = self._loop.create_future()
        self._pieces: deque[Any] = deque()
        self._held = 0
        self._room = threading.Condition()
        self.is_stopped = False
        self._news = asyncio.Event()
        self._is_told = False  # the loop has been woken and has not looked yet
        self._ended: asyncio.Future[None] = self._loop.create_future()
        context = copy_context()
        self.job: Future[None] = executor.submit(context.run, self._main, call)

    # In the thread

    def begin(self, prepared: Prepared) -> None:
        """The response's head is known. Idempotent."""
        self._post(_settle, self.prepared, prepared, None)

    def _main(self, call: Callable[[ThreadRun], Prepared]) -> None:
        prepared: Prepared | None = None
        error: BaseException | None = None
        try:
            prepared = call(self)
            if isinstance(prepared.body, Iterator):
                self.begin(prepared)
                self._iterate(prepared.body)
        except BaseException as raised:
            error = raised
        self._post(self._end, prepared, error)  # one wake-up for all

    def _iterate(self, pieces: Iterator[Any]) -> None:
        """Closed at the end, and where it is when nobody takes any more: in this thread, as a generator must be."""
        try:
            while not self.is_stopped:
                self.put(next(pieces))
        except StopIteration:
            pass
        finally:
            close(pieces)

    def put(self, piece: Any) -> None:
        """Hand a piece over; waits for room."""
        with self._room:
            while self._held >= HELD_LIMIT and not self.is_stopped:
                self._room.wait()
            if self.is_stopped:
                return
            self._held += _cost(piece)
            self._pieces.append(piece)
            tell, self._is_told = not self._is_told, True
        if tell:
            self._post(self._news.set)

    def finished(self) -> None:
        """Wait until the loop has taken all pieces."""
        with self._room:
            self._room.wait_for(lambda: self.is_stopped or not self._pieces)
        self.check()

    def check(self) -> None:
        if self.is_stopped:
            raise ClientDisconnected(UNREAD)

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            self.is_stopped = True  # the environment has ended before its code

    # In the loop

    def _end(self, prepared: Prepared | None, error: BaseException | None) -> None:
        _settle(self.prepared, prepared, error)
        _settle(self._ended, None, error)
        if error is not None:
            self._ended.exception()  # `prepared` or the iteration raises it, or nobody waits for either
        self._news.set()

    def __aiter__(self) -> ThreadRun:
        return self

    async def __anext__(self) -> Any:
        while True:
            with self._room:
                self._is_told = False
                if self._pieces:
                    piece = self._pieces.popleft()
                    self._held -= _cost(piece)
                    if self._held < HELD_LIMIT // 2:
                        self._room.notify()
                    self._is_told = bool(self._pieces)
                    return piece
                self._news.clear()
            if self._ended.done():
                self._ended.result()
                raise StopAsyncIteration
            await self._news.wait()

    async def stop(self, is_abandoned: Callable[[], bool]) -> None:
        """Take no more pieces; returns when the code has stopped, which nothing can hurry, or when it is abandoned."""
        with self._room:
            self.is_stopped = True
            self._pieces.clear()
            self._room.notify()
        if self.job.cancel():
            return
        was_cancelled = False
        while not self._ended.done():
            try:
                await asyncio.wait([self._ended])
            except asyncio.CancelledError:
                was_cancelled = True
                if is_abandoned():
                    break
        if self.prepared.done() and not self.prepared.cancelled():
            self.prepared.exception()
        if was_cancelled:
            raise asyncio.CancelledError


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # which a future would take for its own
        future.set_exception(RuntimeError("the handler raised StopIteration"))
    else:
        future.set_exception(error)


def _cost(piece: Any) -> int:
    return PIECE_COST + (len(piece) if isinstance(piece, (str, bytes, bytearray, memoryview)) else 0)


def wait_in_thread(loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """From a thread: run a coroutine on the loop and wait for it."""
    return asyncio.run_coroutine_threadsafe(call(), loop).result()
