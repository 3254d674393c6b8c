"""Every key of the configuration: its name, unit, limits, default and one sentence; and how a value is read from text.

The flags of `dialback serve`, the variables, the TOML file, docs/configuration.md and `--help` come from these tables.
It knows no source of values and no other key's value: what spans keys is in `config`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

T_co = TypeVar("T_co", covariant=True)

ENVIRONMENT_PREFIX = "DIALBACK_"
SHORTEST_SECRET = 32
"""Bytes: HMAC-SHA256 gains nothing from more, and loses strength with less (RFC 2104, section 3)."""


class ValueFault(ValueError):
    """A value that its key does not take; the message says what would be right, and never repeats a secret."""


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


TEXT = Kind("TEXT", str, _text)
ADDRESS = Kind("HOST:PORT", str, _address)
ADDRESS_OR_OFF = Kind("HOST:PORT|off", str, _admin)
DIAL_ADDRESS = Kind("WS-URL", str, _url(("ws", "wss"), bare=True))
HTTP_URL = Kind("URL", str, _url(("https", "http"), bare=False))
PATH = Kind("PATH", str, lambda value: Path(_text(value)))
SECRET = Kind("SECRET", str, _secret, unit="bytes", limits=f"{SHORTEST_SECRET} or more")


def seconds(low: float, high: float) -> Kind[float]:
    return Kind("SECONDS", (int, float), _number(low, high), unit="seconds", limits=f"{low:g} to {high:g}")


def number(unit: str, low: int, high: int) -> Kind[int]:
    return Kind(unit.upper(), int, _integer(low, high), unit=unit, limits=f"{low} to {high}")


def choice(*choices: str) -> Kind[str]:
    return Kind("|".join(choices), str, _choice(*choices))


@dataclass(frozen=True, slots=True)
class Key(Generic[T_co]):
    """One key. In the file a dot in its name is a table; the flag and the variable follow from the name by one rule."""

    name: str
    kind: Kind[T_co]
    default: T_co
    text: str
    """One sentence: what it is for."""
    default_text: str = ""
    """What the reference says where the default is not one value."""
    example: str = ""
    """As TOML, for the line that a problem proposes."""

    @property
    def shown_default(self) -> str:
        """What is taken where nothing is given."""
        if self.default_text or self.default is None:
            return self.default_text
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def help_text(self) -> str:
        """For `--help`, where the placeholder tells the unit: the sentence, then the default."""
        return f"{self.text} [default: {self.shown_default}]" if self.shown_default else self.text

    @property
    def flag(self) -> str:
        """As typed: `session.grace` is `--session-grace`."""
        return "--" + self.name.replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        """In the environment: `session.grace` is `DIALBACK_SESSION_GRACE`."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()


LISTEN = Key("listen", ADDRESS, Address("127.0.0.1", 8080), "Where clients and dialling functions connect.")
ADMIN: Key[Address | None] = Key(
    "admin",
    ADDRESS_OR_OFF,
    Address("127.0.0.1", 9090),
    "The private listener with /healthz, /readyz and /metrics; `off`: none.",
)
DIAL_ADDRESS_KEY: Key[str | None] = Key(
    "dial_address",
    DIAL_ADDRESS,
    None,
    "What invitations tell functions to dial; through a balancer or a private network it differs from `listen`.",
    default_text="the address of `listen`, where that is loopback; else required",
    example="wss://gateway.example.com",
)
TLS_CERT: Key[Path | None] = Key(
    "tls.cert",
    PATH,
    None,
    "The certificate chain (PEM) for `listen`; with `tls.key`.",
    default_text="no TLS",
    example="cert.pem",
)
TLS_KEY: Key[Path | None] = Key(
    "tls.key", PATH, None, "The private key (PEM) of `tls.cert`.", default_text="no TLS", example="key.pem"
)
SESSION_GRACE = Key(
    "session.grace",
    seconds(0, 900),
    30.0,
    "How long a link that lost its socket may take to come back before its streams are lost.",
)
SESSION_PING = Key(
    "session.ping_interval",
    seconds(0.1, 300),
    10.0,
    "How often a leased link is pinged; after three silent intervals its socket is given up.",
)
BODY_WINDOW = Key(
    "body.window",
    number("bytes", 16 << 10, 4 << 20),
    64 << 10,
    "How much of a body may be on its way in each direction of a stream before its reader has taken any.",
)
STOP_GRACE = Key(
    "stop_grace",
    seconds(0, 900),
    25.0,
    "How long open requests may go on after SIGTERM or Ctrl-C before they are cut; a second signal cuts at once.",
)
LOG_FORMAT = Key(
    "log.format",
    choice("auto", "console", "json"),
    "auto",
    "How log lines are written to stderr; `auto`: `console` on a terminal, else `json`.",
)
LOG_LEVEL = Key("log.level", choice("debug", "info", "warning", "error"), "info", "The least level that is logged.")
FUNCTION_URL: Key[str | None] = Key(
    "function_url",
    HTTP_URL,
    None,
    "The Function URL of the only function; several functions have a table `[functions.NAME]` each.",
    default_text="required, unless there is `[functions.NAME]`",
    example="https://YOUR-FUNCTION-URL/",
)

GATEWAY_KEYS: tuple[Key[object], ...] = (
    LISTEN,
    ADMIN,
    DIAL_ADDRESS_KEY,
    FUNCTION_URL,
    TLS_CERT,
    TLS_KEY,
    SESSION_GRACE,
    SESSION_PING,
    BODY_WINDOW,
    STOP_GRACE,
    LOG_FORMAT,
    LOG_LEVEL,
)
"""One value for the whole gateway."""

SECRET_KEY: Key[Secret | None] = Key(
    "secret",
    SECRET,
    None,
    "Signs invitations, and is the function's DIALBACK_SECRET too; of several, comma-separated, the first signs.",
    default_text="required",
)
LINGER = Key(
    "linger",
    seconds(0, 900),
    0.1,
    "How long an environment stays awake after its last stream; 0: the bill stops with the last stream.",
)
MAX_INVOCATIONS = Key(
    "limits.max_invocations",
    number("invocations", 1, 10_000),
    100,
    "How many invocations of the function may run at once, for all its requests.",
)
MAX_QUEUE = Key(
    "limits.max_queue",
    number("requests", 0, 100_000),
    1000,
    "How many requests may wait for a place; one more is answered 503.",
)
DIAL_BACK = Key(
    "timeouts.dial_back",
    seconds(0.1, 900),
    10.0,
    "How long an invoked function may take to dial back, cold start included, before the invocation counts as failed.",
)
QUEUE_WAIT = Key(
    "timeouts.queue_wait",
    seconds(0.1, 900),
    30.0,
    "How long a request may wait for a place before it is answered 503.",
)

FUNCTION_KEYS: tuple[Key[object], ...] = (SECRET_KEY, LINGER, MAX_INVOCATIONS, MAX_QUEUE, DIAL_BACK, QUEUE_WAIT)
"""One value for each function: at the top of the file, as a flag or a variable it is the default of all functions."""

URL: Key[str | None] = Key(
    "url", HTTP_URL, None, "The function's Function URL.", default_text="required", example="https://YOUR-FUNCTION-URL/"
)
SECRET_ENV: Key[str | None] = Key(
    "secret_env", TEXT, None, "The variable that holds this function's secret, in place of `secret`."
)
TABLE_KEYS: tuple[Key[object], ...] = (URL, SECRET_ENV)
"""Only inside `[functions.NAME]`."""

ROUTE_HOST: Key[str | None] = Key(
    "host", TEXT, None, "The request's host name, without a port; `*.` stands for one label.", default_text="any host"
)
ROUTE_PATH = Key("path", TEXT, "/", "The path, or its first segments, undecoded; the longest match wins.")
ROUTE_FUNCTION: Key[str | None] = Key(
    "function", TEXT, None, "The NAME of a `[functions.NAME]`.", default_text="required"
)
ROUTE_KEYS: tuple[Key[object], ...] = (ROUTE_HOST, ROUTE_PATH, ROUTE_FUNCTION)
"""Inside each `[[routes]]`."""

KEYS_WITHOUT_FLAG: frozenset[str] = frozenset({SECRET_KEY.name})
"""A command line is visible to every process of the machine."""
FOREIGN_VARIABLES: frozenset[str] = frozenset(
    {"DIALBACK_CONFIG", "DIALBACK_GATEWAY", "DIALBACK_ONLY", "DIALBACK_ALLOW_INSECURE"}
)
"""DIALBACK_ variables that are no key: the file's path, and what functions read."""
