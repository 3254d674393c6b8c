"""Server-sent events: `return sse(events())`.

Source: WHATWG HTML, §9.2 "Server-sent events"; §9.2.5 has the format, §9.2.6 what a reader makes of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any

from lambda_client.fields import encode_fields
from lambda_client.response import Prepared, Response, aclose, close
from lambda_client.thread import ThreadRun

KEEP_ALIVE = 15.0  # seconds; proxies and browsers give up after 30 to 60 (§9.2.7 asks for a comment every 15)
COMMENT = b": keep-alive\n\n"
HEADERS = (
    (b"content-type", b"text/event-stream"),  # which is always UTF-8: §9.2.3 has no charset
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx, and proxies that follow it, pass each event on at once
)

_LINE_END = re.compile("\r\n|\r|\n")
_FORBIDDEN = {"event": re.compile("[\r\n]"), "id": re.compile("[\r\n\0]")}
_FIELDS = frozenset({"comment", "event", "id", "retry", "data"})

Event = str | Mapping[str, Any]


def sse(
    events: AsyncIterable[Event] | Iterable[Event],
    *,
    keep_alive: float | None = KEEP_ALIVE,
    status: int = 200,
    headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
) -> Response:
    """A response of server-sent events, each sent when it is there.

    An event is a str, its data, or a mapping: `data` (str, or anything that JSON can say), `event` (its type, str),
    `id` (str or int; a reader that connects again sends the last as `last-event-id`), `retry` (int, milliseconds),
    `comment` (str, which readers ignore). `keep_alive`: seconds without an event after which a comment is sent, so that
    nothing on the way takes the connection for dead; None: never. `headers` come before, or in place of, our own.

    An event that is none raises where it is produced: `TypeError`, `ValueError`.
    """
    if keep_alive is not None and not keep_alive > 0:
        raise ValueError(f"keep_alive is a number of seconds above 0, or None, not {keep_alive!r}")
    if isinstance(events, (str, bytes, Mapping)) or not isinstance(events, (AsyncIterable, Iterable)):
        raise TypeError(f"sse takes an iterator or async iterator of events, not {type(events).__name__}")
    fields = encode_fields(headers)
    given = {name for name, _ in fields}
    fields += [pair for pair in HEADERS if pair[0] not in given]
    return Response(_EventStream(events, keep_alive), status, fields)  # type: ignore[arg-type]  # bytes will do as well


def encode_event(event: object) -> bytes:
    """An event as it is sent. Raises `TypeError`, `ValueError`."""
    if isinstance(event, str):
        return _lines("data", event) + b"\n"
    if not isinstance(event, Mapping):
        raise TypeError(f"an event is a str or a mapping, not {type(event).__name__}")
    unknown = set(event) - _FIELDS
    if unknown:
        raise ValueError(f"an event has no {', '.join(sorted(map(str, unknown)))}: it has {', '.join(sorted(_FIELDS))}")
    text = b""
    if (comment := event.get("comment")) is not None:
        text += _lines("", str(comment))
    for name in ("event", "id"):
        if (value := event.get(name)) is not None:
            text += _line(name, value)
    if (retry := event.get("retry")) is not None:
        if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
            raise ValueError(f"retry is a number of milliseconds, not {retry!r}")
        text += b"retry: %d\n" % retry
    if "data" in event:
        data = event["data"]
        text += _lines("data", data if isinstance(data, str) else json.dumps(data, ensure_ascii=False))
    return text + b"\n"


def _line(name: str, value: object) -> bytes:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"an event's {name} is a str, not {type(value).__name__}")
    if _FORBIDDEN[name].search(str(value)):
        raise ValueError(f"an event's {name} is one line, without NUL, not {value!r}")
    return f"{name}: {value}\n".encode()


def _lines(name: str, value: str) -> bytes:
    return "".join(f"{name}: {line}\n" for line in _LINE_END.split(value)).encode()


def _encoded(events: Iterable[Event]) -> Iterator[bytes]:
    try:
        for event in events:
            yield encode_event(event)
    finally:
        close(events)


class _EventStream:
    """The encoded events, and comments in quiet times. The events are produced in one task, from first to last.

    Begins with the first `__anext__`, ends with `aclose`, or with the last event.
    """

    def __init__(self, events: AsyncIterable[Event] | Iterable[Event], keep_alive: float | None) -> None:
        self._events = events
        self._keep_alive = keep_alive
        self._task: asyncio.Task[None] | None = None
        self._piece: bytes | None = None  # produced, and not yet taken
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    def __aiter__(self) -> _EventStream:
        return self

    async def __anext__(self) -> bytes:
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._produce())
            self._task.add_done_callback(lambda _: self._news.set())
        quiet = None if self._keep_alive is None else loop.call_later(self._keep_alive, self._news.set)
        try:
            await self._news.wait()
        finally:
            if quiet is not None:
                quiet.cancel()
        self._news.clear()
        piece, self._piece = self._piece, None
        if piece is not None:
            self._taken.set()
            return piece
        if self._task.done():
            self._task.result()
            raise StopAsyncIteration
        return COMMENT

    async def aclose(self) -> None:
        """Stop producing; returns when that has stopped."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _produce(self) -> None:
        if isinstance(self._events, AsyncIterable):
            events = self._events.__aiter__()
            try:
                async for event in events:
                    await self._put(encode_event(event))
            finally:
                await aclose(events)
        else:
            await self._produce_in_thread(_encoded(self._events))

    async def _produce_in_thread(self, pieces: Iterator[bytes]) -> None:
        """Code that blocks gets a thread for as long as it lasts: a quiet time must not be one for the loop."""
        from concurrent.futures import ThreadPoolExecutor

        executor = ThreadPoolExecutor(1, thread_name_prefix="dialback-sse")
        run = ThreadRun(executor, lambda _: Prepared(200, [], pieces))
        try:
            async for piece in run:
                await self._put(piece)
        finally:
            executor.shutdown(wait=False)
            await run.stop(lambda: False)

    async def _put(self, piece: bytes) -> None:
        self._piece = piece
        self._taken.clear()
        self._news.set()
        await self._taken.wait()
