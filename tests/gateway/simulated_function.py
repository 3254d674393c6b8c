"""A function and its platform in virtual time, behind a real pool: starts that take their time, environments that are
frozen and thawed, streams that last as long as a test says. An hour of load is over in a second, and always the same.

What is not real is the link (no socket, no session) and the client; pool, queue, exchanges, invitations, breaker and
ceiling are the gateway's own.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest

from gateway.affinity import Tie
from gateway.config import BreakerConfig, FunctionConfig, LimitsConfig, TimeoutsConfig
from gateway.dialback import Link
from gateway.errors import PoolRefusal
from gateway.exchange import Exchange, RequestHead
from gateway.invitations import Invitations
from gateway.invoke.answer import Answer, Outcome
from gateway.keys import Secret
from gateway.pool import Pool
from gateway.response_head import ResponseHead
from gateway.starts import Start
from protocol import events as ev
from protocol.frames import Headers
from protocol.invitation import Keyring
from tests.build import IS_COMPILED
from tests.gateway.function_fake import FakeStream

T = TypeVar("T")
SECRET = "s" * 32


class _Selector(selectors.SelectSelector):
    """Where a real one would wait, the clock is put forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing will ever happen again"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """In virtual time, on a loop of its own."""
    if IS_COMPILED:
        coroutine.close()
        pytest.skip("compiled: a link that is no `Link`")
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Client:
    """Takes every response."""

    is_paused = False

    def head(self, head: ResponseHead, end: bool, body: bytes | bytearray | memoryview = b"") -> None: ...
    def data(self, payload: bytes | bytearray | memoryview, end: bool) -> None: ...
    def end(self, trailers: Headers) -> None: ...
    def returned(self) -> None: ...
    def ended(self) -> None: ...


@dataclass(eq=False)
class _Session:
    id: bytes = field(default_factory=lambda: os.urandom(16))


class SimulatedLink:
    """Of one environment, for its life; does what a `Link` does, in a turn of the loop."""

    def __init__(self, function: SimulatedFunction) -> None:
        self.session = _Session()
        self.is_outdated = False
        self.open_streams = 0
        self.is_leased = False
        self._function = function
        self._lease = 0
        self._linger = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._parked = asyncio.Event()

    @property
    def can_open(self) -> bool:
        return self.is_leased and self.open_streams < self._function.places

    async def lease(self, token: str) -> None:
        """From LEASE to PARKED."""
        self._lease += 1
        self._parked.clear()
        self._linger = 0.0
        self.is_leased = True
        remaining = self._function.remaining
        offer = ev.LeaseOffered(self._lease, token, self._function.places, remaining)
        self._function.pool.lease_offered(cast(Link, self), offer)
        self._idle()
        timer = asyncio.get_running_loop().call_later(remaining, self._park)
        await self._parked.wait()
        timer.cancel()

    def grant(self, lease: int, linger: float) -> None:
        self._linger = linger

    def decline(self, lease: int) -> None:
        self.is_leased = False
        self._parked.set()

    def release(self) -> None:
        self._linger = 0.0
        self._idle()

    def invocation_answered(self) -> None: ...

    def open(self, exchange: Exchange) -> None:
        assert self.can_open
        self.open_streams += 1
        if self._timer is not None:
            self._timer.cancel()
        seconds = self._function.service()
        self._function.opened.append((self, asyncio.get_running_loop().time()))
        self._function.where[exchange] = self
        exchange.stream_opened(FakeStream(exchange))
        asyncio.get_running_loop().call_later(seconds, self._answer, exchange, seconds)

    def _answer(self, exchange: Exchange, seconds: float) -> None:
        exchange.response(*self._function.answer(exchange), end=True)
        self.open_streams -= 1
        self._function.pool.stream_ended(cast(Link, self), exchange, seconds)
        self._idle()

    def _idle(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.is_leased and not self.open_streams:
            self._timer = asyncio.get_running_loop().call_later(self._linger, self._park)

    def _park(self) -> None:
        if self.is_leased and not self.open_streams:
            self.is_leased = False
            self._function.pool.link_parked(cast(Link, self))
            self._parked.set()


class SimulatedFunction:
    """An `Invoker`, its platform and its pool. Times in seconds."""

    def __init__(
        self,
        *,
        places: int = 20,
        cold: float = 1.0,
        warm: float = 0.01,
        service: Callable[[], float] = lambda: 0.1,
        most: int = 1000,
        remaining: float = 900.0,
        **options: Any,
    ) -> None:
        self.places, self.cold, self.warm, self.service = places, cold, warm, service
        self.most, self.remaining = most, remaining
        self.idle: list[SimulatedLink] = []
        self.links: list[SimulatedLink] = []
        self.invocations: list[float] = []
        """When."""
        self.opened: list[tuple[SimulatedLink, float]] = []
        """Each stream: where and when."""
        self.where: dict[Exchange, SimulatedLink] = {}
        self.answer: Callable[[Exchange], tuple[int, Headers]] = lambda exchange: (200, ())
        """Status and fields."""
        self.thawed: Callable[[int], int] = lambda idle: -1
        """Which of so many that are idle is used next; the platform does not say which."""
        self.settling = 0.0
        """From an invocation's answer to the moment in which its environment may be used again."""
        self.throttled = 0
        self.fails: Callable[[int], bool] = lambda number: False
        """Whether the start of this number does."""
        self.awake = 0
        self.most_awake = 0
        options.setdefault("limits", LimitsConfig(max_invocations=1000))
        options.setdefault("timeouts", TimeoutsConfig(queue_wait=60))
        options.setdefault("breaker", BreakerConfig())
        config = FunctionConfig(name="function", url="http://-/", secret=Secret(SECRET), **options)
        self.pool = Pool(config, Keyring.parse(SECRET), self, Invitations[Start]("ws://-/"))

    async def invoke(self, token: str) -> Answer:
        loop = asyncio.get_running_loop()
        self.invocations.append(loop.time())
        number = len(self.invocations)
        await asyncio.sleep(0.002)  # the way to the platform
        if self.awake >= self.most:
            self.throttled += 1
            return Answer(Outcome.THROTTLED)
        began = loop.time()
        self.awake += 1
        self.most_awake = max(self.most_awake, self.awake)
        try:
            if self.fails(number):
                await asyncio.sleep(self.cold)
                return Answer(Outcome.ERROR)
            link = self.idle.pop(self.thawed(len(self.idle))) if self.idle else None
            await asyncio.sleep(self.warm if link else self.cold)
            if link is None:
                link = SimulatedLink(self)
                self.links.append(link)
            await link.lease(token)
            loop.call_later(self.settling, self.idle.append, link)
            return Answer(Outcome.ANSWERED, "parked", awake=loop.time() - began)
        finally:
            self.awake -= 1

    async def close(self) -> None: ...

    async def ask(self) -> float:
        """One request; how long it waited for its stream. Raises `PoolRefusal`."""
        return (await self.ask_of(None))[0]

    async def ask_of(self, tie: Tie | None) -> tuple[float, SimulatedLink]:
        """The same of a request that belongs to others; and where it was served."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(RequestHead(b"GET", b"/", ()), cast(Any, _Client()))
        exchange.tie = tie
        ended: asyncio.Future[None] = loop.create_future()
        exchange.on_end(lambda _: ended.set_result(None))
        asked = loop.time()
        if not self.pool.open_now(exchange):
            await self.pool.open(exchange)
        waited = loop.time() - asked
        await ended
        return waited, self.where.pop(exchange)

    def ends(self, link: SimulatedLink) -> None:
        """The platform takes back an environment that is idle."""
        self.idle.remove(link)
        self.pool.link_ended(cast(Link, link), "reaped")

    async def ask_many(self, times: list[float]) -> list[float]:
        """Requests at these times from now, as `ask`; refusals raise."""

        async def at(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return await self.ask()

        return await asyncio.gather(*(at(seconds) for seconds in times))

    async def quiet(self, seconds: float = 60.0) -> None:
        """Until all environments had time to park."""
        await asyncio.sleep(seconds)


__all__ = ["PoolRefusal", "SimulatedFunction", "SimulatedLink", "VirtualLoop", "run"]
