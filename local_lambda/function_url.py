"""The Function URL: HTTP requests become events of payload format 2.0, and answers HTTP responses.

AuthType NONE, InvokeMode BUFFERED. It knows nothing of environments. Sources, which do not agree in everything; what
real Function URLs were recorded to do goes before what the documentation says:
AWS, "Invoking Lambda function URLs" and "Create AWS Lambda proxy integrations for HTTP APIs" (the format);
aws/aws-lambda-rust-runtime#586 (cookies are in `cookies` and in `headers.cookie`); ministackorg/ministack#766 (which
bodies are text); aws/aws-lambda-web-adapter#491 (remapped headers); LocalStack's snapshots of AWS (answers, refusals).
"""

import asyncio
import base64
import binascii
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from local_lambda.runtime_api import CLOSE_TIMEOUT, Answer, FunctionError, read_up_to

REQUEST_LIMIT = 6_291_456
"""Bytes of an event: "Request must be smaller than 6291456 bytes for the InvokeFunction operation"."""
LINE_LIMIT = 16 * 1024
"""Bytes of the request line, and of one header."""
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Of the connection, not of the request (RFC 9110 §7.6.1): not in events."""
REMAPPED = HOP_BY_HOP | {"content-length", "date", "server"}
"""Headers that a function cannot set: they leave as x-amzn-remapped-NAME."""
TEXT_TYPES = ("application/json", "application/javascript", "application/xml")
"""Bodies of these types, and of text/*, are passed as text; all others in base64."""

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class TooManyRequests(Exception):
    """No environment is free, and no further one is allowed."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What an event is made of."""

    method: str
    target: str
    """Path and query as sent."""
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str
    protocol: str = "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What an answer becomes."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


Submit = Callable[[str, str, bytes], Awaitable[Answer]]
"""(request id, trace id, event) -> the answer to come; raises TooManyRequests."""


class FunctionUrl:
    """Begins with `open`; after `refuse` nothing new is taken; `close` ends the connections that are left."""

    def __init__(self, submit: Submit, log: Callable[[str], None]) -> None:
        self._submit = submit
        self._log = log
        self._http = web.Server(self._handle, access_log=None, max_line_size=LINE_LIMIT, max_field_size=LINE_LIMIT)
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._refusing = False

    async def open(self, host: str, port: int) -> str:
        """Listen, and return the URL. Raises OSError where the port is taken."""
        self._listener = await asyncio.get_running_loop().create_server(self._http, host, port)
        self._port = self._listener.sockets[0].getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def refuse(self) -> None:
        self._refusing = True
        if self._listener is not None:
            self._listener.close()

    async def close(self) -> None:
        await self._http.shutdown(CLOSE_TIMEOUT)

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
        if self._refusing:
            return HttpAnswer(503, *_refusal("ServiceUnavailableException", "The service is stopping."))
        body = await read_up_to(request, REQUEST_LIMIT)
        headers = list(request.headers.items())
        incoming = HttpRequest(request.method, request.raw_path, headers, body or b"", request.remote or "")
        payload = json.dumps(build_event(incoming, request_id, trace_id, time.time(), self._port)).encode()
        if body is None or len(payload) >= REQUEST_LIMIT:
            message = f"Request must be smaller than {REQUEST_LIMIT} bytes for the InvokeFunction operation"
            return HttpAnswer(413, *_refusal("RequestTooLargeException", message))
        try:
            answer = await self._submit(request_id, trace_id, payload)
        except TooManyRequests:
            return HttpAnswer(429, *_refusal("TooManyRequestsException", "Rate Exceeded."))
        if isinstance(answer, FunctionError):
            return INTERNAL_SERVER_ERROR
        try:
            return build_answer(answer.payload)
        except ValueError as error:
            self._log(f"RequestId: {request_id} Error: the function's answer makes no HTTP response: {error}")
            return INTERNAL_SERVER_ERROR


INTERNAL_SERVER_ERROR = HttpAnswer(502, [("content-type", "application/json")], b"Internal Server Error")
"""What a client sees of a function error; its cause is in the log alone."""


def build_event(request: HttpRequest, request_id: str, trace_id: str, now: float, port: int) -> dict[str, Any]:
    """The event for a request. `now`: seconds since the Unix epoch; `port`: where it came in."""
    path, _, query = request.target.partition("?")
    headers = _joined((name.lower(), value) for name, value in request.headers if name.lower() not in HOP_BY_HOP)
    cookies = [value.strip() for value in "; ".join(_values(request, "cookie")).split(";") if value.strip()]
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    forwarded_for = headers.get("x-forwarded-for")
    headers |= {
        "x-amzn-trace-id": trace_id,
        "x-forwarded-for": f"{forwarded_for}, {request.source_ip}" if forwarded_for else request.source_ip,
        "x-forwarded-port": str(port),
        "x-forwarded-proto": "http",
    }
    domain = headers.get("host", "")
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": domain.partition(".")[0].partition(":")[0],
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0].partition(":")[0],
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
    """The HTTP response for what a handler returned, in JSON. Raises ValueError where it makes none."""
    document = json.loads(payload)
    if isinstance(document, str):
        return HttpAnswer(200, [("content-type", "application/json")], document.encode())
    if not isinstance(document, dict) or "statusCode" not in document:
        return HttpAnswer(200, [("content-type", "application/json")], _compact(document))
    try:
        status = int(document["statusCode"])
    except TypeError as error:
        raise ValueError("statusCode is no number") from error
    if not 200 <= status <= 599:
        raise ValueError(f"statusCode is {status}")
    headers = {"content-type": "application/json"}
    for name, value in _object(document, "headers").items():
        name = name.lower()
        headers[f"x-amzn-remapped-{name}" if name in REMAPPED else name] = _header_value(name, value)
    cookies = document.get("cookies") or []
    if not isinstance(cookies, list):
        raise ValueError("cookies is no list")
    pairs = [*headers.items(), *(("set-cookie", _header_value("cookies", cookie)) for cookie in cookies)]
    return HttpAnswer(status, pairs, _body(document))


def _body(document: dict[str, Any]) -> bytes:
    body = document.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        return _compact(body)
    if not document.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError(f"body is not base64: {error}") from error


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} is no object")
    return value


def _header_value(name: str, value: object) -> str:
    """Its text. Raises ValueError where it, or the name, cannot be in a response (RFC 9110 §5)."""
    text = value if isinstance(value, str) else json.dumps(value)
    if not HEADER_NAME.fullmatch(name) or isinstance(value, (dict, list)) or any(mark in text for mark in "\r\n\0"):
        raise ValueError(f"{name!r} cannot be a header with the value {text!r}")
    return text


def _as_text(body: bytes, content_type: str) -> str | None:
    kind = content_type.partition(";")[0].strip().lower()
    if not kind.startswith("text/") and kind not in TEXT_TYPES:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _values(request: HttpRequest, name: str) -> list[str]:
    return [value for key, value in request.headers if key.lower() == name]


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Repeated names become one, their values joined by commas."""
    result: dict[str, str] = {}
    for name, value in pairs:
        result[name] = f"{result[name]},{value}" if name in result else value
    return result


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _refusal(error_type: str, message: str) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of a response in which Lambda itself refuses a request."""
    headers = [("content-type", "application/json"), ("x-amzn-errortype", error_type)]
    return headers, _compact({"Type": "User", "message": message})
