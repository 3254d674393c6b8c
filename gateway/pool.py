"""A function's links, leases and queue: a request takes a free place on a leased link, or waits for an invocation.

Whichever comes first, a place that frees up or a new lease, takes the request at the head of the queue. Knows no HTTP
and no WebSocket: it sees exchanges, links and an invoker.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import structlog

from gateway.ceiling import Ceiling
from gateway.config import FunctionConfig
from gateway.dialback import Link
from gateway.errors import PoolRefusal, Problem
from gateway.exchange import Exchange
from gateway.invitations import FIRST_PRESENTATION, Invitations, Issued
from gateway.invoke.answer import Answer, Invoker, Outcome
from protocol import events as ev
from protocol.errors import DialRefused, LocalError
from protocol.invitation import Keyring

log = structlog.get_logger("dialback.pool")

LONGEST_LEASE: Final = 900.0  # seconds; no platform lets an invocation run longer
FINISH_PATIENCE: Final = 0.1  # seconds from the end of a lease to its invocation's answer, for which a request waits
LEASE_SHARE: Final = 0.5  # of a lease's time in which streams are opened on it: each has the other half at least

#: What a failed invocation means to the request that waited for it.
PROBLEM_OF_OUTCOME: Final[dict[Outcome, Problem]] = {
    Outcome.REFUSED: Problem("invoke-failed", "The function refused the gateway's invitation."),
    Outcome.FOREIGN: Problem("invoke-failed", "What was invoked is not a stream_handler."),
    Outcome.ERROR: Problem("function-error"),
    Outcome.UNREACHABLE: Problem("invoke-failed"),
    Outcome.ANSWERED: Problem("invoke-failed", "The function returned without dialling back."),
}


@dataclass(eq=False, slots=True)
class Start:
    """One invocation and its lease; begins with the first and ends with the last of the two."""

    issued: Issued[Start] | None = None
    link: Link | None = None
    """The link that its lease is on, from LEASE on."""
    is_retired: bool = False
    """No new stream goes to its environment."""
    timer: asyncio.TimerHandle | None = None
    """Retires its lease."""

    @property
    def has_leased(self) -> bool:
        return self.link is not None


@dataclass(eq=False, slots=True)
class Waiter:
    """A request in the queue; `place` is set when it has its stream, or fails with its refusal."""

    exchange: Exchange
    place: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def refuse(self, problem: Problem) -> None:
        """Idempotent, and void when it has its stream."""
        if not self.place.done():
            self.place.set_exception(PoolRefusal(problem))
            self.place.exception()  # whoever waits may have left in this very turn: then nobody else looks


class Pool:
    """One function's. Begins and ends with the gateway; owns the tasks that its invocations run in."""

    def __init__(
        self, function: FunctionConfig, keyring: Keyring, invoker: Invoker, invitations: Invitations[Start]
    ) -> None:
        self.function = function
        self.invocations: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        """Ended ones, by what became of them."""
        self._keyring = keyring
        self._invoker = invoker
        self._invitations = invitations
        self._leases: dict[Link, Start] = {}
        self._roomy: dict[Link, None] = {}  # links that had a free place when last looked at, the latest last
        self._queue: OrderedDict[Waiter, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[Start] = set()  # invocations that were not answered
        self._coming: set[Start] = set()  # those of them whose lease is expected
        self._finishing: dict[Start, asyncio.TimerHandle] = {}  # those whose environment is about to be free
        self._places = 1  # of the last lease: what to expect of the next
        self._ceiling = Ceiling(function.limits.max_invocations, self._start_what_is_needed)
        self._is_draining = False
        self._is_stopped = False

    # what can be seen of it

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def leased_links(self) -> int:
        return len(self._leases)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Invocations that were not answered yet."""
        return len(self._running)

    @property
    def open_streams(self) -> int:
        return sum(link.open_streams for link in self._leases)

    # for ingress

    async def open(self, exchange: Exchange) -> None:
        """Return when the exchange has its stream. Raises `PoolRefusal` when it gets none. To be cancelled when its
        client has left."""
        if self._is_stopped:
            raise PoolRefusal(Problem("draining"))
        if (link := self._free_place()) is not None:
            self._serve(link)  # those who were here before
            if link.can_open:
                self._open_on(link, exchange)
                return
        if len(self._queue) >= self.function.limits.max_queue:
            raise PoolRefusal(Problem("overloaded"))
        waiter = Waiter(exchange)
        self._queue[waiter] = None
        exchange.queued()
        self._start_what_is_needed()
        if self._coming:
            exchange.invoking()
        timer = asyncio.get_running_loop().call_later(self.function.timeouts.queue_wait, self._waited_too_long, waiter)
        try:
            await waiter.place
        finally:
            timer.cancel()
            self._queue.pop(waiter, None)

    # for links

    def lease_offered(self, link: Link, offer: ev.LeaseOffered) -> None:
        """Its invitation is checked and consumed; what waits is opened before LEASED."""
        self._forget(link)
        try:
            if offer.places < 1:
                raise DialRefused("used")
            issued = self._invitations.consume(offer.invitation, {self.name: self._keyring}, link.session.id)
        except DialRefused as refused:
            log.warning("lease.refused", function=self.name, reason=refused.reason)
            link.decline(offer.lease)
            return
        start = issued.start
        start.link = link
        self._coming.discard(start)
        self._places = offer.places
        if not (link.open_streams or self._is_wanted(start)):
            self._finishes(start)
            link.decline(offer.lease)
            return
        self._leases[link] = start
        lasts = min(offer.remaining, LONGEST_LEASE) * LEASE_SHARE
        start.timer = asyncio.get_running_loop().call_later(lasts, self._retire, link)
        self.place_freed(link)
        link.grant(offer.lease, 0.0 if self._is_draining else self.function.linger)

    def place_freed(self, link: Link) -> None:
        """The head of the queue gets what is free."""
        start = self._leases.get(link)
        if start is None or not link.can_open:
            return
        if start.is_retired:
            if not link.open_streams:
                self._finishes(start)
            return
        self._serve(link)
        if link.can_open and link not in self._roomy:
            self._roomy[link] = None

    def link_parked(self, link: Link) -> None:
        start = self._leases.get(link)
        self._forget(link)
        if start is not None:
            self._finishes(start)
        self._start_what_is_needed()

    def link_ended(self, link: Link) -> None:
        self._forget(link)
        self._start_what_is_needed()

    # for the server

    def retire_links(self) -> None:
        """No new stream goes to the environments of now; they park when their streams have ended."""
        for start in self._coming:
            start.is_retired = True
        self._coming.clear()
        self._start_what_is_needed()
        for link in list(self._leases):
            self._retire(link)

    def drain(self) -> None:
        """Keep no environment awake that nobody waits for. What waits is still served. Idempotent."""
        self._is_draining = True
        for link in list(self._leases):
            link.release()

    async def stop(self) -> None:
        """End what waits and what runs; the links are ended by who keeps them. Idempotent."""
        self._is_stopped = self._is_draining = True
        self._ceiling.close()
        for timer in self._finishing.values():
            timer.cancel()
        for waiter in self._queue:
            waiter.refuse(Problem("draining"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._invoker.close()

    # places

    def _free_place(self) -> Link | None:
        """The link that got room last: that it fills up again lets the others park the sooner."""
        while self._roomy:
            link = next(reversed(self._roomy))
            if link.can_open:
                return link
            del self._roomy[link]
        return None

    def _serve(self, link: Link) -> None:
        """Give the link's free places to the head of the queue."""
        while link.can_open and (waiter := self._next_waiter()) is not None:
            try:
                self._open_on(link, waiter.exchange)
            except PoolRefusal as refusal:
                waiter.refuse(refusal.problem)
            else:
                waiter.place.set_result(None)

    def _open_on(self, link: Link, exchange: Exchange) -> None:
        try:
            link.open(exchange)
        except LocalError as error:  # there was a place, so its head is too large
            log.warning("stream.not_opened", function=self.name, error=str(error))
            raise PoolRefusal(Problem("header-too-large")) from None

    def _next_waiter(self) -> Waiter | None:
        while self._queue:
            waiter, _ = self._queue.popitem(last=False)
            if not waiter.place.done() and not waiter.exchange.is_ended:
                return waiter
        return None

    def _refuse_next(self, problem: Problem) -> None:
        if (waiter := self._next_waiter()) is not None:
            waiter.refuse(problem)

    def _waited_too_long(self, waiter: Waiter) -> None:
        is_throttled = self._ceiling.is_lowered and not self._leases
        waiter.refuse(Problem("invoke-throttled" if is_throttled else "queue-timeout"))

    # leases

    def _is_wanted(self, start: Start) -> bool:
        if self._is_stopped or start.is_retired:
            return False
        return bool(self._queue) or (self.function.linger > 0 and not self._is_draining)

    def _retire(self, link: Link) -> None:
        """New streams go elsewhere; it parks when those that it has are over."""
        start = self._leases[link]
        start.is_retired = True
        self._roomy.pop(link, None)
        link.release()
        if not link.open_streams:
            self._finishes(start)
        self._start_what_is_needed()

    def _finishes(self, start: Start) -> None:
        """Its environment is about to be free: an invocation in this moment would start another, and cold."""
        if start in self._running and start not in self._finishing:
            loop = asyncio.get_running_loop()
            self._finishing[start] = loop.call_later(FINISH_PATIENCE, self._finished, start)

    def _finished(self, start: Start) -> None:
        timer = self._finishing.pop(start, None)
        if timer is not None:
            timer.cancel()
            self._start_what_is_needed()

    def _forget(self, link: Link) -> None:
        """The link's lease is over."""
        self._roomy.pop(link, None)
        start = self._leases.pop(link, None)
        if start is not None and start.timer is not None:
            start.timer.cancel()

    # invocations

    def _start_what_is_needed(self) -> None:
        """Start as many invocations as those that wait need beyond those that are on their way."""
        if self._is_stopped:
            return
        needed = -(-len(self._queue) // self._places) - len(self._coming) - len(self._finishing)
        for _ in range(min(needed, self._ceiling.room(len(self._running)))):
            start = Start()
            self._running.add(start)
            self._coming.add(start)
            self._ceiling.started()
            task = asyncio.create_task(self._invoke(start), name=f"invocation of {self.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _invoke(self, start: Start) -> None:
        """The task of one invocation."""
        timeout = self.function.timeouts.dial_back
        timer = asyncio.get_running_loop().call_later(timeout, self._dial_back_late, start)
        try:
            token, start.issued = self._invitations.issue(
                self.name, self._keyring, start, max(timeout, FIRST_PRESENTATION)
            )
            answer = await self._invoker.invoke(token)
        except Exception as error:
            log.exception("invocation.mistake", function=self.name)
            answer = Answer(Outcome.UNREACHABLE, type(error).__name__)
        finally:
            timer.cancel()
            if start.issued is not None:
                self._invitations.withdraw(start.issued)
        # All in one step, lest two that are answered at once count each other.
        self._running.discard(start)
        self.invocations[answer.outcome] += 1
        self._answered(start, answer)
        self._coming.discard(start)
        self._finished(start)
        self._start_what_is_needed()

    def _answered(self, start: Start, answer: Answer) -> None:
        if start.link is not None:
            # A hint: the lease is over when the link says so, or when it stays silent.
            if self._leases.get(start.link) is start:
                start.link.invocation_answered()
        elif answer.outcome is Outcome.THROTTLED:
            log.info("invocation.throttled", function=self.name, running=self.running)
            self._ceiling.refused(self.running)
        elif answer.outcome is not Outcome.ANSWERED or self._queue:  # else nobody needed it any more
            log.warning("invocation.failed", function=self.name, outcome=answer.outcome.value, detail=answer.detail)
            if start in self._coming:  # else its request has its answer already, or another start
                self._refuse_next(PROBLEM_OF_OUTCOME[answer.outcome])

    def _dial_back_late(self, start: Start) -> None:
        if start not in self._coming:
            return
        self._coming.discard(start)  # its lease would still be welcome
        log.warning("invocation.late", function=self.name, seconds=self.function.timeouts.dial_back)
        self._refuse_next(Problem("dial-back-timeout"))
        self._start_what_is_needed()
