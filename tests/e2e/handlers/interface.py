"""A bare WSGI app: what PEP 3333 gives beside the iterable."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dialback import wsgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
PLACES = 4
FILE = Path(__file__)


def note(name: str, text: str) -> None:
    descriptor = os.open(NOTES / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


class Noted:
    """An iterable that notes its end: when, and in which thread, of those that took from it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = threading.current_thread()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            assert threading.current_thread() is self._thread
            yield b"piece\n"
            time.sleep(0.05)

    def close(self) -> None:
        note(self._name, f"{time.time()!r} {threading.current_thread() is self._thread}")


class NotedFile:
    """A file that notes that it was closed."""

    def __init__(self) -> None:
        self._file = FILE.open("rb")

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()
        note("file", "closed")


def app(environ: dict[str, Any], start_response: Callable[..., Callable[[bytes], object]]) -> Iterable[bytes]:
    path, name = environ["PATH_INFO"].strip("/"), environ["QUERY_STRING"]
    body = environ["wsgi.input"]
    length = [("Content-Length", str(FILE.stat().st_size))] if path == "file" else []
    write = start_response("200 OK", [("Content-Type", "text/plain"), *length])
    match path:
        case "write":
            for number in range(3):
                write(b"%d %s\n" % (number, repr(time.time()).encode()))
                time.sleep(0.2)
            return [b"last\n"]
        case "writes-on":
            try:
                while True:
                    write(b"piece\n")
                    time.sleep(0.02)
            except OSError as error:
                note(name, f"{time.time()!r} {type(error).__name__}")
                raise
        case "file":
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](NotedFile(), 1000)
            return wrapped
        case "endless":
            return Noted(name)
        case "echo":
            return iter(body.readline, b"")
        case "reads":
            parts = [body.read(3), body.readline(), b"".join(body.readlines(5)), body.read(), body.read()]
            return [repr(parts).encode()]
        case "meets":
            note("begun", threading.current_thread().name)
            time.sleep(1)
            note("ended", threading.current_thread().name)
            return [str(environ["wsgi.multithread"]).encode()]
    return [b"hello"]


handler = wsgi_handler(app, concurrency=PLACES)
