"""PEP 3333 on the real stack, beside the iterable: `write()`, `close()`, the file wrapper, the input, the threads."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.handlers.interface import FILE, PLACES
from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack


@pytest.fixture
def site(shared_stack: Callable[..., Stack]) -> Stack:
    stack = shared_stack("interface.py:handler", environments=1)
    stack.get("/hello")
    return stack


def test_what_is_written_leaves_at_once_and_before_the_iterable(site: Stack, lag: Lag) -> None:
    with site.connect() as connection:
        connection.request("GET", "/write")
        response = connection.response()
    *written, last = response.chunks
    assert [chunk.data.split()[0] for chunk in written] == [b"0", b"1", b"2"] and last.data == b"last\n"
    assert all(0 <= chunk.time - float(chunk.data.split()[1]) < lag.allow(0.05) for chunk in written)


def test_write_raises_when_its_client_has_left(site: Stack, lag: Lag) -> None:
    with site.connect() as connection:
        connection.request("GET", "/writes-on?written")
        next(connection.pieces(connection.head()))
    left = time.time()
    wait_for(lambda: site.executions("written"))
    when, error = site.executions("written")[0].split()
    assert error == "ClientDisconnected" and float(when) - left < lag.allow(0.12)


def test_the_iterable_is_closed_in_its_thread_when_its_client_leaves(site: Stack, lag: Lag) -> None:
    with site.connect() as connection:
        connection.request("GET", "/endless?closed")
        next(connection.pieces(connection.head()))
    left = time.time()
    wait_for(lambda: site.executions("closed"))
    when, was_its_thread = site.executions("closed")[0].split()
    assert was_its_thread == "True" and float(when) - left < lag.allow(0.15)


def test_a_head_closes_the_iterable_too(site: Stack) -> None:
    with site.connect() as connection:
        connection.request("HEAD", "/endless?head")
        assert connection.response().body == b""
    wait_for(lambda: site.executions("head"))


def test_a_wrapped_file_is_sent_and_closed(site: Stack) -> None:
    assert site.get("/file") == FILE.read_bytes()
    wait_for(lambda: site.executions("file") == ["closed"])


def test_the_input_is_read_line_by_line_while_it_comes(site: Stack) -> None:
    with site.connect() as connection:
        connection.request("POST", "/echo", "Transfer-Encoding: chunked")
        connection.chunk(b"0\n")
        pieces = connection.pieces(connection.head())
        for number in range(5):
            assert next(pieces).data == b"%d\n" % number, "and the next line has not been sent"
            connection.chunk(b"%d\n" % (number + 1))
        connection.chunk(b"")
        assert b"".join(piece.data for piece in pieces) == b"5\n"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_input_is_a_file(site: Stack, is_chunked: bool) -> None:
    body = b"abcdef\nsecond\nthird\nrest"
    with site.connect() as connection:
        if is_chunked:
            connection.request("POST", "/reads", "Transfer-Encoding: chunked")
            for start in range(0, len(body), 4):
                connection.chunk(body[start : start + 4])
            connection.chunk(b"")
        else:
            connection.request("POST", "/reads", body=body)
        said = ast.literal_eval(connection.response().body.decode())
    assert said == [b"abc", b"def\n", b"second\n", b"third\nrest", b""]


def test_each_request_has_a_thread_and_no_more_than_there_are_places(site: Stack) -> None:
    with ThreadPoolExecutor(PLACES + 2) as clients:
        began = time.monotonic()
        assert set(clients.map(lambda _: site.get("/meets"), range(PLACES + 2))) == {b"True"}
        took = time.monotonic() - began
    assert took > 1.9, "two of them had to wait for a place"
    assert len(set(site.executions("begun"))) == PLACES
    assert sorted(site.executions("begun")) == sorted(site.executions("ended"))
