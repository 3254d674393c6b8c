"""Dialback inside a Lambda function: a handler whose request and response stream, in the function you already have."""

from __future__ import annotations

from lambda_client.handler import stream_handler
from lambda_client.request import Request, RequestIdFilter, SyncRequest, current_request
from lambda_client.response import Response
from lambda_client.stream import ClientDisconnected

__all__ = [
    "ClientDisconnected",
    "Request",
    "RequestIdFilter",
    "Response",
    "SyncRequest",
    "current_request",
    "stream_handler",
]
