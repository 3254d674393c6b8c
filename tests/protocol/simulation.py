"""Sessions on a virtual network and a virtual clock: scenarios, and what must hold in every run of one.

`run(Scenario.of(seed))` raises `AssertionError` with the end of what happened.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from protocol.dial import Dial, Limits
from protocol.flow import SESSION_BUDGET, Budget
from protocol.gateway_session import SessionOptions
from protocol.ledger import MAX_UNACKED_BYTES, MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES, OWN_SHARE
from protocol.session import Session
from tests.protocol.simulated_environment import Environment
from tests.protocol.simulated_gateway import Gateway
from tests.protocol.simulated_link import Watcher
from tests.protocol.traffic import ClientCode, Direction, Plan
from tests.protocol.virtual_network import Clock, Profile, Socket

LIMIT = 600.0  # virtual seconds in which every run must be over
MAX_EVENTS = 200_000  # … and events, against a loop that moves no time
CONTROL_SLACK = 64 << 10  # bytes of control frames that a session may keep at once here
TRACE = 4000  # things that happened, in the report of a failure


@dataclass(frozen=True)
class Scenario:
    """What happens in a run; `seed` decides the rest. Small numbers are simple scenarios."""

    seed: int = 0
    requests: int = 3
    spread: float = 0.0  # seconds over which the requests come
    places: int = 4
    environments: int = 1  # of the function, each with its own link to the gateway
    cuts: int = 0
    is_harsh: bool = False  # cuts that nobody notices, long outages, dials that hang, answers that come early
    early_answers: bool = False  # invoke connections that break while the lease goes on
    latency: float = 0.005
    jitter: float = 0.0
    bandwidth: float = 1e9
    buffer: int = 1 << 18
    parts: float = 0.0
    laziness: float = 0.0
    budget: int = 1 << 20
    linger: float = 0.0
    second_leases: bool = False
    declines: float = 0.0
    leaves: float = 0.0  # the share of dials whose LEASE the gateway leaves, so that it is replayed
    releases: int = 0  # the gateway asks for an early end of its leases
    credit: int = 4096
    data_size: int = 1024
    unacked: int = MIN_UNACKED_BYTES
    function_unacked: int = MIN_UNACKED_BYTES
    session_windows: int = SESSION_BUDGET  # bytes by which a session's windows may be wider, on either side
    windows: int = SESSION_BUDGET  # … all of the gateway's
    replay: int = SESSION_BUDGET  # bytes that the gateway's sessions may keep beside what is their own
    frames: int = MIN_UNACKED_FRAMES
    chunks: int = 6  # of a body, at most
    chunk: int = 3000  # bytes, at most
    oddities: float = 0.3  # the share of exchanges with cancellations, resets, stops, trailers and the like
    websockets: float = 0.1
    pauses: float = 0.2  # the share of slow consumers

    @classmethod
    def of(cls, seed: int) -> Scenario:
        """A scenario of everything."""
        pick = Random(seed)
        is_harsh = pick.random() < 0.3
        is_crowded = pick.random() < 0.1
        cuts = pick.choice((0, 1, 2, 4, 8))
        scenario = cls(
            seed=seed,
            requests=30 if is_crowded else pick.randint(1, 12),
            spread=0.0 if is_crowded else pick.choice((0.0, 0.1, 1.0, 5.0)),
            places=30 if is_crowded else pick.choice((1, 2, 4, 16)),
            cuts=cuts,
            is_harsh=is_harsh,
            early_answers=not cuts and not is_harsh and pick.random() < 0.5,
            latency=pick.choice((0.0, 0.001, 0.005, 0.03, 0.1)),
            jitter=pick.choice((0.0, 0.0, 0.02)),
            bandwidth=pick.choice((1e9, 1e9, 1e6, 1e5, 2e4)),
            buffer=pick.choice((1 << 18, 1 << 14, 2000)),
            parts=pick.choice((0.0, 1.0, 1.0)),
            laziness=pick.choice((0.0, 0.3)),
            budget=pick.choice((1 << 20, 5000, 500, 1)),
            linger=pick.choice((0.0, 0.0, 0.002, 0.05, 0.5)),
            second_leases=pick.random() < 0.3,
            declines=pick.choice((0.0, 0.0, 0.2)),
            releases=pick.choice((0, 0, 3)),
            credit=pick.choice((1, 100, 4096, 65536)) if pick.random() < 0.5 else 4096,
            data_size=pick.choice((64, 500, 1024, 5000)),
            frames=pick.choice((MIN_UNACKED_FRAMES, 8192)),
            chunks=pick.choice((1, 6, 20)),
            chunk=pick.choice((1, 300, 3000)),
            oddities=pick.choice((0.0, 0.3, 1.0)),
            websockets=pick.choice((0.0, 0.2)),
            pauses=pick.choice((0.0, 0.3)),
            environments=pick.choice((1, 1, 1, 3)),
            unacked=pick.choice((MIN_UNACKED_BYTES, 8 << 20, MAX_UNACKED_BYTES)),  # 8 MiB: of earlier versions
            function_unacked=pick.choice((MIN_UNACKED_BYTES, 8 << 20, MAX_UNACKED_BYTES)),
            session_windows=pick.choice((SESSION_BUDGET, 10_000)),
            windows=pick.choice((SESSION_BUDGET, 20_000, 2000)),
            replay=pick.choice((SESSION_BUDGET, 10_000, 0)),
            leaves=pick.choice((0.0, 0.0, 0.5)),
        )
        return scenario.heavier(pick) if pick.random() < 0.1 else scenario

    def heavier(self, pick: Random) -> Scenario:
        """As it is, but with bodies that fill what a sender may keep."""
        size = pick.choice((5000, 64 << 10))
        return replace(
            self,
            chunks=20,
            chunk=30_000,
            credit=64 << 10,
            data_size=size,
            unacked=MIN_UNACKED_BYTES,
            frames=8192,
            bandwidth=max(self.bandwidth, 1e6),
            buffer=1 << 18,
            budget=1 << 20,
            pauses=0.0,  # a reader that takes ten bytes and rests has a day's work
        )


@dataclass
class Report:
    """What came of a run."""

    outcomes: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)  # why streams were lost
    ends: Counter[str] = field(default_factory=Counter)  # why the function's sessions ended
    events: int = 0
    seconds: float = 0.0
    dials: int = 0
    whole: int = 0  # responses that came with their bodies
    most_frames: int = 0
    most_bytes: int = 0
    most_held: int = 0  # bytes that came on one stream and were not consumed
    last_window: int = 0  # of the stream that was looked at last
    most_lent: int = 0  # bytes of the gateway's windows
    most_replay: int = 0  # bytes of its shared replay
    finished: list[float] = field(default_factory=list)  # when each exchange was over, in seconds


def plan_of(scenario: Scenario, chance: Random, number: int) -> Plan:
    """The exchange `number` of a scenario."""
    is_odd = chance.random() < scenario.oddities
    is_websocket = chance.random() < scenario.websockets
    pause = chance.choice((0.0, 0.0, 0.001, 0.02))

    def direction() -> Direction:
        top = scenario.chunk if scenario.credit > 1 else min(scenario.chunk, 40)  # or one byte for each round trip
        least = 0 if is_websocket else 1
        sizes = tuple(chance.randint(least, top) for _ in range(chance.randint(0, scenario.chunks)))
        if is_websocket and sizes and scenario.credit > 1 and chance.random() < 0.3:
            sizes = (*sizes, scenario.credit * 2)  # more than the window holds
        trailers = is_odd and not is_websocket and chance.random() < 0.3
        return Direction(sizes, pause, trailers=trailers, gives_up=is_odd and chance.random() < 0.15)

    def maybe(share: float) -> bool:
        return is_odd and chance.random() < share

    request, response = direction(), direction()
    ignores = not is_websocket and maybe(0.2)
    return Plan(
        number,
        request,
        response,
        at=chance.random() * scenario.spread,
        is_websocket=is_websocket,
        is_expecting=not is_websocket and maybe(0.3),
        window=chance.choice((1, 10, 1000, 100_000)) if maybe(0.2) else None,
        informational=chance.randint(1, 2) if maybe(0.3) else 0,
        waits_for_request=not is_websocket and not ignores and maybe(0.3),
        ignores_request=ignores,
        cancelled_after=chance.choice((0.0, 0.01, 0.1, 1.0)) if maybe(0.4) else None,
        reading_pause=chance.choice((0.001, 0.03)) if chance.random() < scenario.pauses else 0.0,
        client_pause=chance.choice((0.001, 0.03)) if chance.random() < scenario.pauses else 0.0,
        max_message=max(request.sizes, default=0) + 1 if is_websocket and maybe(0.2) else 1 << 20,
    )


class World(Watcher):
    """One run. Begins with its scenario, ends when every exchange is settled and every environment frozen."""

    def __init__(self, scenario: Scenario, plans: list[Plan] | None = None) -> None:
        """`plans`: where it is not the scenario's chance that makes them."""
        self.scenario = scenario
        self.chance = Random(scenario.seed * 2 + 1)
        self.clock = Clock()
        self.report = Report()
        # Events hold the bytes that they tell of: a few of a bulk transfer's are enough.
        self.trace: deque[tuple[float, tuple[Any, ...]]] = deque(maxlen=TRACE if plans is None else TRACE // 40)
        self.down_until = 0.0
        self.sockets: list[Socket] = []
        plans = plans or [plan_of(scenario, self.chance, number) for number in range(1, scenario.requests + 1)]
        limits = Limits(scenario.credit, scenario.unacked, scenario.frames)
        function_limits = Limits(scenario.credit, scenario.function_unacked, scenario.frames)
        grace = 3.0 if scenario.is_harsh else 60.0
        options = SessionOptions(grace=grace, ping=1.0 if scenario.is_harsh else 10.0, limits=limits)
        self.gateway = Gateway(self.clock, self.chance, self, options)
        by_exchange = {plan.exchange: plan for plan in plans}
        self.environments = [
            Environment(self.clock, self.chance, self, by_exchange, function_limits, scenario.session_windows, number)
            for number in range(scenario.environments)
        ]
        for side in (self.gateway, *self.environments):
            side.data_size = scenario.data_size
            side.laziness, side.budget = scenario.laziness, scenario.budget
        self.gateway.linger, self.gateway.declines = scenario.linger, scenario.declines
        self.gateway.leaves = scenario.leaves
        self.gateway.ceiling = scenario.environments + scenario.second_leases
        self.gateway.session_windows = scenario.session_windows
        self.gateway.windows, self.gateway.replay = Budget(scenario.windows), Budget(scenario.replay)
        self.gateway.invoke = self._invoke
        for environment in self.environments:
            environment.places = scenario.places
            environment.dial_out = self._dial_out
        self.unsettled = len(plans)
        self._began = self.clock.now
        for plan in plans:
            self.clock.call_later(plan.at, self._request(plan))
        for _ in range(scenario.cuts):
            self.clock.call_later(self.chance.random() * (scenario.spread + 1.0), self._cut)
        for _ in range(scenario.releases):
            self.clock.call_later(self.chance.random() * (scenario.spread + 1.0), self.gateway.release)

    # What the sides ask of the world

    def note(self, *what: Any) -> None:
        self.trace.append((self.clock.now, what))

    def lost(self, reason: str) -> None:
        self.report.losses[reason] += 1

    def ended(self, reason: str) -> None:
        self.report.ends[reason] += 1

    def check(self, session: Session) -> None:
        scenario, report = self.scenario, self.report
        assert session._sender.bytes <= session.limits.unacked, f"{session._sender.bytes} bytes are kept"
        assert session._sender.frames <= scenario.frames, f"{session._sender.frames} frames are kept"
        assert session.open_streams <= scenario.places, f"{session.open_streams} streams"
        report.most_frames = max(report.most_frames, session._sender.frames)
        report.most_bytes = max(report.most_bytes, session._sender.bytes)
        lent = 0
        for stream in session._streams.values():
            credit = stream.receive_credit
            assert credit.received <= credit.granted <= credit.consumed + credit._first + credit._lent
            is_over = stream.is_discarding or not stream.is_receiving
            assert is_over or credit._first <= credit.window <= credit._first + credit._lent
            assert stream.send_credit.offset <= stream.send_credit.limit
            lent += credit._lent
            report.most_held = max(report.most_held, credit.received - credit.consumed)
            report.last_window = credit.window
        assert lent == session._budget.lent <= session._budget.total, f"{lent} bytes of windows are lent"
        self._check_process()
        assert session.is_leased or not session.open_streams, "a stream on a link that is parked"

    def _check_process(self) -> None:
        """What bounds the sum over all links of the gateway."""
        windows, replay, report = self.gateway.windows, self.gateway.replay, self.report
        sessions = [link.session for link in self.gateway.links.values()]
        assert windows.lent == sum(session._budget.lent for session in sessions) <= windows.total
        own = self.scenario.unacked // OWN_SHARE
        assert replay.lent == sum(max(0, session._sender.bytes - own) for session in sessions)
        # Each may go beyond by the frame that crosses its own share, and by control frames, which nothing holds back.
        assert replay.lent <= replay.total + len(sessions) * (self.scenario.data_size + CONTROL_SLACK), f"{replay.lent}"
        report.most_lent = max(report.most_lent, windows.lent)
        report.most_replay = max(report.most_replay, replay.lent)

    def _request(self, plan: Plan) -> Callable[[], None]:
        return lambda: self.gateway.request(ClientCode(plan, self._settled))

    def _settled(self, client: ClientCode) -> None:
        outcome = client.outcome
        assert outcome is not None
        if outcome == "refused":  # the function never saw it: it goes elsewhere
            self.gateway.request(ClientCode(replace(client.plan, cancelled_after=None), self._settled))
            return
        if not client.was_seen:
            for environment in self.environments:
                environment.withdrawn.add(client.plan.number)
        self.unsettled -= 1
        self.report.outcomes[outcome] += 1
        self.report.whole += client.receiver.was_whole
        self.report.finished.append(self.clock.now - self._began)
        plan = client.plan
        if outcome == "reset":
            assert plan.response.gives_up or plan.is_too_big, f"{plan} was reset"
        elif outcome == "withdrawn":
            assert plan.request.gives_up, f"{plan} was withdrawn"
        elif outcome not in ("cancelled", "lost"):
            assert not plan.is_too_big
            assert outcome == ("trailers" if plan.response.trailers else "end"), f"{plan}: {outcome}"
            assert client.status == (101 if plan.is_websocket else 200)

    def _invoke(self, token: str, answered: Callable[[str], None]) -> None:
        def answer(outcome: str) -> None:
            slow = self.scenario.is_harsh and self.chance.random() < 0.1
            delay = 0.002 + self.chance.random() * (20.0 if slow else 0.05)
            self.clock.call_later(delay, lambda: answered(outcome))

        if self.scenario.early_answers and self.chance.random() < 0.5:
            self.clock.call_later(0.1 + self.chance.random(), lambda: answered("the connection was lost"))
        idle = [environment for environment in self.environments if not environment.invocations]
        environment = idle[0] if idle else self.environments[0]
        self.clock.call_later(0.002 + self.chance.random() * 0.02, lambda: environment.invoked(token, answer))

    def _dial_out(self, dial: Dial, link: Environment) -> None:
        scenario, chance = self.scenario, self.chance
        profile = Profile(scenario.latency, scenario.jitter, scenario.bandwidth, scenario.buffer, scenario.parts)
        socket = Socket(self.clock, chance, profile, (link.host, link), self.gateway.host)
        self.sockets.append(socket)
        self.report.dials += 1
        link.end = socket.near
        delay = 2 * scenario.latency
        if scenario.is_harsh and chance.random() < 0.1:
            delay += chance.random() * 5.0  # it comes late, perhaps after its successor
        if self.clock.now < self.down_until:
            if not scenario.is_harsh or chance.random() < 0.5:
                self.clock.call_later(0.1, lambda: link.host.deliver(lambda: socket.near.lose(None)))
            return

        def arrive() -> None:
            reason = None if socket.is_cut else self.gateway.connect(dial.to_headers(), socket.far)
            if reason is not None:
                link.host.deliver(lambda: link.refused(socket.near, reason))

        self.clock.call_later(delay, arrive)

    def _cut(self) -> None:
        chance, harsh = self.chance, self.scenario.is_harsh
        self.note("world", "cuts")
        self.down_until = self.clock.now + chance.random() * (5.0 if harsh and chance.random() < 0.3 else 0.2)

        def notice() -> float | None:
            if harsh and chance.random() < 0.3:
                return None
            return chance.choice((0.0, 0.01, 0.2, 1.0 if harsh else 0.2))

        for socket in self.sockets:
            socket.cut(notice(), notice())

    # The run

    def run(self) -> Report:
        deadline = self.clock.now + LIMIT
        while self.clock.step():
            self.report.events += 1
            assert self.clock.now < deadline and self.report.events < MAX_EVENTS, "it does not come to an end"
            if not self.unsettled and self._is_frozen and not self.gateway.queue:
                self._check_silence()
                break
        assert not self.unsettled, f"{self.unsettled} exchanges hang"
        self.report.seconds = self.clock.now - deadline + LIMIT
        return self.report

    @property
    def _is_frozen(self) -> bool:
        return all(environment.host.is_frozen for environment in self.environments)

    def _check_silence(self) -> None:
        """Let what is on its way arrive; then nothing may happen on a parked link."""
        until = self.clock.now + 30.0
        while self.clock.now < until and self.clock.step():
            pass
        assert self._is_frozen
        for environment in self.environments:
            session = environment.session
            self.check(session)
            assert session.next_timeout() is None and session.open_streams == 0, session
            assert session.is_ended or session._sender.frames == 0, "PARKED acknowledges everything"
        assert (self.gateway.windows.lent, self.gateway.replay.lent) == (0, 0), "lent for ever"
        for link in self.gateway.links.values():
            assert link.session.open_streams == 0 and not link.session.is_leased, link.session
            assert link.session.next_timeout() is None and link.session.is_attached, link.session


def run(scenario: Scenario, plans: list[Plan] | None = None) -> Report:
    """Raises `AssertionError` (or what a session raised), with the end of the trace."""
    world = World(scenario, plans)
    try:
        report = world.run()
        if not scenario.is_harsh:
            losses, ends = (ALLOWED_LOSSES, ALLOWED_ENDS) if scenario.cuts else ((), ())
            assert set(report.losses) <= set(losses), f"streams were lost without need: {report.losses}"
            assert set(report.ends) <= set(ends), f"sessions ended without need: {report.ends}"
    except Exception as error:
        lines = (f"{at - 1000.0:10.6f} {' '.join(map(str, what))}" for at, what in world.trace)
        environments = [environment.session for environment in world.environments]
        sessions = [*environments, *(link.session for link in world.gateway.links.values())]
        last = (repr(scenario), repr(sessions), f"{type(error).__name__}: {error}")
        raise AssertionError("\n".join((*lines, *last))) from error
    return report


#: A link that breaks while the function waits for the first answer to its LEASE is not resumed (docs/protocol.md §4.3).
ALLOWED_LOSSES = frozenset({"its invocation has ended", "the peer closed with 1000"})
ALLOWED_ENDS = frozenset(
    {"a parked link lost its socket", "the recycled socket is dead", "refused: used", "refused: unknown"}
)
