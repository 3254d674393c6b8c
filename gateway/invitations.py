"""The invitations that are out: issued for a function, owned by the first session that presents one, gone with a lease.

A good signature alone opens nothing (docs/protocol.md §7.4). Knows no socket.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from protocol.errors import DialRefused, InvitationRefused
from protocol.invitation import NONCE_SIZE, Invitation, Keyring, key_id, read, sign, verify

FIRST_PRESENTATION: Final = 120.0  # seconds in which an invitation may be presented first; few cold starts take longer
NEVER: Final = 0.0  # a time for `verify` at which nothing has expired
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Issued(Generic[T]):
    """One invitation that is out; `start` is what it was issued for."""

    nonce: bytes
    function: str
    start: T
    expires: int
    """Unix time in seconds."""
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

    def issue(
        self, function: str, keyring: Keyring, start: T, seconds: float = FIRST_PRESENTATION
    ) -> tuple[str, Issued[T]]:
        """A new token, to be presented first within `seconds`. It is out until `consume` or `withdraw`."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        expires = int(time.time() + seconds)
        kid = key_id(keyring.signing)
        token = sign(Invitation(kid, nonce, function, self.boot, self._url, expires), keyring.signing)
        issued = Issued(nonce, function, start, expires)
        self._out[nonce] = issued
        return token, issued

    def find(self, token: str, keyrings: Mapping[str, Keyring], session: bytes) -> tuple[Issued[T], bytes]:
        """What a session presents: (what was issued, the key that signed it). Changes nothing.

        `keyrings`: of the functions that it may be for. Raises `DialRefused`: `proof`, `wrong-node`, `used`, `expired`.
        """
        invitation, key = self._verified(token, keyrings)
        issued = self._out.get(invitation.nonce)
        if issued is None or issued.function != invitation.function or issued.owner not in (None, session):
            raise DialRefused("used")
        if issued.owner is None and time.time() > issued.expires:
            raise DialRefused("expired")
        return issued, key

    def consume(self, token: str, keyrings: Mapping[str, Keyring], session: bytes) -> Issued[T]:
        """The token's LEASE came: it is out no more. Raises as `find`."""
        issued, _ = self.find(token, keyrings, session)
        del self._out[issued.nonce]
        return issued

    def withdraw(self, issued: Issued[T]) -> None:
        """Its invocation is over. Idempotent."""
        self._out.pop(issued.nonce, None)

    def _verified(self, token: str, keyrings: Mapping[str, Keyring]) -> tuple[Invitation, bytes]:
        try:
            keyring = keyrings.get(read(token)[0].function)
            if keyring is None:
                raise DialRefused("proof")
            invitation = verify(token, keyring, NEVER)  # expiry is judged at the first presentation alone, by `find`
        except InvitationRefused:
            raise DialRefused("proof") from None
        if invitation.boot != self.boot:
            raise DialRefused("wrong-node")
        key = keyring.get(invitation.kid)
        assert key is not None, "verify found it"
        return invitation, key
