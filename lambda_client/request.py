"""What a handler is given: the request, for `async def` and for `def` handlers. Knows no link and no event format."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes, urlsplit

from lambda_client.body import Body, BodyFile, SyncBody, read_whole, read_whole_sync
from lambda_client.fields import Headers, Query, parse_cookies
from lambda_client.stream import LambdaContext, Stream

if TYPE_CHECKING:
    from lambda_client.websocket import WebSocket

_FILE_BUFFER = 64 << 10  # bytes; the size of a usual piece

CURRENT_REQUEST: ContextVar[Request | SyncRequest | None] = ContextVar("dialback_request", default=None)


class Client(NamedTuple):
    """The address that the client spoke to the gateway from."""

    host: str
    port: int


class _Head:
    """What both requests share: everything that was known before the body. Begins and ends with the handler's call."""

    def __init__(self, stream: Stream, state: Any) -> None:
        self._stream = stream
        self._opening = stream.opening
        self.state = state
        """What `lifespan=` yielded; None without one."""

    @property
    def id(self) -> str:
        """The request's id, 32 hex digits; also in the gateway's log and in its error documents."""
        return self._stream.id

    @property
    def method(self) -> str:
        return self._opening.method.decode("latin-1")

    @property
    def raw_path(self) -> bytes:
        """The path as the client sent it, undecoded."""
        return self._opening.target.partition(b"?")[0]

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; bytes that are none become U+FFFD."""
        return unquote_to_bytes(self.raw_path).decode("utf-8", "replace")

    @property
    def query_string(self) -> bytes:
        """What stands after the first `?`, undecoded."""
        return self._opening.target.partition(b"?")[2]

    @cached_property
    def query(self) -> Query:
        return Query(self.query_string)

    @cached_property
    def headers(self) -> Headers:
        return Headers(self._opening.headers)

    @cached_property
    def cookies(self) -> dict[str, str]:
        return parse_cookies(self.headers)

    @property
    def scheme(self) -> str:
        """`http` or `https`: how the client spoke to the gateway."""
        return str(self._opening.options.get("scheme", "http"))

    @cached_property
    def client(self) -> Client:
        host, port = self._opening.options.get("client") or ("", 0)
        return Client(str(host), int(port))

    @cached_property
    def server(self) -> tuple[str, int] | None:
        """Host and port that the client asked for, by its `host` field; None where that is missing or wrong."""
        try:
            host = urlsplit(f"//{self.headers['host']}")
            return (host.hostname, host.port or (443 if self.scheme == "https" else 80)) if host.hostname else None
        except (KeyError, ValueError):
            return None

    @cached_property
    def url(self) -> str:
        """The URL that the client asked for, undecoded."""
        target = self._opening.target.decode("latin-1")
        if target.startswith(("http://", "https://")):
            return target
        return f"{self.scheme}://{self.headers.get('host', '')}{'' if target == '*' else target}"

    @property
    def lambda_context(self) -> LambdaContext:
        """AWS's context object of the invocation in which the request came."""
        return self._stream.context

    def remaining_time(self) -> float:
        """Seconds until the handler is stopped because the invocation's time is up, never below 0: plan by it.

        Behind a gateway that is a second before the platform's own deadline, so that all streams end in order.
        """
        return self._stream.remaining_time()

    @property
    def cancelled(self) -> bool:
        """Whether the handler is to stop: the client is gone, the link is lost, or the time is up.

        Code in a thread looks at it now and then; what else it notices, see `ClientDisconnected`.
        """
        return self._stream.is_cancelled

    def _decode(self, body: bytes) -> str:
        parameters = self.headers.get("content-type", "").lower().partition("charset=")[2]
        return body.decode(parameters.split(";")[0].strip().strip('"') or "utf-8")

    @property
    def is_websocket(self) -> bool:
        """Whether the client asks for a WebSocket, with which an ordinary response refuses it."""
        return self._stream.subprotocols is not None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path}>"


class Request(_Head):
    """A request, for an `async def` handler."""

    @cached_property
    def body(self) -> Body:
        """The body's pieces as they come: `async for piece in request.body`."""
        return Body(self._stream)

    async def read(self) -> bytes:
        """The whole body. Raises `ClientDisconnected`."""
        return await read_whole(self.body)

    async def text(self) -> str:
        """The whole body as text, by its content type's charset, else UTF-8. Raises `ValueError`, `LookupError`."""
        return self._decode(await read_whole(self.body))

    async def json(self) -> Any:
        """The whole body as JSON (RFC 8259). Raises `ValueError`."""
        return json.loads(await read_whole(self.body))

    @property
    def subprotocols(self) -> list[str]:
        """The WebSocket subprotocols that the client offers, in its order."""
        return list(self._stream.subprotocols or ())

    async def websocket(
        self,
        subprotocol: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> WebSocket:
        """Accept the client's WebSocket, with one of the `subprotocols` or none. Whoever refuses it returns a response.

        Raises `RuntimeError` where the client has not asked for one, which it is told with a 400 unless that is caught,
        and the second time; `ValueError` for a subprotocol that it has not offered.
        """
        from lambda_client.websocket import accept  # most functions have none

        return accept(self._stream, subprotocol, headers)


class SyncRequest(_Head):
    """A request, for a `def` handler, which runs in a thread: the same without `await`, and `file`."""

    def __init__(self, stream: Stream, state: Any, body: SyncBody) -> None:
        super().__init__(stream, state)
        self.body = body
        """The body's pieces as they come: `for piece in request.body`."""

    @cached_property
    def file(self) -> io.BufferedReader:
        """The body as a binary file to read from while it comes; it cannot seek."""
        return io.BufferedReader(BodyFile(self.body), _FILE_BUFFER)

    def read(self) -> bytes:
        """The whole body. Raises `ClientDisconnected`."""
        return read_whole_sync(self.body)

    def text(self) -> str:
        """The whole body as text, by its content type's charset, else UTF-8. Raises `ValueError`, `LookupError`."""
        return self._decode(read_whole_sync(self.body))

    def json(self) -> Any:
        """The whole body as JSON (RFC 8259). Raises `ValueError`."""
        return json.loads(read_whole_sync(self.body))

    def websocket(self, *_: object, **__: object) -> NoReturn:
        """A conversation needs the event loop. Raises `TypeError`."""
        raise TypeError("a WebSocket needs an `async def` handler: write `ws = await request.websocket()` in one")


def current_request() -> Request | SyncRequest:
    """The request that the running code serves, also in threads and tasks that it started with a copied context.

    Raises `LookupError` outside of a request.
    """
    request = CURRENT_REQUEST.get()
    if request is None:
        raise LookupError("no request is being served here")
    return request


def set_current_request(request: Request | SyncRequest) -> None:
    """From here on `current_request` is this one, in the running context."""
    CURRENT_REQUEST.set(request)


class RequestIdFilter(logging.Filter):
    """Gives every log record `request_id`: the id of the request being served, else `-`. Add it to a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = CURRENT_REQUEST.get()
        record.request_id = "-" if request is None else request.id
        return True
