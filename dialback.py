"""The name that users import, and the command that they type.

Knows `lambda_client`'s public names and where the command lives, nothing else. The command needs the `gateway` extra;
a function's zip has only the base install, so this module must import without it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import lambda_client
from lambda_client import (
    ClientDisconnected,
    Request,
    RequestIdFilter,
    Response,
    SyncRequest,
    WebSocketClosed,
    current_request,
    stream_handler,
)

if TYPE_CHECKING:
    from lambda_client import (
        HttpResponseStream,
        WebSocket,
        asgi_handler,
        pipeline,
        sse,
        streamify_response,
        wsgi_handler,
    )

__all__ = [
    "ClientDisconnected",
    "HttpResponseStream",
    "Request",
    "RequestIdFilter",
    "Response",
    "SyncRequest",
    "WebSocket",
    "WebSocketClosed",
    "asgi_handler",
    "current_request",
    "pipeline",
    "sse",
    "stream_handler",
    "streamify_response",
    "wsgi_handler",
]

OLDEST_PYTHON_FOR_THE_GATEWAY = (3, 11)
OURS = frozenset({"gateway", "protocol", "lambda_client", "local_lambda"})


def __getattr__(name: str) -> Any:
    """What `lambda_client` loads when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(lambda_client, name)


def main() -> int:
    """Run the `dialback` command; where its libraries are missing, print the line that installs them and return 2."""
    if sys.version_info < OLDEST_PYTHON_FOR_THE_GATEWAY:
        wanted, running = (".".join(map(str, v[:2])) for v in (OLDEST_PYTHON_FOR_THE_GATEWAY, sys.version_info))
        print(f"dialback: the gateway needs Python {wanted} or newer; this is {running}.", file=sys.stderr)
        return 2
    try:
        from gateway.cli import main as command
    except ModuleNotFoundError as missing:
        # A module of ours that is missing is a broken install, and its traceback is wanted.
        if missing.name is None or missing.name.partition(".")[0] in OURS:
            raise
        print(
            f"dialback: {missing.name} is not installed. The command needs more than a function does; type:\n"
            "  pip install 'dialback[dev]'      (gateway and local Lambda)\n"
            "  pip install 'dialback[gateway]'  (the gateway alone)",
            file=sys.stderr,
        )
        return 2
    return command()


if __name__ == "__main__":
    sys.exit(main())
