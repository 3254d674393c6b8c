"""WSGI apps in their rawest form, by PEP 3333 and under the standard library's validator. Frameworks: tests/e2e."""

from __future__ import annotations

import io
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from lambda_client import ClientDisconnected, current_request, wsgi_handler
from lambda_client.testing import BrokenResponse, TestClient, TestContext, TestEnvironment, TestResponse

TIMEOUT = 10.0
TEXT = [("Content-Type", "text/plain")]
Start = Callable[..., Callable[[bytes], object]]


def ask(app: Any, method: str = "GET", path: str = "/", **options: Any) -> TestResponse:
    with TestClient(wsgi_handler(app)) as client:
        return client.request(method, path, **options)


def breaks(app: Any) -> None:
    """The response must not look whole: it breaks off or, where its head has not left by then, it is a 502."""
    try:
        assert ask(app).status == 502
    except BrokenResponse:
        pass


def environ_of(method: str = "GET", path: str = "/", **options: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        seen.update(environ)
        start_response("204 No Content", [])
        return []

    ask(app, method, path, **options)
    return seen


def test_the_environ_is_whole() -> None:
    headers = [("X-One", "1"), ("x-one", "2"), ("cookie", "a=1"), ("cookie", "b=2"), ("host", "h.example:81")]
    environ = environ_of(
        "GET", "/a%20b/%C3%BC?x=%20", headers=[*headers, ("x_one", "spoofed"), ("content-type", "t/t")]
    )
    stream = environ.pop("wsgi.input")
    assert isinstance(stream, io.BufferedReader)
    assert environ.pop("wsgi.errors") is sys.stderr
    assert callable(environ.pop("wsgi.file_wrapper"))
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/ü".encode().decode("latin-1"),
        "QUERY_STRING": "x=%20",
        "REQUEST_URI": "/a%20b/%C3%BC?x=%20",
        "SERVER_NAME": "h.example",
        "SERVER_PORT": "81",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "CONTENT_TYPE": "t/t",
        "HTTP_HOST": "h.example:81",
        "HTTP_X_ONE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def test_a_length_is_the_contents_and_no_field() -> None:
    environ = environ_of("POST", content=b"abc", headers={"content-length": "3"})
    assert environ["CONTENT_LENGTH"] == "3" and "HTTP_CONTENT_LENGTH" not in environ


@validator
def valid(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(1 << 20)
    write = start_response("200 OK", TEXT)
    if environ["PATH_INFO"] == "/write":
        write(b"written ")
    return [b"read ", body]


@pytest.mark.parametrize(("path", "text"), [("/", "read sent"), ("/write", "written read sent")])
def test_the_standard_librarys_validator_finds_nothing(path: str, text: str) -> None:
    assert ask(valid, "POST", path, content=b"sent", headers={"content-length": "4"}).text == text


def test_the_body_is_read_while_it_comes_and_the_response_leaves_meanwhile() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        return iter(environ["wsgi.input"].readline, b"")

    gate = threading.Semaphore(1)

    def content() -> Iterator[bytes]:
        for number in range(3):
            assert gate.acquire(timeout=TIMEOUT)
            yield b"%d\n" % number

    with TestClient(wsgi_handler(app)) as client, client.stream("POST", "/", content=content()) as response:
        for number, piece in enumerate(response):
            assert piece == b"%d\n" % number, "and the next has not been sent"
            gate.release()
    assert number == 2


def test_write_sends_at_once_and_comes_before_the_iterable() -> None:
    gate = threading.Event()

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"first")
        assert gate.wait(TIMEOUT)
        write(b"second")
        return [b"third"]

    with TestClient(wsgi_handler(app)) as client, client.stream("GET", "/") as response:
        pieces = iter(response)
        assert next(pieces) == b"first"
        gate.set()
        assert b"".join(pieces) == b"secondthird"


def test_the_head_waits_for_the_first_bytes_and_may_change_till_then() -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        try:
            raise ValueError("in time")
        except ValueError:
            start_response("503 Busy", [("X-Why", "changed")], sys.exc_info())
        yield b"sorry"

    response = ask(app)
    assert (response.status, response.headers.raw, response.text) == (503, ((b"x-why", b"changed"),), "sorry")


def test_an_error_after_the_first_bytes_is_raised_through_the_app_and_breaks_the_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b"first"
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())

    breaks(app)
    assert "ValueError: too late" in caplog.text


class Closing:
    """An iterable that notes what is done with it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.begun, self.closed = threading.Event(), threading.Event()
        self.taken = 0
        self.closed_in: threading.Thread | None = None

    def __iter__(self) -> Closing:
        return self

    def __next__(self) -> bytes:
        self.begun.set()
        self.taken += 1
        return next(self._pieces)

    def close(self) -> None:
        self.closed_in = threading.current_thread()
        self.closed.set()

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Closing:
        start_response("200 OK", TEXT)
        self.thread = threading.current_thread()
        return self


def test_the_iterable_is_closed_in_its_thread_at_the_end() -> None:
    app = Closing([b"a", b"b"])
    assert ask(app).text == "ab"
    assert app.closed.is_set() and app.closed_in is app.thread


def test_it_is_closed_where_its_client_leaves_and_not_taken_further() -> None:
    app = Closing(itertools.repeat(bytes(65_536)))
    with TestClient(wsgi_handler(app)) as client:
        with client.stream("GET", "/") as response:
            next(iter(response))
        assert app.closed.wait(TIMEOUT)
    assert app.taken < 50


def test_it_is_closed_when_it_raises() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise ValueError

    app = Closing(pieces())
    breaks(app)
    assert app.closed.wait(TIMEOUT)


def test_a_head_alone_is_closed_too() -> None:
    app = Closing(itertools.repeat(b"a"))
    assert ask(app, "HEAD").body == b""
    assert app.closed.wait(TIMEOUT)


def test_write_says_that_nobody_reads() -> None:
    seen: list[BaseException] = []
    ended = threading.Event()

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        try:
            while True:
                write(bytes(65_536))
        except OSError as error:
            seen.append(error)
            raise
        finally:
            ended.set()

    with TestClient(wsgi_handler(app)) as client:
        with client.stream("GET", "/") as response:
            next(iter(response))
        assert ended.wait(TIMEOUT)
    assert isinstance(seen[0], ClientDisconnected)


def test_the_file_wrapper_sends_a_file_and_closes_it() -> None:
    file = io.BytesIO(b"x" * 200_000)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "200000")])
        wrapper: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 8192)
        return wrapper

    assert len(ask(app).body) == 200_000 and file.closed


def test_what_nobody_takes_is_not_produced() -> None:
    app = Closing(bytes(65_536) for _ in range(100))
    with TestClient(wsgi_handler(app)) as client, client.stream("GET", "/") as response:
        pieces = iter(response)
        size = len(next(pieces))
        time.sleep(0.2)
        assert app.taken < 20
        assert size + sum(map(len, pieces)) == 100 * 65_536


def test_each_stream_has_a_thread_up_to_the_concurrency() -> None:
    barrier = threading.Barrier(3)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        barrier.wait(TIMEOUT)
        start_response("200 OK", TEXT)
        return [str(environ["wsgi.multithread"]).encode(), current_request().path.encode()]

    texts: list[str] = []
    with TestClient(wsgi_handler(app, concurrency=3)) as client:
        askers = [
            threading.Thread(target=lambda path=path: texts.append(client.request("GET", path).text))
            for path in ("/0", "/1", "/2")
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(TIMEOUT)
    assert sorted(texts) == ["True/0", "True/1", "True/2"]


# What apps do wrong


def raises(environ: Any, start_response: Start) -> Any:
    raise ValueError("early")


def raises_before_the_first_bytes(environ: Any, start_response: Start) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    yield b""
    raise ValueError("early")


def never_starts(environ: Any, start_response: Start) -> Any:
    return [b"x"]


def starts_twice(environ: Any, start_response: Start) -> Any:
    start_response("200 OK", TEXT)
    start_response("200 OK", TEXT)


def yields_text(environ: Any, start_response: Start) -> Any:
    start_response("200 OK", TEXT)
    return ["text"]


def has_no_status(environ: Any, start_response: Start) -> Any:
    start_response(200, TEXT)


def has_an_interim_status(environ: Any, start_response: Start) -> Any:
    start_response("100 Continue", TEXT)


def names_a_header_in_bytes(environ: Any, start_response: Start) -> Any:
    start_response("200 OK", [(b"x", b"y")])


def splits_the_head(environ: Any, start_response: Start) -> Any:
    start_response("200 OK", [("x", "y\r\nz: 1")])


def returns_nothing(environ: Any, start_response: Start) -> Any:
    start_response("200 OK", TEXT)


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (raises, "ValueError: early"),
        (raises_before_the_first_bytes, "ValueError: early"),
        (never_starts, "before it had called start_response"),
        (starts_twice, "called a second time, and without exc_info"),
        (yields_text, "a WSGI app yields and writes bytes, not str"),
        (has_no_status, "a WSGI status is like '200 OK', not 200"),
        (has_an_interim_status, "200 to 599, not 100"),
        (names_a_header_in_bytes, "names and values of WSGI headers are str"),
        (splits_the_head, "CR, LF or NUL"),
        (returns_nothing, "a WSGI app returns an iterable of bytes, not NoneType"),
    ],
)
def test_a_failure_before_the_first_bytes_is_a_500(app: Any, error: str, caplog: pytest.LogCaptureFixture) -> None:
    response = ask(app)
    assert (response.status, response.text) == (500, "Internal Server Error")
    assert error in caplog.text


@pytest.mark.parametrize("content", [b"abc", b"a"])
def test_a_body_of_another_length_breaks_the_response(content: bytes) -> None:
    def app(environ: Any, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "2")])
        return [content]

    breaks(app)


def asgi(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize(("app", "said"), [(asgi, "as what asgi_handler serves"), (None, ""), ("app", "")])
def test_what_is_no_wsgi_app_is_refused_where_it_is_named(app: Any, said: str) -> None:
    with pytest.raises(TypeError, match=rf"a WSGI app takes \(environ, start_response\).*{said}"):
        wsgi_handler(app)


def test_a_plain_event_is_answered_buffered() -> None:
    event = {
        "version": "2.0",
        "rawPath": "/",
        "headers": {"host": "h"},
        "requestContext": {"http": {"method": "POST", "sourceIp": "1.2.3.4"}},
        "body": "c2VudA==",
        "isBase64Encoded": True,
    }
    handler = wsgi_handler(lambda environ, start: (start("201 Made", TEXT), [environ["wsgi.input"].read()])[1])
    environment = TestEnvironment(handler.runner(), handler.concurrency, handler.lifespan, {})
    try:
        answer = environment.invoke(event, TestContext(3))
        assert (answer["statusCode"], answer["body"]) == (201, "sent")
        with pytest.raises(ValueError, match=r"payload format 2\.0"):
            environment.invoke({"Records": []}, TestContext(3))
    finally:
        environment.close()
