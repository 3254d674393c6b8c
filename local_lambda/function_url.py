"""The Function URL: HTTP requests become events of payload format 2.0, answers become HTTP responses. AuthType NONE, buffered.

Source: AWS, "Invoking Lambda function URLs", and "Working with AWS Lambda proxy integrations for HTTP APIs" for the format.
It knows nothing of environments.
"""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from local_lambda.runtime_api import Answer, FunctionError, read_up_to

REQUEST_LIMIT = 6_291_456
"""Bytes of an event: "Request must be smaller than 6291456 bytes for the InvokeFunction operation"."""
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
TEXT_TYPES = ("application/json", "application/javascript", "application/xml")
"""Bodies of these types, of text/*, and of types that end in +json or +xml, are passed as text; others in base64."""


class TooManyRequests(Exception):
    """No environment is free, and no further one is allowed."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What the event is made of."""

    method: str
    target: str
    """Path and query as sent."""
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str
    protocol: str = "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


Submit = Callable[[str, str, bytes], "asyncio.Future[Answer]"]
"""(request id, trace id, event) -> the answer to come; raises TooManyRequests."""


class FunctionUrl:
    """Begins with `open`; `close_listener` refuses new connections, `close` ends those that are left."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self._http = web.Server(self._handle)
        self._listener: asyncio.Server | None = None
        self._port = 0

    async def open(self, host: str, port: int) -> str:
        self._listener = await asyncio.get_running_loop().create_server(self._http, host, port)
        self._port = self._listener.sockets[0].getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    async def close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        await self._http.shutdown(0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = str(uuid.uuid4())
        trace_id = f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]}"
        answer = await self._answer(request, request_id, trace_id)
        response = web.Response(status=answer.status, body=answer.body)
        for name, value in answer.headers:
            response.headers.add(name, value)
        response.headers["x-amzn-requestid"] = request_id
        response.headers["x-amzn-trace-id"] = trace_id
        return response

    async def _answer(self, request: web.BaseRequest, request_id: str, trace_id: str) -> HttpAnswer:
        body = await read_up_to(request, REQUEST_LIMIT)
        if body is None:
            return _error(413, "Request Entity Too Large")
        headers = [(name, value) for name, value in request.headers.items()]
        incoming = HttpRequest(request.method, request.raw_path, headers, body, request.remote or "")
        event = build_event(incoming, request_id, trace_id, time.time(), self._port)
        payload = json.dumps(event, separators=(",", ":")).encode()
        if len(payload) >= REQUEST_LIMIT:
            return _error(413, "Request Entity Too Large")
        try:
            answer = await asyncio.shield(self._submit(request_id, trace_id, payload))
        except TooManyRequests:
            return _error(429, "Too Many Requests")
        if isinstance(answer, FunctionError):
            return _error(502, "Internal Server Error")
        return build_answer(answer.payload)


def build_event(request: HttpRequest, request_id: str, trace_id: str, now: float, port: int) -> dict[str, Any]:
    """The event for a request. `now`: seconds since the Unix epoch."""
    path, _, query = request.target.partition("?")
    cookies = [part.strip() for name, value in request.headers if name.lower() == "cookie" for part in value.split(";")]
    headers = _joined((name.lower(), value) for name, value in request.headers if name.lower() not in HOP_BY_HOP)
    headers.pop("cookie", None)
    domain = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
    forwarded = headers.get("x-forwarded-for")
    headers["x-forwarded-for"] = f"{forwarded}, {request.source_ip}" if forwarded else request.source_ip
    headers["x-forwarded-proto"] = "http"
    headers["x-forwarded-port"] = str(port)
    headers["x-amzn-trace-id"] = trace_id
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": domain.partition(".")[0],
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": request.method,
                "path": path,
                "protocol": request.protocol,
                "sourceIp": request.source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _joined(parse_qsl(query, keep_blank_values=True))
    if request.body:
        text = _as_text(request.body, headers.get("content-type", ""))
        event["body"] = base64.b64encode(request.body).decode() if text is None else text
        event["isBase64Encoded"] = text is None
    return event


def build_answer(payload: bytes) -> HttpAnswer:
    """The HTTP response for what a handler returned."""
    document = json.loads(payload)
    if not isinstance(document, dict) or "statusCode" not in document:
        return HttpAnswer(200, [("content-type", "application/json")], payload)
    headers = {str(name).lower(): str(value) for name, value in (document.get("headers") or {}).items()}
    for name in (*HOP_BY_HOP, "content-length", "date"):
        headers.pop(name, None)
    headers.setdefault("content-type", "application/json")
    cookies = [("set-cookie", str(cookie)) for cookie in document.get("cookies") or ()]
    body = document.get("body")
    if body is None:
        content = b""
    elif isinstance(body, str):
        content = base64.b64decode(body) if document.get("isBase64Encoded") else body.encode()
    else:
        content = json.dumps(body).encode()
    return HttpAnswer(int(document["statusCode"]), [*headers.items(), *cookies], content)


def _as_text(body: bytes, content_type: str) -> str | None:
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in TEXT_TYPES or kind.endswith(("+json", "+xml"))):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Repeated names become one, their values joined by commas."""
    result: dict[str, str] = {}
    for name, value in pairs:
        result[name] = f"{result[name]},{value}" if name in result else value
    return result


def _error(status: int, message: str) -> HttpAnswer:
    return HttpAnswer(status, [("content-type", "application/json")], json.dumps({"message": message}).encode())
