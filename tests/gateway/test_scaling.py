"""How many environments a pool starts, who waits for a warm place, and where streams are put: in virtual time."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from gateway.config import BreakerConfig, LimitsConfig
from gateway.forecast import FIRST_STARTS, Forecast
from tests.gateway.simulated_function import SimulatedFunction, run


async def warmed_up(function: SimulatedFunction) -> None:
    """One request, so that it is known what a start takes, what a stream, how many places there are; then frozen."""
    await function.ask()
    await function.quiet()


# A herd


@pytest.mark.parametrize("is_known", [True, False])
def test_a_herd_of_200_on_a_cold_function_starts_about_ten_environments_of_20_places(is_known: bool) -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, service=lambda: 5.0)
        if is_known:
            await warmed_up(function)
            function.idle.clear()
        before = len(function.invocations)
        waits = await function.ask_many([0.0] * 200)
        assert 10 <= len(function.invocations) - before <= 11
        assert max(waits) < 2 * function.cold  # one start, and the pace of the starts
        await function.pool.stop()

    run(scenario())


def test_a_herd_with_short_streams_is_served_by_fewer() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, service=lambda: 0.01)
        await warmed_up(function)
        function.idle.clear()
        before = len(function.invocations)
        await function.ask_many([0.0] * 200)
        assert len(function.invocations) - before <= 10
        await function.pool.stop()

    run(scenario())


def test_with_one_place_every_request_of_a_herd_has_its_own_environment_as_on_lambda() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=1, service=lambda: 5.0, limits=LimitsConfig(invocation_rate=1000))
        await warmed_up(function)
        function.idle.clear()
        before = len(function.invocations)
        waits = await function.ask_many([0.0] * 100)
        assert len(function.invocations) - before == 100
        assert max(waits) < function.cold + 0.2
        await function.pool.stop()

    run(scenario())


def test_before_it_is_known_what_an_environment_takes_a_few_starts_have_to_tell() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=1, service=lambda: 1.0, cold=2.0)
        asking = asyncio.ensure_future(function.ask_many([0.0] * 40))
        await asyncio.sleep(1.9)
        assert len(function.invocations) == FIRST_STARTS
        waits = await asking
        assert len(function.invocations) == 40 and max(waits) < 2 * function.cold + 1
        await function.pool.stop()

    run(scenario())


# Warm first


def test_who_would_get_a_warm_place_before_a_start_is_over_starts_none() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=2.0, service=lambda: 0.05, linger=1.0)
        await warmed_up(function)
        await function.ask()
        before = len(function.invocations)
        waits = await function.ask_many([0.0] * 100)  # twenty at once, five times
        assert len(function.invocations) == before
        assert max(waits) < 0.25
        await function.pool.stop()

    run(scenario())


def test_who_waits_for_a_warm_place_in_vain_waits_no_longer_than_two_starts() -> None:
    """Streams that were short become endless."""

    async def scenario() -> None:
        seconds = 0.05
        function = SimulatedFunction(places=4, cold=1.0, service=lambda: seconds, linger=1.0)
        await warmed_up(function)
        await function.ask()
        seconds = 100.0
        function.idle.clear()
        before = len(function.invocations)
        waits = await function.ask_many([0.0] * 8)
        assert sorted(waits)[:4] == [0.0] * 4
        assert all(0.9 < wait <= 2.2 for wait in sorted(waits)[4:])
        assert len(function.invocations) == before + 1
        await function.pool.stop()

    run(scenario())


def test_nobody_waits_for_a_cold_start_while_a_warm_place_is_free() -> None:
    async def scenario() -> None:
        random = Random(7)
        function = SimulatedFunction(places=3, cold=3.0, service=lambda: random.uniform(0.05, 2.0), linger=2.0)
        free: list[int] = []

        async def watch() -> None:
            while True:
                await asyncio.sleep(0.01)
                waiting = function.pool.waiting
                free.append(sum(link.can_open for link in function.links) if waiting else 0)

        watching = asyncio.ensure_future(watch())
        times = [random.uniform(0, 60) for _ in range(600)]
        await function.ask_many(times)
        watching.cancel()
        assert max(free) == 0
        await function.pool.stop()

    run(scenario())


def test_streams_are_packed_so_that_idle_environments_end() -> None:
    """A herd leaves ten environments behind; a load that fits into one ends the other nine."""

    async def scenario() -> None:
        function = SimulatedFunction(places=20, service=lambda: 0.5, linger=1.0)
        await function.ask_many([0.0] * 200)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await function.ask_many([number * 0.05 for number in range(400)])
        used = {link for link, at in function.opened if at > began + 0.1}
        assert len(used) == 1 and function.awake == 1
        await function.pool.stop()

    run(scenario())


def test_a_steady_load_settles_on_the_environments_that_it_needs() -> None:
    """100 requests a second of 0.4 s each are 40 at once: two environments of 20 places have no room to spare, and are
    not enough for the peaks of chance; four would be half empty."""

    async def scenario() -> None:
        random = Random(1)
        function = SimulatedFunction(places=20, service=lambda: random.expovariate(1 / 0.4), linger=1.0)
        times, at = [], 0.0
        while at < 60:
            at += random.expovariate(100)
            times.append(at)
        waits = sorted(await function.ask_many(times))
        assert function.most_awake <= FIRST_STARTS
        late = [at for _, at in function.opened if at > 30]
        links = {link for link, at in function.opened if at > 30}
        assert late and 3 <= len(links) <= 5
        assert waits[int(len(waits) * 0.95)] < 0.1
        assert len(function.invocations) < 40  # of 6000 requests
        await function.pool.stop()

    run(scenario())


def test_the_same_load_with_one_place_costs_as_on_lambda() -> None:
    async def scenario() -> None:
        random = Random(1)
        function = SimulatedFunction(places=1, service=lambda: 0.2, linger=0.0)
        await warmed_up(function)
        before = len(function.invocations)
        await function.ask_many([random.uniform(0, 10) for _ in range(100)])
        # Fewer where somebody waited and a place freed up first: the environment that was on its way took the next.
        assert 90 <= len(function.invocations) - before <= 100
        await function.pool.stop()

    run(scenario())


@pytest.mark.parametrize(("places", "configured", "lingers"), [(1, {}, 0.0), (2, {}, 0.1), (1, {"linger": 0.3}, 0.3)])
def test_one_place_is_billed_as_on_lambda_unless_a_linger_is_configured(
    places: int, configured: dict[str, float], lingers: float
) -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=places, service=lambda: 0.2, warm=0.01, **configured)
        await warmed_up(function)
        before, bill = len(function.invocations), function.pool.bill
        leased = bill.leased
        for _ in range(10):
            await function.ask()
            await asyncio.sleep(0.05)
        await function.quiet()
        idles = 10 * min(lingers, 0.05) + max(0.0, lingers - 0.05)
        assert len(function.invocations) - before == (10 if lingers < 0.05 else 1)
        assert bill.leased - leased == pytest.approx(10 * 0.2 + idles, abs=0.01)
        await function.pool.stop()

    run(scenario())


# Time


def test_a_fresh_environment_takes_over_before_the_old_one_is_gone() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=2.0, remaining=100.0, service=lambda: 0.5, linger=1.0)
        await warmed_up(function)
        function.idle.clear()
        waits = await function.ask_many([number * 0.1 for number in range(3000)])  # five minutes: six halves of a lease
        assert max(waits[30:]) < 0.05, "somebody waited for a start"
        assert 7 <= len(function.invocations) <= 2 + 8
        assert function.most_awake <= 2
        await function.pool.stop()

    run(scenario())


LEASES = 6
"""How many leases, of 10 s that take new streams, follow each other in the loads below."""


def over_leases(seconds: float, random: Random | None = None) -> list[float]:
    """When requests come, so far apart (on average, by chance)."""
    times = [0.0]
    while times[-1] < 10.0 * LEASES:
        times.append(times[-1] + (seconds if random is None else random.expovariate(1 / seconds)))
    return times


def test_under_a_steady_load_a_successor_is_used_at_once() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=0.5, remaining=20.0, service=lambda: 0.01, linger=0.1)
        await warmed_up(function)
        function.idle.clear()
        waits = await function.ask_many(over_leases(0.05))  # mostly none is open when another is to take over
        assert max(waits[11:]) == 0.0
        assert LEASES <= len(function.invocations) - 1 <= LEASES + 2
        await function.quiet()
        bill = function.pool.bill
        assert bill.leased - bill.idle == pytest.approx(0.01 * (len(waits) + 1), abs=0.1)
        assert bill.leased == pytest.approx(10 * LEASES, abs=0.3)  # never two at once
        await function.pool.stop()

    run(scenario())


@pytest.mark.parametrize("gap", [0.5, 0.9])
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_where_a_successor_would_find_no_stream_it_is_warm_and_not_awake(gap: float, seed: int | None) -> None:
    """It idled for `linger`, was parked, and was wanted a moment later."""

    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=0.8, remaining=20.0, service=lambda: 5.0, linger=0.1)
        await warmed_up(function)
        waits = await function.ask_many(over_leases(gap, seed and Random(seed)))
        assert max(waits) < 0.05, "somebody waited for a cold start"
        assert len(function.links) == 2  # one serves while the other ends what it has
        assert len(function.invocations) <= LEASES + 4
        await function.quiet()
        assert function.pool.bill.idle < 0.1 * LEASES / 2
        await function.pool.stop()

    run(scenario())


def test_streams_that_come_one_by_one_need_one_environment() -> None:
    """When its lease is over, it is free for the next."""

    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=0.8, remaining=20.0, service=lambda: 3.0, linger=0.1)
        waits = [await function.ask() for _ in range(10 * LEASES // 3)]
        assert len(function.links) == 1 and max(waits[1:]) < 0.05
        assert len(function.invocations) <= LEASES
        await function.quiet()
        assert function.pool.bill.idle < 0.11
        await function.pool.stop()

    run(scenario())


def test_a_stream_that_nothing_follows_has_no_successor() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=0.8, remaining=20.0, service=lambda: 15.0, linger=0.1)
        await function.ask()
        await function.quiet()
        assert len(function.invocations) == 1
        await function.pool.stop()

    run(scenario())


def test_no_more_take_over_than_the_load_needs() -> None:
    """A herd leaves five environments behind, which age together; what goes on fits into two of them."""

    async def scenario() -> None:
        lasts = 5.0
        function = SimulatedFunction(places=4, cold=0.5, remaining=20.0, service=lambda: lasts, linger=6.0)
        await warmed_up(function)
        function.idle.clear()
        herd = asyncio.ensure_future(function.ask_many([0.0] * 20))
        await asyncio.sleep(2)
        before, lasts = len(function.invocations), 0.5
        waits = await function.ask_many([4 + number * 0.1 for number in range(100)])  # five at once
        assert max(waits) == 0.0 and len(function.links) == 1 + 5 + 2
        assert len(function.invocations) - before <= 2
        await herd
        await function.pool.stop()

    run(scenario())


def test_who_comes_when_everybody_has_found_a_place_parks_at_once() -> None:
    """Before it was known that one environment has room for all, each had an invocation."""

    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=1.0, service=lambda: 0.5, linger=1.0)
        times = [number / 10 for number in range(9)]
        await function.ask_many(times)
        await function.quiet()
        assert len(function.links) == len(times)
        assert function.pool.bill.idle == pytest.approx(1.0, abs=0.1)
        await function.pool.stop()

    run(scenario())


def test_without_load_nothing_takes_over() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, remaining=20.0, linger=15.0)
        await function.ask()
        await function.quiet()
        assert len(function.invocations) == 1
        await function.pool.stop()

    run(scenario())


# Pre-warming


def test_so_many_environments_as_wanted_are_awake_all_the_time() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=2.0, remaining=100.0, min_leased=3)
        function.pool.starts_changed()
        await asyncio.sleep(5)
        assert function.pool.leased_links == 3
        awake = []
        for _ in range(600):
            await asyncio.sleep(1)
            awake.append(function.pool.leased_links)
        assert min(awake) >= 3 and max(awake) <= 6
        assert 36 <= len(function.invocations) <= 3 * 15  # each serves for half of its 100 s, less the time to renew it
        assert await function.ask() == 0.0
        bill = function.pool.bill
        assert bill.idle > 0.99 * bill.leased > 1000
        function.pool.drain()
        await function.quiet()
        assert function.pool.leased_links == function.awake == 0
        await function.pool.stop()

    run(scenario())


def test_an_environment_that_cannot_begin_is_not_started_for_nobody_time_after_time() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(cold=0.01, min_leased=2, breaker=BreakerConfig(failures=20, pause=5))
        function.fails = lambda number: number <= 1000
        function.pool.starts_changed()
        await asyncio.sleep(60)
        assert 20 <= len(function.invocations) <= 40
        function.fails = lambda number: False
        await asyncio.sleep(120)
        assert function.pool.leased_links == 2
        await function.pool.stop()

    run(scenario())


def test_one_that_began_at_last_is_kept_although_others_could_not() -> None:
    """What comes while nothing is started for nobody was taken for one too many, and parked."""

    async def scenario() -> None:
        function = SimulatedFunction(cold=0.01, min_leased=2, linger=0.0)
        function.fails = lambda number: number == 1
        function.pool.starts_changed()
        await asyncio.sleep(20)
        assert function.pool.leased_links == 2 and len(function.invocations) == 3
        await function.pool.stop()

    run(scenario())


# The bill


def test_what_lingering_costs_is_measured() -> None:
    async def scenario() -> None:
        function = SimulatedFunction(places=2, service=lambda: 1.0, linger=3.0, cold=2.0)
        await function.ask_many([0.0, 0.0])
        await function.quiet()
        bill = function.pool.bill
        assert (bill.streams, len(function.invocations)) == (2, 2)  # the second one before it was known
        await warmed_up(function)
        assert bill.streams == 3
        assert bill.idle == pytest.approx(2 * 3.0 + 3.0, abs=0.1)
        assert bill.leased == pytest.approx(bill.idle + 2 * 1.0, abs=0.1)
        assert bill.billed >= bill.leased
        await function.pool.stop()

    run(scenario())


# The forecast alone


def test_what_is_expected_follows_from_what_was_measured() -> None:
    forecast = Forecast()
    assert forecast.start(is_warm=False) is None
    assert forecast.starts(200) == FIRST_STARTS and forecast.starts(3) == 3
    forecast.leased(2.0, 20, is_new=True)
    assert forecast.start(is_warm=False) == forecast.start(is_warm=True) == 2.0
    forecast.leased(0.1, 20, is_new=False)
    assert (forecast.start(is_warm=False), forecast.start(is_warm=True)) == (2.0, 0.1)
    assert forecast.freed(20, 2.0) == 0  # no stream has ended yet
    assert forecast.starts(200, 0, 20, 2.0) == 10
    forecast.stream_ended(1.0)
    assert forecast.freed(20, 2.0) == 40
    assert forecast.starts(200, 0, 20, 2.0) == 8
    assert forecast.starts(40, 0, 20, 2.0) == 0
    assert forecast.starts(40, 25, 20, 2.0) == 2  # 25 were promised a place, and have none
    assert forecast.starts(20) == 1 and forecast.starts(20, are_bound=True) == 2  # each keeps a place beside its own
    forecast.leased(2.0, 1, is_new=True)
    assert forecast.starts(40, 0, 20, 2.0) == 40
