"""What can go wrong on the link, and whose fault it was."""

from __future__ import annotations

from typing import Final

#: Why a dial is refused, with the HTTP status that says so (docs/protocol.md §3.4).
REFUSALS: Final[dict[str, int]] = {
    "unknown": 404,
    "expired": 403,
    "superseded": 409,
    "proof": 403,
    "used": 403,
    "draining": 503,
    "version": 426,
    "wrong-node": 421,
    "certificate": 403,
}


class DialbackError(Exception):
    """The root of every error that this package raises."""


class ProtocolError(DialbackError):
    """The peer broke the rules. The session is over; no other session is touched."""


class LocalError(DialbackError):
    """This side asked for something illegal. Nothing was sent and no state changed."""


class _Refused(DialbackError):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DialRefused(_Refused):
    """A dial was refused; `reason` is a key of `REFUSALS`. Nothing was consumed."""

    @property
    def status(self) -> int:
        """The HTTP status that carries this reason."""
        return REFUSALS[self.reason]


class InvitationRefused(_Refused):
    """An invitation was refused before anything was dialled.

    `reason` is `malformed`, `signature`, `expired` or `address`.
    """
