"""What is tried: one request, or a conversation, for each behaviour of the app; and what is seen of it, by aspect."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.app import ENOUGH, INTERVAL
from tests.e2e.wire import Connection, ConnectionCut, WireResponse

Observed = dict[str, Any]
"""Aspect → what was seen, comparable."""
APART = INTERVAL / 2
"""Seconds from which two chunks have come one after the other."""
SEEN_PATIENCE = 5.0
"""Seconds in which what the app notes must be there."""


@dataclass(frozen=True)
class Site:
    """A server that runs the app."""

    port: int
    ask_another: Callable[[str, str], bytes | None]
    """Start such a server for an app of `other_apps`, and ask it; None where it does not serve."""

    def get(self, target: str) -> bytes | None:
        """The body of a 200; None for any other answer."""
        with self.connect() as connection:
            connection.request("GET", target)
            response = connection.response()
            return response.body if response.status == 200 else None

    def connect(self, **options: Any) -> Connection:
        return Connection(("127.0.0.1", self.port), **options)

    def seen(self, key: str, count: int) -> list[Any]:
        """What the app noted under `key`, when there are `count` notes or time is up."""
        deadline = time.monotonic() + SEEN_PATIENCE
        while True:
            with self.connect() as connection:
                connection.request("GET", f"/seen/{key}")
                notes: list[Any] = json.loads(connection.response().body)
            if len(notes) >= count or time.monotonic() > deadline:
                return notes
            time.sleep(0.05)


@dataclass(frozen=True)
class Case:
    """One row of the table. `run` gives what was seen; where there is none, it is an ordinary request."""

    feature: str
    name: str
    path: str
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: bytes | None = None
    notes: int = 0
    """How many notes of the app are waited for."""
    run: Callable[[Case, Site], Observed] | None = None

    @property
    def key(self) -> str:
        return self.name.replace(" ", "-")

    @property
    def target(self) -> str:
        return self.path.replace("KEY", self.key)

    def observe(self, site: Site) -> Observed:
        observed = (self.run or ordinary)(self, site)
        if self.notes:
            observed["app"] = site.seen(self.key, self.notes)
        return observed


def describe(response: WireResponse) -> Observed:
    framing = [
        name.lower() for name, _ in response.headers if name.lower() in (b"content-length", b"transfer-encoding")
    ]
    return {
        "interim": [status for status, _ in response.interim],
        "status": response.status,
        "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers],
        "framing": [name.decode() for name in framing],
        "body": response.body,
        "pieces in time": _pieces(response),
        "trailers": [(name.decode(), value.decode()) for name, value in response.trailers],
        "end": "whole" if response.failure is None else "cut",
    }


def _pieces(response: WireResponse) -> list[bytes]:
    """The body, cut where time has passed. Bytes that the app sends at once may travel in one chunk or in several."""
    pieces: list[bytes] = []
    before = 0.0
    for chunk in response.chunks:
        if chunk.time - before >= APART:
            pieces.append(b"")
        pieces[-1] += chunk.data
        before = chunk.time
    return pieces


def ordinary(case: Case, site: Site) -> Observed:
    with site.connect() as connection:
        connection.request(case.method, case.target, *case.headers, body=case.body)
        try:
            observed = describe(connection.response())
        except ConnectionCut:
            return {"end": "no response"}
        observed["connection"] = _state_of(connection)
    return observed


def _state_of(connection: Connection) -> str:
    """Whether a second request is served on the connection."""
    try:
        connection.request("GET", "/seen/nothing")
        return "kept" if connection.response().status == 200 else "refused"
    except (ConnectionCut, OSError):
        return "closed"


def scope(case: Case, site: Site) -> Observed:
    """Each entry of the scope is an aspect of its own."""
    with site.connect() as connection:
        connection.request(case.method, case.target, *case.headers, body=case.body)
        response = connection.response()
    if response.status != 200:
        return {"status": response.status}
    said = {"extensions": {}, **json.loads(response.body)}
    named = {tuple(header.lower().split(": ", 1)) for header in case.headers}
    said["headers"] = [pair for pair in said["headers"] if tuple(map(str.lower, pair)) in named]
    if said["server"] is not None:
        said["server"] = "the address of the site" if said["server"] == ["127.0.0.1", site.port] else said["server"]
    if case.name != "a plain request":  # which shows what is another in every scope
        del said["server"], said["extensions"]
    return {f"scope.{name}": value for name, value in said.items()}


def http_1_0(case: Case, site: Site) -> Observed:
    with site.connect() as connection:
        connection.send(f"GET {case.target} HTTP/1.0\r\n\r\n".encode())
        try:
            observed = describe(connection.response())
        except ConnectionCut:
            return {"end": "no response"}
        observed["connection"] = _state_of(connection)
        return observed


def trickled(case: Case, site: Site) -> Observed:
    """Each piece is sent when the one before has come back."""
    with site.connect() as connection:
        connection.request("POST", case.target, "Transfer-Encoding: chunked")
        connection.chunk(b"0")
        response = connection.head()
        pieces = connection.pieces(response)
        back = [next(pieces).data]
        for piece in (b"1", b"2"):
            connection.chunk(piece)
            back.append(next(pieces).data)
        connection.chunk(b"")
        back += [piece.data for piece in pieces]
    return {"pieces": back, "end": "whole"}


def chunked_upload(case: Case, site: Site) -> Observed:
    with site.connect() as connection:
        connection.request("POST", case.target, "Transfer-Encoding: chunked")
        for piece in (b"in ", b"three ", b"pieces"):
            connection.chunk(piece)
        connection.chunk(b"")
        return describe(connection.response())


def expects(case: Case, site: Site) -> Observed:
    """The body is sent when 100 Continue has come, and not at all when the response came first."""
    with site.connect() as connection:
        connection.request("POST", case.target, "Expect: 100-continue", "Content-Length: 4")
        status, _ = connection.next_head()
        if status != 100:
            return {"first": status}
        connection.send(b"sent")
        return {"first": status, **describe(connection.response())}


def trailed_upload(case: Case, site: Site) -> Observed:
    """A chunked body with trailers."""
    with site.connect() as connection:
        connection.request("POST", case.target, "Transfer-Encoding: chunked", "Trailer: x-sum")
        connection.send(b"4\r\nsent\r\n0\r\nx-sum: 1\r\n\r\n")
        return describe(connection.response())


def pipelined(case: Case, site: Site) -> Observed:
    """Three requests in one segment."""
    with site.connect() as connection:
        request = f"GET {case.target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
        connection.send(3 * request)
        return {"bodies": [connection.response().body for _ in range(3)]}


def another(case: Case, site: Site) -> Observed:
    """An app that has a server of its own."""
    name, _, target = case.path.partition("/")
    said = site.ask_another(name, f"/{target}")
    return {"answer": "it does not serve" if said is None else json.loads(said)}


def early_hint(case: Case, site: Site) -> Observed:
    with site.connect() as connection:
        connection.request("GET", case.target)
        response = connection.response()
    return {"interim": [(status, dict(fields)) for status, fields in response.interim], **describe(response)}


def leaves(case: Case, site: Site) -> Observed:
    """Leave when the response has begun."""
    with site.connect() as connection:
        connection.request("POST", case.target, body=b"sent")
        next(connection.pieces(connection.head()))
    return {}


def timed_leaving(case: Case, site: Site) -> Observed:
    """Whether the app knows at once, where a busy machine has half a second."""
    leaves(case, site)
    left = time.time()
    return {"told at once": site.seen(case.key, 1)[0] - left < 0.5}


def resets(case: Case, site: Site) -> Observed:
    with site.connect() as connection:
        connection.request("POST", case.target, body=b"sent")
        next(connection.pieces(connection.head()))
        connection.reset()
    return {}


def half_closes(case: Case, site: Site) -> Observed:
    """Say that nothing more will be sent, as `nc -N` does, and read on."""
    with site.connect() as connection:
        connection.request("POST", case.target, body=b"sent")
        pieces = connection.pieces(connection.head())
        next(pieces)
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            list(pieces)
            return {"end": "whole"}
        except ConnectionCut:
            return {"end": "cut"}


def leaves_uploading(case: Case, site: Site) -> Observed:
    """Leave in the middle of the request's body."""
    with site.connect() as connection:
        connection.request("POST", case.target, "Content-Length: 1000")
        connection.send(b"the beginning")
        time.sleep(INTERVAL)
    return {}


def reads_slowly(case: Case, site: Site) -> Observed:
    """Read nothing until the app has long been waiting."""
    with site.connect(receive_buffer=64 << 10) as connection:
        connection.request("GET", case.target)
        response = connection.head()
        sent, before = -1, -2
        while sent != before:
            time.sleep(0.5)
            before, sent = sent, site.seen(case.key, 1)[0]
        size = sum(len(chunk.data) for chunk in connection.pieces(response))
    return {"the app waits": sent < ENOUGH - 1, "bytes": size, "end": "whole"}


def side_by_side(case: Case, site: Site) -> Observed:
    """Four streams that wait: together, or one after the other."""
    connections = [site.connect() for _ in range(4)]
    try:
        began = time.monotonic()
        for connection in connections:
            connection.request("GET", case.target)
        statuses = [connection.response().status for connection in connections]
        return {"status": statuses, "together": time.monotonic() - began < 2.5 * 3 * INTERVAL}
    finally:
        for connection in connections:
            connection.socket.close()


def of(feature: str, *cases: tuple[str, str, dict[str, Any]]) -> list[Case]:
    return [Case(feature, name, path, **options) for name, path, options in cases]


CASES: list[Case] = [
    *of(
        "The scope",
        ("a plain request", "/scope/KEY", {"headers": ("X-One: 1", "x-two: b", "X-One: 2"), "run": scope}),
        ("an encoded path", "/scope/KEY/%C3%BC%20%2F%25?x=%20&x&y=%C3%BC", {"run": scope}),
        ("a path that is no UTF-8", "/scope/KEY/%FF", {"run": scope}),
        ("doubled and dotted segments", "/scope/KEY//a/../b/./", {"run": scope}),
        ("an empty query", "/scope/KEY?", {"run": scope}),
        ("an odd method", "/scope/KEY", {"method": "PROPFIND", "run": scope}),
        ("a field in latin-1", "/scope/KEY", {"headers": ("X-Latin: \xe9",), "run": scope}),
        ("HTTP/1.0", "/sized/KEY", {"run": http_1_0}),
        ("mounted below a path", "mounted/items/%C3%BC", {"run": another}),
        ("requests one behind the other", "/sized/KEY", {"run": pipelined}),
    ),
    *of(
        "The request's body",
        ("a body with a length", "/echo/KEY", {"method": "POST", "body": b"sent"}),
        ("a chunked body", "/echo/KEY", {"method": "POST", "run": chunked_upload}),
        ("a body of 1 MiB", "/echo/KEY", {"method": "PUT", "body": bytes(1 << 20)}),
        ("no body", "/echo/KEY", {}),
        ("trailers of a body", "/echo/KEY", {"run": trailed_upload}),
        ("answered piece by piece", "/duplex/KEY", {"run": trickled}),
        ("never read", "/unread/KEY", {"method": "POST", "body": b"unread"}),
        ("never read, 1 MiB", "/unread/KEY", {"method": "POST", "body": bytes(1 << 20)}),
        ("100-continue, read", "/echo/KEY", {"run": expects}),
        ("100-continue, never read", "/unread/KEY", {"run": expects}),
        ("receive after the body", "/receives_on/KEY", {"method": "POST", "body": b"sent", "notes": 3}),
    ),
    *of(
        "The response",
        ("a length", "/sized/KEY", {}),
        ("no length", "/unsized/KEY", {}),
        ("an empty body", "/empty/KEY", {}),
        ("messages without optional keys", "/no_body_key/KEY", {}),
        ("pieces in time", "/timed/KEY", {}),
        ("pieces in time, with a length", "/timed_sized/KEY", {}),
        ("a head before its body", "/head_first/KEY", {}),
        ("1 MiB in 16 pieces", "/large/KEY", {}),
        ("fields of every kind", "/fields/KEY", {}),
        ("a bytearray and a memoryview", "/views/KEY", {}),
        ("a hundred fields", "/many_fields/KEY", {}),
        ("a body where there is none", "/body_of_none/KEY", {"notes": 1}),
        ("its own chunked coding", "/chunked_itself/KEY", {}),
        ("its own connection: close", "/says_close/KEY", {}),
        ("HEAD, a length", "/sized/KEY", {"method": "HEAD"}),
        ("HEAD, no length", "/unsized/KEY", {"method": "HEAD"}),
        *((f"status {code}", f"/status/KEY/{code}", {}) for code in (201, 204, 205, 304, 404, 418, 500, 599)),
        ("a reader that does not read", "/slow_reader/KEY", {"run": reads_slowly}),
        ("four at once", "/timed/KEY", {"run": side_by_side}),
    ),
    *of(
        "Extensions",
        ("trailers", "/trailers/KEY", {}),
        ("early hints", "/early_hint/KEY", {"run": early_hint}),
        ("a file by its path", "/pathsend/KEY", {}),
    ),
    *of(
        "The lifespan",
        ("on: the startup raises", "on_raises/", {"run": another}),
        ("on: the startup fails", "on_fails/", {"run": another}),
        ("on: the app returns", "on_returns/", {"run": another}),
        ("auto: the startup raises", "auto_raises/", {"run": another}),
        ("auto: the startup fails", "auto_fails/", {"run": another}),
        ("auto: the app returns", "auto_returns/", {"run": another}),
        ("off: the startup would fail", "off_fails/", {"run": another}),
    ),
    *of(
        "A client that leaves",
        ("closes", "/waits/KEY", {"run": leaves, "notes": 6}),
        ("resets", "/waits/KEY", {"run": resets, "notes": 6}),
        ("closes its half", "/waits/KEY", {"run": half_closes, "notes": 6}),
        ("closes, and the app is told", "/waits_to_be_told/KEY", {"run": timed_leaving}),
        ("closes while it uploads", "/waits_unread/KEY", {"run": leaves_uploading, "notes": 1}),
        ("work after the response", "/goes_on/KEY", {"notes": 1}),
    ),
    *of(
        "An app that fails",
        ("raises first", "/raises_first/KEY", {"notes": 1}),
        ("raises with a body half read", "/raises_unread/KEY", {"method": "POST", "body": b"sent", "notes": 1}),
        ("raises after the head", "/raises_after_head/KEY", {"notes": 1}),
        ("raises between pieces", "/raises_between/KEY", {"notes": 1}),
        ("raises between pieces, with a length", "/raises_between_sized/KEY", {"notes": 1}),
        ("raises after the end", "/raises_last/KEY", {"notes": 1}),
        ("cancels itself", "/exits/KEY", {"notes": 1}),
        ("returns without a response", "/returns_first/KEY", {}),
        ("returns between pieces", "/returns_between/KEY", {}),
        ("returns a value", "/returns_a_value/KEY", {}),
        ("returns a value after the end", "/returns_a_value_last/KEY", {}),
        ("a body before the head", "/body_first/KEY", {"notes": 1}),
        ("a second head", "/starts_twice/KEY", {"notes": 1}),
        ("sends after the end", "/sends_after_the_end/KEY", {"notes": 2}),
        ("an unknown message", "/unknown_message/KEY", {"notes": 1}),
        ("a body of text", "/text_body/KEY", {"notes": 1}),
        ("a field of text", "/text_header/KEY", {"notes": 1}),
        ("a value with a line end", "/bad_header/KEY", {"notes": 1}),
        ("a name with a space", "/bad_header_name/KEY", {"notes": 1}),
        ("a status of text", "/bad_status/KEY", {"notes": 1}),
        ("status 600", "/interim_status/KEY", {"notes": 1}),
        ("more than its length", "/too_much/KEY", {"notes": 1}),
        ("more than its length, at once", "/too_much_at_once/KEY", {"notes": 1}),
        ("less than its length", "/too_little/KEY", {"notes": 1}),
    ),
]
