"""One execution environment: its event loop, its links, what `lifespan=` yielded; and what one invocation does.

Begins with the first invocation (nothing random and nothing like a socket before), ends with the process. The loop runs
only while an invocation does: between two of them the environment is frozen, and so is everything here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from lambda_client.event import invitation_in
from lambda_client.link import Dialler, Link, Outcome
from lambda_client.plain import Handler
from lambda_client.response import encode_json
from lambda_client.stream import LambdaContext, Refused
from lambda_client.trust import Admitted, Trust
from lambda_client.watchdog import Watchdog
from lambda_client.wire import errors

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future, ThreadPoolExecutor

    from lambda_client.dial import Listener, Socket
    from lambda_client.trust import Endpoint

LOG = logging.getLogger("dialback")
UNWELL = "`healthy` says no: the environment takes no more requests, and ends"

MAX_LINKS = 4  # gateway nodes whose sockets are kept; the least recently used goes
DEADLINE_MARGIN = 1.0  # seconds before the platform's deadline in which code is stopped and the link parked
DEADLINE_SHARE = 0.25  # of the time that an invocation has: the most that the margin may take

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
_T = TypeVar("_T")


async def _dial(endpoint: Endpoint, headers: list[tuple[str, str]], listener: Listener) -> Socket:
    from lambda_client.dial import dial  # brings websockets, which a buffered answer does not need

    return await dial(endpoint, headers, listener)


class Environment:
    """See the module."""

    def __init__(
        self,
        handler: Handler,
        concurrency: int,
        lifespan: Lifespan | None,
        variables: Mapping[str, str],
        healthy: Callable[[], bool] | None = None,
        dialler: Dialler = _dial,
    ) -> None:
        self.state: Any = None
        self.is_unhealthy = False  # for good
        self.loop = asyncio.new_event_loop()
        self._handler = handler
        self._concurrency = concurrency
        self._lifespan = lifespan
        self._healthy = healthy
        self._entered: AbstractAsyncContextManager[Any] | None = None
        self._trust = Trust(variables)
        self._watchdog = Watchdog(self.loop, variables.get("DIALBACK_BLOCKED_LOOP", "1"))
        self._dialler = dialler
        self._links: OrderedDict[str, Link] = OrderedDict()
        self._executor: ThreadPoolExecutor | None = None
        self._left: list[Future[None]] = []  # what threads that were left behind run on with

    def invoke(self, event: Any, context: LambdaContext) -> Any:
        """One invocation, on the calling thread; what it returns to the platform. Raises what buffered code raises."""
        began = time.monotonic()
        try:
            token = invitation_in(event)
            admitted = None if token is None else self._trust.admit(token, time.time())
        except errors.InvitationRefused as refusal:
            LOG.warning("an invitation was refused: %s", refusal.reason)
            return _refusal("invitation-refused", "The invitation was refused", refusal.reason)
        if admitted is None and self._trust.only_dialback:
            return _refusal("dialback-only", "This function answers through its gateway alone", "DIALBACK_ONLY is set")
        self._check_threads()
        self._enter()
        if admitted is None:
            return self._handler.answer(event, context, self)
        lease = text = None
        if self._is_healthy():
            lease, text, _ = self.run(self._dial_back(admitted, context))
        awake = ceil((time.monotonic() - began) * 1000)
        outcome = "unhealthy" if self.is_unhealthy else text
        return {"dialback": 1, "lease": lease, "outcome": outcome, "awake": awake}

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(coroutine)

    def executor(self) -> Executor:
        """Threads for code that blocks, as many as there are places; started when they are first needed."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(self._concurrency, thread_name_prefix="dialback")
        return self._executor

    def leave_thread(self, job: Future[None]) -> None:
        """The thread that runs `job` was left behind: the ones to come are not to wait for it."""
        self._left = [one for one in (*self._left, job) if not one.done()]
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def _check_threads(self) -> None:
        """Code that does not stop keeps its thread. Where it keeps more of them than there are places the process ends,
        and the platform starts a fresh one, as it does after a timeout. An orderly exit would wait for those threads.
        """
        running = sum(not job.done() for job in self._left)
        if running > self._concurrency:
            LOG.critical("%d threads are left whose code did not stop; the environment ends", running)
            sys.stdout.flush()
            os._exit(1)

    def _is_healthy(self) -> bool:
        """Ask `healthy=` until it says no."""
        if not self.is_unhealthy:
            try:
                if self._healthy is None or self._healthy():
                    return True
                LOG.error(UNWELL)
            except Exception:  # unnamed: frames would keep `LastAnswer`
                LOG.exception(UNWELL)
            self.is_unhealthy = True
        return False

    def _enter(self) -> None:
        """`lifespan=`, once; one that fails is tried again at the next invocation."""
        if self._lifespan is not None and self._entered is None:
            manager = self._lifespan()
            self.state = self.run(manager.__aenter__())
            self._entered = manager

    async def _dial_back(self, admitted: Admitted, context: LambdaContext) -> Outcome:
        """Lease the kept link to the invitation's node, or a new one where there is none or it is dead."""
        limit = context.get_remaining_time_in_millis() / 1000
        deadline = self.loop.time() + limit - min(DEADLINE_MARGIN, limit * DEADLINE_SHARE)
        boot = admitted.invitation.boot
        kept = self._links.pop(boot, None)
        if kept is not None and await kept.check():
            outcome = await kept.lease(admitted, self._concurrency, deadline - self.loop.time(), context)
            if outcome.was_answered or self.loop.time() >= deadline:
                self._keep(boot, kept)
                return outcome
        if kept is not None:
            kept.close("the socket did not survive")
        link = Link(admitted, os.urandom(16), self._dialler, self._serve)
        outcome = await link.lease(admitted, self._concurrency, deadline - self.loop.time(), context)
        self._keep(boot, link)
        return outcome

    def _keep(self, boot: str, link: Link) -> None:
        if link.session.is_ended:
            return
        self._links[boot] = link
        while len(self._links) > MAX_LINKS:
            _, oldest = self._links.popitem(last=False)
            oldest.close("other nodes were used since")

    async def _serve(self, stream: Any) -> None:
        stream.code = self._handler.fn
        self._watchdog.begin(stream)
        try:
            if not self._is_healthy():
                raise Refused
            await self._handler.serve(stream, self)
        finally:
            self._watchdog.end(stream)


def _refusal(kind: str, title: str, detail: str) -> dict[str, Any]:
    """A 403 with a problem document (RFC 9457)."""
    problem = {"type": f"urn:dialback:{kind}", "title": title, "status": 403, "detail": detail}
    return {
        "statusCode": 403,
        "headers": {"content-type": "application/problem+json"},
        "body": encode_json(problem).decode(),
        "isBase64Encoded": False,
    }
