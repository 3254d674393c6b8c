"""A function's links, leases and queue: a request takes a free place on a leased link, or waits for an invocation.

Whichever comes first, a place that frees up or a new lease, takes the request at the head of the queue. Knows no HTTP
and no WebSocket: it sees exchanges, links and an invoker.
"""

from __future__ import annotations

import asyncio

import structlog

from gateway.alarm import Alarm
from gateway.bill import Bill
from gateway.bonds import Bonds
from gateway.breaker import Circuit
from gateway.config import FunctionConfig
from gateway.dialback import Link
from gateway.errors import GivenBack, PoolRefusal, Problem
from gateway.exchange import Exchange
from gateway.forecast import Forecast
from gateway.invitations import Invitations
from gateway.invoke.answer import Invoker
from gateway.leases import Leases
from gateway.places import Places
from gateway.queue import Queue, Waiter
from gateway.retry import Failure, Retries, backoff
from gateway.rooms import Rooms
from gateway.starts import Start, Starts
from protocol import events as ev
from protocol.errors import DialRefused, LocalError
from protocol.invitation import Keyring

log = structlog.get_logger("dialback.pool")


class Pool:
    """One function's. Begins and ends with the gateway; owns the tasks that its invocations run in."""

    def __init__(
        self, function: FunctionConfig, keyring: Keyring, invoker: Invoker, invitations: Invitations[Start]
    ) -> None:
        self.function = function
        self._loop = asyncio.get_running_loop()
        self.bill = Bill()
        self.starts = Starts(function, keyring, invoker, invitations, self.bill, self)
        self.retries = Retries(function.retry)
        self.forecast = Forecast()
        self.bonds = Bonds()
        self._keyring = keyring
        self._invitations = invitations
        self._leases = Leases(self.bill, function.lease_share / 100, self.starts_changed, self._retire)
        self._parked: dict[Link, float] = {}  # whose environments are frozen, and may be thawed; since when
        self._places = Places()
        self._queue = Queue(self.starts_changed)
        self._rooms = Rooms(self.starts_changed)
        self._alarm = Alarm(self.starts_changed)  # for what waits for a place that was expected sooner than a start
        self._lingers = 0.0  # seconds, as the last lease
        self._failures = 0  # since the last lease
        self._rests_until = 0.0  # on the loop's clock: no environment is started that nobody waits for
        self._is_draining = self._is_stopped = False

    # what can be seen of it

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def leased_links(self) -> int:
        return len(self._leases)

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._queue) + len(self._rooms)

    @property
    def next_request(self) -> str | None:
        return waiter.exchange.id.hex() if (waiter := self._least_tried()) is not None else None

    @property
    def open_streams(self) -> int:
        return self._leases.streams

    def settle(self) -> Bill:
        """The bill, up to now."""
        self._leases.settle()
        return self.bill

    # for ingress

    def open_now(self, exchange: Exchange, *, is_new: bool = True) -> bool:
        """Give the exchange a free place, if there is one. Raises `PoolRefusal`."""
        if is_new:
            self.retries.earn()
        if self._is_stopped:
            raise PoolRefusal(Problem("draining"))
        link = self._place(exchange)
        if link is not None and (self._queue or self._rooms):
            self._serve(link)  # those who were here before
            link = self._place(exchange)
        if link is not None:
            self._open_on(link, exchange)
        return link is not None

    async def open(self, exchange: Exchange) -> None:
        """Return when the exchange, for which there was no place, has its stream. Raises `PoolRefusal` when it gets
        none. To be cancelled when its client has left. Called again when the stream was given back."""
        if exchange.given_back is not None:
            await self._try_again(exchange, exchange.given_back)
        if self.open_now(exchange, is_new=False):
            return
        bound = self.bonds.link(exchange)
        if self.waiting >= self.function.limits.max_queue:
            raise PoolRefusal(Problem("overloaded"))
        if self._is_hopeless(self.waiting):
            raise PoolRefusal(self.starts.breaker.problem)
        waiter = (self._queue if bound is None else self._rooms.queue(bound)).add(exchange)
        exchange.queued()
        self.starts_changed()
        if self.starts.coming:
            exchange.invoking()
        timer = self._loop.call_later(self.function.timeouts.queue_wait, self._waited_too_long, waiter)
        try:
            await waiter.place
        finally:
            timer.cancel()
            waiter.leave()

    # for links

    def lease_offered(self, link: Link, offer: ev.LeaseOffered) -> None:
        """Its invitation is checked and consumed; what waits is opened before LEASED."""
        self._leases.end(link)
        try:
            if offer.places < 1:
                raise DialRefused("used")
            issued = self._invitations.consume(offer.invitation, {self.name: self._keyring}, link.session.id)
        except DialRefused as refused:
            log.warning("lease.refused", function=self.name, reason=refused.reason)
            link.decline(offer.lease)
            return
        start = issued.start
        self._failures, self._rests_until = 0, 0.0
        self.forecast.leased(self.starts.offered(start, link), offer.places, is_new := link not in self._parked)
        self._lingers = self.function.lingers(offer.places)
        self._parked.pop(link, None)
        for gone in self._rooms.came(link, start.began, is_new):
            self._unbind(gone)
        if not (link.open_streams or self._is_wanted(start, link)):
            self.starts.finishes(start)
            self._parked[link] = self._loop.time()
            link.decline(offer.lease)
            return
        start.is_kept = self._needed_to_keep() > 0
        self._leases.begin(link, start, offer.remaining, self.forecast.start(is_warm=False) or 0.0)
        self.place_freed(link)
        link.grant(offer.lease, self._linger(link, start, offer.remaining))
        if (aged := self._leases.oldest_ageing) is not None:
            self._retire(aged)
        self.starts_changed()  # what is expected of the others has changed

    def place_freed(self, link: Link) -> None:
        """The head of the queue gets what is free."""
        if (start := self._leases.get(link)) is None or not link.can_open:
            return
        if self._queue or self._rooms:
            self._serve(link)
        if start.is_retired:
            if not link.open_streams:
                self.starts.finishes(start)
        elif not start.is_listed and link.can_open:
            self._places.add(start)

    def stream_ended(self, link: Link, exchange: Exchange, seconds: float) -> None:
        self.forecast.stream_ended(seconds)
        self.bonds.ended(exchange, link)
        self.place_freed(link)
        if (start := self._leases.get(link)) is not None and not link.open_streams:
            start.idle_since = self._loop.time()

    def link_parked(self, link: Link) -> None:
        if (start := self._leases.end(link)) is not None:
            self.starts.finishes(start)
        self._parked[link] = self._loop.time()
        self.starts_changed()

    def link_ended(self, link: Link, reason: str) -> None:
        self._leases.end(link)
        self._parked.pop(link, None)
        self._unbind(link)
        self.starts.session_ended(link.session.id, reason)
        self.starts_changed()

    def stream_refused(self, link: Link) -> None:
        """The function is unwell: what it would refuse goes elsewhere."""
        if (start := self._leases.get(link)) is not None and not start.is_retired:
            log.warning("lease.unhealthy", function=self.name, session=link.session.id.hex())
            self._retire(link)

    # for the invocations

    def start_failed(self, failure: Failure, outcome: str, detail: str) -> None:
        """One request has waited in vain, and is tried again or refused."""
        self._failures += 1
        self._rests_until = self._loop.time() + backoff(self._failures)
        said = {"function": self.name, "outcome": outcome, "detail": detail}
        if (waiter := self._least_tried()) is None:
            log.warning("invocation.failed", **said)
            return
        is_final = not failure.is_retried or self.starts.breaker.is_open
        delay = None if is_final else self.retries.delay(waiter.exchange)
        log.warning("invocation.failed", **said, request=waiter.exchange.id.hex(), retry_in=delay)
        if delay is None:
            waiter.refuse(failure.problem)
        else:
            waiter.queue.rest(waiter, delay)

    def starts_changed(self) -> None:
        """Start as many invocations as are needed beyond those that are on their way."""
        if self._is_stopped:
            return
        if (self._queue or self._rooms) and self._is_hopeless():
            self._queue.refuse_all(self.starts.breaker.problem)
            self._rooms.refuse(self.starts.breaker.problem, sought=True)
        needed = max(self._needed_by_queue() if self._queue else 0, self._needed_to_keep())
        if self._leases and self.forecast.may_wait and not self._is_draining:
            environments = self.forecast.environments(self._leases.streams)
            warm = max(0, len(self._parked) - self.starts.coming)
            needed += self._leases.to_renew(environments, warm, is_steady=self._is_steady)
        if self._rooms:
            needed += self._rooms.needed(self._parked)
        if (missing := needed - self.starts.on_their_way - self._queue.resting) > 0:
            self.starts.begin(missing)

    # for the server

    def retire_links(self) -> None:
        """No new stream goes to the environments of now; they park when their streams have ended."""
        self.starts.retire()
        self.starts_changed()
        for link in list(self._leases):
            link.is_outdated = True
            self._retire(link)
        for link in (*self._leases, *self._parked):
            self._unbind(link)

    def drain(self) -> None:
        """Keep no environment awake that nobody waits for. What waits is still served. Idempotent."""
        self._is_draining = True
        for link in list(self._leases):
            link.release()

    async def stop(self) -> None:
        """End what waits and what runs; the links are ended by who keeps them. Idempotent."""
        self._is_stopped = self._is_draining = True
        self._queue.refuse_all(Problem("draining"))
        self._rooms.refuse(Problem("draining"))
        self._alarm.cancel()
        await self.starts.stop()

    # places

    def _serve(self, link: Link) -> None:
        """Give the link's free places to those who can go nowhere else, then to the head of the queue."""
        while link.can_open and (waiter := self._next(link)) is not None:
            waiter.leave()
            bound = self.bonds.link(waiter.exchange) or link  # perhaps since it waits
            if bound is not link and not self._leases.takes(bound):
                self._rooms.queue(bound).enter((waiter,))
                self._alarm.within(0.0)  # it may be frozen by now
                continue
            try:
                self._open_on(bound, waiter.exchange)
            except PoolRefusal as refusal:
                waiter.refuse(refusal.problem)
            else:
                waiter.place.set_result(None)

    def _place(self, exchange: Exchange) -> Link | None:
        """Where it can go now."""
        if exchange.tie is None:
            return self._places.first()
        if (bound := self.bonds.link(exchange)) is not None:
            return bound if self._leases.takes(bound) else None
        return self._leases.first(self._has_room_for_newcomers)

    def _has_room_for_newcomers(self, link: Link, freed: int = 0) -> bool:
        return link.open_streams - freed < self.forecast.newcomers(self.bonds.on(link))

    def _next(self, link: Link) -> Waiter | None:
        if self._rooms and self._leases.takes(link) and (waiter := self._rooms.pop(link)) is not None:
            return waiter
        head = None if self._leases[link].is_retired else self._queue.head
        is_newcomer = head is not None and head.exchange.tie is not None
        return None if is_newcomer and not self._has_room_for_newcomers(link) else head

    def _least_tried(self) -> Waiter | None:
        return self._queue.least_tried() or self._rooms.least_tried()

    def _unbind(self, link: Link) -> None:
        """Whatever it was wanted for, another environment must do."""
        self.bonds.lose(link)
        self._queue.enter(self._rooms.empty(link), first=True)
        for free in list(self._leases):
            self._serve(free)

    def _open_on(self, link: Link, exchange: Exchange) -> None:
        start = self._leases[link]
        if start.idle_since is not None:
            self._leases.busy(start)
        else:
            start.is_shared = True
        if start.is_ageing:
            self._alarm.within(0.0)  # for its successor
        try:
            link.open(exchange)
            self.bill.streams += 1
            self.forecast.stream_begun(self._loop.time(), self._lingers)
            self.bonds.opened(exchange, link)
        except LocalError as error:  # there was a place, so its head is too large
            log.warning("stream.not_opened", function=self.name, error=str(error))
            raise PoolRefusal(Problem("header-too-large")) from None

    def _waited_too_long(self, waiter: Waiter) -> None:
        is_throttled = self.starts.ceiling.is_lowered and not self._leases
        waiter.refuse(Problem("invoke-throttled" if is_throttled else "queue-timeout"))

    async def _try_again(self, exchange: Exchange, why: GivenBack) -> None:
        """Wait before another stream for one that was given back. Raises `PoolRefusal` when it has had enough."""
        delay = None if self._is_stopped else self.retries.delay(exchange, is_charged=why.was_sent)
        if delay is None:
            raise PoolRefusal(why.problem)
        self.bonds.untie(exchange)
        log.info("request.retried", function=self.name, request=exchange.id.hex(), why=why.problem.name, retry_in=delay)
        await asyncio.sleep(delay)

    def _is_hopeless(self, waiting: int = 0) -> bool:
        """No environment will take what waits: the circuit is open, or its one trial serves those who came before."""
        breaker = self.starts.breaker
        if breaker.circuit is Circuit.CLOSED or not self._leases.are_all_retired:
            return False
        if self.starts.coming:
            return breaker.circuit is Circuit.HALF_OPEN and waiting >= (self.forecast.places or 1)
        return breaker.is_open

    # invocations

    def _needed_by_queue(self) -> int:
        """For those who wait; and look again when one has waited for a warm place as long as a start takes."""
        if not self.forecast.may_wait:
            return self.forecast.starts(len(self._queue))
        start = self.forecast.start(is_warm=len(self._parked) > self.starts.coming)
        overdue, later = (0, None) if start is None else self._queue.overdue(start)
        if later is not None:
            self._alarm.within(later)
        tie = waiter.exchange.tie if (waiter := self._queue.head) is not None else None
        busy = self._leases.places_taken(lambda link: tie is None or self._has_room_for_newcomers(link, freed=1))
        return self.forecast.starts(len(self._queue), overdue, busy, start, are_bound=bool(tie and tie.value))

    def _needed_to_keep(self) -> int:
        """For `min_leased`."""
        if not self.function.min_leased or self._is_draining:
            return 0
        rest = self._rests_until - self._loop.time()
        if rest > 0:
            self._alarm.within(rest)
            return 0
        return self.function.min_leased - self._leases.kept

    # leases

    @property
    def _is_steady(self) -> bool:
        return self.forecast.is_steady(self._loop.time(), self._lingers)

    def _is_wanted(self, start: Start, link: Link) -> bool:
        if self._is_stopped or start.is_retired:
            return False
        if self._queue or self._rooms.is_wanted(link) or self._needed_to_keep() > 0:
            return True
        is_of_use = self._is_steady or self._places.first() is None
        return is_of_use and self._lingers > 0 and not self._is_draining

    def _linger(self, link: Link, start: Start, remaining: float) -> float:
        """Seconds that it stays awake without a stream."""
        if self._is_draining:
            return 0.0
        return remaining if start.is_kept else self._rooms.linger(link, self._lingers)

    def _retire(self, link: Link) -> None:
        """New streams go elsewhere; it parks when those that it has are over."""
        start = self._leases[link]
        start.is_retired = True
        link.release()
        if not link.open_streams:
            self.starts.finishes(start)
        self.starts_changed()
