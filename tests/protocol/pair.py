"""Two sessions and a perfect link, moved by hand: what most tests of rules need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from protocol import events as ev
from protocol.codec import decode
from protocol.dial import Limits
from protocol.frames import Frame, Headers, Options
from protocol.function_session import FunctionSession
from protocol.gateway_session import GatewaySession, SessionOptions
from protocol.session import Session

KEY = b"k" * 32
IDENTITY = b"i" * 16
EXCHANGE = b"e" * 16
ROOM = 1 << 20

E = TypeVar("E")


class Pair:
    """Begins with two sessions that have not dialled. `function_saw` and `gateway_saw` hold every event, in order."""

    def __init__(
        self,
        *,
        function: Limits | None = None,
        gateway: Limits | None = None,
        grace: float = 30.0,
        ping: float = 10.0,
        data_size: int = 64 << 10,
    ) -> None:
        self.now = 100.0
        options = SessionOptions(grace=grace, ping=ping, limits=gateway or Limits())
        self.function = FunctionSession(IDENTITY, KEY, "token", function, data_size=data_size)
        self.gateway = GatewaySession(IDENTITY, options, data_size=data_size)
        self.function_saw: list[ev.Event] = []
        self.gateway_saw: list[ev.Event] = []
        self.consumes = True

    @classmethod
    def leased(cls, *, places: int = 100, linger: float = 0.0, **options: object) -> Pair:
        """A pair whose first lease was granted."""
        pair = cls(**options)  # type: ignore[arg-type]
        pair.dial()
        pair.lease(places, linger)
        return pair

    def dial(self) -> None:
        self.gateway.accept(self.function.dial(self.now), self.now)
        self.pump()

    def lease(self, places: int = 100, linger: float = 0.0, remaining: float = 900.0) -> int:
        lease = self.function.offer_lease("token", places, remaining, self.now)
        self.pump()
        self.gateway.grant(lease, linger, self.now)
        self.pump()
        return lease

    def open(self, options: Options | None = None, headers: Headers = ()) -> int:
        return self.gateway.open(EXCHANGE, b"POST", b"/path?query", headers, options or {}, self.now)

    def opened(self, options: Options | None = None) -> int:
        """A stream that the function knows."""
        stream = self.open(options)
        self.pump()
        return stream

    def answered(self, options: Options | None = None, status: int = 200) -> int:
        """A stream whose response has begun."""
        stream = self.opened(options)
        self.function.send_response(stream, status, [])
        self.pump()
        return stream

    def later(self, seconds: float) -> None:
        self.now += seconds

    # Sending

    def take(self, session: Session, budget: int = ROOM) -> list[bytes]:
        """Everything that a session has to send, taken from it and on its way to nobody."""
        messages: list[bytes] = []
        while taken := session.frames_to_send(budget, self.now):
            messages += taken
        self._note(session, session.pending_events())
        return messages

    def frames(self, session: Session) -> list[Frame]:
        return [decode(message) for message in self.take(session)]

    def give(self, session: Session, messages: list[bytes]) -> list[ev.Event]:
        """Deliver messages to a session."""
        seen: list[ev.Event] = []
        for message in messages:
            events = session.receive(message, self.now)
            seen += self._note(session, events)
        return seen

    def pump(self) -> None:
        """Deliver everything both ways until nobody has anything left."""
        for _ in range(1000):
            to_function, to_gateway = self.take(self.gateway), self.take(self.function)
            if not to_function and not to_gateway:
                return
            self.give(self.function, to_function)
            self.give(self.gateway, to_gateway)
        raise AssertionError("the two do not come to rest")

    def cut(self) -> None:
        """Both ends notice at once; what was not delivered is lost."""
        self._note(self.function, self.function.socket_lost(self.now))
        self._note(self.gateway, self.gateway.socket_lost(self.now))

    def tick(self, session: Session) -> list[ev.Event]:
        """Let a session's timers fire."""
        return self._note(session, session.handle_timeout(self.now))

    def call(self, session: Session, action: Callable[[], object]) -> list[ev.Event]:
        """What a call caused at once."""
        action()
        return self._note(session, session.pending_events())

    def _note(self, session: Session, events: list[ev.Event]) -> list[ev.Event]:
        saw = self.function_saw if session is self.function else self.gateway_saw
        for event in events:
            if isinstance(event, ev.DataReceived):
                event = ev.DataReceived(event.stream, bytes(event.data), event.end)
                if self.consumes:
                    session.consume(event.stream, len(event.data), self.now)
            saw.append(event)
        return events

    # What was seen

    def seen(self, session: Session, kind: type[E]) -> list[E]:
        saw = self.function_saw if session is self.function else self.gateway_saw
        return [event for event in saw if isinstance(event, kind)]

    def body(self, session: Session, stream: int) -> bytes:
        with_head = [event.body for event in self.seen(session, ev.ResponseReceived) if event.stream == stream]
        data = [bytes(event.data) for event in self.seen(session, ev.DataReceived) if event.stream == stream]
        return b"".join(with_head + data)

    def forget(self) -> None:
        self.function_saw.clear()
        self.gateway_saw.clear()
