"""Every key of the configuration: its name, unit, limits, default and one sentence.

The flags of `dialback serve`, the variables, the TOML file, docs/configuration.md and `--help` come from these tables.
It knows no source of values and no other key's value: what spans keys is in `config`. Longer than other files, since it
is one list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from gateway.affinity import OFF
from gateway.key_values import (
    ADDRESS,
    ADDRESS_OR_OFF,
    AFFINITY,
    COMPRESSION,
    DIAL_ADDRESS,
    HTTP_URL,
    NETWORKS,
    PATH,
    SECRET,
    SHORTEST_SECRET,
    TEXT,
    Address,
    Kind,
    Network,
    Secret,
    ValueFault,
    choice,
    number,
    seconds,
)
from gateway.limits import HttpLimits
from gateway.terms import ON_DISCONNECT, Terms

__all__ = ["Address", "Key", "Kind", "SHORTEST_SECRET", "Secret", "ValueFault"]

LONGEST_INVOCATION = 900.0
"""Seconds (AWS, "Lambda quotas")."""
T_co = TypeVar("T_co", covariant=True)

ENVIRONMENT_PREFIX = "DIALBACK_"
_LIMITS = HttpLimits()
_TERMS = Terms()


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
TLS_CLIENT_CA: Key[Path | None] = Key(
    "tls.client_ca",
    PATH,
    None,
    "Authorities (PEM) of functions' certificates: who dials in must show one, clients need not; with `tls.cert`.",
    default_text="none are asked for",
    example="functions-ca.pem",
)
SESSION_GRACE = Key(
    "session.grace",
    seconds(0, 900),
    30.0,
    "How long a link that lost its socket may take to come back before its streams are lost: 502 `function-lost`, or "
    "responses that are cut.",
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
TRUSTED_PROXIES: Key[tuple[Network, ...] | None] = Key(
    "trusted_proxies",
    NETWORKS,
    None,
    "Whose X-Forwarded-For, -Proto, -Host and -Port are believed; each of them must set or remove all four.",
    default_text="nobody's",
    example="10.0.0.0/8",
)
CLIENT_HEAD_TIMEOUT = Key(
    "client.head_timeout",
    seconds(0.1, 900),
    _LIMITS.request_head,
    "How long a client may take over the head of a request, or the TLS handshake, before it is answered 408 "
    "`request-head-timeout`, or cut.",
)
CLIENT_KEEP_ALIVE = Key(
    "client.keep_alive",
    seconds(0.1, 3600),
    float(_LIMITS.keep_alive),
    "How long a connection may be idle between two requests; longer than that of the balancer before it.",
)
CLIENT_BODY_RATE = Key(
    "client.body_rate",
    number("bytes/s", 0, 1 << 30),
    int(_LIMITS.body_rate),
    "The least rate of a request's body, over ten seconds and until the response begins; below it 408 "
    "`request-too-slow`; 0: any.",
)
CLIENT_FLUSH_TIMEOUT = Key(
    "client.flush_timeout",
    seconds(0.1, 900),
    float(_LIMITS.flush),
    "How long a client may take for the last of a response that is complete, before it is cut off.",
)
CLIENT_MAX_EXCHANGES = Key(
    "client.max_exchanges",
    number("requests", 1, 1_000_000),
    _LIMITS.max_exchanges,
    "How many requests of all functions may be open at once; one more is answered 503 `gateway-full`.",
)
CLIENT_MAX_CONNECTIONS = Key(
    "client.max_connections",
    number("connections", 1, 1_000_000),
    _LIMITS.max_connections,
    "How many connections clients may have open at once, as far as the open-file limit reaches; beyond it 503 "
    "`gateway-full`.",
)
CLIENT_COMPRESSION_MEMORY = Key(
    "client.compression_memory",
    number("bytes", 0, 1 << 40),
    _LIMITS.compression_memory,
    "How much memory compression may take in all (for each response gzip 68, zstd 224, br 416 KiB); those that begin "
    "beyond it have another coding, or none.",
)
WEBSOCKET_MAX_MESSAGE = Key(
    "websocket.max_message",
    number("bytes", 1, 16 << 20),
    _LIMITS.websocket_message,
    "How large one WebSocket message may be, both ways; a client that sends a larger one is closed with 1009.",
)
WEBSOCKET_PING_INTERVAL = Key(
    "websocket.ping_interval",
    seconds(0, 3600),
    float(_LIMITS.websocket_ping_interval),
    "How long nothing may come of a WebSocket client before it is pinged; 0: it never is.",
)
WEBSOCKET_PING_TIMEOUT = Key(
    "websocket.ping_timeout",
    seconds(0.1, 3600),
    float(_LIMITS.websocket_ping_timeout),
    "How long a WebSocket client may take to answer a ping; then it counts as gone (1006).",
)
WEBSOCKET_CLOSE_TIMEOUT = Key(
    "websocket.close_timeout",
    seconds(0.1, 900),
    float(_LIMITS.websocket_close),
    "How long one side of a WebSocket may take to end when the other has closed: the client, and the function's code.",
)
STOP_GRACE = Key(
    "stop_grace",
    seconds(0, 900),
    25.0,
    "How long open requests may go on after SIGTERM or Ctrl-C; then 503 `draining` to those that wait, 502 "
    "`function-lost` or a cut response to the others; a second signal ends them at once.",
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
    TLS_CLIENT_CA,
    SESSION_GRACE,
    SESSION_PING,
    BODY_WINDOW,
    TRUSTED_PROXIES,
    CLIENT_HEAD_TIMEOUT,
    CLIENT_KEEP_ALIVE,
    CLIENT_BODY_RATE,
    CLIENT_FLUSH_TIMEOUT,
    CLIENT_MAX_EXCHANGES,
    CLIENT_MAX_CONNECTIONS,
    CLIENT_COMPRESSION_MEMORY,
    WEBSOCKET_MAX_MESSAGE,
    WEBSOCKET_PING_INTERVAL,
    WEBSOCKET_PING_TIMEOUT,
    WEBSOCKET_CLOSE_TIMEOUT,
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
INVOKE_CA: Key[Path | None] = Key(
    "invoke.ca",
    PATH,
    None,
    "Authorities (PEM) of the Function URL's certificate; no others are believed.",
    default_text="the system's",
    example="ca.pem",
)
INVOKE_CERT: Key[Path | None] = Key(
    "invoke.cert",
    PATH,
    None,
    "The certificate chain (PEM) that the gateway shows the Function URL; with `invoke.key`.",
    default_text="none is shown",
    example="gateway.pem",
)
INVOKE_KEY: Key[Path | None] = Key(
    "invoke.key",
    PATH,
    None,
    "The private key (PEM) of `invoke.cert`.",
    default_text="none is shown",
    example="gateway-key.pem",
)
LINGER: Key[float | None] = Key(
    "linger",
    seconds(0, 900),
    None,
    "How long an environment stays awake after its last stream; 0: the bill stops with the last stream.",
    default_text="`0.1`; `0` with `concurrency=1`, as on Lambda",
)
LEASE_SHARE = Key(
    "lease_share",
    number("percent", 1, 100),
    50,
    "How much of a lease's time takes new streams; the rest is what the last of them has before its invocation ends, "
    "with 504 `function-timeout` or a cut response.",
)
MIN_LEASED = Key(
    "min_leased",
    number("environments", 0, 1000),
    0,
    "How many environments are kept awake although nobody asks for them; each costs its time, around the clock.",
)
MAX_INVOCATIONS = Key(
    "limits.max_invocations",
    number("invocations", 1, 10_000),
    100,
    "How many invocations of the function may run at once, for all its requests.",
)
MAX_QUEUE = Key(
    "limits.max_queue",
    number("requests", 1, 100_000),
    1000,
    "How many requests may wait for a place; one more is answered 503 `overloaded`.",
)
INVOCATION_RATE = Key(
    "limits.invocation_rate",
    number("invocations/s", 1, 10_000),
    100,
    "How many invocations of the function may be started in a second, ten of them at once; requests wait meanwhile.",
)
RETRY_COUNT = Key(
    "retry.count",
    number("retries", 0, 10),
    2,
    "How often a request is tried again after an invocation that failed, or a stream that never began; one that the "
    "platform throttled (429) is no retry: the request waits on, for `timeouts.queue_wait`.",
)
RETRY_TIME = Key(
    "retry.time",
    seconds(0, 900),
    10.0,
    "How long after a request came it may still be tried again, within `timeouts.queue_wait`; throttling is no retry.",
)
RETRY_SHARE = Key(
    "retry.share",
    number("percent", 0, 100),
    20,
    "How many retries all requests of the function may have among them, beside one a second; beyond it there are none.",
)
BREAKER_FAILURES = Key(
    "breaker.failures",
    number("failures", 0, 10_000),
    20,
    "After how many failed invocations in a row the function is left alone, and requests are answered 503 "
    "`circuit-open`; 0: never.",
)
BREAKER_PAUSE = Key(
    "breaker.pause",
    seconds(0.1, 60),
    5.0,
    "How long it is then left alone (503 `circuit-open`) before one invocation is tried; doubled, to a minute, "
    "while that fails.",
)
DIAL_BACK = Key(
    "timeouts.dial_back",
    seconds(0.1, 900),
    10.0,
    "How long an invoked function may take to dial back, cold start included, before the invocation counts as failed, "
    "and a request that waited for it is answered 504 `dial-back-timeout`.",
)
QUEUE_WAIT = Key(
    "timeouts.queue_wait",
    seconds(0.1, 900),
    30.0,
    "How long a request may wait for a place, also while the platform throttles invocations (429); then 503 "
    "`queue-timeout`, or `invoke-throttled` where it has no room at all.",
)

MAX_EXCHANGES = Key(
    "limits.max_exchanges",
    number("requests", 1, 1_000_000),
    _TERMS.max_exchanges,
    "How many requests of the function may be open at once, those that wait among them; one more is answered 503 "
    "`overloaded`; reckon with 1 MB of memory, the kernel's included, for each client that has stopped reading.",
)
RESPONSE_START = Key(
    "timeouts.response_start",
    seconds(0.1, 900),
    float(_TERMS.response_start),
    "How long the function may take from the last of the request's body to the response's head; then 504 "
    "`response-timeout`.",
)
REQUEST_IDLE = Key(
    "timeouts.request_idle",
    seconds(0.1, 900),
    float(_TERMS.request_idle),
    "How long a client may send nothing of its request's body while there is room for it; then 408 `request-idle`.",
)
RESPONSE_IDLE = Key(
    "timeouts.response_idle",
    seconds(0.1, 900),
    float(_TERMS.response_idle),
    "How long nothing may move of a response's body; then it is cut, or its client, if that takes nothing, is gone.",
)
EXCHANGE_TIMEOUT = Key(
    "timeouts.exchange",
    seconds(0.1, 86_400),
    float(_TERMS.exchange),
    "How long a request may take in all; then it is answered 504 `exchange-timeout`, or its response is cut.",
)
ON_DISCONNECT_KEY = Key(
    "on_disconnect",
    choice(*ON_DISCONNECT),
    "cancel",
    "When a client leaves: `cancel` the function's code, after a `grace`, or never (`detach`); its output is dropped.",
)
DISCONNECT_GRACE = Key(
    "disconnect_grace",
    seconds(0, 900),
    float(_TERMS.disconnect_grace),
    'How long code goes on without its client under `on_disconnect = "grace"`.',
)
CANCEL_AFTER = Key(
    "cancel_after",
    seconds(0, 900),
    LONGEST_INVOCATION,
    "How long an ASGI app may go on after it was told that its client has left (`http.disconnect`), before it is "
    "cancelled; 900 is as long as any invocation.",
)
AFFINITY_KEY = Key(
    "affinity",
    AFFINITY,
    OFF,
    "Requests with the same value in this header or cookie go to the environment that answered the first of them, or "
    "that gave the client the value in a response, while it lives; they wait for it when it is busy or frozen.",
)
COMPRESSION_KEY = Key(
    "compression",
    COMPRESSION,
    OFF,
    "Which of zstd, br and gzip the gateway may compress responses with, the preferred one first; each piece leaves at "
    "once, and what is compressed already, is short or must not be transformed stays as it is.",
    example="zstd, br, gzip",
)

FUNCTION_KEYS: tuple[Key[object], ...] = (
    SECRET_KEY,
    INVOKE_CA,
    INVOKE_CERT,
    INVOKE_KEY,
    LINGER,
    LEASE_SHARE,
    MIN_LEASED,
    MAX_INVOCATIONS,
    MAX_QUEUE,
    MAX_EXCHANGES,
    INVOCATION_RATE,
    DIAL_BACK,
    QUEUE_WAIT,
    RETRY_COUNT,
    RETRY_TIME,
    RETRY_SHARE,
    BREAKER_FAILURES,
    BREAKER_PAUSE,
    RESPONSE_START,
    REQUEST_IDLE,
    RESPONSE_IDLE,
    EXCHANGE_TIMEOUT,
    ON_DISCONNECT_KEY,
    DISCONNECT_GRACE,
    CANCEL_AFTER,
    AFFINITY_KEY,
    COMPRESSION_KEY,
)
"""One value for each function: at the top of the file, as a flag or a variable it is the default of all functions."""
DEV_KEYS: tuple[Key[object], ...] = tuple(
    key for key in FUNCTION_KEYS if key.name.partition(".")[0] not in ("secret", "invoke")
)
"""Those that `dialback dev` takes, as flags and variables: all but how it reaches its own local Lambda."""

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
ROUTE_ON_DISCONNECT: Key[str | None] = Key(
    "on_disconnect", choice(*ON_DISCONNECT), None, "As for functions.", default_text="the function's"
)
ROUTE_DISCONNECT_GRACE: Key[float | None] = Key(
    "disconnect_grace", seconds(0, 900), None, "As for functions.", default_text="the function's"
)
ROUTE_CANCEL_AFTER: Key[float | None] = Key(
    "cancel_after", seconds(0, 900), None, "As for functions.", default_text="the function's"
)
ROUTE_AFFINITY: Key[str | None] = Key("affinity", AFFINITY, None, "As for functions.", default_text="the function's")
ROUTE_COMPRESSION: Key[str | None] = Key(
    "compression", COMPRESSION, None, "As for functions.", default_text="the function's"
)
ROUTE_KEYS: tuple[Key[object], ...] = (
    ROUTE_HOST,
    ROUTE_PATH,
    ROUTE_FUNCTION,
    ROUTE_ON_DISCONNECT,
    ROUTE_DISCONNECT_GRACE,
    ROUTE_CANCEL_AFTER,
    ROUTE_AFFINITY,
    ROUTE_COMPRESSION,
)
"""Inside each `[[routes]]`."""

KEYS_WITHOUT_FLAG: frozenset[str] = frozenset({SECRET_KEY.name})
"""A command line is visible to every process of the machine."""
FOREIGN_VARIABLES: frozenset[str] = frozenset(
    {
        "DIALBACK_CONFIG",
        "DIALBACK_GATEWAY",
        "DIALBACK_BLOCKED_LOOP",
        "DIALBACK_ONLY",
        "DIALBACK_ALLOW_INSECURE",
        "DIALBACK_CA_FILE",
        "DIALBACK_CERT_FILE",
        "DIALBACK_KEY_FILE",
    }
)
"""DIALBACK_ variables that are no key: the file's path, and what functions read."""
