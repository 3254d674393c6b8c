"""`pipeline`: from a source through transforms into a response stream, as Node's does it (`stream.pipeline`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from lambda_client.native import AsyncResponseStream, Done, ResponseStream
from lambda_client.response import FilePieces, aclose, close, encode_piece


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
    with ExitStack() as opened:
        through = _pieces(source)
        opened.callback(close, through)
        for transform in transforms:
            through = iter(_transform(transform, through, _converted))
            opened.callback(close, through)
        for piece in through:
            target.write(piece)
        target.end()
    return Done()


async def _pipe_on_loop(source: Any, transforms: list[Any], target: AsyncResponseStream) -> None:
    async with AsyncExitStack() as opened:
        through = source.__aiter__() if isinstance(source, AsyncIterable) else _off_loop(source)
        opened.push_async_callback(aclose, through)
        for transform in transforms:
            through = _transform(transform, through, _converted_on_loop)
            opened.push_async_callback(aclose, through)
        async for piece in through:
            target.write(piece)
            await target.drain()
        target.end()


def _pieces(source: Any) -> Iterator[Any]:
    if isinstance(source, (str, bytes, bytearray, memoryview)):
        return iter([source])
    if callable(getattr(source, "read", None)):
        return FilePieces(source)
    if isinstance(source, Iterable) and not isinstance(source, Mapping):
        return iter(source)
    raise TypeError(f"a pipeline begins with bytes, str, a file or an iterable of them, not {type(source).__name__}")


async def _off_loop(source: Any) -> AsyncIterator[Any]:
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
        close(pieces)


def _transform(transform: Any, pieces: Any, converted: Callable[..., Any]) -> Any:
    convert = getattr(transform, "compress", None) or getattr(transform, "decompress", None)
    if convert is not None:
        return converted(convert, getattr(transform, "flush", bytes), pieces)
    if not callable(transform):
        raise TypeError(f"{transform!r} is no transform: it has no compress or decompress, and cannot be called")
    return transform(pieces)


def _converted(convert: Callable[[bytes], bytes], flush: Callable[[], bytes], pieces: Iterable[Any]) -> Iterator[bytes]:
    for piece in pieces:
        yield convert(encode_piece(piece))
    yield flush()


async def _converted_on_loop(
    convert: Callable[[bytes], bytes], flush: Callable[[], bytes], pieces: AsyncIterable[Any]
) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield convert(encode_piece(piece))
    yield flush()
