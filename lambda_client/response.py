"""What a handler may return, and what it becomes: status, headers, and a body of bytes or of pieces. Knows no link.

Table of forms: DESIGN's "Returned", in `Returned` below.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from lambda_client.fields import Pairs, encode_fields

PIECE_SIZE = 64 << 10  # bytes that are read from a file object at a time; the size at which the link cuts bodies

TEXT = b"text/plain; charset=utf-8"
OCTETS = b"application/octet-stream"
JSON = b"application/json"

Piece = str | bytes


class Readable(Protocol):
    """A binary file object, boto3's `StreamingBody` among them."""

    def read(self, size: int, /) -> Any: ...


Content = (
    str
    | bytes
    | bytearray
    | memoryview
    | Mapping[str, Any]
    | list[Any]
    | Iterable[Piece]
    | AsyncIterable[Piece]
    | Readable
    | None
)
"""What a response's body is made of."""

_FORMS = (
    "a handler returns Response, str, bytes, dict, list, None, an iterator or async iterator of str or bytes, "
    "or a binary file object"
)


class Response:
    """A response. `body`: any of `Content`; `headers` and `trailers`: a mapping, or pairs (several Set-Cookie).

    Trailers are read when the body has ended: a dict may be filled while it streams.
    """

    __slots__ = ("body", "headers", "status", "trailers")

    def __init__(
        self,
        body: Content = None,
        status: int = 200,
        headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        trailers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    ) -> None:
        self.status = check_status(status)
        self.body = body
        self.headers = headers
        self.trailers = trailers

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def check_status(status: object) -> int:
    """The status of a final response. Raises `ValueError`."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"a response's status is 200 to 599, not {status!r}")
    return int(status)


Returned = Response | Content
"""What a handler may return."""


class Prepared(NamedTuple):
    """A response ready to be sent. `body`: bytes, or an iterator or async iterator of str or bytes, taken once."""

    status: int
    headers: Pairs
    body: bytes | Iterator[Any] | AsyncIterator[Any]
    trailers: Any = None

    @property
    def has_type(self) -> bool:
        return any(name == b"content-type" for name, _ in self.headers)


def prepare(returned: object) -> Prepared:
    """What a handler returned, ready to be sent. Raises `TypeError` and `ValueError` for what cannot be a response."""
    if returned is None:
        return Prepared(204, [], b"")
    response = returned if isinstance(returned, Response) else Response(returned)  # type: ignore[arg-type]
    headers = encode_fields(response.headers)
    kind, body = _prepare_body(response.body)
    prepared = Prepared(response.status, headers, body, response.trailers)
    if isinstance(body, bytes):
        if kind and not prepared.has_type:
            headers.append((b"content-type", kind))
        may_have_length = response.status not in (204, 304) and not response.trailers
        if may_have_length and not any(name == b"content-length" for name, _ in headers):
            headers.append((b"content-length", str(len(body)).encode()))
    return prepared


def _prepare_body(body: object) -> tuple[bytes | None, bytes | Iterator[Any] | AsyncIterator[Any]]:
    """The content type, where it is known now, and the body."""
    if body is None:
        return None, b""
    if isinstance(body, str):
        return TEXT, body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return OCTETS, bytes(body)
    if isinstance(body, (Mapping, list, tuple)):
        return JSON, encode_json(body)
    if isinstance(body, AsyncIterable):
        return None, body.__aiter__()
    if callable(getattr(body, "read", None)):
        return None, FilePieces(body)  # type: ignore[arg-type]
    if isinstance(body, Iterable) and not isinstance(body, (set, frozenset)):
        return None, iter(body)
    if hasattr(body, "__await__"):
        if hasattr(body, "close"):
            body.close()  # a coroutine that nobody awaits would warn as well
        raise TypeError(
            f"{type(body).__name__} instead of a response: an `await` is missing, "
            "or a wrapper of an `async def` handler is itself a `def`"
        )
    raise TypeError(f"{type(body).__name__} is not a response: {_FORMS}")


def encode_json(value: object) -> bytes:
    """As JSON in UTF-8. Raises `TypeError`, `ValueError`."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except TypeError as error:
        if advice := await_advice(error):
            raise TypeError(f"{error}: {advice}") from None
        raise


def await_advice(error: BaseException) -> str:
    """What to write where the handler's or our `json.dumps` met a coroutine; empty for other errors."""
    if isinstance(error, TypeError) and str(error).endswith("coroutine is not JSON serializable"):
        return "await it, for example `await request.json()`"
    return ""


def encode_piece(piece: object) -> bytes:
    """A piece of a streamed body as bytes. Raises `TypeError`."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, (bytearray, memoryview)):
        return bytes(piece)
    raise TypeError(f"a streamed body yields str or bytes, not {type(piece).__name__}")


def type_of_piece(piece: object) -> bytes:
    """The content type of a streamed body that has none, by its first piece (None: it is empty)."""
    return TEXT if isinstance(piece, str) else OCTETS


class FilePieces:
    """A file object's content, a piece at a time, closed at the end. Also PEP 3333's `wsgi.file_wrapper`."""

    __slots__ = ("_file", "_size")

    def __init__(self, file: Readable, size: int = PIECE_SIZE) -> None:
        self._file = file
        self._size = size

    def __iter__(self) -> FilePieces:
        return self

    def __next__(self) -> Any:
        piece = self._file.read(self._size)
        if not piece:
            raise StopIteration
        return piece

    def close(self) -> None:
        close(self._file)


def close(pieces: Any) -> None:
    """Close what can be closed."""
    getattr(pieces, "close", bool)()


async def aclose(pieces: Any) -> None:
    """The same of what is closed by a coroutine."""
    if hasattr(pieces, "aclose"):
        await pieces.aclose()


def prepare_lambda(returned: object) -> Prepared:
    """What an `(event, context)` handler returned. A dict with an integer `statusCode` is the Lambda response shape.

    Source: AWS, "Response payload format" of Lambda function URLs; `multiValueHeaders` is API Gateway's REST shape.
    """
    if not isinstance(returned, dict):
        if isinstance(returned, (int, float)):
            returned = Response(encode_json(returned), headers={"content-type": "application/json"})
        return prepare(returned)
    status = returned.get("statusCode")
    if not isinstance(status, int) or isinstance(status, bool):
        return prepare(returned)
    body = returned.get("body")
    if returned.get("isBase64Encoded") and isinstance(body, (str, bytes)):
        from base64 import b64decode

        body = b64decode(body)
    elif isinstance(body, (dict, list)):
        body = encode_json(body)
    pairs = lambda_headers(returned)
    if not any(str(name).lower() == "content-type" for name, _ in pairs):
        pairs.append(("content-type", "application/json"))
    return prepare(Response(body, status, pairs))


def lambda_headers(returned: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The header fields of the Lambda response shape, cookies among them."""
    repeated = returned.get("multiValueHeaders") or {}
    names = {str(name).lower() for name in repeated}
    headers = [
        (name, value) for name, value in (returned.get("headers") or {}).items() if str(name).lower() not in names
    ]
    headers += [(name, value) for name, values in repeated.items() for value in values]
    headers += [("set-cookie", cookie) for cookie in returned.get("cookies") or ()]
    return [(name, str(value) if isinstance(value, (bool, float)) else value) for name, value in headers]
