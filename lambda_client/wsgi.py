"""WSGI applications, unmodified: Flask, Django, Bottle. Each request has a thread, from the app's call to `close()`.

Source: PEP 3333.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from lambda_client.fields import Pairs, encode_fields
from lambda_client.handler import Check, LambdaHandler, check_app
from lambda_client.plain import StreamRunner, answer_error, refuse_websocket, run_in_thread, sync_request
from lambda_client.request import SyncRequest
from lambda_client.response import FilePieces, Prepared, check_status, close
from lambda_client.stream import Stream

if TYPE_CHECKING:
    from lambda_client.environment import Environment
    from lambda_client.plain import Handler
    from lambda_client.thread import ThreadRun

App = Callable[[dict[str, Any], Callable[..., Callable[[bytes], object]]], Iterable[bytes]]


class WsgiHandler(LambdaHandler):
    """What `wsgi_handler` makes."""

    def __init__(self, app: App, concurrency: int, healthy: Check | None) -> None:
        check_app(app, 2, "a WSGI app takes (environ, start_response)")
        self.app = app
        super().__init__(concurrency, None, healthy)

    def runner(self) -> Handler:
        import lambda_client.environment  # noqa: F401

        return WsgiRunner(self.app, is_threaded=self.concurrency > 1)

    def __repr__(self) -> str:
        return f"<wsgi_handler {self.app!r}>"


def wsgi_handler(app: App, *, concurrency: int = 1, healthy: Check | None = None) -> WsgiHandler:
    """Make a WSGI application a Lambda handler whose requests and responses stream through a Dialback gateway.

    `concurrency`: how many requests one environment serves at once, each in a thread of its own. Above 1 the app's
    code, and whatever it shares, must bear that. `healthy`: as for `stream_handler`.

    Raises `TypeError` for what is no WSGI application, `ValueError` for a concurrency below 1.
    """
    return WsgiHandler(app, concurrency, healthy)


class WsgiRunner(StreamRunner):
    """Runs an app against streams. Begins and ends with the environment."""

    def __init__(self, app: App, *, is_threaded: bool) -> None:
        self.fn = app
        self._is_threaded = is_threaded

    async def serve(self, stream: Stream, environment: Environment) -> None:
        if await refuse_websocket(stream):
            return
        environ = build_environ(sync_request(stream, environment), stream, is_threaded=self._is_threaded)
        call = partial(_call, self.fn, environ)
        await run_in_thread(stream, environment, call, partial(_deliver, stream))


def build_environ(request: SyncRequest, stream: Stream, *, is_threaded: bool) -> dict[str, Any]:
    """The environ of a request. Strings hold bytes as latin-1, as PEP 3333 has it."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(request.raw_path).decode("latin-1"),
        "QUERY_STRING": request.query_string.decode("latin-1"),
        "REQUEST_URI": stream.opening.target.decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{stream.opening.options.get('version', '1.1')}",
        "REMOTE_ADDR": request.client.host,
        "REMOTE_PORT": str(request.client.port),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": request.file,
        "wsgi.input_terminated": True,  # it ends with the body, which may have no length
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": is_threaded,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FilePieces,
    }
    host, port = request.server or ("localhost", 80)
    environ["SERVER_NAME"], environ["SERVER_PORT"] = host, str(port)
    for name in request.headers:
        if "_" in name:  # as HTTP_ variables x_a and x-a are the same, and the gateway vouches for one of them
            continue
        key = name.upper().replace("-", "_")
        value = ("; " if name == "cookie" else ",").join(request.headers.getlist(name))
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ


async def _deliver(stream: Stream, run: ThreadRun) -> None:
    try:
        prepared = await run.prepared
    except (Exception, SystemExit) as error:
        await answer_error(stream, error)
        return
    stream.begin(prepared.status, prepared.headers)
    if stream.is_bodyless:
        return
    async for piece in run:
        await stream.send(piece)
    stream.finish()


def _call(app: App, environ: dict[str, Any], run: ThreadRun) -> Prepared:
    """Call the app and take its iterable to the end, in the thread."""
    response = WsgiResponse(run)
    iterable: Any = app(environ, response.start)
    if iterable is None or isinstance(iterable, str):
        raise TypeError(f"a WSGI app returns an iterable of bytes, not {type(iterable).__name__}")
    try:
        for data in iterable:
            if run.is_stopped:
                break
            if data or not isinstance(data, bytes):  # an empty string is no reason for the head to leave
                response.put(data)
        return response.begin()
    finally:
        close(iterable)


class WsgiResponse:
    """A response as its app begins and writes it. Begins and ends with the app's call."""

    def __init__(self, run: ThreadRun) -> None:
        self._run = run
        self._head: Prepared | None = None
        self._has_begun = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        """`start_response`. Raises what `exc_info` holds where the head has left."""
        if exc_info is not None:
            try:
                if self._has_begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a circular reference, as PEP 3333 says
        elif self._head is not None:
            raise RuntimeError("start_response was called a second time, and without exc_info")
        self._head = Prepared(_status_code(status), _fields(headers), b"")
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece; returns when there is room for the next. Raises `ClientDisconnected`."""
        self.put(data)
        self._run.check()

    def put(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"a WSGI app yields and writes bytes, not {type(data).__name__}")
        self.begin()
        self._run.put(data)

    def begin(self) -> Prepared:
        """Let the head leave. Idempotent."""
        if self._head is None:
            raise RuntimeError("the app sent, or returned, before it had called start_response")
        if not self._has_begun:
            self._has_begun = True
            self._run.begin(self._head)
        return self._head


def _status_code(status: object) -> int:
    if not isinstance(status, str) or not status[:3].isdigit() or status[3:4] not in ("", " "):
        raise ValueError(f"a WSGI status is like '200 OK', not {status!r}")
    return check_status(int(status[:3]))


def _fields(headers: Iterable[tuple[str, str]]) -> Pairs:
    for name, value in headers:
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"names and values of WSGI headers are str, not {(name, value)!r}")
    return encode_fields(headers)
