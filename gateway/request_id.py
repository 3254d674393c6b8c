"""Requests' ids: 16 random bytes each, drawn from the operating system by the page, since to ask it costs more than to
have it answer.
"""

from __future__ import annotations

import os
from typing import Final

SIZE: Final = 16  # bytes
AT_ONCE: Final = 256  # ids


class RequestIds:
    """Lives as long as the process, which must not fork after its first."""

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        """A new one."""
        at = self._at
        if at == len(self._drawn):
            self._drawn, at = os.urandom(SIZE * AT_ONCE), 0
        self._at = at + SIZE
        return self._drawn[at : at + SIZE]


IDS: Final = RequestIds()
