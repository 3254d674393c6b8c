"""The invitations that are out: issued for a function, owned by the first session that presents one, gone with its lease.

A good signature alone opens nothing (docs/protocol.md §7.4). Knows no socket.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from protocol.errors import DialRefused, InvitationRefused
from protocol.invitation import NONCE_SIZE, Invitation, Keyring, key_id, sign, verify

FIRST_PRESENTATION: Final = 120  # seconds in which an invitation may be presented first; no cold start takes longer
T = TypeVar("T")


@dataclass(slots=True)
class Issued(Generic[T]):
    """One invitation that is out; `start` is what it was issued for."""

    nonce: bytes
    function: str
    start: T
    expires: float
    owner: bytes | None = None
    """The session that presented it first."""


class Invitations(Generic[T]):
    """Begins and ends with the gateway process, whose `boot` id every invitation names."""

    def __init__(self, url: str) -> None:
        """`url`: the whole dial URL."""
        self.boot = secrets.token_hex(8)
        self._url = url
        self._out: dict[bytes, Issued[T]] = {}

    def __len__(self) -> int:
        return len(self._out)

    def issue(self, function: str, keyring: Keyring, start: T) -> tuple[str, Issued[T]]:
        """A new token. It is out until `consume` or `withdraw`."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        expires = int(time.time()) + FIRST_PRESENTATION
        kid = key_id(keyring.signing)
        token = sign(Invitation(kid, nonce, function, self.boot, self._url, expires), keyring.signing)
        issued = Issued(nonce, function, start, expires)
        self._out[nonce] = issued
        return token, issued

    def present(self, token: str, keyrings: dict[str, Keyring], session: bytes) -> tuple[Issued[T], bytes]:
        """A session presents a token: (what was issued, the key that signed it). It owns the invitation from now on.

        Raises `DialRefused`: `proof`, `wrong-node`, `expired`, `used`.
        """
        invitation, key = self._verified(token, keyrings)
        issued = self._out.get(invitation.nonce)
        if issued is None or issued.function != invitation.function or issued.owner not in (None, session):
            raise DialRefused("used")
        if issued.owner is None and time.time() > issued.expires:
            raise DialRefused("expired")
        issued.owner = session
        return issued, key

    def consume(self, token: str, keyrings: dict[str, Keyring], session: bytes) -> Issued[T]:
        """The token's LEASE came: it is out no more. Raises as `present`."""
        issued, _ = self.present(token, keyrings, session)
        del self._out[issued.nonce]
        return issued

    def withdraw(self, issued: Issued[T]) -> None:
        """Its invocation is over. Idempotent."""
        self._out.pop(issued.nonce, None)

    def _verified(self, token: str, keyrings: dict[str, Keyring]) -> tuple[Invitation, bytes]:
        for function, keyring in keyrings.items():
            try:
                invitation = verify(token, keyring, 0.0)  # expiry is judged at the first presentation alone
            except InvitationRefused:
                continue
            if invitation.function != function:
                continue
            if invitation.boot != self.boot:
                raise DialRefused("wrong-node")
            key = keyring.get(invitation.kid)
            assert key is not None, "verify found it"
            return invitation, key
        raise DialRefused("proof")
