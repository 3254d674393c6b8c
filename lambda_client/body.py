"""A request's body as a stream, for `async def` handlers and for `def` handlers. Knows nothing of requests.

A body is bytes only once it has been read. The classes' `__name__` says so, because that is what the standard library
prints when a body is handed to it: `json.loads(request.body)` fails with the line to write instead.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NoReturn, cast

from lambda_client.stream import Stream

_READ_TWICE = "the body has been read piece by piece already: keep what you read, or read it whole with {}"


class _Misused:
    """What bytes can do and a stream cannot: each attempt is answered with the line to write."""

    __slots__ = ("_was_iterated", "_whole")
    _read = ""
    _iterate = ""

    def __init__(self) -> None:
        self._whole: bytes | None = None
        self._was_iterated = False

    def _check_pass(self) -> None:
        if self._whole is not None:
            raise RuntimeError(_READ_TWICE.format(self._read).replace("piece by piece", "whole"))
        self._was_iterated = True

    def _check_unread(self) -> None:
        if self._was_iterated:
            raise RuntimeError(_READ_TWICE.format(self._read))

    def _fail(self, attempt: str) -> NoReturn:
        raise TypeError(f"{attempt}: request.body is a stream; write `{self._read}`, or `{self._iterate}`")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"request.body is a stream without .{name}; write `{self._read}`, or `{self._iterate}`")

    def __call__(self, *_: object) -> NoReturn:
        self._fail("request.body()")

    def __len__(self) -> int:
        self._fail("len(request.body)")

    def __bool__(self) -> bool:
        self._fail("bool(request.body)")

    def __bytes__(self) -> bytes:
        self._fail("bytes(request.body)")

    def __getitem__(self, _: object) -> NoReturn:
        self._fail("request.body[...]")


class Body(_Misused):
    """An async iterator of the pieces (bytes) as they come; taking one asks for more. One pass, in one task."""

    __slots__ = ("_stream",)
    _read = "await request.read()"
    _iterate = "async for piece in request.body"

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        self._check_pass()
        piece = await self._stream.read()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def _read_whole(self) -> bytes:
        if self._whole is None:
            self._check_unread()
            pieces = []
            while (piece := await self._stream.read()) is not None:
                pieces.append(piece)
            self._whole = b"".join(pieces)
        return self._whole

    def __iter__(self) -> NoReturn:
        self._fail("for ... in request.body")

    def __contains__(self, _: object) -> bool:
        self._fail("... in request.body")

    def __await__(self) -> NoReturn:
        self._fail("await request.body")


class SyncBody(_Misused):
    """An iterator of the pieces (bytes) as they come, for the thread of a `def` handler. One pass."""

    __slots__ = ("_next",)
    _read = "request.read()"
    _iterate = "for piece in request.body"

    def __init__(self, next_piece: Callable[[], bytes | None]) -> None:
        """`next_piece` waits for the next piece; None at the end."""
        super().__init__()
        self._next = next_piece

    def __iter__(self) -> SyncBody:
        return self

    def __next__(self) -> bytes:
        self._check_pass()
        piece = self._next()
        if piece is None:
            raise StopIteration
        return piece

    def _read_whole(self) -> bytes:
        if self._whole is None:
            self._check_unread()
            self._whole = b"".join(iter(cast("Callable[[], bytes]", self._next), None))
        return self._whole

    def __aiter__(self) -> NoReturn:
        self._fail("async for ... in request.body in a `def` handler")


async def read_whole(body: Body) -> bytes:
    """The whole body; the same bytes at every call. Raises `RuntimeError` after a piece was taken."""
    return await body._read_whole()  # no public method: `request.body.read()` is a mistake that is answered above


def read_whole_sync(body: SyncBody) -> bytes:
    """The same in a thread."""
    return body._read_whole()


class BodyFile(io.RawIOBase):
    """A body as a raw binary file that cannot seek. Ends with the body; closing it leaves the rest unread."""

    def __init__(self, body: SyncBody) -> None:
        self._body = body
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill as much of the buffer as one piece can; 0 at the end."""
        if not self._left:
            self._left = memoryview(next(self._body, b""))
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


Body.__name__ = "request.body (a stream: write `await request.json()` or `await request.read()`)"
SyncBody.__name__ = "request.body (a stream: write `request.json()` or `request.read()`)"
