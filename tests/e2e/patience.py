"""Waiting for what must happen, as long as a busy machine may need and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 10.0
"""Seconds."""
STEP = 0.01


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return as soon as `condition` holds; fail where it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(STEP)
