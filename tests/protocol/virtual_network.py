"""A clock, and sockets between two drivers on it: delays, parts, full buffers, cuts that each end notices in its own
time, and hosts that can be frozen with their network. Knows nothing of sessions."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Protocol


class Timer:
    """Begins with `Clock.call_at`; ends when it has fired or was cancelled."""

    __slots__ = ("at", "callback", "is_cancelled")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    """Virtual time. What is due at one time happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0  # a monotonic clock does not begin with 0
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def call_at(self, at: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(max(at, self.now), callback)
        heapq.heappush(self._heap, (timer.at, next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.now + delay, callback)

    def step(self) -> bool:
        """Let the next thing happen. False when nothing is left to happen."""
        while self._heap:
            _, _, timer = heapq.heappop(self._heap)
            if not timer.is_cancelled:
                self.now = timer.at
                timer.callback()
                return True
        return False


@dataclass(frozen=True)
class Profile:
    """What a network is like. Times in seconds, sizes in bytes."""

    latency: float = 0.005  # one way
    jitter: float = 0.0
    bandwidth: float = 1e9  # bytes per second
    buffer: int = 1 << 18  # unsent bytes that a socket takes
    parts: float = 0.0  # the share of messages that arrive in pieces


class Driver(Protocol):
    """Who holds an end."""

    def part(self, end: End, part: bytes, offset: int, length: int) -> None: ...
    def heard(self, end: End) -> None: ...
    def writable(self, end: End) -> None: ...
    def lost(self, end: End, code: int | None) -> None: ...


class Host:
    """A machine that can be frozen: nothing reaches its ends, and nothing of theirs leaves, until it is thawed."""

    def __init__(self) -> None:
        self.is_frozen = False
        self._held: deque[Callable[[], None]] = deque()

    def deliver(self, action: Callable[[], None]) -> None:
        """Do it now, or after the thaw, in order."""
        if self.is_frozen:
            self._held.append(action)
        else:
            action()

    def thaw(self) -> None:
        self.is_frozen = False
        while self._held and not self.is_frozen:
            self._held.popleft()()


class _Pipe:
    """One direction of a socket."""

    def __init__(self, socket: Socket, sender: End, receiver: End) -> None:
        self.socket = socket
        self.sender = sender
        self.receiver = receiver
        self.unsent = 0  # bytes that count against the sender's buffer
        self.kinds: deque[int | str] = deque()  # what is on its way: each message's frame type, or "ping", "close"
        self.last_arrival = 0.0
        self.cut_at: float | None = None  # what would arrive after this does not

    def push(self, kind: int | str, size: int, action: Callable[[], None]) -> None:
        if self.cut_at is not None:
            self.unsent += size
            return
        clock, profile, chance = self.socket.clock, self.socket.profile, self.socket.chance
        delay = profile.latency + (chance.random() * profile.jitter if profile.jitter else 0.0)
        start = max(self.last_arrival, clock.now + delay)
        self.last_arrival = start + size / profile.bandwidth
        self.unsent += size
        self.kinds.append(kind)
        clock.call_at(self.last_arrival, lambda: self._leave(size, action))

    def _leave(self, size: int, action: Callable[[], None]) -> None:
        self.sender.host.deliver(lambda: self.receiver.host.deliver(lambda: self._arrive(size, action)))

    def _arrive(self, size: int, action: Callable[[], None]) -> None:
        if self.cut_at is not None and self.socket.clock.now > self.cut_at:
            return
        self.unsent -= size
        self.kinds.popleft()
        if self.receiver.is_open:
            action()
        if self.sender.is_open and self.sender.is_waiting and self.sender.room > 0:
            self.sender.is_waiting = False
            self.sender.driver.writable(self.sender)


class End:
    """One end of a socket. Begins with it; ends when its driver closes it or is told that it is lost."""

    def __init__(self, socket: Socket, host: Host, driver: Driver) -> None:
        self.socket = socket
        self.host = host
        self.driver = driver
        self.is_open = True
        self.is_waiting = False  # for room
        self.pipe: _Pipe

    @property
    def room(self) -> int:
        return self.socket.profile.buffer - self.pipe.unsent

    def send(self, message: bytes) -> None:
        chance, size = self.socket.chance, len(message)
        cuts = [0, size]
        if self.socket.profile.parts and size > 1 and chance.random() < self.socket.profile.parts:
            cuts = sorted({0, size, *(chance.randrange(1, size) for _ in range(chance.randint(1, 4)))})
        for offset, until in zip(cuts, cuts[1:], strict=False):
            self._send_part(message, offset, until)

    def _send_part(self, message: bytes, offset: int, until: int) -> None:
        other = self.other
        part = message if until - offset == len(message) else message[offset:until]
        self.pipe.push(message[1], len(part), lambda: other.driver.part(other, part, offset, len(message)))

    def ping(self) -> None:
        other = self.other

        def answer() -> None:
            other.driver.heard(other)
            other.pipe.push("pong", 2, lambda: self.driver.heard(self))

        self.pipe.push("ping", 2, answer)

    def close(self, code: int | None) -> None:
        """Nothing is read from now on. The other end is told after everything that was sent."""
        if self.is_open:
            self.is_open = False
            other = self.other
            self.pipe.push("close", 0, lambda: other.lose(code))

    def lose(self, code: int | None) -> None:
        if self.is_open:
            self.is_open = False
            self.driver.lost(self, code)

    @property
    def other(self) -> End:
        return self.pipe.receiver

    @property
    def on_its_way(self) -> set[int | str]:
        """The kinds of what this end sent and the other has not received."""
        return set(self.pipe.kinds)


class Socket:
    """Two ends and what is between them."""

    def __init__(self, clock: Clock, chance: Random, profile: Profile, near: tuple[Host, Driver], far: Host) -> None:
        self.clock = clock
        self.chance = chance
        self.profile = profile
        self.near = End(self, *near)
        self.far = End(self, far, near[1])  # the far driver takes it when the dial arrives
        self.near.pipe = _Pipe(self, self.near, self.far)
        self.far.pipe = _Pipe(self, self.far, self.near)
        self.is_cut = False

    def cut(self, near_notices: float | None, far_notices: float | None) -> None:
        """Nothing that is sent from now on arrives, and only some of what is on its way. Delays, None for never."""
        if self.is_cut:
            return
        self.is_cut = True
        for end, notices in ((self.near, near_notices), (self.far, far_notices)):
            pipe = end.pipe
            pipe.cut_at = self.clock.now + self.chance.random() * max(0.0, pipe.last_arrival - self.clock.now)
            if notices is not None:
                self.clock.call_later(notices, _notice(end))


def _notice(end: End) -> Callable[[], Any]:
    return lambda: end.host.deliver(lambda: end.lose(None))
