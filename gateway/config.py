"""What the gateway was told: immutable, complete and checked when it is built.

`sources` reads it; the keys themselves, with units and limits, are in `keys`. It knows no flag, no variable and
no file but TLS's, and opens no socket.
"""

from __future__ import annotations

import ssl
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from gateway import keys
from gateway.affinity import Affinity
from gateway.compression import Compression
from gateway.key_values import Network
from gateway.keys import Address, Secret
from gateway.limits import HttpLimits
from gateway.routes import Route, RouteFault, Routes
from gateway.terms import OnDisconnect, Terms
from gateway.tls import client_context, server_context

ONLY_FUNCTION = "function"
"""The name of a function that was configured without one, by `function_url`."""
LINGER = 0.1  # seconds, unless configured, of an environment that takes several streams
ADD_INDENT = "    "


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong."""

    key: str
    """Its name in the file, dotted; a second problem about the same key is not reported."""
    text: str
    add: str = ""
    """What to type or write, exactly."""

    @classmethod
    def missing(cls, key: keys.Key[object], text: str) -> ConfigProblem:
        """One that a value for `key` solves."""
        return cls(key.name, text, f"add: {key.flag} {key.example}")

    def __str__(self) -> str:
        return f"{self.text}\n{textwrap.indent(self.add, ADD_INDENT)}" if self.add else self.text


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has all that is wrong with it."""

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The certificate of the client listener."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError where a file cannot be used."""
        return server_context(self.cert, self.key, self.client_ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokeConfig:
    """How a function is called over TLS."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """None: as the system has it. Raises OSError where a file cannot be used."""
        return client_context(self.ca, self.cert, self.key) if self.ca or self.cert else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Links; times in seconds."""

    grace: float = keys.SESSION_GRACE.default
    ping_interval: float = keys.SESSION_PING.default


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyConfig:
    """Bodies; sizes in bytes."""

    window: int = keys.BODY_WINDOW.default


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketConfig:
    """Clients' WebSockets; bytes, and times in seconds."""

    max_message: int = keys.WEBSOCKET_MAX_MESSAGE.default
    ping_interval: float = keys.WEBSOCKET_PING_INTERVAL.default
    ping_timeout: float = keys.WEBSOCKET_PING_TIMEOUT.default
    close_timeout: float = keys.WEBSOCKET_CLOSE_TIMEOUT.default

    def added_to(self, limits: HttpLimits) -> HttpLimits:
        """The HTTP side's limits, with these."""
        return replace(
            limits,
            websocket_message=self.max_message,
            websocket_ping_interval=self.ping_interval,
            websocket_ping_timeout=self.ping_timeout,
            websocket_close=self.close_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Clients and their connections; times in seconds."""

    head_timeout: float = keys.CLIENT_HEAD_TIMEOUT.default
    keep_alive: float = keys.CLIENT_KEEP_ALIVE.default
    body_rate: int = keys.CLIENT_BODY_RATE.default
    flush_timeout: float = keys.CLIENT_FLUSH_TIMEOUT.default
    max_exchanges: int = keys.CLIENT_MAX_EXCHANGES.default
    max_connections: int = keys.CLIENT_MAX_CONNECTIONS.default
    compression_memory: int = keys.CLIENT_COMPRESSION_MEMORY.default

    def limits(self) -> HttpLimits:
        """As the HTTP side keeps them."""
        return HttpLimits(
            request_head=self.head_timeout,
            keep_alive=self.keep_alive,
            body_rate=self.body_rate,
            flush=self.flush_timeout,
            max_exchanges=self.max_exchanges,
            max_connections=self.max_connections,
            compression_memory=self.compression_memory,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Log lines."""

    format: str = keys.LOG_FORMAT.default
    level: str = keys.LOG_LEVEL.default


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How much of a function there may be at once."""

    max_invocations: int = keys.MAX_INVOCATIONS.default
    max_queue: int = keys.MAX_QUEUE.default
    max_exchanges: int = keys.MAX_EXCHANGES.default
    invocation_rate: int = keys.INVOCATION_RATE.default


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """What a request is granted beyond its first try; seconds, and percent of a function's requests."""

    count: int = keys.RETRY_COUNT.default
    time: float = keys.RETRY_TIME.default
    share: int = keys.RETRY_SHARE.default


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerConfig:
    """When a function is left alone, and for how many seconds."""

    failures: int = keys.BREAKER_FAILURES.default
    pause: float = keys.BREAKER_PAUSE.default


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsConfig:
    """Seconds."""

    dial_back: float = keys.DIAL_BACK.default
    queue_wait: float = keys.QUEUE_WAIT.default
    response_start: float = keys.RESPONSE_START.default
    request_idle: float = keys.REQUEST_IDLE.default
    response_idle: float = keys.RESPONSE_IDLE.default
    exchange: float = keys.EXCHANGE_TIMEOUT.default


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionConfig:
    """One function, as the gateway calls it."""

    name: str
    url: str
    secret: Secret
    invoke: InvokeConfig = field(default_factory=InvokeConfig)
    linger: float | None = keys.LINGER.default
    lease_share: int = keys.LEASE_SHARE.default
    min_leased: int = keys.MIN_LEASED.default
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    on_disconnect: str = keys.ON_DISCONNECT_KEY.default
    disconnect_grace: float = keys.DISCONNECT_GRACE.default
    cancel_after: float = keys.CANCEL_AFTER.default
    affinity: str = keys.AFFINITY_KEY.default
    compression: str = keys.COMPRESSION_KEY.default

    def lingers(self, places: int) -> float:
        """Seconds that an environment with so many places stays awake without a stream; with one as on Lambda."""
        return LINGER * (places > 1) if self.linger is None else self.linger

    def terms(self, route: Route) -> Terms:
        """What it grants the requests that come by this route."""
        timeouts = self.timeouts
        grace = self.disconnect_grace if route.disconnect_grace is None else route.disconnect_grace
        cancel = self.cancel_after if route.cancel_after is None else route.cancel_after
        return Terms(
            on_disconnect=cast(OnDisconnect, route.on_disconnect or self.on_disconnect),
            disconnect_grace=grace,
            cancel_after=cancel if cancel < keys.LONGEST_INVOCATION else None,
            response_start=timeouts.response_start,
            request_idle=timeouts.request_idle,
            response_idle=timeouts.response_idle,
            exchange=timeouts.exchange,
            max_exchanges=self.limits.max_exchanges,
            affinity=Affinity.read(route.affinity or self.affinity),
            compression=Compression.read(route.compression or self.compression),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything; fields are named as in the file, and docs/configuration.md says what each one does.

    Raises `ConfigError` when built with parts that do not fit together.
    """

    functions: Mapping[str, FunctionConfig]
    routes: tuple[Route, ...] = ()
    """Empty: every path of the only function."""
    listen: Address = keys.LISTEN.default
    admin: Address | None = keys.ADMIN.default
    dial_address: str | None = None
    """None: `dial_address_at` says it."""
    tls: TlsConfig | None = None
    session: SessionConfig = field(default_factory=SessionConfig)
    body: BodyConfig = field(default_factory=BodyConfig)
    client: ClientConfig = field(default_factory=ClientConfig)
    websocket: WebSocketConfig = field(default_factory=WebSocketConfig)
    trusted_proxies: tuple[Network, ...] = ()
    stop_grace: float = keys.STOP_GRACE.default
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        if not self.routes and len(self.functions) == 1:
            object.__setattr__(self, "routes", (Route(next(iter(self.functions))),))
        problems = [*self._address_problems(), *self._route_problems(), *self._tls_problems(), *self._invoke_problems()]
        if problems:
            raise ConfigError(problems)

    def dial_address_at(self, port: int) -> str:
        """What invitations say, once `listen` is bound to `port`: a ws:// or wss:// URL without a path."""
        if self.dial_address is not None:
            return self.dial_address
        return f"{'wss' if self.tls else 'ws'}://{Address(self.listen.host, port)}"

    def notes(self) -> list[str]:
        """What is allowed and yet worth a look."""
        notes = []
        if self.dial_address and self.dial_address.startswith("ws://") and not _is_local(self.dial_address):
            notes.append(
                f"functions refuse {self.dial_address}, which is not encrypted, unless DIALBACK_ALLOW_INSECURE=1"
            )
        for function in self.functions.values():
            if function.url.startswith("http://") and not _is_local(function.url):
                notes.append(
                    f"invitations to {function.name!r} travel unencrypted: who reads one on its way to {function.url} "
                    "may answer in the function's place"
                )
        return notes

    def route_table(self) -> Routes[Route]:
        """The routes, ready to be asked."""
        return Routes((route, route) for route in self.routes)

    def _address_problems(self) -> list[ConfigProblem]:
        problems = []
        if not self.functions:
            text = "no function is configured: the gateway has nowhere to send requests"
            problems.append(ConfigProblem.missing(keys.FUNCTION_URL, text))
        if self.dial_address is None and not self.listen.is_loopback:
            text = f"listen = {self.listen} is not loopback: how functions reach it cannot be known"
            problems.append(ConfigProblem.missing(keys.DIAL_ADDRESS_KEY, text))
        if self.admin is not None and self.admin == self.listen and self.admin.port:
            text = f"admin and listen are both {self.listen}; health and metrics need an address of their own"
            problems.append(ConfigProblem("admin", text))
        return problems

    def _route_problems(self) -> list[ConfigProblem]:
        problems = []
        for route in self.routes:
            if route.function not in self.functions:
                problems.append(unknown_function(f"a route for {route.path or '/'}", route.function, self.functions))
        try:
            self.route_table()
        except RouteFault as fault:
            problems.append(ConfigProblem("routes", str(fault)))
        for name in sorted(set(self.functions) - {route.function for route in self.routes}):
            add = f'add:\n[[routes]]\npath = "/{name}"\nfunction = "{name}"'
            problems.append(ConfigProblem(reach_key(name), f"no route leads to: {name}", add))
        return problems

    def _tls_problems(self) -> list[ConfigProblem]:
        if self.tls is None:
            return []
        try:
            self.tls.context()
        except OSError as fault:
            text = f"{_files(tls=self.tls)} cannot be used: {fault}"
            return [ConfigProblem("tls.cert", text)]
        return []

    def _invoke_problems(self) -> list[ConfigProblem]:
        problems = []
        for invoke in dict.fromkeys(function.invoke for function in self.functions.values()):
            try:
                invoke.context()
            except OSError as fault:
                text = f"{_files(invoke=invoke)} cannot be used: {fault}"
                problems.append(ConfigProblem("invoke.cert" if invoke.cert else "invoke.ca", text))
        return problems


def reach_key(name: str) -> str:
    """The key of the problem that no route leads to a function."""
    return f"routes to {name}"


def unknown_function(what: str, name: str, functions: Iterable[str]) -> ConfigProblem:
    """`what` leads to a function that is none of `functions`."""
    known = ", ".join(sorted(functions)) or "none"
    return ConfigProblem(reach_key(name), f"{what} names the function {name!r}; the functions are: {known}")


def _files(**table: TlsConfig | InvokeConfig) -> str:
    """The files that a table names, as the configuration does."""
    ((name, config),) = table.items()
    named = {field.name: getattr(config, field.name) for field in fields(config)}
    return ", ".join(f"{name}.{key} = {path}" for key, path in named.items() if path is not None)


def _is_local(url: str) -> bool:
    return Address(urlsplit(url).hostname or "", 0).is_loopback
