"""What the exchange's machine costs a request: the library's own way, and ours (issue C, 6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from transitions import Machine
from transitions.extensions.asyncio import AsyncMachine

from benchmarks.bench import Bench
from benchmarks.figures import Column, Table, Target
from gateway.machine import STATES, TABLE, move

#: What the machine is told in the life of a usual request.
COURSE: Final = ("queued", "invocation_started", "stream_opened", "request_ended", "response_began", "response_ended")
TARGET: Final = 5.0  # µs


class Model:
    """What an exchange is to the machine."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = "accepted"


class Open:
    """A model that the library may add its own attributes to."""


def _declared() -> list[dict[str, str]]:
    return [{"trigger": what, "source": source, "dest": state} for what, sources, state in TABLE for source in sources]


def _moves() -> None:
    model = Model()
    for trigger in COURSE:
        move(model, trigger)


def _course(machine: Machine) -> None:
    model = Model()
    for trigger in COURSE:
        machine.events[trigger].trigger(model)


def run(bench: Bench) -> None:
    shared = Machine(
        model=None, states=list(STATES), transitions=_declared(), initial="accepted", auto_transitions=False
    )

    def own() -> None:
        machine = Machine(
            model=(model := Open()),
            states=list(STATES),
            transitions=_declared(),
            initial="accepted",
            auto_transitions=False,
        )
        for trigger in COURSE:
            machine.events[trigger].trigger(model)

    def own_async() -> None:
        AsyncMachine(
            model=Open(), states=list(STATES), transitions=_declared(), initial="accepted", auto_transitions=False
        )

    ways: dict[str, tuple[Callable[[], None], int]] = {
        "ours: one machine, a dict for plain steps": (_moves, 20_000),
        "one machine of the library's, shared": (lambda: _course(shared), 1_000),
        "a machine for each request": (own, 20),
        "an AsyncMachine for each request, only made": (own_async, 20),
        "no machine: six assignments": (_assign, 20_000),
    }
    table = Table(
        "The exchange's machine",
        f"{len(COURSE)} steps in the life of a request; every way uses the same table of `transitions`.",
        (Column("cost", "µs/request", 2),),
        base="",
    )
    for _ in range(bench.rounds):
        for name, (way, count) in ways.items():
            began = time.process_time()
            for _ in range(count):
                way()
            table.add(name, cost=(time.process_time() - began) / count * 1e6)
    bench.tables.append(table)
    ours = next(iter(ways))
    bench.targets.append(Target("6", "the machine's cost per request", table, ours, "cost", TARGET, unit=" µs"))


def _assign() -> None:
    model = Model()
    for trigger in COURSE:
        model.state = trigger
