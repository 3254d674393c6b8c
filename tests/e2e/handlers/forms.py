"""Handlers of the other forms: `def`, generators, existing Lambda code, files."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any

from dialback import Response, SyncRequest, stream_handler


@stream_handler
def generator(request: SyncRequest) -> Iterator[str]:
    for index in range(3):
        yield f"{index} {time.time()!r}\n"
        time.sleep(0.1)


@stream_handler
def returns_text(request: SyncRequest) -> str:
    return f"{request.method} {request.read().decode()}"


@stream_handler
def event(event: Any, context: Any) -> dict[str, Any]:
    assert context.aws_request_id and context.get_remaining_time_in_millis() > 0
    return {"statusCode": 201, "body": json.dumps(event), "cookies": ["a=1", "b=2"]}


@stream_handler
def file_object(request: SyncRequest) -> Response:
    return Response(io.BytesIO(request.file.read() * 100_000))


@stream_handler
def nothing(request: SyncRequest) -> None:
    return None
