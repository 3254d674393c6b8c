"""Dialback inside a Lambda function: a handler whose request and response stream, in the function you already have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lambda_client.handler import stream_handler
from lambda_client.request import Request, RequestIdFilter, SyncRequest, current_request
from lambda_client.response import Response
from lambda_client.stream import ClientDisconnected, WebSocketClosed

if TYPE_CHECKING:
    from lambda_client.asgi import asgi_handler
    from lambda_client.native import HttpResponseStream, streamify_response
    from lambda_client.native_pipeline import pipeline
    from lambda_client.server_sent_events import sse
    from lambda_client.websocket import WebSocket
    from lambda_client.wsgi import wsgi_handler

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

#: Names that are loaded when they are first used, and where they are: most functions need none of them.
_LATER = {
    "HttpResponseStream": "native",
    "WebSocket": "websocket",
    "asgi_handler": "asgi",
    "pipeline": "native_pipeline",
    "sse": "server_sent_events",
    "streamify_response": "native",
    "wsgi_handler": "wsgi",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
