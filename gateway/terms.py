"""What a route grants its requests: how long each part may take, and what becomes of one whose client leaves.

Only values; `deadlines` and `detached` keep them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from gateway.affinity import Affinity
from gateway.compression import Compression

OnDisconnect = Literal["cancel", "grace", "detach"]
ON_DISCONNECT: Final[tuple[OnDisconnect, ...]] = ("cancel", "grace", "detach")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Made once for each route, at start. Times in seconds."""

    on_disconnect: OnDisconnect = "cancel"
    """When the client leaves: cancel the function's code, at once or after `disconnect_grace`, or let it run to its
    end; what it still sends is dropped."""
    disconnect_grace: float = 30
    cancel_after: float | None = None
    """For how long an app that hears of its client's leaving, and is not cancelled by it, may go on; None: as long as
    its invocation."""
    response_start: float = 900
    """From the stream's opening, or the last that came of the request's body, to the response head; then 504."""
    request_idle: float = 60
    """Without a byte of the request's body, while there is room for it; then 408."""
    response_idle: float = 300
    """Without a byte of the response's body; then the connection is cut. Where it is the client who takes nothing, it
    counts as gone."""
    exchange: float = 960
    """From the request's head to the exchange's end; then 504, or the connection is cut."""
    max_exchanges: int = 5000
    """Of the function, at once; beyond it 503."""
    affinity: Affinity | None = None
    """Where the value is whose requests belong to one environment."""
    compression: Compression | None = None
    """Which codings its responses may have."""
