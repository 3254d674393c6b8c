"""The handshake of a dial: what the function's HTTP upgrade request says (docs/protocol.md §3.1)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final

from protocol.flow import INITIAL_WINDOW, MAX_FIRST_CREDIT
from protocol.frames import MAX_OFFSET
from protocol.ledger import MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES, MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES

VERSION: Final = "1"
REASON_HEADER: Final = "Dialback-Reason"

# WebSocket close codes (docs/protocol.md §3.5)
CLOSE_NORMAL: Final = 1000
CLOSE_GOING_AWAY: Final = 1001
CLOSE_PROTOCOL_ERROR: Final = 1002
CLOSE_UNSUPPORTED: Final = 1003
CLOSE_TOO_BIG: Final = 1009
CLOSE_SUPERSEDED: Final = 4001
CLOSE_SESSION_OVER: Final = 4002
#: After these the session is over. After any other, or none, it may be resumed: something in between may have said it.
FINAL_CLOSES: Final = frozenset(
    {CLOSE_NORMAL, CLOSE_PROTOCOL_ERROR, CLOSE_UNSUPPORTED, CLOSE_TOO_BIG, CLOSE_SESSION_OVER}
)

INVITATION_SCHEME: Final = "Dialback-Invitation "
RESUME_SCHEME: Final = "Dialback-Resume "


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side states of itself: the first credit that it grants (bytes), and what it keeps unacknowledged
    (bytes of cost, frames)."""

    credit: int = INITIAL_WINDOW
    unacked: int = MAX_UNACKED_BYTES
    frames: int = MAX_UNACKED_FRAMES

    def is_valid(self) -> bool:
        return (
            0 < self.credit <= MAX_FIRST_CREDIT
            and MIN_UNACKED_BYTES <= self.unacked <= MAX_OFFSET
            and MIN_UNACKED_FRAMES <= self.frames <= MAX_OFFSET
        )


@dataclass(frozen=True, slots=True)
class Dial:
    """One dial of a session: `invitation` until the first WELCOME has come, `proof` on every dial but the first."""

    session: bytes
    epoch: int
    received: int
    limits: Limits
    invitation: str = ""
    proof: bytes = b""
    lease: bytes = b""  # the LEASE that is the session's frame 0, encoded; with an invitation
    remaining: float = 0.0  # seconds of the lease, with a proof
    features: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:  # an invitation and a proof are secrets
        return f"Dial(session={self.session.hex()}, epoch={self.epoch}, received={self.received})"

    def to_headers(self) -> list[tuple[str, str]]:
        """The headers to add to the upgrade request."""
        limits = self.limits
        headers = [
            ("Dialback-Version", VERSION),
            ("Dialback-Session", self.session.hex()),
            ("Dialback-Epoch", str(self.epoch)),
            ("Dialback-Received", str(self.received)),
            ("Dialback-Limits", f"credit={limits.credit}, unacked={limits.unacked}, frames={limits.frames}"),
            ("Authorization", self._authorization),
        ]
        if self.lease:
            headers.append(("Dialback-Lease", base64.urlsafe_b64encode(self.lease).decode().rstrip("=")))
        if self.proof:
            headers.append(("Dialback-Remaining", str(round(self.remaining * 1000))))
        if self.features:
            headers.append(("Dialback-Features", ", ".join(self.features)))
        return headers

    @property
    def _authorization(self) -> str:
        if not self.proof:
            return INVITATION_SCHEME + self.invitation
        return RESUME_SCHEME + " ".join(filter(None, (self.proof.hex(), self.invitation)))
