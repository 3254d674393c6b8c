"""A function's invocations: each asks for a lease, on a link that is there already or is dialled in for it.

How many are wanted is the pool's to say; how many may be, the ceiling's and the breaker's. Knows no requests.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from gateway.bill import Bill
from gateway.breaker import Breaker
from gateway.ceiling import Ceiling
from gateway.config import FunctionConfig
from gateway.dialback import Link
from gateway.invitations import FIRST_PRESENTATION, Invitations, Issued
from gateway.invoke.answer import Answer, Invoker, Outcome
from gateway.retry import FAILURES, LATE, LINK_ENDED, Failure
from protocol.invitation import Keyring

log = structlog.get_logger("dialback.pool")

FINISH_PATIENCE: Final = 0.1  # seconds from the end of a lease to its invocation's answer, for which a request waits
UNWRAPPED: Final = (
    "it has never dialled back; if its own log shows no other cause: is its handler made by stream_handler, "
    "asgi_handler, wsgi_handler or streamify_response?"
)
#: What costs something.
RAN: Final = frozenset((Outcome.ANSWERED, Outcome.UNHEALTHY, Outcome.REFUSED, Outcome.FOREIGN, Outcome.ERROR))


@dataclass(eq=False, slots=True)
class Start:
    """One invocation and its lease; begins with the first and ends with the last of the two."""

    number: int
    """Counted from 1."""
    began: float
    """On the loop's clock."""
    issued: Issued[Start] | None = None
    link: Link | None = None
    """The link that its lease was offered on, from LEASE on."""
    is_leased: bool = False
    """Its lease is the link's present one."""
    is_kept: bool = False
    """It was told to stay awake, used or not."""
    is_shared: bool = False
    """Since it was last idle, a stream has begun while another went on."""
    is_ageing: bool = False
    """Its time is nearly up: another takes over."""
    is_retired: bool = False
    """No new stream goes to its environment."""
    is_listed: bool = False
    """It is among the `Places`."""
    counted_at: float = 0.0
    """Its lease is on the bill up to then, on the loop's clock."""
    ends_at: float = 0.0
    """Its lease, on the loop's clock."""
    idle_since: float | None = None
    """Leased and without a stream, or on the bill as such, on the loop's clock."""
    timer: asyncio.TimerHandle | None = None
    """Ages its lease, then retires it."""


class StartOwner(Protocol):
    """What the invocations tell their pool, and ask of it."""

    @property
    def next_request(self) -> str | None:
        """The id of a request that waits, for the log; None: none does."""

    def start_failed(self, failure: Failure, outcome: str, detail: str) -> None:
        """One led to no lease. `outcome` and `detail` are for the log."""

    def starts_changed(self) -> None:
        """There may be need or room for more."""


class Starts:
    """Of one pool; begins and ends with it. Owns the tasks that the invocations run in."""

    def __init__(
        self,
        function: FunctionConfig,
        keyring: Keyring,
        invoker: Invoker,
        invitations: Invitations[Start],
        bill: Bill,
        owner: StartOwner,
    ) -> None:
        self.outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        """Ended invocations, by what became of them."""
        self.ceiling = Ceiling(function.limits.max_invocations, function.limits.invocation_rate, owner.starts_changed)
        self.breaker = Breaker(function.name, function.breaker, owner.starts_changed)
        self.is_held = False
        """Nothing could run yet: what waits goes on waiting."""
        self._function = function
        self._keyring = keyring
        self._invoker = invoker
        self._invitations = invitations
        self._bill = bill
        self._owner = owner
        self._begun = 0
        self._has_worked = False  # a lease has come of one
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[Start] = set()  # invocations that were not answered
        self._coming: set[Start] = set()  # those of them whose lease is expected
        self._finishing: dict[Start, asyncio.TimerHandle] = {}  # those whose environment is about to be free

    @property
    def running(self) -> int:
        """Invocations that were not answered yet."""
        return len(self._running)

    @property
    def coming(self) -> int:
        """Those of them whose lease is expected."""
        return len(self._coming)

    @property
    def on_their_way(self) -> int:
        """Environments that will be there, without another invocation or with one that is warm."""
        return len(self._coming) + len(self._finishing)

    def begin(self, number: int) -> None:
        """Start so many, as far as the ceiling and the breaker have room for them."""
        if self.is_held:
            return
        room = min(number, self.ceiling.room(len(self._running)), self.breaker.room(len(self._coming)))
        for _ in range(int(room)):
            self._begun += 1
            start = Start(self._begun, asyncio.get_running_loop().time())
            self._running.add(start)
            self._coming.add(start)
            self.ceiling.started()
            task = asyncio.create_task(self._invoke(start), name=f"invocation of {self._function.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def offered(self, start: Start, link: Link) -> float:
        """Its lease came, wanted or not; after how many seconds."""
        start.link = link
        self._has_worked = True
        self._coming.discard(start)
        self.breaker.succeeded()
        return asyncio.get_running_loop().time() - start.began

    def session_ended(self, session: bytes, reason: str) -> None:
        """No lease comes of what it had presented: an invitation is its first session's for ever."""
        for start in [start for start in self._coming if start.issued is not None and start.issued.owner == session]:
            self._coming.discard(start)
            self._failed(LINK_ENDED, "link-ended", f"it dialled back, but its link ended before its lease: {reason}")

    def finishes(self, start: Start) -> None:
        """Its environment is about to be free: an invocation in this moment would start another, and cold."""
        if start in self._running and start not in self._finishing:
            loop = asyncio.get_running_loop()
            self._finishing[start] = loop.call_later(FINISH_PATIENCE, self._finished, start)

    def retire(self) -> None:
        """What comes of those that are on their way serves nobody; the code behind them has changed, so that what
        failed may work now."""
        for start in self._coming:
            start.is_retired = True
        self._coming.clear()
        self.breaker.reset()

    async def stop(self) -> None:
        """End all. Idempotent."""
        self._coming.clear()
        self.ceiling.close()
        self.breaker.close()
        for timer in self._finishing.values():
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._invoker.close()

    # inside

    async def _invoke(self, start: Start) -> None:
        """The task of one invocation."""
        timeout = self._function.timeouts.dial_back
        timer = asyncio.get_running_loop().call_later(timeout, self._dial_back_late, start)
        try:
            token, start.issued = self._invitations.issue(
                self._function.name, self._keyring, start, max(timeout, FIRST_PRESENTATION)
            )
            answer = await self._invoker.invoke(token)
        except Exception as error:
            log.exception("invocation.mistake", function=self._function.name)
            answer = Answer(Outcome.UNREACHABLE, type(error).__name__)
        finally:
            timer.cancel()
            if start.issued is not None:
                self._invitations.withdraw(start.issued)
        # All in one step, lest two that are answered at once count each other.
        self._running.discard(start)
        self.outcomes[answer.outcome] += 1
        if answer.outcome in RAN:
            self._bill.invocation(answer.awake or asyncio.get_running_loop().time() - start.began)
        is_expected = start in self._coming
        self._coming.discard(start)
        self._answered(start, answer, is_expected)
        self._finished(start)
        self._owner.starts_changed()

    def _answered(self, start: Start, answer: Answer, is_expected: bool) -> None:
        if start.link is not None:
            # A hint: the lease is over when the link says so, or when it stays silent.
            if start.is_leased:
                start.link.invocation_answered()
        elif answer.outcome is Outcome.THROTTLED:
            name, request = self._function.name, self._owner.next_request
            log.info("invocation.throttled", function=name, running=self.running, detail=answer.detail, request=request)
            self.ceiling.refused(self.running, answer.retry_after)
        elif is_expected:
            self._failed(FAILURES[answer.outcome], answer.outcome.value, answer.detail)
            if answer.outcome is Outcome.ERROR and self.outcomes[Outcome.ERROR] == 1 and not self._has_worked:
                log.warning("invocation.hint", function=self._function.name, hint=UNWRAPPED)
        elif answer.outcome is not Outcome.ANSWERED:  # it was late or retired: nobody waits for this one
            name = self._function.name
            log.warning("invocation.failed", function=name, outcome=answer.outcome.value, detail=answer.detail)

    def _failed(self, failure: Failure, outcome: str, detail: str) -> None:
        self.breaker.failed()
        self._owner.start_failed(failure, outcome, detail)

    def _finished(self, start: Start) -> None:
        timer = self._finishing.pop(start, None)
        if timer is not None:
            timer.cancel()
            self._owner.starts_changed()

    def _dial_back_late(self, start: Start) -> None:
        if start not in self._coming:
            return
        self._coming.discard(start)  # its lease would still be welcome
        has_dialled = start.issued is not None and start.issued.owner is not None
        missed = "dialled back, but offered no lease" if has_dialled else "did not dial back"
        self._failed(LATE, "late", f"it {missed} in {self._function.timeouts.dial_back:g} s")
        self._owner.starts_changed()
