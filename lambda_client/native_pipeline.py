"""`pipeline`: from a source through transforms into a response stream, as Node's does it (`stream.pipeline`)."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

from lambda_client.native import AsyncResponseStream, ResponseStream
from lambda_client.response import FilePieces, encode_piece


def pipeline(source: Any, *stages: Any) -> Awaitable[None]:
    """Send `source` through transforms into a response stream, the last argument, and end that. As Node's.

    `source`: bytes, str, a binary file, an iterable or, in an `async def` handler, an async iterable. A transform: an
    object with `compress` or `decompress` and `flush` (`zlib.compressobj(wbits=31)` writes gzip), or a callable that
    takes the iterator of pieces and gives another; in an `async def` handler an async one.

    In a `def` handler it has all been written when this returns. In an `async def` handler: `await pipeline(...)`.
    """
    *transforms, target = stages or (None,)
    if isinstance(target, AsyncResponseStream):
        return _pipe_on_loop(source, transforms, target)
    if not isinstance(target, ResponseStream):
        raise TypeError("the last argument of pipeline is the response stream")
    pieces = _pieces(source)
    try:
        through = pieces
        for transform in transforms:
            through = _transform(transform, through)
        for piece in through:
            target.write(piece)
        target.end()
    finally:
        _close(pieces)
    return _Done()


async def _pipe_on_loop(source: Any, transforms: list[Any], target: AsyncResponseStream) -> None:
    pieces = _async_pieces(source)
    try:
        through: AsyncIterable[Any] = pieces
        for transform in transforms:
            through = _transform_on_loop(transform, through)
        async for piece in through:
            target.write(piece)
            await target.drain()
        target.end()
    finally:
        await pieces.aclose()


class _Done:
    """Awaitable, for code that awaits what is over."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def _pieces(source: Any) -> Iterator[Any]:
    if isinstance(source, (str, bytes, bytearray, memoryview)):
        return iter([source])
    if callable(getattr(source, "read", None)):
        return FilePieces(source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return iter(source)
    raise TypeError(f"a pipeline begins with bytes, str, a file or an iterable of them, not {type(source).__name__}")


async def _async_pieces(source: Any) -> AsyncGenerator[Any, None]:
    if isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
        return
    pieces = _pieces(source)
    try:
        if isinstance(pieces, FilePieces):  # which may block
            loop = asyncio.get_running_loop()
            while (piece := await loop.run_in_executor(None, next, pieces, None)) is not None:
                yield piece
        else:
            for piece in pieces:
                yield piece
    finally:
        _close(pieces)


def _transform(transform: Any, pieces: Iterable[Any]) -> Iterator[Any]:
    convert, flush = _codec(transform)
    if convert is None:
        return iter(transform(pieces))
    return _converted(convert, flush, pieces)


def _converted(convert: Callable[[bytes], bytes], flush: Callable[[], bytes], pieces: Iterable[Any]) -> Iterator[bytes]:
    for piece in pieces:
        yield convert(encode_piece(piece))
    yield flush()


def _transform_on_loop(transform: Any, pieces: AsyncIterable[Any]) -> AsyncIterable[Any]:
    convert, flush = _codec(transform)
    if convert is None:
        return transform(pieces)  # type: ignore[no-any-return]
    return _converted_on_loop(convert, flush, pieces)


async def _converted_on_loop(
    convert: Callable[[bytes], bytes], flush: Callable[[], bytes], pieces: AsyncIterable[Any]
) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield convert(encode_piece(piece))
    yield flush()


def _codec(transform: Any) -> tuple[Callable[[bytes], bytes] | None, Callable[[], bytes]]:
    convert = getattr(transform, "compress", None) or getattr(transform, "decompress", None)
    if convert is None and not callable(transform):
        raise TypeError(f"{transform!r} is no transform: it has no compress or decompress, and cannot be called")
    return convert, getattr(transform, "flush", bytes)


def _close(pieces: Any) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()
