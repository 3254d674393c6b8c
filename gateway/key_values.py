"""How the values of keys are written and read: kinds with their units and limits, and what a value may be.

Knows no key.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from gateway.affinity import Affinity
from gateway.compression import Compression

T_co = TypeVar("T_co", covariant=True)

SHORTEST_SECRET = 32
"""Bytes: HMAC-SHA256 gains nothing from more, and loses strength with less (RFC 2104, section 3)."""


class ValueFault(ValueError):
    """A value that its key does not take; the message says what would be right, and never repeats a secret."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host name or IP address, and a port (0: any free one)."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Secret:
    """Signing secrets, comma-separated: the first signs, all verify. Prints as stars, so that no log can hold one."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for `protocol.invitation.Keyring.parse` and nothing else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """How the values of a key are written and read."""

    placeholder: str
    """What stands for a value in `--help`."""
    toml: type | tuple[type, ...]
    """What a TOML document holds."""
    read: Callable[[object], T_co]
    """From a TOML value or a text; raises `ValueFault`."""
    unit: str = ""
    limits: str = ""


def _text(value: object) -> str:
    text = str(value)
    if not text or any(ord(character) < 32 for character in text):
        raise ValueFault("must be a text without control characters, and not empty")
    return text


def _address(value: object) -> Address:
    text = str(value)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueFault(
            f"is HOST:PORT, for example 127.0.0.1:{text.strip(':') if text.strip(':').isdigit() else '8080'}"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueFault(f"needs brackets round an IPv6 address: [{host}]:{port}")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueFault(f"ends in a port from 0 to 65535, not {port!r}")
    return Address(host.strip("[]").lower(), int(port))


def _admin(value: object) -> Address | None:
    return None if value == "off" else _address(value)


def _url(schemes: tuple[str, ...], *, bare: bool) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = str(value)
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as fault:
            raise ValueFault(f"is not a URL: {fault}") from None
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueFault(f"must start with {wanted} and name a host")
        if port == 0 or not text.isascii() or any(character in text for character in ' "<>\\^`{|}'):
            raise ValueFault("must be written as a URL is sent: ASCII, without spaces, with a port above 0")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueFault("must have no user, query or fragment")
        if bare and parts.path not in ("", "/"):
            raise ValueFault("must have no path: the gateway adds its own")
        return text.rstrip("/") if bare else text

    return read


def _number(low: float, high: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            raise ValueFault("must be a number") from None
        if not low <= number <= high:  # false for NaN, which TOML can write
            raise ValueFault(f"must be from {low:g} to {high:g}")
        return number

    return read


def _integer(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise ValueFault("must be a whole number") from None
        if not low <= number <= high:
            raise ValueFault(f"must be from {low} to {high}")
        return number

    return read


def _networks(value: object) -> tuple[Network, ...]:
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in str(value).split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueFault(f"must be networks such as 10.0.0.0/8 or ::1, comma-separated; {part!r} is none") from None
    return tuple(found)


def _choice(*choices: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in choices:
            raise ValueFault(f"must be one of: {', '.join(choices)}")
        return str(value)

    return read


def _secret(value: object) -> Secret:
    parts = [part.strip() for part in str(value).split(",") if part.strip()]
    if not parts or min(len(part.encode()) for part in parts) < SHORTEST_SECRET:
        which = "each of its parts" if len(parts) > 1 else "it"
        raise ValueFault(
            f"is too short: {which} must have {SHORTEST_SECRET} bytes or more; `dialback secret` prints one"
        )
    return Secret(",".join(parts))


def _as_read_by(read: Callable[[str], object]) -> Callable[[object], str]:
    def check(value: object) -> str:
        try:
            read(str(value))
        except ValueError as fault:
            raise ValueFault(str(fault)) from None
        return str(value)

    return check


TEXT = Kind("TEXT", str, _text)
ADDRESS = Kind("HOST:PORT", str, _address)
ADDRESS_OR_OFF = Kind("HOST:PORT|off", str, _admin)
DIAL_ADDRESS = Kind("WS-URL", str, _url(("ws", "wss"), bare=True))
HTTP_URL = Kind("URL", str, _url(("https", "http"), bare=False))
PATH = Kind("PATH", str, lambda value: Path(_text(value)))
NETWORKS = Kind("NETWORKS", str, _networks, unit="comma-separated")
AFFINITY = Kind("header:NAME|cookie:NAME|off", str, _as_read_by(Affinity.read))
COMPRESSION = Kind("CODINGS|off", str, _as_read_by(Compression.read), unit="comma-separated")
SECRET = Kind("SECRET", str, _secret, unit="bytes", limits=f"{SHORTEST_SECRET} or more")


def seconds(low: float, high: float) -> Kind[float]:
    return Kind("SECONDS", (int, float), _number(low, high), unit="seconds", limits=f"{low:g} to {high:g}")


def number(unit: str, low: int, high: int) -> Kind[int]:
    return Kind(unit.upper(), int, _integer(low, high), unit=unit, limits=f"{low} to {high}")


def choice(*choices: str) -> Kind[str]:
    return Kind("|".join(choices), str, _choice(*choices))
