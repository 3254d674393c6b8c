"""The function's environment of a simulation: one process, frozen between invocations together with its network."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from protocol import events as ev
from protocol.dial import CLOSE_NORMAL, Dial, Limits
from protocol.flow import SESSION_BUDGET, Budget
from protocol.function_session import FunctionSession
from protocol.invitation import session_key
from tests.protocol.simulated_link import NONCE, SECRET, Link, Watcher
from tests.protocol.traffic import HandlerCode, Plan
from tests.protocol.virtual_network import Clock, End, Host, Timer

DIAL_TIMEOUT: Final = 2.0  # seconds to WELCOME


class Environment(Link):
    """One process of a function, the world's `number`th. It has one link, or none."""

    session: FunctionSession

    def __init__(
        self,
        clock: Clock,
        chance: Random,
        watcher: Watcher,
        plans: dict[bytes, Plan],
        limits: Limits,
        windows: int = SESSION_BUDGET,
        number: int = 0,
    ) -> None:
        """`windows`: bytes of each session's budget."""
        self.limits = limits
        self.windows = windows
        self.number = number
        self.data_size = 1024
        self.places = 4
        self.withdrawn: set[int] = set()  # exchanges that the gateway gave up before it sent them
        self.lifetime = 900.0  # seconds that an invocation may last
        self.host = Host()
        self.plans = plans
        self.handlers: dict[int, HandlerCode] = {}
        self.invocations: dict[int, Callable[[str], None]] = {}  # by their leases
        self.linger = 0.0
        self.is_released = False
        self.dial_out: Callable[[Dial, Environment], None]
        self._token = ""
        self._sessions = 0
        self._redial: Timer | None = None
        self._is_welcomed = False
        super().__init__(self._new_session("none"), clock, chance, watcher, "function")
        self.session.end("there was none")
        self.session.pending_events()
        self.host.is_frozen = True

    def _new_session(self, token: str) -> FunctionSession:
        self._sessions += 1
        identity = self.number.to_bytes(8, "big") + self._sessions.to_bytes(8, "big")
        key = session_key(SECRET, NONCE, identity)
        budget = Budget(self.windows)
        return FunctionSession(identity, key, token, self.limits, data_size=self.data_size, budget=budget)

    # Invocations

    def invoked(self, token: str, answer: Callable[[str], None]) -> None:
        """Thaw, and offer a lease. Also while another invocation runs."""
        self._token = token
        self.host.thaw()
        if self.session.is_ended:
            self.session = self._new_session(token)
            self._offer(token, answer)
            self._dial()
        else:
            self._offer(token, answer)
            self.flush()

    def _offer(self, token: str, answer: Callable[[str], None]) -> None:
        lease = self.session.offer_lease(token, self.places, self.lifetime, self.clock.now)
        self.is_released = False
        self.invocations[lease] = answer
        self.watcher.note("function", "offers", lease, token)

    def _return(self, outcome: str) -> None:
        """Every invocation is over: the environment is frozen."""
        assert not self.session.open_streams, "frozen with open streams"
        if self.end is not None:
            kinds = self.end.on_its_way | self.end.other.on_its_way
            assert kinds <= {2, "ping", "pong"}, f"frozen with frames on their way: {kinds}"
        answers, self.invocations = self.invocations, {}
        self.handlers.clear()
        if self._redial is not None:
            self._redial.cancel()
        self.watcher.note("function", "returns", outcome)
        self.host.is_frozen = True
        for answer in answers.values():
            answer(outcome)

    def kill(self) -> None:
        """The platform ends the process: its sockets close by themselves, its sessions are gone."""
        self.close(None)
        self.session.end("killed")
        self.session.pending_events()
        self.arm()
        self._return("killed")

    # Dialling

    def _dial(self) -> None:
        self._redial = None
        if self.session.is_ended:
            return
        dial = self.session.dial(self.clock.now)
        self._is_welcomed = False
        self.watcher.note("function", dial)
        self.dial_out(dial, self)
        end = self.end
        self._redial = self.clock.call_later(DIAL_TIMEOUT, lambda: self._dial_late(end))

    def _dial_late(self, end: End | None) -> None:
        if not self._is_welcomed and end is self.end and end is not None:
            self.give_up_socket()

    def refused(self, end: End, reason: str) -> None:
        if end is self.end:
            self.watcher.note("function", "refused", reason)
            self.end = None
            self.dispatch(self.session.end(f"refused: {reason}"))

    def lost(self, end: End, code: int | None) -> None:
        if end is self.end:
            super().lost(end, code)
            self._go_on()

    def give_up_socket(self) -> None:
        super().give_up_socket()
        self._go_on()

    def _go_on(self) -> None:
        if not self.session.is_ended and self.end is None:
            if self._redial is not None:
                self._redial.cancel()
            self._redial = self.clock.call_later(self._chance.random() * 0.1, self._dial)
            self.arm()

    # Events

    def handle(self, event: ev.Event) -> None:
        match event:
            case ev.Welcomed():
                self._is_welcomed = True
            case ev.LeaseGranted(linger=linger):
                self.linger = linger
                self._park_later()
            case ev.LeaseReleased():
                self.is_released = True
                self._park_later()
            case ev.Parked():
                self._return("parked")
            case ev.SocketDead():
                self.give_up_socket()
            case ev.SessionEnded(reason=reason):
                self._ended(reason)
            case ev.StreamOpened(stream=stream, request=request):
                plan = self.plans[request.exchange]
                assert plan.number not in self.withdrawn, "a request that was withdrawn is served"
                handler = HandlerCode(plan, self, self.session, stream, request.options)
                self.handlers[stream] = handler
                handler.begin()
            case ev.StreamClosed(stream=stream):
                del self.handlers[stream]
                self._park_later()
            case _:
                self.handlers[event.stream].handle(event)  # type: ignore[union-attr]

    def _ended(self, reason: str) -> None:
        self.watcher.ended(reason)
        self.close(CLOSE_NORMAL)
        self.handlers.clear()
        if reason == "the recycled socket is dead":
            self.session = self._new_session(self._token)
            *replaced, answer = self.invocations.values()
            self.invocations.clear()
            for answer_earlier in replaced:
                answer_earlier("replaced")
            self._offer(self._token, answer)
            self._dial()
        elif self.invocations:  # else it is only now, in the thaw, that the loss of a parked link is noticed
            self._return(reason)

    def _park_later(self) -> None:
        session, lease, wait = self.session, self.session.lease, 0.0 if self.is_released else self.linger

        def park() -> None:
            if session is self.session and lease == session.lease and session.can_park:
                session.park(self.clock.now)
                self.flush()

        if wait:
            self.clock.call_later(wait, park)
        else:
            park()
