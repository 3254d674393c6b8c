"""Deadlines kept by the second: when they come, what cancels them, and that none is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway import wheel
from gateway.wheel import Wheel
from tests.gateway.function_fake import eventually

pytestmark = pytest.mark.interpreted("a class of the test's below a compiled one")


def call(of: Wheel, delay: float, callback: Callable[[], None]) -> wheel.Due:
    """What calls `callback`."""

    class Call(wheel.Due):
        def due(self) -> None:
            callback()

    due = Call()
    of.call_later(delay, due)
    return due


async def test_a_near_one_comes_in_time_and_once() -> None:
    came: list[float] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    call(Wheel(), 0.05, lambda: came.append(loop.time() - began))
    await asyncio.sleep(0.5)
    assert len(came) == 1 and 0.049 <= came[0] < 0.4


async def test_far_ones_share_a_timer_and_are_late_by_a_second_at_most() -> None:
    loop = asyncio.get_running_loop()
    came: list[str] = []
    wheel_of_ours = Wheel()
    delay = wheel.LEAST
    began = loop.time()
    dues = [call(wheel_of_ours, delay, lambda: came.append("came")) for _ in range(100)]
    other = call(wheel_of_ours, delay, lambda: came.append("other"))
    other.cancel()
    other.cancel()
    assert len(wheel_of_ours._seconds) <= 2  # the second may have changed meanwhile
    for due in dues[1:]:
        due.cancel()
    await eventually(lambda: bool(came), delay + 5)
    assert loop.time() - began >= delay
    assert came == ["came"] and not wheel_of_ours._seconds
    dues[0].cancel()  # void


async def test_one_that_comes_may_cancel_another_of_its_second() -> None:
    came: list[int] = []
    of_ours = Wheel()
    dues: list[wheel.Due] = []

    def come(me: int) -> None:
        came.append(me)
        dues[1 - me].cancel()

    dues += [call(of_ours, wheel.LEAST, lambda me=me: come(me)) for me in range(2)]  # type: ignore[misc]
    if len(of_ours._seconds) == 1:
        [second] = of_ours._seconds
        of_ours._come(second)
        assert len(came) == 1
