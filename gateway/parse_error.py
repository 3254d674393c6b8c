"""What aiohttp's parser raises, as the problems that clients are answered with.

Knows the parser's errors and llhttp's methods; nothing of connections.
"""

from __future__ import annotations

import re
from http import HTTPMethod
from typing import Final

from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, LineTooLong

from gateway.errors import Problem
from gateway.limits import HttpLimits

#: aiohttp says it with a plain BadHttpMessage; a test holds the words.
TOO_MANY_FIELDS: Final = "Too many headers received"
KNOWN: Final = b"|".join(method.value.encode("ascii") for method in HTTPMethod)
#: A request line with a method that llhttp does not know (RFC 9110, section 9.1: a token, else it is no request).
UNKNOWN_METHOD: Final = re.compile(rb"(?:\r\n)*(?!(?:%b) )[!#$%%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n" % KNOWN)
#: A request line of a version that llhttp does not know (RFC 9110, section 2.5: digit, dot, digit).
UNKNOWN_VERSION: Final = re.compile(rb"(?:\r\n)*(?:%b) [!-~]+ HTTP/(?!1\.[01])[0-9]\.[0-9]\r\n" % KNOWN)


def problem_of(error: BaseException, data: bytes, limits: HttpLimits) -> Problem:
    """Which of our errors a parser's is; nothing of its text, which quotes the client, goes further."""
    if isinstance(error, LineTooLong):
        return Problem("target-too-long" if error.args[1] == limits.request_line else "header-too-large")
    if isinstance(error, BadHttpMethod) and UNKNOWN_METHOD.match(data):
        return Problem("not-implemented", "The method is not one that is registered for HTTP.")
    if isinstance(error, BadStatusLine) and UNKNOWN_VERSION.match(data):
        return Problem("version-not-supported")
    if getattr(error, "message", "") == TOO_MANY_FIELDS:
        return Problem("header-too-large", f"At most {limits.header_count} fields.")
    return Problem("bad-request")
