"""What a function's environments cost, in seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Bill:
    """Of one function since the gateway began."""

    billed: float = 0.0
    """Of ended invocations: as the function measured it, or else the gateway; in whole milliseconds each."""
    leased: float = 0.0
    """Up to `Leases.settle`, as `idle`."""
    idle: float = 0.0
    """Leased and without a stream: what lingering and pre-warming cost."""
    streams: int = 0
    """That were opened."""

    def invocation(self, seconds: float) -> None:
        """One ended that ran so long; every millisecond begun counts (AWS: "Lambda pricing")."""
        self.billed += math.ceil(seconds * 1000 - 1e-6) / 1000
