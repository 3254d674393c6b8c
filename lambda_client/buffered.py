"""A plain invocation's request and answer: the body came whole in the event, the response leaves whole as a result."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from lambda_client.event import as_text, event_body, opening_of
from lambda_client.stream import LambdaContext, Pair, Stream

ANSWER_LIMIT = 6_291_556  # bytes of JSON that the platform takes back (AWS, "Lambda quotas": 6 MB; its error's figure)


class AnswerTooLarge(Exception):
    """The response does not fit into a buffered answer."""


class BufferedStream(Stream):
    """Begins with a Function URL's event, ends with the invocation. Its client is told nothing before the end."""

    def __init__(self, event: dict[str, Any], context: LambdaContext) -> None:
        identity = str(event["requestContext"].get("requestId") or getattr(context, "aws_request_id", ""))
        super().__init__(opening_of(event), identity, context)
        self._body: bytes | None = event_body(event) or None
        self._status = 500
        self._headers: list[Pair] = []
        self._content = bytearray()

    async def read(self) -> bytes | None:
        body, self._body = self._body, None
        return body

    @property
    def is_read(self) -> bool:
        return self._body is None

    def stop_reading(self) -> None:
        self._body = None

    def inform(self, status: int, headers: list[Pair]) -> None:
        """Nothing leaves before the end."""

    def _begin(self, status: int, headers: list[Pair], ends: bool) -> None:
        self._status = status
        self._headers = list(headers)

    async def _send(self, data: bytes, ends: bool) -> None:
        self._content += data
        if len(self._content) > ANSWER_LIMIT:
            raise AnswerTooLarge(
                f"the response is above the {ANSWER_LIMIT} bytes that Lambda takes back from a buffered invocation; "
                "behind a Dialback gateway it would stream"
            )

    def _finish(self, trailers: list[Pair]) -> None:
        """Trailers have no place in a buffered answer."""

    def answer(self) -> dict[str, Any]:
        """The response in payload format 2.0. Raises `AnswerTooLarge`."""
        headers: dict[str, str] = {}
        cookies = []
        for raw_name, raw_value in self._headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if name == "set-cookie":
                cookies.append(value)
            elif name != "content-length" or self.opening.method == b"HEAD":
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        content = bytes(self._content)
        text = "" if not content else as_text(content, headers.get("content-type", ""))
        if "content-encoding" in headers and content:
            text = None
        body = b64encode(content).decode() if text is None else text
        if len(body) > ANSWER_LIMIT:
            raise AnswerTooLarge(
                f"the response of {len(content)} bytes is above Lambda's limit of 6 MB in base64; "
                "behind a Dialback gateway it would stream"
            )
        answer: dict[str, Any] = {
            "statusCode": self._status,
            "headers": headers,
            "body": body,
            "isBase64Encoded": text is None,
        }
        if cookies:
            answer["cookies"] = cookies
        return answer
