"""The Lambda Runtime API of one environment: the HTTP interface from which a runtime takes events and where it answers.

Source: AWS, "Using the Lambda runtime API for custom runtimes" (version 2018-06-01). It knows nothing of processes.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from local_lambda.settings import InitError

VERSION = "/2018-06-01/runtime"
RESPONSE_LIMIT = 6_291_556
"""Bytes that a buffered response may have: 6 MiB and 100 bytes, as Lambda's own error message says."""
CLOSE_TIMEOUT = 0.05
"""Seconds that a connection is given to end by itself; aiohttp takes 0 for ever."""
ERROR_TYPE_HEADER = "Lambda-Runtime-Function-Error-Type"


@dataclass(frozen=True, slots=True)
class Result:
    """What the handler returned: a JSON document, not looked into."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The invocation failed; `type` as in AWS's log, for example "Runtime.ExitError" or the exception's name."""

    type: str
    message: str


Answer = Result | FunctionError


@dataclass(frozen=True, slots=True)
class Invocation:
    """One event for an environment."""

    id: str
    event: bytes
    arn: str
    trace_id: str


class RuntimeApi:
    """Begins with `open`, before the environment's process; ends with `close`, after it."""

    def __init__(self, on_waiting: Callable[[], None], on_init_error: Callable[[InitError], None]) -> None:
        self._on_waiting = on_waiting
        self._on_init_error = on_init_error
        self._next: asyncio.Future[tuple[Invocation, float]] | None = None
        self._current: Invocation | None = None
        self.answer: Answer | None = None
        """What the runtime answered to the event that it was given last."""
        self._listener: asyncio.Server | None = None
        self._http = web.Server(self._handle, access_log=None)

    async def open(self) -> str:
        """Listen on a free port of the loopback and return the address for AWS_LAMBDA_RUNTIME_API."""
        self._listener = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        if self._listener is not None:
            self._listener.close()
        await self._http.shutdown(CLOSE_TIMEOUT)

    def give(self, invocation: Invocation, deadline: float) -> None:
        """Hand an event to the runtime, which must be waiting for one. `deadline`: seconds since the Unix epoch."""
        assert self._next is not None and not self._next.done()
        self._current = invocation
        self.answer = None
        self._next.set_result((invocation, deadline))

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path.removeprefix(VERSION)
        if request.method == "GET" and path == "/invocation/next":
            return await self._wait_next()
        if request.method == "POST" and path == "/init/error":
            return await self._take_init_error(request)
        if request.method == "POST" and path.startswith("/invocation/"):
            request_id, _, what = path.removeprefix("/invocation/").partition("/")
            if what in ("response", "error"):
                return await self._take_answer(request, request_id, what)
        return _refusal(404, "NotFound", f"no such path: {request.method} {request.path}")

    async def _wait_next(self) -> web.Response:
        self._current = None
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().create_future()
        self._on_waiting()
        invocation, deadline = await self._next
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_id,
        }
        return web.Response(body=invocation.event, headers=headers, content_type="application/json")

    async def _take_answer(self, request: web.BaseRequest, request_id: str, what: str) -> web.Response:
        body = await read_up_to(request, RESPONSE_LIMIT)
        if self._current is None or self._current.id != request_id or self.answer is not None:
            return _refusal(400, "InvalidRequestID", "Invalid request ID")
        if body is None:
            message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            self.answer = FunctionError("Function.ResponseSizeTooLarge", message)
            return _refusal(413, "RequestEntityTooLarge", message)
        if what == "response":
            self.answer = Result(body)
        else:
            error = _parse_error(body, request.headers.get(ERROR_TYPE_HEADER))
            self.answer = FunctionError(error.type, error.message)
        return web.json_response({"status": "OK"}, status=202)

    async def _take_init_error(self, request: web.BaseRequest) -> web.Response:
        body = await read_up_to(request, RESPONSE_LIMIT) or b""
        self._on_init_error(_parse_error(body, request.headers.get(ERROR_TYPE_HEADER)))
        return web.json_response({"status": "OK"}, status=202)


async def read_up_to(request: web.BaseRequest, limit: int) -> bytes | None:
    """The whole body, or None as soon as it is known to exceed `limit` bytes; the server then hears the sender out."""
    if (request.content_length or 0) > limit:
        return None
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _parse_error(body: bytes, error_type: str | None) -> InitError:
    """An error document of the Runtime API: errorMessage, errorType, stackTrace, none of which need be there."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    trace = document.get("stackTrace")
    return InitError(
        type=str(document.get("errorType") or error_type or "Runtime.Unknown"),
        message=str(document.get("errorMessage") or ""),
        trace=tuple(map(str, trace)) if isinstance(trace, list) else (),
    )


def _refusal(status: int, error_type: str, message: str) -> web.Response:
    return web.json_response({"errorMessage": message, "errorType": error_type}, status=status)
