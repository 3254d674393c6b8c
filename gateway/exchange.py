"""One client request's life in the gateway: what happens to it, in the order that the machine's table allows.

Nothing here awaits, reads a socket, or knows HTTP/1.1 or frames. Both sides call it, and it calls them, synchronously:
the client's (`ClientSide`) and the link's (`StreamSide`), so that a chunk goes through in the call that brought it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gateway.affinity import Tie
from gateway.errors import PROBLEM_OF_CODE, GivenBack, Problem
from gateway.machine import TERMINAL, move
from gateway.request_id import IDS
from gateway.response_head import ONLY_IN_FINAL_HEADS, ResponseRefused, clean_fields, judge_response
from gateway.sides import READ_MARK, ClientSide, RequestHead, StreamSide
from gateway.silent_side import SilentSide
from protocol.frames import Code, Headers

__all__ = ["ClientSide", "Exchange", "RequestHead", "StreamSide"]

#: RFC 9110, section 9.2.2: twice is as good as once.
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))

#: The client's side of what has ended.
NOBODY: Final = SilentSide()


class Exchange:
    """Begins when a request's head was accepted; ends in a terminal state, told once to all who listen.

    Whatever comes after the end is ignored: the other side may not have heard of it yet. A call that the table does
    not allow before the end is our own mistake and raises transitions.MachineError with nothing changed.
    """

    __slots__ = (
        "id", "head", "client", "function", "state", "stream", "status", "problem", "reason", "bytes_in", "bytes_out",
        "bytes_saved", "began", "head_at", "ended_at", "given_back", "retries", "cancel_after", "tie", "has_continued",
        "_listeners", "_unconsumed", "_length", "_was_heard", "_sent",
    )  # fmt: skip

    def __init__(self, head: RequestHead, client: ClientSide, *, id: bytes | None = None, function: str = "") -> None:
        self.id = id or IDS.next()
        self.head = head
        self.client = client
        self.function = function
        self.state = "accepted"
        self.stream: StreamSide | None = None
        self.status: int | None = None
        """What the client was told: the function's or a problem's."""
        self.problem: Problem | None = None
        self.reason = ""
        """Why it ended otherwise than `complete`, for the log."""
        self.bytes_in = 0
        """Request body, sent on to the function."""
        self.bytes_out = 0
        """Response body, as the function sent it."""
        self.bytes_saved = 0
        """What compression has taken off it."""
        self.began = time.monotonic()
        self.head_at: float | None = None
        self.ended_at: float | None = None
        self.given_back: GivenBack | None = None
        """Why its last stream was; what it is answered if it gets no other."""
        self.retries = 0
        """Invocations and streams that it was granted beyond its first."""
        self.cancel_after: float | None = None
        """Seconds for which an app may go on after it was told that its client has left; None: with its invocation."""
        self.tie: Tie | None = None
        """What holds it to one environment."""
        self._listeners: list[Callable[[Exchange], None]] = []
        self._unconsumed = 0
        self._length: int | None = None
        self._was_heard = False  # the stream's function has said something
        # What has left of the body, each piece with whether it ends it; None: it cannot go elsewhere any more.
        self._sent: list[tuple[bytes, bool]] | None = [] if head.has_body else None
        self.has_continued = False
        """A client that expected 100 Continue was sent it."""

    def __repr__(self) -> str:
        return f"<Exchange {self.id.hex()} {self.state}>"

    @property
    def is_ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def has_response_begun(self) -> bool:
        """The client has been sent a final head."""
        return self.status is not None

    @property
    def is_request_open(self) -> bool:
        """There is a stream, and more of the request's body may come."""
        return self.state in ("opened", "duplex", "uploading")

    @property
    def is_response_open(self) -> bool:
        """A response has begun, and has not ended."""
        return self.state in ("duplex", "downloading")

    @property
    def can_detach(self) -> bool:
        """The function has it, and has not ended its response."""
        return self.state in ("opened", "request_sent", "duplex", "downloading")

    def on_end(self, listener: Callable[[Exchange], None]) -> None:
        """Call `listener` once at the end, which must be yet to come."""
        self._listeners.append(listener)

    # from the pool

    def queued(self) -> None:
        """It waits in its function's queue."""
        move(self, "queued")

    def invoking(self) -> None:
        """An invocation was started because of it."""
        move(self, "invocation_started")

    def stream_opened(self, stream: StreamSide) -> None:
        """It has a stream, whose REQUEST says `end` unless `head.has_body`."""
        if self.state in TERMINAL:
            stream.cancel(Code.CANCELLED)
            return
        move(self, "stream_opened")
        self.stream = stream
        self._was_heard = end = False
        for data, end in self._sent or ():  # on a stream that was given back
            stream.send(data, end)
        if end or not self.head.has_body:
            move(self, "request_ended")

    # from the link

    def credit(self) -> None:
        """The function granted request credit for the first time: it reads."""
        self._was_heard = True
        if self.head.expects_continue and not self.has_continued and self.state == "opened":
            self.has_continued = True
            self.client.continue_()

    def writable(self) -> None:
        """The stream takes request data again."""
        if not self.is_ended:
            self.client.upload_writable()

    def stopped(self, code: int) -> None:
        """The function wants no more of the request, which may go on arriving."""
        self._was_heard = True
        if self.is_request_open:
            self._end_upload()

    def informational(self, status: int, headers: Headers) -> None:
        """An interim response such as 103; those that are not a function's to send are dropped."""
        self._was_heard = True
        if self.state in ("opened", "request_sent") and 102 <= status <= 199:
            try:
                self.client.informational(status, clean_fields(headers, ONLY_IN_FINAL_HEADS))
            except ResponseRefused as refused:
                self._fail(Problem("bad-response", str(refused)), Code.MISMATCH)

    def response(
        self, status: int, headers: Headers, end: bool = False, body: bytes | bytearray | memoryview = b""
    ) -> None:
        """The response's head; `end`: nothing follows. `body`: the whole body, used up when this returns, where that
        came with the head; then `end` is true."""
        if self.state in TERMINAL:
            return
        if self.state == "detached":
            self._drop(0, end)
            return
        try:
            head = judge_response(self.head.method, status, headers, end and not body)
        except ResponseRefused as refused:
            self._fail(Problem("bad-response", str(refused)), Code.MISMATCH)
            return
        move(self, "response_began")
        self._sent = None
        if self.tie is not None:
            self.tie.answered(status, head.headers)
        self.status = status
        self.head_at = time.monotonic()
        self._length = head.length
        if head.is_bodiless:
            if not end:
                self._stream.stop(Code.NO_ERROR)
            end, body = True, b""
        elif body and head.length is not None and head.length != len(body):
            self.client.head(head, False)
            self._fail_length(len(body))
            return
        self.bytes_out = len(body)
        self.client.head(head, end, body)
        if end:
            self._response_ended()

    def data(self, payload: bytes | bytearray | memoryview, end: bool = False) -> None:
        """A piece of the response's body, used up when this returns."""
        if self.state not in ("duplex", "downloading"):
            self._drop(len(payload), end)
            return
        size = len(payload)
        total = self.bytes_out + size
        if self._length is not None and (total > self._length or (end and total < self._length)):
            self._fail_length(total)
            return
        self.bytes_out = total
        self.client.data(payload, end)
        if end:
            self._response_ended()
        elif self.client.is_paused:
            self._unconsumed += size
        else:
            self._stream.consumed(size)

    def trailers(self, headers: Headers) -> None:
        """The response's end, with fields."""
        if self.state not in ("duplex", "downloading"):
            self._drop(0, True)
            return
        if self._length is not None and self.bytes_out != self._length:
            self._fail_length(self.bytes_out)
            return
        try:
            fields = clean_fields(headers, ONLY_IN_FINAL_HEADS)
        except ResponseRefused as refused:
            self._fail(Problem("bad-response", str(refused)), Code.MISMATCH)
            return
        self.client.end(fields)
        self._response_ended()

    def reset(self, code: int, reason: str = "") -> None:
        """The function ended its direction with an error."""
        if self.is_ended or self.state == "uploading":
            return
        if code == Code.REFUSED and self._can_return():
            self._return(GivenBack(Problem("unhealthy"), was_sent=False))
            return
        name = PROBLEM_OF_CODE.get(code, "function-error")
        self._fail(Problem(name), Code.CANCELLED, reason)

    def lost(self, reason: str = "", *, was_sent: bool = True) -> None:
        """The link's session is over, and the stream with it; without `was_sent` nothing of it had left."""
        may_repeat = not was_sent or (not self._was_heard and self.head.method in IDEMPOTENT)
        if self.state == "uploading":  # the client has its whole response already
            self._end_upload()
        elif may_repeat and self._can_return():
            self._return(GivenBack(Problem("function-lost"), was_sent))
        elif not self.is_ended:
            self._fail(Problem("function-lost"), Code.LOST, reason)

    # from the client's side

    def request_data(self, data: bytes, end: bool = False) -> None:
        """Request body, in order; `end`: nothing follows."""
        if not self.is_request_open:
            return
        if self.bytes_in >= READ_MARK:
            self._sent = None
        elif self._sent is not None:
            self._sent.append((data, end))
        self.bytes_in += len(data)
        self._stream.send(data, end)
        if end:
            move(self, "request_ended")
            self._end_if_terminal()

    def client_resumed(self) -> None:
        """What the client was behind with has left for it."""
        if self._unconsumed and not self.is_ended:
            size, self._unconsumed = self._unconsumed, 0
            if self.state != "uploading":
                self._stream.consumed(size)

    def client_gone(self, reason: str = "client left") -> None:
        """Nobody will read the response, and nobody shall write it any more."""
        if self.is_ended:
            return
        move(self, "client_left")
        self.reason = reason
        self._cancel_stream(Code.CANCELLED)
        self.client.abort()
        self._end()

    def detach(self, stand_in: ClientSide, reason: str) -> None:
        """The client has left, and the function goes on, up to where `stand_in` ends it; only if `can_detach`. A
        request whose rest will not come any more is cut."""
        has_rest = self.is_request_open
        move(self, "client_detached")
        self.reason = reason
        left, self.client = self.client, stand_in
        if has_rest:
            self._stream.reset(Code.CANCELLED)
        if self._unconsumed:
            size, self._unconsumed = self._unconsumed, 0
            self._stream.consumed(size)
        left.abort()
        left.ended()

    def timed_out(self, name: str) -> None:
        """One of our deadlines has passed; `name` is its error in the table."""
        if self.is_ended:
            return
        if self.state == "uploading":  # the client has its whole response already
            self._end_upload()
            return
        had_begun = self._is_past_answering
        move(self, "timed_out")
        self._answer(Problem(name), had_begun, Code.TIMEOUT, name)

    def refused(self, problem: Problem) -> None:
        """We answer it ourselves, before any response began; the problem's kind says in which state it ends."""
        if self.is_ended:
            return
        move(self, "function_failed" if problem.kind.ends == "failed" else problem.kind.ends)
        self._answer(problem, False, Code.CANCELLED, "")

    # inside

    @property
    def _is_past_answering(self) -> bool:
        return self.has_response_begun or self.state == "detached"

    @property
    def _stream(self) -> StreamSide:
        assert self.stream is not None, "the table lets nothing flow before stream_opened"
        return self.stream

    def _response_ended(self) -> None:
        move(self, "response_ended")
        if self.state == "uploading" and self.head.expects_continue and not self.has_continued:
            self._end_upload()  # the client was never asked for its body, and will not send it
        elif self.state in TERMINAL:
            self._end()

    def _drop(self, size: int, end: bool) -> None:
        """Something of a response that nobody is there for; after the end it is nothing to us."""
        if self.state not in ("detached", "client_closed"):
            return
        if end:
            self._response_ended()
        elif size:
            self._stream.consumed(size)

    def _end_upload(self) -> None:
        move(self, "request_ended")
        self._stream.reset(Code.NO_ERROR)
        self.client.upload_stopped()
        self._end_if_terminal()

    def _fail_length(self, total: int) -> None:
        self._fail(Problem("bad-response"), Code.MISMATCH, f"body of {total} bytes, content-length {self._length}")

    def _fail(self, problem: Problem, code: Code, reason: str = "") -> None:
        had_begun = self._is_past_answering
        move(self, "function_failed")
        self._answer(problem, had_begun, code, reason)

    def _answer(self, problem: Problem, had_begun: bool, code: Code, reason: str) -> None:
        self.problem = problem
        self.reason = reason or problem.detail or problem.name
        self._cancel_stream(code)
        if had_begun:
            self.client.abort()
        else:
            self.status = problem.status
            self.client.problem(problem)
        self._end()

    def _can_return(self) -> bool:
        if self.head.has_body:
            return self._sent is not None and not self._was_heard and self.state in ("opened", "request_sent")
        return self.state == "request_sent"

    def _return(self, why: GivenBack) -> None:
        self.given_back = why
        move(self, "stream_returned")
        self._cancel_stream(Code.CANCELLED)
        self.stream = None
        self.client.returned()

    def _cancel_stream(self, code: Code) -> None:
        if self.stream is not None:
            self.stream.cancel(code)

    def _end_if_terminal(self) -> None:
        if self.state in TERMINAL:
            self._end()

    def _end(self) -> None:
        self.ended_at = time.monotonic()
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener(self)
        client, self.client, self.stream = self.client, NOBODY, None  # who know it: else only a collector frees them
        client.ended()
