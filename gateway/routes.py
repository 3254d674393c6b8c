"""Which function a request belongs to: host, then the longest path prefix.

Knows paths as the client sent them, undecoded, and function names; nothing of functions, requests or answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

RESERVED_PATH = "/_dialback"
"""Paths under it belong to the gateway (DESIGN, section 7)."""


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


class Routes:
    """The table of all routes; lives as long as the configuration that it was made from, and never changes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises `RouteFault` where two routes match the same requests."""
        self._by_host: dict[str, list[tuple[bytes, Route]]] = {}
        doubles: list[str] = []
        for route in routes:
            paths = self._by_host.setdefault(route.host, [])
            path = route.path.encode("ascii")
            if any(path == other for other, _ in paths):
                doubles.append(f"two routes have path {route.path or '/'!r} and host {route.host or 'any'!r}")
            paths.append((path, route))
        if doubles:
            raise RouteFault("\n".join(dict.fromkeys(doubles)))
        for paths in self._by_host.values():
            paths.sort(key=lambda pair: len(pair[0]), reverse=True)

    def find(self, host: str, target: bytes) -> Route | None:
        """The route, or None where none matches.

        `host` is the Host field's value, with or without a port. `target` is the request target in origin form,
        undecoded; what follows `?` plays no part. The exact host is asked first, then `*.`, then any host's routes.
        """
        path = b"" if target == b"*" else target.partition(b"?")[0]  # OPTIONS * is about the host as a whole
        name = _without_port(host)
        for key in (name, "*." + name.partition(".")[2], ""):
            for prefix, route in self._by_host.get(key, ()):
                # A prefix ends at a segment's end: /api takes /api and /api/x, never /apix.
                if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/"):
                    return route
        return None


def _without_port(host: str) -> str:
    """The name of a Host field's value (RFC 9110, section 7.2), lower-cased; a trailing dot is the same name."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower().rstrip(".")
