"""Where a configuration comes from: flags over environment over a TOML file, read into one `Config`.

It reports every problem of all sources at once. It knows the key tables and how to combine sources; what values must
be, and how they fit together, is known by `keys` and `config`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import tomllib

from gateway import keys
from gateway.config import (
    ONLY_FUNCTION,
    BodyConfig,
    BreakerConfig,
    ClientConfig,
    Config,
    ConfigError,
    ConfigProblem,
    FunctionConfig,
    InvokeConfig,
    LimitsConfig,
    LogConfig,
    RetryConfig,
    SessionConfig,
    TimeoutsConfig,
    TlsConfig,
    WebSocketConfig,
    reach_key,
    unknown_function,
)
from gateway.keys import Key, Secret, ValueFault
from gateway.routes import Route, RouteFault

T = TypeVar("T")

FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What Lambda takes as a function's name (AWS, CreateFunction)."""
SERVICE_LINK = re.compile(r"DIALBACK_(.*_)?(SERVICE_(HOST|PORT)(_.*)?|PORT(_\d+_(TCP|UDP)(_(ADDR|PORT|PROTO))?)?)")
"""Variables that Kubernetes sets in every pod beside a Service called `dialback`."""
NOTHING = object()


def load(
    *, flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Config:
    """Read, check and combine; `flags` are texts by key name. Raises `ConfigError` with all problems."""
    return _Loader(flags or {}, environ or {}, file).load()


class _Loader:
    """One call of `load`."""

    def __init__(self, flags: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> None:
        self._flags = flags
        self._environ = environ
        self._file = file
        self._folder = file.parent if file else Path()
        self._problems: dict[str, ConfigProblem] = {}
        self._meant: set[str] = set()  # what is no problem of its own: a route that is wrong leads there

    def load(self) -> Config:
        document = self._read_file()
        self._top = self._flatten(document, (*keys.GATEWAY_KEYS, *keys.FUNCTION_KEYS), "", ("functions", "routes"))
        functions = self._functions(document.get("functions", {}))
        routes = self._routes(document.get("routes", []), functions)
        for default in keys.FUNCTION_KEYS:
            self._value(default)  # what no function takes must be right all the same
        if not functions:
            self._secret(ONLY_FUNCTION, {}, "")  # missing, too, as a rule: told in one go
        self._refuse_unknown_variables(document)
        get = self._value
        proxies = self._value(keys.TRUSTED_PROXIES)
        tls, client_ca = self._pair(keys.TLS_CERT, keys.TLS_KEY, get), get(keys.TLS_CLIENT_CA)
        if client_ca and get(keys.TLS_CERT) is None:
            text = f"{keys.TLS_CERT.name} is missing: {keys.TLS_CLIENT_CA.name} alone is of no use"
            self._report(ConfigProblem.missing(keys.TLS_CERT, text))
        config: Config | None = None
        try:
            config = Config(
                functions=functions,
                routes=tuple(routes),
                listen=get(keys.LISTEN),
                admin=get(keys.ADMIN),
                dial_address=get(keys.DIAL_ADDRESS_KEY),
                tls=TlsConfig(*tls, client_ca) if tls else None,
                session=SessionConfig(grace=get(keys.SESSION_GRACE), ping_interval=get(keys.SESSION_PING)),
                body=BodyConfig(window=get(keys.BODY_WINDOW)),
                client=self._client(),
                websocket=WebSocketConfig(
                    max_message=get(keys.WEBSOCKET_MAX_MESSAGE),
                    ping_interval=get(keys.WEBSOCKET_PING_INTERVAL),
                    ping_timeout=get(keys.WEBSOCKET_PING_TIMEOUT),
                    close_timeout=get(keys.WEBSOCKET_CLOSE_TIMEOUT),
                ),
                trusted_proxies=proxies or (),
                stop_grace=get(keys.STOP_GRACE),
                log=LogConfig(format=get(keys.LOG_FORMAT), level=get(keys.LOG_LEVEL)),
            )
        except ConfigError as error:
            for problem in error.problems:
                if problem.key not in self._meant:
                    self._report(problem)
        if config is None or self._problems:
            raise ConfigError(list(self._problems.values()))
        return config

    # --- the sources -------------------------------------------------------------------------------------------------

    def _read_file(self) -> dict[str, object]:
        if self._file is None:
            return {}
        try:
            return tomllib.loads(self._file.read_text(encoding="utf-8"))
        except OSError as fault:
            text = f"{self._file} cannot be read: {fault.strerror or fault}"
        except UnicodeDecodeError:
            text = f"{self._file} is not UTF-8, as TOML must be"
        except tomllib.TOMLDecodeError as fault:
            text = f"{self._file} is not TOML: {fault}"
        raise ConfigError([ConfigProblem("", text)])

    def _flatten(
        self, table: Mapping[str, object], known: Iterable[Key[object]], where: str, apart: tuple[str, ...] = ()
    ) -> dict[str, object]:
        """A table's values by dotted name; reports names that no key has."""
        names = {key.name for key in known}
        tables = {name.rpartition(".")[0] for name in names if "." in name}
        found: dict[str, object] = {}

        def walk(part: Mapping[str, object], prefix: str) -> None:
            for name, value in part.items():
                dotted = prefix + name
                if dotted in names:
                    found[dotted] = value
                elif dotted in tables and isinstance(value, dict):
                    walk(value, dotted + ".")
                elif isinstance(value, dict) and dotted not in apart and value:
                    for inner in value:
                        self._unknown(f"{where}{dotted}.{inner}", f"{dotted}.{inner}", [*names, *apart])
                elif dotted not in apart:
                    self._unknown(where + dotted, dotted, [*names, *apart])

        walk(table, "")
        return found

    def _unknown(self, where: str, name: str, known: Iterable[str]) -> None:
        self._report(
            ConfigProblem(where, f"{self._file}: {where} is no key of the configuration{_nearest(name, known)}")
        )

    def _refuse_unknown_variables(self, document: Mapping[str, object]) -> None:
        known = {key.variable for key in (*keys.GATEWAY_KEYS, *keys.FUNCTION_KEYS)}
        tables = document.get("functions", {})
        named = {
            table.get("secret_env")
            for table in (tables.values() if isinstance(tables, dict) else ())
            if isinstance(table, dict)
        }
        for name in sorted(self._environ):
            if not name.startswith(keys.ENVIRONMENT_PREFIX) or name in known | named | keys.FOREIGN_VARIABLES:
                continue
            if not SERVICE_LINK.fullmatch(name):
                self._report(ConfigProblem(name, f"{name} is no variable of the configuration{_nearest(name, known)}"))

    def _value(self, key: Key[T]) -> T:
        """A value for the whole gateway, or the default of all functions; the default too where there is a fault."""
        if key.name in self._flags:
            return self._parse(key, self._flags[key.name], key.flag)
        # An empty variable is none: compose files pass ${X:-} through.
        if text := self._environ.get(key.variable):
            return self._parse(key, text, key.variable)
        return self._from_file(key, self._top, "")

    def _from_file(self, key: Key[T], table: Mapping[str, object], where: str) -> T:
        value = table.get(key.name, NOTHING)
        if value is NOTHING:
            return key.default
        name = f"{self._file}: {where}{key.name}"
        if isinstance(value, bool) or not isinstance(value, key.kind.toml):
            wanted = "a number" if key.kind.toml is not str else f'a text in quotes, "{key.kind.placeholder}"'
            self._report(ConfigProblem(where + key.name, f"{name} must be {wanted}"))
            return key.default
        parsed = self._parse(key, value, name, where + key.name)
        return self._folder / parsed if isinstance(parsed, Path) else parsed

    def _parse(self, key: Key[T], value: object, shown: str, name: str = "") -> T:
        try:
            return key.kind.read(value)
        except ValueFault as fault:
            self._report(ConfigProblem(name or key.name, f"{shown} {fault}"))
            return key.default

    # --- tables ------------------------------------------------------------------------------------------------------

    def _functions(self, tables: object) -> dict[str, FunctionConfig]:
        url = self._value(keys.FUNCTION_URL)
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            self._report(ConfigProblem("function_url", f"{self._file}: functions must be tables: [functions.NAME]"))
            return {}
        if url is not None and tables:
            text = f"function_url and [functions.{next(iter(tables))}] are both given; keep one of them"
            self._report(ConfigProblem("function_url", text))
        if not tables:
            return {ONLY_FUNCTION: self._function(ONLY_FUNCTION, {keys.URL.name: url}, "")} if url else {}
        functions = {}
        for name, table in tables.items():
            where = f"functions.{name}."
            if not FUNCTION_NAME.fullmatch(name):
                text = f"{self._file}: the function name {name!r} may have letters, digits, - and _ only, 64 at most"
                self._report(ConfigProblem(where, text))
            flat = self._flatten(table, (*keys.TABLE_KEYS, *keys.FUNCTION_KEYS), where)
            functions[name] = self._function(name, flat, where)
        return functions

    def _client(self) -> ClientConfig:
        get = self._value
        return ClientConfig(
            head_timeout=get(keys.CLIENT_HEAD_TIMEOUT),
            keep_alive=get(keys.CLIENT_KEEP_ALIVE),
            body_rate=get(keys.CLIENT_BODY_RATE),
            flush_timeout=get(keys.CLIENT_FLUSH_TIMEOUT),
            max_exchanges=get(keys.CLIENT_MAX_EXCHANGES),
            max_connections=get(keys.CLIENT_MAX_CONNECTIONS),
            compression_memory=get(keys.CLIENT_COMPRESSION_MEMORY),
        )

    def _function(self, name: str, table: Mapping[str, object], where: str) -> FunctionConfig:
        def get(key: Key[T]) -> T:
            return self._from_file(key, table, where) if key.name in table else self._value(key)

        url = self._from_file(keys.URL, table, where)
        if url is None:
            text = f"{self._file}: [functions.{name}] has no url"
            self._report(ConfigProblem(where + "url", text, f'add: url = "{keys.URL.example}"'))
        cert, key = self._pair(keys.INVOKE_CERT, keys.INVOKE_KEY, get) or (None, None)
        return FunctionConfig(
            name=name,
            url=url or "",
            secret=self._secret(name, table, where) or Secret(""),
            invoke=InvokeConfig(ca=get(keys.INVOKE_CA), cert=cert, key=key),
            linger=get(keys.LINGER),
            lease_share=get(keys.LEASE_SHARE),
            min_leased=get(keys.MIN_LEASED),
            limits=LimitsConfig(
                max_invocations=get(keys.MAX_INVOCATIONS),
                max_queue=get(keys.MAX_QUEUE),
                max_exchanges=get(keys.MAX_EXCHANGES),
                invocation_rate=get(keys.INVOCATION_RATE),
            ),
            timeouts=TimeoutsConfig(
                dial_back=get(keys.DIAL_BACK),
                queue_wait=get(keys.QUEUE_WAIT),
                response_start=get(keys.RESPONSE_START),
                request_idle=get(keys.REQUEST_IDLE),
                response_idle=get(keys.RESPONSE_IDLE),
                exchange=get(keys.EXCHANGE_TIMEOUT),
            ),
            retry=RetryConfig(count=get(keys.RETRY_COUNT), time=get(keys.RETRY_TIME), share=get(keys.RETRY_SHARE)),
            breaker=BreakerConfig(failures=get(keys.BREAKER_FAILURES), pause=get(keys.BREAKER_PAUSE)),
            on_disconnect=get(keys.ON_DISCONNECT_KEY),
            disconnect_grace=get(keys.DISCONNECT_GRACE),
            cancel_after=get(keys.CANCEL_AFTER),
            affinity=get(keys.AFFINITY_KEY),
            compression=get(keys.COMPRESSION_KEY),
        )

    def _pair(
        self, cert: Key[Path | None], key: Key[Path | None], get: Callable[[Key[Path | None]], Path | None]
    ) -> tuple[Path, Path] | None:
        """A certificate and its key: both, or none."""
        one, other = get(cert), get(key)
        if one and other:
            return one, other
        if one or other:
            absent, present = (key, cert) if one else (cert, key)
            self._report(ConfigProblem.missing(absent, f"{absent.name} is missing: {present.name} alone is of no use"))
        return None

    def _secret(self, name: str, table: Mapping[str, object], where: str) -> Secret | None:
        """The table's own, else the variable that it names, else the one of all functions."""
        variable = self._from_file(keys.SECRET_ENV, table, where)
        if keys.SECRET_KEY.name in table:
            if variable is not None:
                self._report(
                    ConfigProblem(
                        where + "secret", f"{self._file}: [functions.{name}] has secret and secret_env; keep one"
                    )
                )
            return self._from_file(keys.SECRET_KEY, table, where)
        if variable is None:
            secret, variable = self._value(keys.SECRET_KEY), keys.SECRET_KEY.variable
        elif text := self._environ.get(variable):
            return self._parse(keys.SECRET_KEY, text, variable)
        else:
            secret = None
        if secret is None:
            text = (
                f"{variable} is not set: invitations for {name!r} cannot be signed; the function needs the same secret"
            )
            self._report(ConfigProblem(variable_key(variable), text, f'type: export {variable}="$(dialback secret)"'))
        return secret

    def _routes(self, entries: object, functions: Iterable[str]) -> list[Route]:
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._report(ConfigProblem("routes", f"{self._file}: routes must be tables: [[routes]]"))
            return []
        routes = []
        for index, entry in enumerate(entries):
            where = f"routes[{index}]."
            table = self._flatten(entry, keys.ROUTE_KEYS, where)
            function = self._from_file(keys.ROUTE_FUNCTION, table, where)
            if function is None:
                text = f"{self._file}: {where}function is missing: where shall its requests go"
                self._report(ConfigProblem(where + "function", text, 'add: function = "NAME"'))
                continue
            path, host = self._from_file(keys.ROUTE_PATH, table, where), self._from_file(keys.ROUTE_HOST, table, where)
            leaves = self._from_file(keys.ROUTE_ON_DISCONNECT, table, where)
            grace = self._from_file(keys.ROUTE_DISCONNECT_GRACE, table, where)
            affinity = self._from_file(keys.ROUTE_AFFINITY, table, where) or ""
            compression = self._from_file(keys.ROUTE_COMPRESSION, table, where) or ""
            cancel = self._from_file(keys.ROUTE_CANCEL_AFTER, table, where)
            try:
                routes.append(Route(function, path, host or "", leaves or "", grace, affinity, compression, cancel))
            except RouteFault as fault:
                named = where.rstrip(".")
                self._report(ConfigProblem(named, f"{self._file}: {named}: {fault}"))
                if function in functions:
                    self._meant.add(reach_key(function))
                else:
                    self._report(unknown_function(f"{self._file}: {named}", function, functions))
        return routes

    def _report(self, problem: ConfigProblem) -> None:
        """The first problem of a key is the one to tell; what follows from it would only confuse."""
        key = {key.name: key for key in (*keys.GATEWAY_KEYS, *keys.FUNCTION_KEYS)}.get(problem.key)
        if self._file is not None and key is not None and problem.add.startswith("add: --"):
            add = f'add at the top of {self._file}: {key.name} = "{key.example}"'
            problem = ConfigProblem(problem.key, problem.text, add)
        self._problems.setdefault(problem.key, problem)


def variable_key(variable: str) -> str:
    """The key that a variable stands for, so that one missing secret is told once for all functions."""
    return keys.SECRET_KEY.name if variable == keys.SECRET_KEY.variable else variable


def _nearest(name: str, known: Iterable[str]) -> str:
    prefix = keys.ENVIRONMENT_PREFIX if name.startswith(keys.ENVIRONMENT_PREFIX) else ""
    spelled = {other.removeprefix(prefix): other for other in known}  # what all share makes nothing alike
    matches = [spelled[near] for near in difflib.get_close_matches(name.removeprefix(prefix), spelled, n=1, cutoff=0.6)]
    return f"; did you mean {matches[0]}?" if matches else "; docs/configuration.md has all of them"
