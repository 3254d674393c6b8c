"""Fixtures that start stacks: shared ones that live as long as the session, and fresh ones for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lag import Lag
from tests.e2e.neighbour import Neighbour
from tests.e2e.stack import Stack
from tests.e2e.trap import Trap

StackFactory = Callable[..., Stack]


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackFactory]:
    """`shared_stack("paths.py:one", environments=4)`: the same stack for the same words, whichever test asks."""
    started: dict[str, Stack] = {}

    def get(handler: str, **settings: Any) -> Stack:
        words = f"{handler} {sorted(settings.items())!r}"
        if words not in started:
            started[words] = Stack(handler, tmp_path_factory.mktemp("notes"), **settings)
        return started[words]

    yield get
    for stack in started.values():
        stack.interrupt()
    for stack in started.values():
        stack.stop()


@pytest.fixture
def fresh_stack(tmp_path: Path) -> Iterator[StackFactory]:
    """A stack that nobody else uses: for tests that kill, measure or configure."""
    started: list[Stack] = []

    def start(handler: str, **settings: Any) -> Stack:
        notes = tmp_path / f"notes{len(started)}"
        notes.mkdir()
        started.append(Stack(handler, notes, **settings))
        return started[-1]

    yield start
    for stack in started:
        stack.stop()


@pytest.fixture
def stack(shared_stack: StackFactory) -> Stack:
    """The usual one: a stream per environment."""
    return shared_stack("paths.py:one")


@pytest.fixture
def only(shared_stack: StackFactory) -> Stack:
    """One environment with one place, parked when a test begins and when it ends."""
    return shared_stack("paths.py:one", environments=1)


@pytest.fixture
def busy_stack(shared_stack: StackFactory) -> Stack:
    """Many streams on one link."""
    return shared_stack("paths.py:many", environments=4)


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    with Trap() as trap:
        yield trap


@pytest.fixture(scope="module")
def trapped_stack(trap: Trap, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two functions: the usual one, and under /trap one whose invitations the test catches."""

    def config(url: str) -> str:
        return (
            f'[functions.usual]\nurl = "{url}"\n[functions.trap]\nurl = "{trap.url}"\ntimeouts.dial_back = 1\n'
            "retry.count = 0\nbreaker.failures = 0\n"  # each invocation is one test's
            "[session]\ngrace = 1\n"
            '[[routes]]\npath = "/"\nfunction = "usual"\n[[routes]]\npath = "/trap"\nfunction = "trap"\n'
        )

    stack = Stack("paths.py:one", tmp_path_factory.mktemp("notes"), config=config)
    stack.get("/hello")
    yield stack
    trap.answer_all()
    stack.stop()


@pytest.fixture(scope="module")
def trapped_neighbour(trapped_stack: Stack) -> Iterator[Neighbour]:
    """A healthy stream of the usual function, beside all tests of the module."""
    neighbour = Neighbour(trapped_stack)
    yield neighbour
    neighbour.leave()


@pytest.fixture
def trapped(trapped_stack: Stack, trapped_neighbour: Neighbour) -> Iterator[Stack]:
    """The stack with the trap; at the end of each test the healthy stream beside it must have noticed nothing."""
    yield trapped_stack
    trapped_neighbour.check()


@pytest.fixture
def lag() -> Iterator[Lag]:
    """What the machine adds to the times that the test measures."""
    lag = Lag()
    yield lag
    lag.stop()
