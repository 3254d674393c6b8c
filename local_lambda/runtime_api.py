"""The Lambda Runtime API of one environment: the HTTP interface from which a runtime takes events and to which it answers.

Source: AWS, "Using the Lambda runtime API for custom runtimes" (version 2018-06-01). It knows nothing of processes.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from local_lambda.settings import InitError

VERSION = "/2018-06-01/runtime"
RESPONSE_LIMIT = 6_291_556
"""Bytes that a buffered response may have: 6 MiB and 100 bytes, as Lambda's own error message says."""
ERROR_TYPE_HEADER = "Lambda-Runtime-Function-Error-Type"


@dataclass(frozen=True, slots=True)
class Result:
    """What the handler returned: a JSON document, not looked into."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class FunctionError:
    """The invocation failed; `type` as in AWS's log, for example "Runtime.ExitError" or the exception's name."""

    type: str
    message: str = ""


Answer = Result | FunctionError


@dataclass(slots=True, eq=False)
class Invocation:
    """One event on its way through an environment. Begins when the front has a request, ends when `answer` is set."""

    id: str
    event: bytes
    deadline: float
    """Seconds since the Unix epoch."""
    arn: str
    trace_id: str
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, answer: Answer) -> None:
        """Answer it; only the first answer counts."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def headers(self) -> dict[str, str]:
        return {
            "Lambda-Runtime-Aws-Request-Id": self.id,
            "Lambda-Runtime-Deadline-Ms": str(int(self.deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.arn,
            "Lambda-Runtime-Trace-Id": self.trace_id,
        }


class RuntimeApi:
    """Begins with `open`, before the environment's process; ends with `close`, after it."""

    def __init__(self, on_waiting: Callable[[], None], on_init_error: Callable[[InitError], None]) -> None:
        self._on_waiting = on_waiting
        self._on_init_error = on_init_error
        self._next: asyncio.Future[Invocation] | None = None
        self._current: Invocation | None = None
        self._server: asyncio.Server | None = None
        self._http = web.Server(self._handle)

    async def open(self) -> str:
        """Listen on a free port of the loopback and return the address for AWS_LAMBDA_RUNTIME_API."""
        self._server = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
        if self._server is not None:
            self._server.close()
        await self._http.shutdown(0)

    def give(self, invocation: Invocation) -> None:
        """Hand an event to the runtime, which must be waiting for one."""
        assert self._next is not None and not self._next.done()
        self._current = invocation
        self._next.set_result(invocation)

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
        return _json(404, {"errorMessage": f"no such path: {request.method} {request.path}", "errorType": "NotFound"})

    async def _wait_next(self) -> web.Response:
        self._current = None
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().create_future()
        self._on_waiting()
        invocation = await self._next
        return web.Response(body=invocation.event, headers=invocation.headers(), content_type="application/json")

    async def _take_answer(self, request: web.BaseRequest, request_id: str, what: str) -> web.Response:
        body = await read_up_to(request, RESPONSE_LIMIT)
        invocation = self._current
        if invocation is None or invocation.id != request_id or invocation.answer.done():
            return _json(400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"})
        if body is None:
            message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            invocation.settle(FunctionError("Function.ResponseSizeTooLarge", message))
            return _json(413, {"errorMessage": message, "errorType": "RequestEntityTooLarge"})
        if what == "response":
            invocation.settle(Result(body))
        else:
            error = _parse_error(body, request.headers.get(ERROR_TYPE_HEADER))
            invocation.settle(FunctionError(error.type, error.message))
        return _json(202, {"status": "OK"})

    async def _take_init_error(self, request: web.BaseRequest) -> web.Response:
        body = await read_up_to(request, RESPONSE_LIMIT) or b""
        self._on_init_error(_parse_error(body, request.headers.get(ERROR_TYPE_HEADER)))
        return _json(202, {"status": "OK"})


async def read_up_to(request: web.BaseRequest, limit: int) -> bytes | None:
    """The whole body, or None as soon as it has more than `limit` bytes; the server then lets the sender finish or closes."""
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


def _json(status: int, document: dict[str, str]) -> web.Response:
    return web.json_response(document, status=status)
