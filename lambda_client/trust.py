"""Whom this function answers: the keys and addresses of its environment, and what they admit. Knows no link."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from lambda_client.wire import errors, invitation

Invitation = invitation.Invitation

LOG = logging.getLogger("dialback")

DEFAULT_PORTS = {"ws": 80, "wss": 443}


class Endpoint(NamedTuple):
    """Where to dial: a `ws` or `wss` URL, taken apart once so that what was checked is what is dialled."""

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def is_secure(self) -> bool:
        return self.scheme == "wss"

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        from ipaddress import ip_address

        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Raises `ValueError` for anything but a plain ws(s) URL: no user, no fragment, printable ASCII."""
        if not url.isascii() or not url.isprintable() or any(character in url for character in ' "\\<>^`{|}'):
            raise ValueError("not printable ASCII")
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc or parts.fragment:
            raise ValueError("not a ws:// or wss:// URL")
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        return cls(parts.scheme, parts.hostname, port, parts.path, parts.query)

    def matches(self, pattern: Endpoint) -> bool:
        """Scheme, host and port are the pattern's; a leading `*.` of its host stands for exactly one label."""
        if (self.scheme, self.port) != (pattern.scheme, pattern.port):
            return False
        if pattern.host.startswith("*."):
            label, _, rest = self.host.partition(".")
            return bool(label) and rest == pattern.host[2:]
        return self.host == pattern.host


class Admitted(NamedTuple):
    """An invitation that was verified, and where it leads."""

    token: str
    invitation: Invitation
    endpoint: Endpoint
    key: bytes

    def __repr__(self) -> str:  # a token and a key are secrets
        return f"Admitted({self.invitation})"

    def session_key(self, session: bytes) -> bytes:
        return invitation.session_key(self.key, self.invitation.nonce, session)


class Trust:
    """Read once from the environment's variables, at its first invocation; ends with the environment."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._keyring = _keyring(variables.get("DIALBACK_SECRET", ""))
        self._allowed = _endpoints(variables.get("DIALBACK_GATEWAY", ""))
        self._allows_insecure = variables.get("DIALBACK_ALLOW_INSECURE") == "1"
        self.only_dialback = variables.get("DIALBACK_ONLY") == "1"
        self._has_warned = False

    def admit(self, token: str, now: float) -> Admitted:
        """The invitation in a token. `now` is Unix time in seconds.

        Raises `InvitationRefused`: `malformed`, `signature`, `expired`, `address`, `unconfigured` (nothing to check).
        """
        if self._keyring is None or not self._allowed:
            missing = "DIALBACK_SECRET" if self._keyring is None else "DIALBACK_GATEWAY"
            LOG.error("an invitation was refused: this function has no usable %s", missing)
            raise errors.InvitationRefused("unconfigured")
        invited = invitation.verify(token, self._keyring, now)
        try:
            endpoint = Endpoint.parse(invited.url)
        except ValueError:
            raise errors.InvitationRefused("address") from None
        if not any(endpoint.matches(allowed) for allowed in self._allowed):
            LOG.error(
                "an invitation to %s://%s:%d was refused: DIALBACK_GATEWAY does not name it",
                endpoint.scheme,
                endpoint.host,
                endpoint.port,
            )
            raise errors.InvitationRefused("address")
        self._check_secure(endpoint)
        key = self._keyring.get(invited.kid)
        assert key is not None  # it has just verified the signature
        return Admitted(token, invited, endpoint, key)

    def _check_secure(self, endpoint: Endpoint) -> None:
        if endpoint.is_secure or endpoint.is_loopback:
            return
        if not self._allows_insecure:
            LOG.error(
                "an invitation to ws://%s was refused: use wss://, or set DIALBACK_ALLOW_INSECURE=1", endpoint.host
            )
            raise errors.InvitationRefused("address")
        if not self._has_warned:
            self._has_warned = True
            LOG.warning(
                "dialling ws://%s: requests and responses travel unencrypted (DIALBACK_ALLOW_INSECURE=1)", endpoint.host
            )


def _keyring(text: str) -> invitation.Keyring | None:
    if not text.strip():
        return None
    try:
        return invitation.Keyring.parse(text)
    except ValueError as error:
        LOG.error("DIALBACK_SECRET is not usable: %s", error)
        return None


def _endpoints(text: str) -> tuple[Endpoint, ...]:
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(Endpoint.parse(part))
        except ValueError as error:
            LOG.error("DIALBACK_GATEWAY: %r is ignored: %s", part, error)
    return tuple(found)
