"""Dialback inside a Lambda function: a handler whose request and response stream, in the function you already have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_client.handler import stream_handler
from lambda_client.request import Request, RequestIdFilter, SyncRequest, current_request
from lambda_client.response import Response
from lambda_client.stream import ClientDisconnected

if TYPE_CHECKING:
    from lambda_client.asgi import asgi_handler

__all__ = [
    "ClientDisconnected",
    "Request",
    "RequestIdFilter",
    "Response",
    "SyncRequest",
    "asgi_handler",
    "current_request",
    "stream_handler",
]

#: Names that are loaded when they are first used, and where they are: most functions need none of them.
_LATER = {"asgi_handler": "asgi"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
