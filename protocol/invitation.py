"""Invitations and the keys behind them (docs/protocol.md §7).

Chance and time are the caller's: a nonce and `now` come in as arguments.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgpack  # type: ignore[import-untyped]

from protocol.errors import InvitationRefused

INVITATION_CONTENT_TYPE: Final = "application/vnd.dialback.invitation+json"
INVITATION_KEY: Final = "dialback-invitation"
MIN_SECRET_SIZE: Final = 32  # bytes; as long as the hash (RFC 2104 §3)
NONCE_SIZE: Final = 16  # bytes
MAX_TOKEN_SIZE: Final = 4096  # characters; a URL of 2 KiB and the rest fit
CLOCK_SKEW: Final = 60  # seconds that the function allows; the gateway's clock decides

_DOMAIN: Final = b"dialback invitation 1"


def _digest(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a gateway signs: a lease on the node `boot`, to be dialled at `url` before `expires` (Unix seconds)."""

    kid: str
    nonce: bytes
    function: str
    boot: str
    url: str
    expires: int

    def __repr__(self) -> str:
        return f"Invitation(function={self.function!r}, boot={self.boot!r}, kid={self.kid!r})"


class Keyring:
    """The keys that one side accepts, the first of which signs. Begins and ends with its owner; never prints a key."""

    __slots__ = ("_keys", "kid", "signing")

    def __init__(self, keys: Iterable[bytes]) -> None:
        """Raises `ValueError` when there is no key, or one shorter than `MIN_SECRET_SIZE` bytes."""
        listed = list(keys)
        if not listed:
            raise ValueError("no secret")
        if any(len(key) < MIN_SECRET_SIZE for key in listed):
            raise ValueError(f"a secret needs at least {MIN_SECRET_SIZE} bytes")
        self._keys = {key_id(key): key for key in listed}
        self.signing = listed[0]
        self.kid = key_id(self.signing)

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """From the form of `DIALBACK_SECRET`: one secret, or several with commas between, the first of which signs."""
        return cls(part.strip().encode() for part in text.split(",") if part.strip())

    def get(self, kid: str) -> bytes | None:
        return self._keys.get(kid)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"


def key_id(key: bytes) -> str:
    """A key's public name: 8 hex digits of a hash of it."""
    return sha256(b"dialback kid" + key).hexdigest()[:8]


def sign(invitation: Invitation, key: bytes) -> str:
    """The token: base64url without padding of body ‖ MAC. Raises `ValueError` for one that no frame would take."""
    body: bytes = msgpack.packb(
        [1, invitation.kid, invitation.nonce, invitation.function, invitation.boot, invitation.url, invitation.expires],
        use_bin_type=True,
    )
    token = _armour(body + _digest(key, _DOMAIN, body))
    if len(token) > MAX_TOKEN_SIZE:
        raise ValueError(f"a token of {len(token)} characters; the limit is {MAX_TOKEN_SIZE}")
    return token


def _armour(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def read(token: str) -> tuple[Invitation, bytes, bytes]:
    """(invitation, body, MAC) of a token whose signature nobody has checked yet.

    Raises `InvitationRefused("malformed")`.
    """
    if type(token) is not str or len(token) > MAX_TOKEN_SIZE:  # it comes out of a JSON document
        raise InvitationRefused("malformed")
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        if _armour(raw) != token:  # the decoder skips what is not of its alphabet: one invitation, one token
            raise InvitationRefused("malformed")
        body, mac = raw[:-32], raw[-32:]
        version, kid, nonce, function, boot, url, expires = msgpack.unpackb(body, raw=False)
    except Exception:  # base64, msgpack, unpacking: every kind of garbage is the same refusal
        raise InvitationRefused("malformed") from None
    texts = all(type(text) is str for text in (kid, function, boot, url))
    if version != 1 or not texts or type(nonce) is not bytes or len(nonce) != NONCE_SIZE or type(expires) is not int:
        raise InvitationRefused("malformed")
    return Invitation(kid, nonce, function, boot, url, expires), body, mac


def verify(token: str, keyring: Keyring, now: float) -> Invitation:
    """The invitation in a token signed by a key of the ring. `now` is Unix time in seconds.

    Raises `InvitationRefused`: `malformed`, `signature` (also for an unknown key), `expired`.
    """
    invitation, body, mac = read(token)
    key = keyring.get(invitation.kid)
    # An unknown key costs the same work as a wrong signature, and gets the same answer.
    expected = _digest(key or keyring.signing, _DOMAIN, body)
    if not hmac.compare_digest(expected, mac) or key is None:
        raise InvitationRefused("signature")
    if now > invitation.expires + CLOCK_SKEW:
        raise InvitationRefused("expired")
    return invitation


def session_key(key: bytes, nonce: bytes, session: bytes) -> bytes:
    """The key by which a session proves itself on later dials. It never travels."""
    return _digest(key, b"dialback resume", nonce, session)


def resume_proof(key: bytes, session: bytes, epoch: int, received: int) -> bytes:
    """The proof of one resume; `key` is the session's."""
    return _digest(key, session, epoch.to_bytes(8, "big"), received.to_bytes(8, "big"))
