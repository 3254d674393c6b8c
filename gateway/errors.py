"""Every error that the gateway itself can answer, as a table of names, and the document that says it (RFC 9457).

Knows no request: what a client sent is never echoed. A problem's `instance` ends in the request's id, the same 32 hex
digits as in `x-request-id`, in the log line and in the function's log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, NamedTuple

from protocol.frames import Code

CONTENT_TYPE: Final = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table."""

    status: int
    title: str
    """One sentence for a person; the same for every occurrence (RFC 9457, section 3.1.3)."""
    ends: str = "refused"
    """The state in which an exchange ends with it: refused, timed_out or failed."""
    retry_after: int | None = None
    """Seconds for a Retry-After header; None: trying again is of no use, or the function's own business."""
    close_code: int = 1011
    """What a WebSocket client is told that was accepted before (RFC 6455, section 7.4): 1011, a mistake that may well
    happen again; 1012, come back; 1001, come back to another gateway."""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """Of the response, beside those of all problems."""


KINDS: Final[dict[str, Kind]] = {
    # The client's request
    "bad-request": Kind(400, "The request is not valid HTTP."),
    "no-route": Kind(404, "No function is configured for this address."),
    "request-head-timeout": Kind(408, "The request's head did not come in time."),
    "request-idle": Kind(408, "Nothing came of the request's body for too long.", ends="timed_out"),
    "request-too-slow": Kind(408, "The request's body came too slowly.", ends="timed_out"),
    "target-too-long": Kind(414, "The request line is longer than 16 KiB."),
    "expectation-failed": Kind(417, "The only expectation known here is 100-continue."),
    "header-too-large": Kind(431, "The request has too many header fields, or too large ones."),
    "not-implemented": Kind(501, "This method or transfer coding is not supported."),
    "websocket-version": Kind(
        426,
        "The only WebSocket version known here is 13.",
        fields=((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")),
    ),
    "version-not-supported": Kind(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."),
    # The gateway
    "internal": Kind(500, "The gateway made a mistake.", ends="failed"),
    "overloaded": Kind(503, "The function has no room left for requests.", retry_after=1),
    "queue-timeout": Kind(503, "No place at the function became free in time.", ends="timed_out", retry_after=1),
    "gateway-full": Kind(503, "This gateway has no room left for requests.", retry_after=1),
    "draining": Kind(503, "This gateway is stopping.", retry_after=1, close_code=1001),
    # The function
    "invoke-failed": Kind(502, "The function could not be invoked.", ends="failed"),
    "invoke-throttled": Kind(
        503, "The platform refuses more invocations of the function.", ends="timed_out", retry_after=1
    ),
    "unhealthy": Kind(503, "The function says that it is unhealthy.", retry_after=1),
    "circuit-open": Kind(503, "The function failed too often, and is left alone for a while.", retry_after=1),
    "function-error": Kind(502, "The function failed before it answered.", ends="failed"),
    "function-lost": Kind(
        502, "The connection to the function was lost before it answered.", ends="failed", close_code=1012
    ),
    "bad-response": Kind(502, "The function's answer is not valid HTTP.", ends="failed"),
    "dial-back-timeout": Kind(504, "The function was invoked, but did not dial back in time.", ends="timed_out"),
    "response-timeout": Kind(504, "The function did not answer in time.", ends="timed_out"),
    "function-timeout": Kind(504, "The function's time was up before it answered.", ends="timed_out", close_code=1012),
    "response-idle": Kind(504, "Nothing came of the response's body for too long.", ends="timed_out"),
    "exchange-timeout": Kind(504, "The request took longer than any may.", ends="timed_out", close_code=1012),
}

#: Why a function ended a stream, as the client hears of it before the response head (docs/protocol.md, codes).
PROBLEM_OF_CODE: Final[dict[int, str]] = {
    Code.REFUSED: "unhealthy",
    Code.TIMEOUT: "function-timeout",
    Code.MISMATCH: "bad-response",
    Code.SHUTDOWN: "function-lost",
    Code.LOST: "function-lost",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error answer; begins where the error is found and ends as the body of a response."""

    name: str
    """A key of `KINDS`."""
    detail: str = ""
    """What exactly, for the client's eyes: ours alone, never bytes of the request, a traceback or a secret."""
    retry_after: int | None = None
    """Seconds, where it is known better than its kind does."""

    @property
    def kind(self) -> Kind:
        """Its row of the table; raises KeyError for a name that is not in it."""
        return KINDS[self.name]

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.kind.status

    def document(self, request_id: str) -> bytes:
        """The body, `application/problem+json`; `request_id` is 32 hex digits."""
        members = {
            "type": f"urn:dialback:error:{self.name}",
            "title": self.kind.title,
            "status": self.kind.status,
            "instance": f"urn:dialback:request:{request_id}",
        }
        if self.detail:
            members["detail"] = self.detail
        return json.dumps(members).encode() + b"\n"


class GivenBack(NamedTuple):
    """Why an exchange has lost its stream and may have another: the problem where there is none to be had, and whether
    the function may have seen anything of it."""

    problem: Problem
    was_sent: bool = True


class GatewayError(Exception):
    """A request cannot be served, and `problem` is the answer. Raised before a response began."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.name}: {problem.detail}" if problem.detail else problem.name)
        self.problem = problem


class RequestRefused(GatewayError):
    """The client's request is at fault."""


class PoolRefusal(GatewayError):
    """The function has no place for the request: queue full, waited too long, or the invocation failed."""
