"""Events of payload format 2.0, both ways: what Lambda hands to a function, and what existing code expects of it.

Source: AWS, "Invoking Lambda function URLs" (request and response payloads), and "Working with AWS Lambda proxy
integrations for HTTP APIs" for the format; aws/aws-lambda-rust-runtime#586: a Function URL has cookies in `cookies` and
in `headers.cookie`, an HTTP API in `cookies` alone. Knows no stream.
"""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, quote

from lambda_client.wire import errors, frames, invitation

EVENT_BODY_LIMIT = 6 << 20  # bytes; Lambda's own limit for an event: existing code was written under it
TEXT_TYPES = ("application/json", "application/javascript", "application/xml")


def is_http(event: object) -> bool:
    """Whether the event is a request in payload format 2.0 (Function URL, HTTP API)."""
    if not isinstance(event, dict) or event.get("version") != "2.0":
        return False
    context = event.get("requestContext")
    return isinstance(context, dict) and isinstance(context.get("http"), dict)


def invitation_in(event: object) -> str | None:
    """The token of an event that holds an invitation, None for every other event.

    Raises `InvitationRefused("malformed")` for one that says that it is an invitation and is none.
    """
    if not isinstance(event, dict):
        return None
    holder: Any = event
    if invitation.INVITATION_KEY not in event:
        headers = event.get("headers")
        fields = headers.items() if isinstance(headers, dict) else ()
        types = [str(value) for name, value in fields if str(name).lower() == "content-type"]
        if not any(value.partition(";")[0].strip().lower() == invitation.INVITATION_CONTENT_TYPE for value in types):
            return None
        import json

        try:
            holder = json.loads(event_body(event))
        except (ValueError, RecursionError):  # the second: arrays in arrays without end
            raise errors.InvitationRefused("malformed") from None
    token = holder.get(invitation.INVITATION_KEY) if isinstance(holder, dict) else None
    if not isinstance(token, str):
        raise errors.InvitationRefused("malformed")
    return token


def event_body(event: dict[str, Any]) -> bytes:
    """The body of a request's event. Raises `ValueError` for what is no base64 though it says so."""
    body = event.get("body") or ""
    return b64decode(body, validate=True) if event.get("isBase64Encoded") else str(body).encode()


def opening_of(event: dict[str, Any]) -> frames.Request:
    """The request that an event describes, as a link would bring it; repeated headers stay joined by commas."""
    http = event["requestContext"]["http"]
    headers = [
        (str(name).lower().encode("latin-1", "replace"), str(value).encode("latin-1", "replace"))
        for name, value in (event.get("headers") or {}).items()
    ]
    if event.get("cookies"):
        headers = [pair for pair in headers if pair[0] != b"cookie"]
        headers.append((b"cookie", "; ".join(event["cookies"]).encode("latin-1", "replace")))
    # An HTTP API hands over a decoded path; what is encoded already stays as it is.
    target = quote(str(event.get("rawPath") or "/"), safe="/%:@!$&'()*+,;=~-._").encode()
    if event.get("rawQueryString"):
        target += b"?" + str(event["rawQueryString"]).encode("latin-1", "replace")
    given = dict(headers)
    options = {
        "scheme": given.get(b"x-forwarded-proto", b"https").decode("latin-1"),
        "client": [str(http.get("sourceIp", "")), 0],
        "version": str(http.get("protocol", "HTTP/1.1")).rpartition("/")[2],
    }
    return frames.Request(0, b"", str(http.get("method", "GET")).encode(), target, headers, options)


def build_event(opening: frames.Request, identity: str, body: bytes) -> dict[str, Any]:
    """The event that a Function URL would make of a request."""
    raw_path, _, raw_query = opening.target.decode("latin-1").partition("?")
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in opening.headers]
    cookies = [
        item for name, value in fields if name == "cookie" for part in value.split(";") if (item := part.strip())
    ]
    headers = _joined(fields)
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    domain = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
    client = opening.options.get("client") or ("", 0)
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": raw_query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": domain.partition(".")[0],
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": opening.method.decode("latin-1"),
                "path": raw_path,
                "protocol": f"HTTP/{opening.options.get('version', '1.1')}",
                "sourceIp": str(client[0]),
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": identity,
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if raw_query:
        event["queryStringParameters"] = _joined(parse_qsl(raw_query, keep_blank_values=True))
    if body:
        text = as_text(body, headers.get("content-type", ""))
        event["body"] = b64encode(body).decode() if text is None else text
        event["isBase64Encoded"] = text is None
    return event


def as_text(body: bytes, content_type: str) -> str | None:
    """The body as a string, where its type says text and it is UTF-8; None where it travels as base64."""
    kind, _, parameters = content_type.lower().partition(";")
    kind = kind.strip()
    is_text = kind.startswith("text/") or kind in TEXT_TYPES or kind.endswith(("+json", "+xml"))
    if not is_text or ("charset=" in parameters and "utf-8" not in parameters):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    result: dict[str, str] = {}
    for name, value in pairs:
        result[name] = f"{result[name]},{value}" if name in result else value
    return result
