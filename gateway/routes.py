"""Which function a request belongs to: host, then the longest path prefix.

Knows paths as the client sent them, undecoded, and function names; nothing of functions, requests or answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

RESERVED_PATH = "/_dialback"
"""Paths under it belong to the gateway (DESIGN, section 7)."""
HOSTS_KNOWN: Final = 256
"""Values of Host whose routes are kept; a client that makes up others pays for its own."""


class RouteFault(ValueError):
    """A route that cannot be served; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Route:
    """One rule: requests for `host` whose path begins with the segments of `path` go to `function`."""

    function: str
    path: str = "/"
    """As on the wire: a percent-escape matches only itself. A trailing slash means nothing."""
    host: str = ""
    """Lower-cased, without a port; `*.example.com` stands for one label; empty: any host."""
    on_disconnect: str = ""
    """What becomes of a request whose client leaves; empty: as the function says."""
    disconnect_grace: float | None = None
    """Seconds; None: as the function says."""
    affinity: str = ""
    """Where the value is whose requests belong to one environment, as in the configuration; empty: as the function
    says."""
    compression: str = ""
    """Which codings its responses may have, as in the configuration; empty: as the function says."""
    cancel_after: float | None = None
    """Seconds; None: as the function says."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or any(
            not "!" <= character <= "~" or character in "?#" for character in self.path
        ):
            raise RouteFault(
                f"path {self.path!r} must begin with / and be written as it is sent: ASCII, escaped, no ? or #"
            )
        if self.path == RESERVED_PATH or self.path.startswith(RESERVED_PATH + "/"):
            raise RouteFault(f"path {self.path!r} belongs to the gateway itself")
        labels = self.host.removeprefix("*.")
        if self.host and (not labels or any(character in labels for character in "*/: ") or not labels.isascii()):
            raise RouteFault(
                f"host {self.host!r} must be a name such as api.example.com or *.example.com, without a port"
            )
        object.__setattr__(self, "host", self.host.lower())
        object.__setattr__(self, "path", self.path.rstrip("/"))


Goal = TypeVar("Goal")


class Routes(Generic[Goal]):
    """The table of all routes and where they lead; lives as long as what it was made from, and never changes."""

    def __init__(self, goals: Iterable[tuple[Route, Goal]]) -> None:
        """Raises `RouteFault` where two routes match the same requests."""
        self._by_host: dict[str, list[tuple[bytes, Goal]]] = {}
        doubles: list[str] = []
        for route, goal in goals:
            paths = self._by_host.setdefault(route.host, [])
            # A prefix ends at a segment's end: /api takes /api and /api/x, never /apix.
            path = route.path.encode("ascii") + b"/"
            if any(path == other for other, _ in paths):
                doubles.append(f"two routes have path {route.path or '/'!r} and host {route.host or 'any'!r}")
            paths.append((path, goal))
        if doubles:
            raise RouteFault("\n".join(dict.fromkeys(doubles)))
        for paths in self._by_host.values():
            paths.sort(key=lambda pair: len(pair[0]), reverse=True)
        self._paths_of = lru_cache(HOSTS_KNOWN)(self._find_paths)

    def find(self, host: str, target: bytes) -> Goal | None:
        """Where the route leads, or None where none matches.

        `host` is the Host field's value, with or without a port. `target` is the request target in origin form,
        undecoded; what follows `?` plays no part. The exact host is asked first, then `*.`, then any host's routes.
        """
        # OPTIONS * is about the host as a whole.
        path = b"/" if target == b"*" else target.partition(b"?")[0] + b"/"
        for paths in self._paths_of(host):
            for prefix, goal in paths:
                if path.startswith(prefix):
                    return goal
        return None

    def _find_paths(self, host: str) -> list[list[tuple[bytes, Goal]]]:
        name = _without_port(host)
        keys = (name, "*." + name.partition(".")[2], "")
        return [self._by_host[key] for key in keys if key in self._by_host]


def _without_port(host: str) -> str:
    """The name of a Host field's value (RFC 9110, section 7.2), lower-cased; a trailing dot is the same name."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower().rstrip(".")
