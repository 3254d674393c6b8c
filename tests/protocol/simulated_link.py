"""What both drivers of a simulation do with a session and its socket.

As small as the real ones may be, and as careful: what is done by hand here is what docs/protocol.md asks of a driver.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from protocol import events as ev
from protocol.dial import FINAL_CLOSES
from protocol.errors import ProtocolError
from protocol.frames import MAX_FRAME_SIZE
from protocol.session import Session
from tests.protocol.virtual_network import Clock, End, Timer

SECRET: Final = b"s" * 32
NONCE: Final = b"n" * 16


class Watcher:
    """Is told of everything that happens in a run, and checks what must hold."""

    def note(self, *what: Any) -> None: ...
    def check(self, session: Session) -> None: ...
    def lost(self, reason: str) -> None: ...
    def ended(self, reason: str) -> None: ...


class Link:
    """What both drivers do with a session and its socket."""

    def __init__(self, session: Session, clock: Clock, chance: Random, watcher: Watcher, name: str) -> None:
        self.session = session
        self.clock = clock
        self.watcher = watcher
        self.name = name
        self.end: End | None = None
        self.laziness = 0.0  # the share of flushes that wait for a later turn
        self.budget = MAX_FRAME_SIZE
        self._chance = chance
        self._timer: Timer | None = None
        self._is_lazy = False

    # From the socket

    def part(self, end: End, part: bytes, offset: int, length: int) -> None:
        if end is not self.end:
            return
        try:
            events = self.session.receive_part(part, offset, length, self.clock.now)
        except ProtocolError as error:
            self.watcher.note(self.name, "PROTOCOL ERROR", error)
            raise
        self.dispatch(events)
        self.flush()

    def heard(self, end: End) -> None:
        if end is self.end:
            self.session.heard(self.clock.now)

    def writable(self, end: End) -> None:
        self.flush()

    def lost(self, end: End, code: int | None) -> None:
        if end is not self.end:
            return
        self.watcher.note(self.name, "socket lost", code)
        self.end = None
        if code in FINAL_CLOSES:
            self.dispatch(self.session.end(f"the peer closed with {code}"))
        else:
            self.dispatch(self.session.socket_lost(self.clock.now))
        self.arm()

    # To the socket

    def flush(self) -> None:
        if self.laziness and self._chance.random() < self.laziness:
            if not self._is_lazy:
                self._is_lazy = True
                self.clock.call_later(self._chance.random() * 0.003, self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        self._is_lazy = False
        session = self.session
        while self.end is not None and self.end.room > 0:
            frames = session.frames_to_send(min(self.end.room, self.budget), self.clock.now)
            if not frames:
                break
            for frame in frames:
                self.watcher.note(self.name, "sends", frame[1], len(frame))
                self.end.send(frame)
            self.watcher.check(session)
        if self.end is not None and self.end.room <= 0:
            self.end.is_waiting = True
        self.dispatch(session.pending_events())
        self.arm()

    def arm(self) -> None:
        at = self.session.next_timeout()
        if self._timer is not None:
            if at is not None and self._timer.at <= at:
                return
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self.clock.call_at(at, self._timeout)

    def _timeout(self) -> None:
        self._timer = None
        self.dispatch(self.session.handle_timeout(self.clock.now))
        self._flush()

    def dispatch(self, events: list[ev.Event]) -> None:
        while events:
            for event in events:
                self.watcher.note(self.name, event)
                self.handle(event)
            self.watcher.check(self.session)
            events = self.session.pending_events()

    def handle(self, event: ev.Event) -> None:
        raise NotImplementedError

    def close(self, code: int | None) -> None:
        end, self.end = self.end, None
        if end is not None:
            end.close(code)

    def give_up_socket(self) -> None:
        self.close(None)
        self.dispatch(self.session.socket_lost(self.clock.now))
