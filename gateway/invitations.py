"""The invitations that are out: issued for a function, owned by the first session that presents one, gone with a lease.

A good signature alone opens nothing (docs/protocol.md §7.4). Knows no socket.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from protocol.errors import DialRefused, InvitationRefused
from protocol.invitation import NONCE_SIZE, Invitation, Keyring, read, sign, verify

FIRST_PRESENTATION: Final = 120.0  # seconds in which an invitation may be presented first; few cold starts take longer
NEVER: Final = 0.0  # a time for `verify` at which nothing has expired
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Issued(Generic[T]):
    """One invitation that is out; `start` is what it was issued for."""

    token: str = field(repr=False)
    nonce: bytes
    function: str
    start: T
    kid: str
    """Which of its function's keys signed it."""
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
        self._out: dict[str, Issued[T]] = {}  # by token: what is here, letter for letter, is signed well

    def __len__(self) -> int:
        return len(self._out)

    def issue(
        self, function: str, keyring: Keyring, start: T, seconds: float = FIRST_PRESENTATION
    ) -> tuple[str, Issued[T]]:
        """A new token, to be presented first within `seconds`. It is out until `consume` or `withdraw`."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        expires = int(time.time() + seconds)
        token = sign(Invitation(keyring.kid, nonce, function, self.boot, self._url, expires), keyring.signing)
        issued = self._out[token] = Issued(token, nonce, function, start, keyring.kid, expires)
        return token, issued

    def find(self, token: str, keyrings: Mapping[str, Keyring], session: bytes) -> tuple[Issued[T], bytes]:
        """What a session presents: (what was issued, the key that signed it). Changes nothing.

        `keyrings`: of the functions that it may be for. Raises `DialRefused`: `proof`, `wrong-node`, `used`, `expired`.
        """
        issued = self._out.get(token)
        if issued is None:
            self._check(token, keyrings)
            raise DialRefused("used")
        keyring = keyrings.get(issued.function)
        key = None if keyring is None else keyring.get(issued.kid)
        if key is None:
            raise DialRefused("proof")
        if issued.owner not in (None, session):
            raise DialRefused("used")
        if issued.owner is None and time.time() > issued.expires:
            raise DialRefused("expired")
        return issued, key

    def consume(self, token: str, keyrings: Mapping[str, Keyring], session: bytes) -> Issued[T]:
        """The token's LEASE came: it is out no more. Raises as `find`."""
        issued, _ = self.find(token, keyrings, session)
        del self._out[token]
        return issued

    def withdraw(self, issued: Issued[T]) -> None:
        """Its invocation is over. Idempotent."""
        self._out.pop(issued.token, None)

    def _check(self, token: str, keyrings: Mapping[str, Keyring]) -> None:
        """Raises `DialRefused` for what this process never issued: `proof`, `wrong-node`."""
        try:
            keyring = keyrings.get(read(token)[0].function)
            if keyring is None:
                raise DialRefused("proof")
            invitation = verify(token, keyring, NEVER)
        except InvitationRefused:
            raise DialRefused("proof") from None
        if invitation.boot != self.boot:
            raise DialRefused("wrong-node")
