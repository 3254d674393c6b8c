"""The responses, the same for everybody who serves them:

`/tiny` a few bytes · `/bulk?size=` so many bytes in chunks of 64 KiB · `/sink` counts an upload ·
`/ticks?count=&interval=&wait=` 100 bytes at once, then after `wait` seconds and every `interval` seconds, each with the
time at which it was handed over · `/tokens?count=&interval=&work=` an LLM's answer: as many short pieces, one every
`interval` seconds, over each of which the code works for `work` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl

NUMBERS: Final = ("size", "count", "interval", "wait", "work")
TINY: Final = "Hello, world\n"
CHUNK: Final = bytes(range(256)) * 256  # 64 KiB
TICK_SIZE: Final = 100  # bytes
PADDING: Final = b"." * (TICK_SIZE - 21) + b"\n"


def numbers(query: str) -> dict[str, float]:
    """The parameters of a target; those that are left out are 0."""
    return dict.fromkeys(NUMBERS, 0.0) | {name: float(text) for name, text in parse_qsl(query)}


def bulk(size: int) -> Iterator[bytes]:
    """Whole chunks; `size` is a multiple of theirs."""
    for _ in range(size // len(CHUNK)):
        yield CHUNK


def tick() -> bytes:
    """One chunk of 100 bytes that says when it was made, in nanoseconds of the machine's monotonic clock."""
    return b"T%019d%b" % (time.monotonic_ns(), PADDING)


def token(work: float) -> bytes:
    """One piece, over which the thread is held for so long, as by code that computes: its event loop stands still. It
    sleeps all the same: each environment of Lambda has a processor of its own, which no machine has for a hundred."""
    time.sleep(work)
    return b'data: {"token": "word"}\n\n'
