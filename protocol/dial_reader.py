"""A dial as the gateway reads it from the upgrade request (docs/protocol.md §3.1). No function loads this."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Final

from protocol.codec import decode
from protocol.dial import INVITATION_SCHEME, RESUME_SCHEME, VERSION, Dial, Limits
from protocol.errors import DialRefused, ProtocolError
from protocol.frames import MAX_OFFSET, Lease
from protocol.invitation import resume_proof

CONNECT_PATH: Final = "/_dialback/v1/connect"
PROOF_SIZE: Final = 32  # bytes
_MAX_NUMBER: Final = 19  # digits


def read_dial(headers: Mapping[str, str]) -> Dial:
    """Read a dial. `headers` is case-insensitive, or has lower-case names.

    Raises `DialRefused`: `version`, or `proof` for everything that is missing or malformed.
    """

    def get(name: str) -> str:
        return headers.get(name) or headers.get(name.lower()) or ""

    if get("Dialback-Version").strip() != VERSION:
        raise DialRefused("version")
    try:
        session = _hexadecimal(get("Dialback-Session"))
        epoch = _number(get("Dialback-Epoch"))
        received = _number(get("Dialback-Received"))
        remaining = _number(get("Dialback-Remaining") or "0") / 1000
        stated = dict(_pair(item) for item in get("Dialback-Limits").split(","))
        limits = Limits(stated["credit"], stated["unacked"], stated["frames"])
        invitation, proof = _credentials(get("Authorization"))
        lease = _lease(get("Dialback-Lease"))
    except (ValueError, KeyError, ProtocolError):
        raise DialRefused("proof") from None
    features = tuple(name.strip() for name in get("Dialback-Features").split(",") if name.strip())
    if (
        len(session) != 16
        or epoch < 1
        or not limits.is_valid()
        or not (invitation or proof)
        or (lease and not invitation)
        or len(features) > 32
    ):
        raise DialRefused("proof")
    return Dial(session, epoch, received, limits, invitation, proof, lease, remaining, features)


def is_proved(dial: Dial, key: bytes) -> bool:
    """Whether the dial has the proof of the session whose key this is. Constant time."""
    return hmac.compare_digest(dial.proof, resume_proof(key, dial.session, dial.epoch, dial.received))


def _credentials(text: str) -> tuple[str, bytes]:
    """(invitation, proof); one of them may be empty."""
    if text.startswith(INVITATION_SCHEME):
        return text.removeprefix(INVITATION_SCHEME), b""
    if not text.startswith(RESUME_SCHEME):
        return "", b""
    digits, _, invitation = text.removeprefix(RESUME_SCHEME).partition(" ")
    proof = _hexadecimal(digits)
    if len(proof) != PROOF_SIZE:
        raise ValueError("not a proof")
    return invitation, proof


def _lease(text: str) -> bytes:
    frame = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if frame and not isinstance(decode(frame), Lease):
        raise ValueError("not a LEASE")
    return frame


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_NUMBER:
        raise ValueError("not a number")
    value = int(text)
    if value > MAX_OFFSET:
        raise ValueError("too large")
    return value


def _hexadecimal(text: str) -> bytes:
    value = bytes.fromhex(text)
    if 2 * len(value) != len(text):
        raise ValueError("white space")
    return value


def _pair(item: str) -> tuple[str, int]:
    name, _, value = item.strip().partition("=")
    return name, _number(value)
