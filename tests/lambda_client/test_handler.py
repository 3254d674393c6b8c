"""`stream_handler`: which functions it takes, what it makes of them, what it says of those that it does not take."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from lambda_client import Request, SyncRequest, stream_handler
from lambda_client.handler import Form
from lambda_client.plain import EventHandler, RequestHandler


async def coroutine(request: Request) -> str:
    return ""


async def async_generator(request: Request) -> AsyncIterator[str]:
    yield ""


def function(request: SyncRequest) -> str:
    return ""


def generator(request: SyncRequest) -> Iterator[str]:
    yield ""


def lambda_code(event: Any, context: Any) -> None: ...


async def async_lambda_code(event: Any, context: Any) -> None: ...


class Callable_:
    async def __call__(self, request: Request) -> str:
        return ""

    def method(self, request: SyncRequest) -> str:
        return ""


def with_keyword(request: SyncRequest, *, verbose: bool = False) -> str:
    return ""


def with_more(request: SyncRequest, /) -> str:
    return ""


async def with_dependency(prefix: str, request: Request) -> str:
    return prefix


@pytest.mark.parametrize(
    ("fn", "kind", "is_async"),
    [
        (coroutine, RequestHandler, True),
        (async_generator, RequestHandler, True),
        (function, RequestHandler, False),
        (generator, RequestHandler, False),
        (lambda_code, EventHandler, False),
        (async_lambda_code, EventHandler, True),
        (Callable_(), RequestHandler, True),
        (Callable_().method, RequestHandler, False),
        (with_keyword, RequestHandler, False),
        (with_more, RequestHandler, False),
        (functools.partial(with_dependency, "p"), RequestHandler, True),
        (lambda request: "", RequestHandler, False),
        (lambda event, context: "", EventHandler, False),
        (lambda event, context=None: "", EventHandler, False),
    ],
)
def test_a_handler_is_known_by_its_positional_parameters(fn: Any, kind: type, is_async: bool) -> None:
    decorated = stream_handler(fn)
    assert decorated.form == Form(takes_event=kind is EventHandler, is_async=is_async)
    assert type(decorated.runner()) is kind
    assert decorated.fn is fn


def no_parameter() -> None: ...
def three(a: Any, b: Any, c: Any) -> None: ...
def star(*arguments: Any) -> None: ...
def double_star(request: Any, **options: Any) -> None: ...
def keyword_only(request: Any, *, needed: int) -> None: ...
def request_and_more(request: Any, database: Any = None) -> None: ...
def annotated_and_more(r: SyncRequest, database: Any = None) -> None: ...


@pytest.mark.parametrize(
    "fn",
    [no_parameter, three, star, double_star, keyword_only, request_and_more, annotated_and_more, Callable_, "text", 7],
)
def test_any_other_function_is_refused_at_once_with_both_forms(fn: Any) -> None:
    with pytest.raises(TypeError) as raised:
        stream_handler(fn)
    assert "async def handler(request)" in str(raised.value)
    assert "def handler(event, context)" in str(raised.value)


def test_decorating_twice_is_refused() -> None:
    with pytest.raises(TypeError, match="twice"):
        stream_handler(stream_handler(function))  # type: ignore[call-overload]


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "8", True, None])
def test_concurrency_is_a_positive_number(concurrency: Any) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        stream_handler(concurrency=concurrency)(function)


def test_the_decorated_handler_keeps_the_functions_name_and_document() -> None:
    @stream_handler(concurrency=20)
    async def handler(request: Request) -> str:
        """What it does."""
        return ""

    wrapped: Callable[..., Any] = handler
    assert (wrapped.__name__, wrapped.__doc__, handler.concurrency) == ("handler", "What it does.", 20)
    assert callable(handler)


def test_nothing_begins_before_the_first_invocation() -> None:
    handler = stream_handler(function)
    assert handler._environment is None
