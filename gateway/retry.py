"""What is tried again, how often, and when: exponential backoff with full jitter, within two budgets.

A request has a count and a time of its own; and all of a function's retries stay below a share of its requests, lest a
function that fails is asked several times as much as one that works (Finagle, "Retry Budgets"; gRPC A6, "Throttling
Retry Attempts and Hedged RPCs"; AWS, "Timeouts, retries, and backoff with jitter").
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Final

from gateway.config import RetryConfig
from gateway.errors import Problem
from gateway.exchange import Exchange
from gateway.invoke.answer import Outcome

FIRST_BACKOFF: Final = 0.1  # seconds: the most before the first retry, doubled for each further one
LONGEST_BACKOFF: Final = 2.0  # seconds
RESERVE: Final = 20.0  # retries that a function has before its requests have earned any, and at most
TRICKLE: Final = 1.0  # retries a second that need no requests: a function that is seldom asked would never earn one


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed invocation means to a request that waited for it.

    The request never ran: an invitation names a lease, not a request. So another invocation is safe after each of them;
    it is tried where it may fare better.
    """

    problem: Problem
    is_retried: bool = False


FAILURES: Final[dict[Outcome, Failure]] = {
    Outcome.ANSWERED: Failure(Problem("invoke-failed", "The function returned without dialling back."), True),
    Outcome.UNHEALTHY: Failure(Problem("unhealthy"), True),
    Outcome.REFUSED: Failure(Problem("invoke-failed", "The function refused the gateway's invitation.")),
    Outcome.FORBIDDEN: Failure(Problem("invoke-failed", "The gateway may not invoke the function.")),
    Outcome.FOREIGN: Failure(Problem("invoke-failed", "What was invoked is not a stream_handler.")),
    Outcome.ERROR: Failure(Problem("function-error"), True),
    Outcome.UNSIGNED: Failure(Problem("invoke-failed", "The gateway could not sign the invocation."), True),
    Outcome.DNS: Failure(Problem("invoke-failed"), True),
    Outcome.CONNECTION_REFUSED: Failure(Problem("invoke-failed"), True),
    Outcome.TLS: Failure(Problem("invoke-failed")),
    Outcome.TIMEOUT: Failure(Problem("invoke-failed"), True),
    Outcome.BROKEN: Failure(Problem("invoke-failed"), True),
    Outcome.UNREACHABLE: Failure(Problem("invoke-failed"), True),
}
"""All but THROTTLED, which is the ceiling's business: the request waits on."""
LINK_ENDED: Final = Failure(
    Problem("invoke-failed", "The function dialled back, and left before it took a request."), True
)
"""A dial, and the end of its session before the lease."""
LATE: Final = Failure(Problem("dial-back-timeout"))
"""No dial in time; the lease would still be welcome."""


def backoff(tried: int) -> float:
    """Seconds before the next try of what was tried again so often already, a random part of the most."""
    return random.uniform(0.0, min(FIRST_BACKOFF * 2**tried, LONGEST_BACKOFF))


class Retries:
    """Of one function; begins and ends with its pool."""

    def __init__(self, config: RetryConfig) -> None:
        self.granted = 0
        """Retries that were allowed."""
        self.denied = 0
        """Retries that the function's budget did not allow."""
        self._config = config
        self._tokens = RESERVE
        self._share = config.share / 100
        self._at = time.monotonic()

    def earn(self) -> None:
        """A request came."""
        if self._tokens < RESERVE:
            self._tokens += self._share

    def delay(self, exchange: Exchange, *, is_charged: bool = True) -> float | None:
        """Seconds until the exchange may be tried again, which then counts as tried; None: it may not.

        `is_charged`: to the function, which has had the work of the last try."""
        delay, now = backoff(exchange.retries), time.monotonic()
        if exchange.retries >= self._config.count or now + delay - exchange.began > self._config.time:
            return None
        exchange.retries += 1
        if not is_charged:
            return delay
        self._tokens = min(self._tokens + TRICKLE * (now - self._at), RESERVE)
        self._at = now
        if self._tokens < 1:
            self.denied += 1
            return None
        self._tokens -= 1
        self.granted += 1
        return delay
