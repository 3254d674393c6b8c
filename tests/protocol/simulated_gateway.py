"""The gateway of a simulation: where functions dial in, and the queue of one function."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from protocol import events as ev
from protocol.dial import CLOSE_SESSION_OVER, CLOSE_SUPERSEDED, Dial
from protocol.dial_reader import is_proved, read_dial
from protocol.errors import DialRefused
from protocol.flow import SESSION_BUDGET, Budget
from protocol.frames import MAX_FRAME_SIZE
from protocol.gateway_session import GatewaySession, SessionOptions
from protocol.invitation import session_key
from tests.protocol.simulated_link import NONCE, SECRET, Link, Watcher
from tests.protocol.traffic import ClientCode
from tests.protocol.virtual_network import Clock, End, Host


class GatewayLink(Link):
    """One session at the gateway."""

    session: GatewaySession

    def __init__(self, gateway: Gateway, session: GatewaySession) -> None:
        super().__init__(session, gateway.clock, gateway.chance, gateway.watcher, "gateway")
        self.gateway = gateway
        self.laziness, self.budget = gateway.laziness, gateway.budget
        self.streams: dict[int, ClientCode] = {}
        self.invocation: int | None = None  # the one that its lease came with
        self.detached_at: float | None = None

    def accept(self, dial: Dial, end: End) -> None:
        self._check_grace()
        self.session.accept(dial, self.clock.now)
        self.detached_at = None
        self.close(CLOSE_SUPERSEDED)
        self.end = end
        end.driver = self
        self.dispatch(self.session.pending_events())
        self.flush()

    def lost(self, end: End, code: int | None) -> None:
        if end is self.end:
            self.detached_at = self.clock.now
        super().lost(end, code)

    def _check_grace(self) -> None:
        lasted = 0.0 if self.detached_at is None else self.clock.now - self.detached_at
        assert lasted <= self.gateway.options.grace + 0.001, f"without a socket for {lasted} s"

    def open(self, client: ClientCode) -> None:
        self.streams[client.open(self, self.session)] = client
        client.begin()

    def handle(self, event: ev.Event) -> None:
        match event:
            case ev.LeaseOffered():
                self.gateway.offered(self, event)
            case ev.Parked():
                assert not self.streams, "parked with open streams"
                self.gateway.serve()
            case ev.PingDue():
                if self.end is not None:
                    self.end.ping()
            case ev.SocketDead():
                self.give_up_socket()
            case ev.SessionEnded(reason=reason):
                self._check_grace()
                self.close(CLOSE_SESSION_OVER)
                streams, self.streams = self.streams, {}
                for client in streams.values():
                    self.watcher.lost(reason)
                    client.settle("lost")
                self.gateway.links.pop(self.session.id, None)
                self.gateway.serve()
            case ev.StreamClosed(stream=stream):
                self.streams.pop(stream).handle(event)
                self.gateway.serve()
            case _:
                self.streams[event.stream].handle(event)  # type: ignore[union-attr]


@dataclass
class Invitation:
    """One start, at the gateway."""

    number: int
    owner: bytes | None = None
    is_consumed: bool = False
    is_answered: bool = False
    link: GatewayLink | None = None


class Gateway:
    """Where functions dial in, and the queue of one function."""

    def __init__(self, clock: Clock, chance: Random, watcher: Watcher, options: SessionOptions) -> None:
        self.clock = clock
        self.chance = chance
        self.watcher = watcher
        self.options = options
        self.host = Host()
        self.data_size = 1024
        self.laziness, self.budget = 0.0, MAX_FRAME_SIZE
        self.linger = 0.0
        self.session_windows = SESSION_BUDGET
        self.windows = Budget()  # of all its links
        self.replay = Budget()
        self.ceiling = 1  # invocations at once
        self.queue: deque[ClientCode] = deque()
        self.links: dict[bytes, GatewayLink] = {}
        self.invitations: dict[str, Invitation] = {}
        self.invoke: Callable[[str, Callable[[str], None]], None]
        self.declines = 0.0  # the share of offers that nobody needs after all
        self.leaves = 0.0  # the share of dials whose offer is not taken from them

    def connect(self, headers: list[tuple[str, str]], end: End) -> str | None:
        """A dial: None, or why it is refused."""
        try:
            dial = read_dial({name.lower(): value for name, value in headers})
            link = self._link_of(dial)
            if dial.lease and self.chance.random() < self.leaves:
                dial = replace(dial, lease=b"")
            link.accept(dial, end)
        except DialRefused as refused:
            return refused.reason
        return None

    def _link_of(self, dial: Dial) -> GatewayLink:
        link = self.links.get(dial.session)
        if link is not None:
            if not is_proved(dial, session_key(SECRET, NONCE, dial.session)):
                raise DialRefused("proof")
            return link
        if not dial.invitation:
            raise DialRefused("unknown")
        self._present(dial.invitation, dial.session)
        budget = Budget(self.session_windows, within=self.windows)
        session = GatewaySession(
            dial.session, self.options, data_size=self.data_size, budget=budget, replay=self.replay
        )
        link = self.links[dial.session] = GatewayLink(self, session)
        return link

    def _present(self, token: str, session: bytes) -> Invitation:
        invitation = self.invitations[token]
        if invitation.owner not in (None, session) or (invitation.is_consumed and session not in self.links):
            raise DialRefused("used")
        invitation.owner = session
        return invitation

    def offered(self, link: GatewayLink, offer: ev.LeaseOffered) -> None:
        try:
            invitation = self._present(offer.invitation, link.session.id)
            if invitation.is_consumed or invitation.is_answered:
                raise DialRefused("used")
        except DialRefused:
            self._decline(link, offer)
            return
        invitation.is_consumed, invitation.link = True, link
        link.invocation = invitation.number
        if self.chance.random() < self.declines:
            self._decline(link, offer)
        else:
            self._serve(link)
            link.session.grant(offer.lease, self.linger, self.clock.now)
        self.serve()

    def _decline(self, link: GatewayLink, offer: ev.LeaseOffered) -> None:
        if link.session.open_streams:
            link.session.grant(offer.lease, 0.0, self.clock.now)
        else:
            link.session.decline(offer.lease)

    def request(self, client: ClientCode) -> None:
        self.queue.append(client)
        self.serve()

    def serve(self) -> None:
        """Give what waits to whoever has room, and invoke when nobody is coming."""
        for link in list(self.links.values()):
            if link.session.lease_state.value == "leased":
                self._serve(link)
        starting = [one for one in self.invitations.values() if not one.is_answered]
        coming = sum(not one.is_consumed for one in starting)
        if self.queue and not coming and len(starting) < self.ceiling:
            self._start()

    def release(self) -> None:
        """Ask for an early end of every lease."""
        for link in list(self.links.values()):
            link.session.release()
            link.flush()

    def _serve(self, link: GatewayLink) -> None:
        while self.queue and link.session.can_open:
            link.open(self.queue.popleft())
        link.flush()

    def _start(self) -> None:
        invitation = Invitation(len(self.invitations))
        token = f"token-{invitation.number}"
        self.invitations[token] = invitation
        self.watcher.note("gateway", "invokes", token)
        self.invoke(token, partial(self._answered, invitation))

    def _answered(self, invitation: Invitation, outcome: str) -> None:
        if invitation.is_answered:
            return
        self.watcher.note("gateway", "answer of", invitation.number, outcome)
        invitation.is_answered = True
        link = invitation.link
        if link is not None and link.invocation == invitation.number and link.session.id in self.links:
            link.dispatch(link.session.invocation_answered(self.clock.now))
            link.arm()
        self.serve()
