"""A function that is the test itself: a Function URL that catches invitations, and WebSockets dialled in with them."""

from __future__ import annotations

import http.server
import json
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from websockets.sync.client import ClientConnection, connect

from protocol.dial import Dial, Limits
from protocol.dial_reader import CONNECT_PATH
from protocol.invitation import INVITATION_CONTENT_TYPE, INVITATION_KEY
from tests.e2e.patience import PATIENCE
from tests.e2e.stack import Stack


class Trap:
    """A Function URL; each invocation lasts until `answer_all`. Use it in a `with`."""

    def __init__(self) -> None:
        self._tokens: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._answers = threading.Event()
        trap = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == INVITATION_CONTENT_TYPE
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answers = trap._answers  # before the token is seen, whose owner may answer all at once
                trap._tokens.put(json.loads(body)[INVITATION_KEY])
                answers.wait()
                answer = json.dumps({"dialback": 1, "lease": None, "outcome": "unneeded"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def __enter__(self) -> Trap:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def invitation(self) -> str:
        """The token of the next invocation, which is waited for."""
        return self._tokens.get(timeout=PATIENCE)

    def answer_all(self) -> None:
        """Answer what waits; later invocations wait again."""
        answers, self._answers = self._answers, threading.Event()
        answers.set()


class Caught:
    """A request to /trap, and the invitation that it caused. Use it in a `with`, at whose end the invocation is
    answered; `response` is then what the client got."""

    def __init__(self, stack: Stack, trap: Trap) -> None:
        self._stack, self._trap = stack, trap
        self._client = threading.Thread(target=self._run)

    def __enter__(self) -> Caught:
        self._client.start()
        self.token = self._trap.invitation()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._trap.answer_all()
        self._client.join()

    def _run(self) -> None:
        with self._stack.connect() as connection:
            connection.request("GET", "/trap")
            self.response = connection.response()

    def done(self) -> None:
        """Wait until the client has its answer."""
        self._client.join(PATIENCE)
        assert not self._client.is_alive(), "the client still waits"

    @property
    def problem(self) -> str:
        """The name of the problem that the client was told."""
        assert self.response.value(b"content-type") == b"application/problem+json"
        document = json.loads(self.response.body)
        assert document["status"] == self.response.status
        return str(document["type"]).removeprefix("urn:dialback:error:")


def first_dial(token: str, session: bytes | None = None) -> Dial:
    """A dial that presents an invitation."""
    return Dial(session or os.urandom(16), 1, 0, Limits(), invitation=token)


@contextmanager
def dialled(port: int, dial: Dial) -> Iterator[ClientConnection]:
    """A WebSocket on which WELCOME has come. Raises `websockets.InvalidStatus` where the dial is refused."""
    with open_socket(port, dial.to_headers()) as socket:
        welcome = socket.recv(PATIENCE)
        assert isinstance(welcome, bytes) and welcome[1] == 1, "the gateway speaks first, and says WELCOME"
        yield socket


def open_socket(port: int, headers: list[tuple[str, str]]) -> ClientConnection:
    """A WebSocket upgrade at the gateway's address for functions."""
    return connect(
        f"ws://127.0.0.1:{port}{CONNECT_PATH}",
        additional_headers=headers,
        compression=None,
        open_timeout=PATIENCE,
        close_timeout=2,
        ping_interval=None,
        max_size=None,
        proxy=None,
    )
