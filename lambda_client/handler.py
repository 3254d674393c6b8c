"""`stream_handler`: what a function's file names as its handler. Decides by the parameters what kind it is."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar, overload

from lambda_client.request import Request, SyncRequest
from lambda_client.response import Piece, Returned
from lambda_client.stream import LambdaContext

if TYPE_CHECKING:
    from lambda_client.environment import Environment, Lifespan
    from lambda_client.plain import Handler

AsyncForm = Callable[[Request], Awaitable[Returned] | AsyncIterator[Piece]]
SyncForm = Callable[[SyncRequest], Returned]
EventForm = Callable[[Any, Any], Any]

Check = Callable[[], bool]

_F = TypeVar("_F", bound=AsyncForm | SyncForm | EventForm)

_FORMS = (
    "a handler takes one positional parameter, the request:\n"
    "    async def handler(request): ...      (or def)\n"
    "or two, as existing Lambda code does:\n"
    "    def handler(event, context): ...     (or async def)"
)


class Form(NamedTuple):
    """What a function takes, and where it runs: on the event loop, or in a thread."""

    takes_event: bool
    is_async: bool


class LambdaHandler(ABC):
    """What Lambda calls: `(event, context)`. Begins with the module that makes it; its environment begins with the
    first call. One subclass for each kind of code."""

    def __init__(self, concurrency: int, lifespan: Lifespan | None, healthy: Check | None) -> None:
        """Raises `TypeError`, `ValueError`. Calls `runner`: a subclass is whole before it calls this."""
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency is a number of streams, at least 1, not {concurrency!r}")
        if healthy is not None and (not callable(healthy) or is_async(healthy)):
            raise TypeError(f"healthy is a `def` without parameters, not {healthy!r}")
        self.concurrency = concurrency
        self.lifespan = lifespan
        self.healthy = healthy
        self._environment: Environment | None = None
        if "DIALBACK_GATEWAY" in os.environ:
            # A function that will dial loads what that takes now: an init has the whole processor, a small function's
            # invocation a fraction of it.
            import lambda_client.dial  # noqa: F401

            self.runner()

    def __call__(self, event: Any, context: LambdaContext) -> Any:
        """One invocation: an invitation is dialled and served, anything else is answered buffered."""
        if self._environment is None:
            from lambda_client.environment import Environment

            self._environment = Environment(self.runner(), self.concurrency, self.lifespan, os.environ, self.healthy)
        answer = self._environment.invoke(event, context)
        is_last = self._environment.is_unhealthy and "AWS_LAMBDA_RUNTIME_API" in os.environ
        return LastAnswer(answer) if is_last and isinstance(answer, dict) else answer

    @abstractmethod
    def runner(self) -> Handler:
        """What runs the code. Loads all but the WebSocket's side of the package."""


class LastAnswer(dict[str, Any]):
    """Of an unhealthy environment: when AWS's client has sent it, and lets go of it, before it asks for the next event,
    the process ends. Where something keeps it, the next invitation is answered so."""

    def __del__(self) -> None:
        os._exit(1)  # an orderly exit would wait for threads


class StreamHandler(LambdaHandler, Generic[_F]):
    """A function that was decorated with `stream_handler`."""

    def __init__(self, fn: _F, concurrency: int, lifespan: Lifespan | None, healthy: Check | None) -> None:
        update_wrapper(self, fn)
        self.fn = fn
        """The undecorated function."""
        self.form = form_of(fn)
        super().__init__(concurrency, lifespan, healthy)

    def runner(self) -> Handler:
        import lambda_client.environment  # noqa: F401
        from lambda_client.plain import EventHandler, RequestHandler

        kind = EventHandler if self.form.takes_event else RequestHandler
        return kind(self.fn, is_async=self.form.is_async)

    def __repr__(self) -> str:
        return f"<stream_handler {getattr(self.fn, '__qualname__', self.fn)!s}>"


class _Decorator(Protocol):
    """What `stream_handler(concurrency=…)` returns."""

    def __call__(self, fn: _F, /) -> StreamHandler[_F]: ...


@overload
def stream_handler(fn: _F, /) -> StreamHandler[_F]: ...
@overload
def stream_handler(
    *, concurrency: int = 1, lifespan: Lifespan | None = None, healthy: Check | None = None
) -> _Decorator: ...
def stream_handler(
    fn: Any = None, /, *, concurrency: int = 1, lifespan: Lifespan | None = None, healthy: Check | None = None
) -> Any:
    """Make a function a Lambda handler whose requests and responses stream through a Dialback gateway.

    `concurrency`: how many requests one environment serves at once. `lifespan`: called without arguments once per
    environment, gives an async context manager; what that yields is `request.state`. `healthy`: asked before each
    request, on the event loop; once it returns false, or raises, requests go elsewhere, and the environment ends with
    those that it has.
    Raises `TypeError` for a function that is none of the forms, `ValueError` for a concurrency below 1.
    """
    if fn is None:
        return lambda decorated: StreamHandler(decorated, concurrency, lifespan, healthy)
    return StreamHandler(fn, concurrency, lifespan, healthy)


def form_of(fn: Callable[..., Any]) -> Form:
    """The form of a handler, by its positional parameters. Raises `TypeError` that names both forms."""
    if isinstance(fn, LambdaHandler):
        raise TypeError("stream_handler was applied twice, or to a handler of another kind")
    if not callable(fn) or inspect.isclass(fn):
        raise TypeError(f"{fn!r} is no function; {_FORMS}")
    parameters = inspect.signature(fn).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    others = [
        p for p in parameters if p not in positional and not (p.kind is p.KEYWORD_ONLY and p.default is not p.empty)
    ]
    is_request = bool(positional) and (positional[0].name == "request" or "Request" in str(positional[0].annotation))
    if others or len(positional) not in (1, 2) or (len(positional) == 2 and is_request):
        raise TypeError(f"{getattr(fn, '__qualname__', fn)}{inspect.signature(fn)}: {_FORMS}")
    return Form(takes_event=len(positional) == 2, is_async=is_async(fn))


def check_app(app: object, arity: int, wanted: str) -> None:
    """Raises `TypeError` where `app` cannot be called with `arity` arguments, 3 for ASGI and 2 for WSGI."""
    if callable(app):
        try:
            signature = inspect.signature(app)
        except ValueError:  # in C, without one
            return
        if takes(signature, arity):
            return
        if takes(signature, 5 - arity):
            wanted += f"; this takes {5 - arity} arguments, as what {'wsgi' if arity == 3 else 'asgi'}_handler serves"
    raise TypeError(f"{app!r}: {wanted}")


def takes(signature: inspect.Signature, count: int) -> bool:
    """Whether so many positional arguments, and no others, will do."""
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def is_async(fn: Any) -> bool:
    """Whether it is an `async def`, also inside a partial or as an object's `__call__`."""
    while isinstance(fn, partial):
        fn = fn.func
    called = fn if inspect.isroutine(fn) else type(fn).__call__
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
