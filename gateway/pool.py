"""A function's links, leases and queue: a request takes a free place on a leased link, or waits for an invocation.

Whichever comes first, a place that frees up or a new lease, takes the request at the head of the queue. Knows no HTTP and
no WebSocket: it sees exchanges, links and an invoker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import structlog

from gateway.config import FunctionConfig
from gateway.dialback import Link
from gateway.errors import PoolRefusal, Problem
from gateway.exchange import Exchange
from gateway.invitations import Invitations, Issued
from gateway.invoke.answer import Answer, Invoker, Outcome
from protocol import events as ev
from protocol.errors import DialRefused, LocalError
from protocol.invitation import Keyring

log = structlog.get_logger("dialback.pool")

THROTTLE_PAUSE: Final = 0.2  # seconds after which one invocation more than the platform last had room for is tried

#: What a failed invocation means to the request that waited for it.
PROBLEM_OF_OUTCOME: Final[dict[Outcome, Problem]] = {
    Outcome.THROTTLED: Problem("invoke-throttled"),
    Outcome.REFUSED: Problem("invoke-failed", "The function refused the gateway's invitation."),
    Outcome.FOREIGN: Problem("invoke-failed", "What was invoked is not a stream_handler."),
    Outcome.ERROR: Problem("function-error"),
    Outcome.UNREACHABLE: Problem("invoke-failed"),
    Outcome.ANSWERED: Problem("invoke-failed", "The function returned without dialling back."),
}


@dataclass(eq=False, slots=True)
class Start:
    """One invocation, from its beginning to its answer."""

    issued: Issued[Start] | None = None
    link: Link | None = None
    """The link that its lease is on, from LEASE on."""
    has_leased: bool = False
    is_given_up: bool = False
    """It did not dial back in time; its lease would still be welcome."""


@dataclass(eq=False, slots=True)
class Waiter:
    """A request in the queue; `place` is set when it has its stream, or fails with its refusal."""

    exchange: Exchange
    place: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pool:
    """One function's. Begins and ends with the gateway; owns the tasks that its invocations run in."""

    def __init__(
        self, function: FunctionConfig, keyring: Keyring, invoker: Invoker, invitations: Invitations[Start]
    ) -> None:
        self.function = function
        self.keyrings = {function.name: keyring}
        self._keyring = keyring
        self._invoker = invoker
        self._invitations = invitations
        self._leased: dict[Link, Start] = {}  # every leased link, in the order of their leases
        self._queue: deque[Waiter] = deque()
        self._tasks: dict[asyncio.Task[None], Start] = {}
        self._places = 1  # of the last lease: what to expect of the next
        self._ceiling = function.limits.max_invocations  # learned: how many the platform has room for
        self._probe: asyncio.TimerHandle | None = None  # raises the ceiling again
        self._is_stopping = False
        self.invocations: dict[Outcome, int] = dict.fromkeys(Outcome, 0)

    # what can be seen of it

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def leased_links(self) -> int:
        return len(self._leased)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        """Invocations that were not answered yet."""
        return len(self._tasks)

    @property
    def open_streams(self) -> int:
        return sum(link.open_streams for link in self._leased)

    # for ingress

    async def open(self, exchange: Exchange) -> None:
        """Return when the exchange has its stream. Raises `PoolRefusal` when it gets none; to be cancelled when its client left."""
        if self._is_stopping:
            raise PoolRefusal(Problem("draining"))
        if not self._queue and (link := self._free_place()) is not None:
            self._open_on(link, exchange)
            return
        if len(self._queue) >= self.function.limits.max_queue:
            raise PoolRefusal(Problem("overloaded"))
        waiter = Waiter(exchange)
        self._queue.append(waiter)
        exchange.queued()
        self._start_what_is_needed()
        try:
            async with asyncio.timeout(self.function.timeouts.queue_wait):
                await waiter.place
        except TimeoutError:
            raise PoolRefusal(Problem("queue-timeout")) from None
        finally:
            with contextlib.suppress(ValueError):
                self._queue.remove(waiter)

    # for links

    def lease_offered(self, link: Link, offer: ev.LeaseOffered) -> None:
        """Its invitation is checked and consumed; what waits is opened before LEASED."""
        try:
            issued = self._invitations.consume(offer.invitation, self.keyrings, link.session.id)
        except DialRefused as refused:
            log.warning("lease.refused", function=self.function.name, reason=refused.reason)
            link.decline(offer.lease)
            return
        start = issued.start
        start.link, start.has_leased = link, True
        self._places = max(1, offer.places)
        if self._is_stopping or (not self._queue and not self.function.linger):
            link.decline(offer.lease)
            return
        self._leased[link] = start
        self._serve(link)
        link.grant(offer.lease, self.function.linger)

    def place_freed(self, link: Link) -> None:
        if link in self._leased:
            self._serve(link)

    def link_parked(self, link: Link) -> None:
        self._leased.pop(link, None)
        self._start_what_is_needed()

    def link_ended(self, link: Link) -> None:
        self._leased.pop(link, None)
        self._start_what_is_needed()

    # for the server

    def retire_links(self) -> None:
        """No new stream goes to the environments that are awake now; they park when their streams have ended."""
        leased, self._leased = self._leased, {}
        for link in leased:
            link.release()

    async def stop(self) -> None:
        """End what waits and what runs; the links are ended by who keeps them."""
        self._is_stopping = True
        if self._probe is not None:
            self._probe.cancel()
        for waiter in self._queue:
            if not waiter.place.done():
                waiter.place.set_exception(PoolRefusal(Problem("draining")))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._invoker.close()

    # inside

    def _free_place(self) -> Link | None:
        """The fullest link with room: the others can park the sooner."""
        return max((link for link in self._leased if link.can_open), key=lambda link: link.open_streams, default=None)

    def _open_on(self, link: Link, exchange: Exchange) -> None:
        try:
            link.open(exchange)
        except LocalError as error:
            log.warning("stream.not_opened", function=self.function.name, error=str(error))
            raise PoolRefusal(Problem("header-too-large")) from None

    def _serve(self, link: Link) -> None:
        """Give the link's free places to the head of the queue."""
        while link.can_open and (waiter := self._next_waiter()) is not None:
            try:
                self._open_on(link, waiter.exchange)
            except PoolRefusal as refusal:
                waiter.place.set_exception(refusal)
            else:
                waiter.place.set_result(None)

    def _next_waiter(self) -> Waiter | None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.place.done() and not waiter.exchange.is_ended:
                return waiter
        return None

    def _start_what_is_needed(self) -> None:
        """Start as many invocations as those that wait need beyond those that are on their way."""
        if self._is_stopping:
            return
        coming = sum(not start.has_leased and not start.is_given_up for start in self._tasks.values())
        needed = -(-len(self._queue) // self._places) - coming
        room = self._ceiling - len(self._tasks)
        for _ in range(min(needed, room)):
            start = Start()
            task = asyncio.create_task(self._invoke(start), name=f"invocation of {self.function.name}")
            self._tasks[task] = start
            task.add_done_callback(self._invocation_done)
        if self._tasks:
            for waiter in self._queue:
                if waiter.exchange.state == "queued":
                    waiter.exchange.invoking()

    def _invocation_done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("invocation.broke", function=self.function.name, exc_info=error)
        self._start_what_is_needed()

    async def _invoke(self, start: Start) -> None:
        token, start.issued = self._invitations.issue(self.function.name, self._keyring, start)
        timer = asyncio.get_running_loop().call_later(self.function.timeouts.dial_back, self._dial_back_late, start)
        try:
            answer = await self._invoker.invoke(token)
        finally:
            timer.cancel()
            self._invitations.withdraw(start.issued)
        self.invocations[answer.outcome] += 1
        self._answered(start, answer)

    def _answered(self, start: Start, answer: Answer) -> None:
        if start.has_leased:
            # A hint: the lease is over when the link says so, or when it stays silent.
            if start.link is not None and self._leased.get(start.link) is start:
                start.link.invocation_answered()
            return
        if answer.outcome is Outcome.ANSWERED and not self._queue:
            return  # nobody needed it any more
        if not start.is_given_up:
            self._start_failed(answer)

    def _start_failed(self, answer: Answer) -> None:
        """One start, one request: the head of the queue has its answer. When throttled, all wait on."""
        log.warning(
            "invocation.failed", function=self.function.name, outcome=answer.outcome.value, detail=answer.detail
        )
        if answer.outcome is Outcome.THROTTLED:
            # As many as run besides this one have room; whether there is more is asked again after a pause, one by one.
            self._ceiling = min(self._ceiling, len(self._tasks) - 1)
            if self._probe is None and not self._is_stopping:
                self._probe = asyncio.get_running_loop().call_later(THROTTLE_PAUSE, self._raise_ceiling)
            return
        if (waiter := self._next_waiter()) is not None:
            waiter.place.set_exception(PoolRefusal(PROBLEM_OF_OUTCOME[answer.outcome]))

    def _raise_ceiling(self) -> None:
        self._ceiling += 1
        self._probe = None
        if self._ceiling < self.function.limits.max_invocations:
            self._probe = asyncio.get_running_loop().call_later(THROTTLE_PAUSE, self._raise_ceiling)
        self._start_what_is_needed()

    def _dial_back_late(self, start: Start) -> None:
        if start.has_leased:
            return
        start.is_given_up = True
        log.warning("invocation.late", function=self.function.name, seconds=self.function.timeouts.dial_back)
        if (waiter := self._next_waiter()) is not None:
            waiter.place.set_exception(PoolRefusal(Problem("dial-back-timeout")))
