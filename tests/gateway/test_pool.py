"""A function's queue, places and invocations, on a whole gateway with in-test environments that dial in for real."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from structlog.testing import capture_logs

from gateway import ceiling as ceiling_module
from gateway import starts
from gateway.ceiling import BATCH, Ceiling
from gateway.config import LimitsConfig, RetryConfig, SessionConfig, TimeoutsConfig
from gateway.invoke.answer import Answer
from gateway.starts import Start
from protocol.frames import Code
from tests.gateway.environment_fake import Environment, FunctionUrl, Served, leave_it, name_it
from tests.gateway.function_fake import eventually
from tests.gateway.whole_gateway import Whole, first_stream, gateway_for, silent, until_later, url_of, whole


def answering(status: int, document: object = None) -> FunctionUrl:
    """A Function URL with something else behind it."""

    async def behave(token: str) -> web.StreamResponse:
        return web.json_response(document, status=status)

    return FunctionUrl(behave=behave)


# Places


async def test_a_request_starts_an_invocation_and_the_next_one_needs_none() -> None:
    async with whole(FunctionUrl(), linger=5) as it:
        assert (await it.get("/a"))[0] == 200
        assert (await it.get("/b"))[1].endswith(" /b")
        assert it.url.invited.qsize() == 1


async def test_places_are_filled_before_another_environment_is_started() -> None:
    async with whole(url_of(Environment(leave_it, places=3)), linger=5) as it:
        first = it.asking("/0")
        environment = (await asyncio.wait_for(it.url.invited.get(), 5), it.url.environments[0])[1]
        streams = [await environment.streams.get()]
        others = [it.asking(f"/{number}") for number in (1, 2)]
        streams += [await environment.streams.get() for _ in others]
        for stream in streams:
            stream.respond(stream.request.target)
        assert [text for _, text in await asyncio.gather(first, *others)] == ["/0", "/1", "/2"]
        assert it.url.invited.empty()


async def test_what_waits_is_served_in_the_order_in_which_it_came() -> None:
    async with whole(url_of(Environment(leave_it)), limits=LimitsConfig(max_invocations=1)) as it:
        first = it.asking("/0")
        await it.url.invited.get()
        stream = await it.url.environments[0].streams.get()
        waiting = []
        for number in (1, 2, 3):
            waiting.append(it.asking(f"/{number}"))
            await it.until_waiting(number)
        seen = []
        for _ in range(4):
            seen.append(stream.request.target)
            stream.respond()
            if len(seen) < 4:
                stream = await it.url.environments[0].streams.get()
        await asyncio.gather(first, *waiting)
        assert seen == [b"/0", b"/1", b"/2", b"/3"]


async def test_the_next_batch_is_as_large_as_the_last_lease_lets_expect() -> None:
    async with whole(url_of(Environment(places=20), Environment(places=20)), linger=0) as it:
        await it.get()
        await asyncio.wait_for(it.url.environments[0].parked.wait(), 5)
        answers = await asyncio.gather(*(it.get(f"/{number}") for number in range(20)))
        assert [status for status, _ in answers] == [200] * 20
        assert it.url.invited.qsize() == 2


async def test_a_stream_that_the_function_refuses_unseen_is_given_another_place() -> None:
    refused: list[Served] = []

    def serve(stream: Served) -> None:
        if not refused:
            refused.append(stream)
            stream.reset(Code.REFUSED)
        elif stream is not refused[0]:
            name_it(stream)

    async with whole(url_of(Environment(serve))) as it:
        assert (await it.get("/again"))[1].endswith(" /again")
        assert len(refused) == 1


async def test_a_herd_on_a_cold_function_starts_as_many_environments_as_their_places_need() -> None:
    async with whole(FunctionUrl(lambda: Environment(leave_it, places=20), most=100)) as it:
        asked = [it.asking(f"/{number}") for number in range(200)]
        await eventually(lambda: it.pool.open_streams == 200)
        assert it.url.invited.qsize() == 10
        for environment in it.url.environments:
            for _ in range(20):
                (await first_stream(environment)).respond()
        assert {status for status, _ in await asyncio.gather(*asked)} == {200}
        assert it.url.invited.qsize() == 10


async def test_streams_go_to_the_latest_lease_so_that_the_others_can_end() -> None:
    old, new = Environment(leave_it), Environment(leave_it, places=2)
    async with whole(url_of(old, new), linger=0.2) as it:
        first = it.asking("/1")
        one = await first_stream(old)
        second = it.asking("/2")
        two = await first_stream(new)
        for stream in (two, one):  # the old one is free last
            stream.respond()
        await asyncio.gather(first, second)
        third = it.asking("/3")
        stream = await first_stream(new)
        await asyncio.wait_for(old.parked.wait(), 5)
        stream.respond()
        assert (await third)[0] == 200


# Pre-warming


async def test_environments_that_are_kept_awake_are_there_before_the_first_request() -> None:
    async with whole(FunctionUrl(lambda: Environment(places=2)), linger=0, min_leased=2) as it:
        await eventually(lambda: it.pool.leased_links == 2)
        assert it.url.invited.qsize() == 2
        assert (await it.get())[0] == 200
        await until_later(0.3)
        assert it.pool.leased_links == 2 and it.url.invited.qsize() == 2
        await it.url.environments[0].close()
        it.url.environments[0].may_dial.clear()
        it.url.environments[0].wake()
        assert (await it.get())[0] == 200


async def test_one_that_was_kept_awake_and_is_lost_is_replaced() -> None:
    lost, other = Environment(), Environment()
    async with whole(url_of(lost, other), min_leased=1):
        await asyncio.wait_for(lost.granted.wait(), 5)
        assert lost.session is not None
        lost.session.end("the process is no more")
        await lost.close()
        lost.wake()
        await asyncio.wait_for(other.granted.wait(), 5)


async def test_what_was_kept_awake_is_renewed_before_its_time_is_up() -> None:
    old, new = Environment(remaining=2.0), Environment()
    async with whole(url_of(old, new), linger=0, min_leased=1) as it:
        await asyncio.wait_for(old.granted.wait(), 5)
        await asyncio.wait_for(new.granted.wait(), 5)
        assert it.pool.leased_links >= 1
        await asyncio.wait_for(old.parked.wait(), 5)
        assert (await it.get())[0] == 200 and new.streams.qsize() == 1


# The queue


async def test_a_full_queue_is_a_503() -> None:
    url, end = silent()
    async with whole(url, limits=LimitsConfig(max_queue=1)) as it:
        waiting = it.asking()
        await url.invited.get()
        assert await it.problem() == (503, "overloaded")
        end.set()
        assert (await waiting)[0] == 502


async def test_a_request_that_waits_too_long_is_a_503() -> None:
    url, end = silent()
    async with whole(url, timeouts=TimeoutsConfig(dial_back=5, queue_wait=0.1)) as it:
        assert await it.problem() == (503, "queue-timeout")
        assert it.pool.waiting == 0
        end.set()


async def test_a_request_whose_stream_opens_as_its_wait_ends_keeps_it() -> None:
    """The timer must not cancel what was just given a place."""
    async with whole(url_of(Environment(leave_it)), timeouts=TimeoutsConfig(dial_back=5, queue_wait=5)) as it:
        pool = it.pool
        late = pool._waited_too_long
        asked = it.asking("/kept")
        await it.url.invited.get()
        (waiter,) = pool._queue
        stream = await it.url.environments[0].streams.get()
        late(waiter)
        stream.respond(b"kept")
        assert await asked == (200, "kept")


async def test_a_place_that_frees_up_as_a_client_leaves_goes_to_the_next() -> None:
    """In the turn of the loop between the exchange's end and its waiter's."""
    url, end = silent()
    async with whole(url) as it:
        asked = it.asking()
        await it.until_waiting(1)
        (waiter,) = it.pool._queue
        waiter.exchange.client_gone()
        assert it.pool._queue.pop() is None
        asked.cancel()
        end.set()


async def test_a_client_that_leaves_the_queue_leaves_no_waiter_and_no_start_behind() -> None:
    environment = Environment()
    environment.may_dial.clear()
    async with whole(url_of(environment), linger=0, limits=LimitsConfig(max_invocations=1)) as it:
        asked = it.asking()
        await it.url.invited.get()
        ended = it.gateway._closed_one
        ended.clear()
        asked.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.sleep(0)
        assert it.pool.waiting == 0
        environment.may_dial.set()
        await asyncio.wait_for(environment.parked.wait(), 5)  # unneeded: declined, and nothing is billed on
        assert environment.streams.empty()
        assert (await it.get("/next"))[1].endswith(" /next")
        assert it.pool.starts.outcomes and not it.pool.starts.coming


# Invocations that fail


@pytest.mark.parametrize(
    ("url", "status", "name"),
    [
        (lambda: answering(200, {"dialback": 1, "lease": None, "outcome": "unreachable"}), 502, "invoke-failed"),
        (lambda: answering(200, {"hello": "world"}), 502, "invoke-failed"),
        (lambda: answering(200, ["dialback"]), 502, "invoke-failed"),
        (
            lambda: answering(403, {"type": "urn:dialback:invitation-refused", "detail": "signature"}),
            502,
            "invoke-failed",
        ),
        (lambda: answering(403, {"Message": "Forbidden"}), 502, "invoke-failed"),
        (lambda: answering(404), 502, "invoke-failed"),
        (lambda: answering(500), 502, "function-error"),
        (lambda: answering(502), 502, "function-error"),
        (lambda: answering(504), 502, "function-error"),
    ],
)
async def test_an_invocation_that_fails_answers_one_request(url: Any, status: int, name: str) -> None:
    async with whole(url(), retry=RetryConfig(count=0)) as it:
        assert await it.problem() == (status, name)
        assert it.url.invited.qsize() == 1
        assert sum(it.pool.starts.outcomes.values()) == 1


async def test_a_function_that_is_not_there_is_a_502() -> None:
    url = FunctionUrl()
    async with url.serving():
        pass
    async with gateway_for(url) as gateway, ClientSession() as client:
        assert await Whole(gateway, url, client).problem() == (502, "invoke-failed")


async def test_failures_are_one_request_each_and_the_others_go_on() -> None:
    """Of three requests whose starts fail twice, and are not tried again, one is served."""
    environment = Environment(places=3)
    failures = 2

    async def behave(token: str) -> web.StreamResponse:
        nonlocal failures
        if failures:
            failures -= 1
            return web.json_response(None, status=502)
        assert url.gateway is not None
        return web.json_response(await environment.invoke(url.gateway, token))

    url = FunctionUrl(behave=behave)
    async with whole(url, retry=RetryConfig(count=0)) as it:
        answers = await asyncio.gather(*(it.get() for _ in range(3)))
        assert sorted(status for status, _ in answers) == [200, 502, 502]
        await environment.close()


async def test_a_mistake_in_an_invoker_answers_its_request_and_is_not_repeated_for_ever() -> None:
    async with whole(FunctionUrl()) as it:
        calls = 0

        class Broken:
            async def invoke(self, token: str) -> Any:
                nonlocal calls
                calls += 1
                raise ZeroDivisionError

            async def close(self) -> None: ...

        invoker, it.pool.starts._invoker = it.pool.starts._invoker, Broken()
        assert await it.problem() == (502, "invoke-failed")
        assert calls == 1 + it.pool.function.retry.count
        it.pool.starts._invoker = invoker
        assert (await it.get())[0] == 200


# Invocations that dial late, or not


async def test_a_function_that_does_not_dial_back_in_time_is_a_504_and_its_late_lease_is_welcome() -> None:
    environment = Environment()
    environment.may_dial.clear()
    timeouts = TimeoutsConfig(dial_back=0.1, queue_wait=5)
    async with whole(url_of(environment), timeouts=timeouts, limits=LimitsConfig(max_invocations=1)) as it:
        assert await it.problem() == (504, "dial-back-timeout")
        asked = it.asking("/late")
        environment.may_dial.set()
        assert (await asked)[1].endswith(" /late")
        assert it.url.invited.qsize() == 1


async def test_an_invocation_that_fails_late_costs_no_second_request() -> None:
    """Its own was answered 504 already."""
    fail, dial, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    environment = Environment()

    async def behave(token: str) -> web.StreamResponse:
        if url.invited.qsize() == 1:
            await fail.wait()
            return web.json_response(None, status=502)
        assert url.gateway is not None
        await dial.wait()
        return web.json_response(await environment.invoke(url.gateway, token))

    url = FunctionUrl(behave=behave)
    async with whole(url, timeouts=TimeoutsConfig(dial_back=0.3, queue_wait=5)) as it:
        assert await it.problem() == (504, "dial-back-timeout")
        judge = it.pool.starts._answered

        def judged(start: Start, answer: Answer, is_expected: bool) -> None:
            judge(start, answer, is_expected)
            answered.set()

        it.pool.starts._answered = judged  # type: ignore[method-assign]
        asked = it.asking("/second")
        await it.until_waiting(1)
        fail.set()
        await asyncio.wait_for(answered.wait(), 5)
        dial.set()
        assert (await asked)[1].endswith(" /second")
        await environment.close()


async def test_what_waits_for_a_late_invocation_of_many_places_gets_another() -> None:
    """With one request answered 504, the others had nobody who would start for them."""
    late = Environment(places=3)
    late.may_dial.clear()
    timeouts = TimeoutsConfig(dial_back=0.15, queue_wait=5)
    async with whole(url_of(Environment(places=3), late, Environment(places=3)), linger=0, timeouts=timeouts) as it:
        await it.get()
        await it.url.environments[0].parked.wait()
        it.url.idle.clear()
        answers = await asyncio.gather(*(it.get() for _ in range(3)))
        assert sorted(status for status, _ in answers) == [200, 200, 504]
        late.may_dial.set()


async def test_a_lease_without_places_answers_a_request_and_starts_no_storm() -> None:
    async with whole(url_of(Environment(places=0))) as it:
        assert await it.problem() == (502, "invoke-failed")
        assert it.url.invited.qsize() == 3


# Throttling


async def test_two_hundred_requests_against_four_environments_are_served_without_a_storm_of_invocations() -> None:
    async with whole(FunctionUrl(most=4)) as it:
        ceiling, unaware = it.pool.starts.ceiling, []
        refused = ceiling.refused

        def note(running: int, retry_after: float = 0.0) -> None:
            unaware.append(running)
            refused(running, retry_after)

        ceiling.refused = note  # type: ignore[method-assign]
        answers = await asyncio.gather(*(it.get(f"/{number}") for number in range(200)))
        assert [status for status, _ in answers] == [200] * 200
        assert all(text.endswith(f" /{number}") for number, (_, text) in enumerate(answers))
        assert len({text.split()[0] for _, text in answers}) == 200
        # Those that ran when the first refusal was heard of had been started before anybody could know; then it is one
        # at a time, and ever more seldom. (How many batches a busy machine starts before it hears is not ours to say.)
        assert it.url.throttled <= unaware[0] + BATCH


async def test_requests_that_are_throttled_wait_until_there_is_room() -> None:
    url = FunctionUrl(most=0)
    async with whole(url) as it:
        asked = it.asking()
        await url.invited.get()
        url._most = 1
        assert (await asked)[0] == 200


async def test_a_platform_without_any_room_is_a_503_that_says_so_and_is_asked_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with whole(FunctionUrl(most=0), timeouts=TimeoutsConfig(dial_back=5, queue_wait=0.5)) as it:
        with capture_logs() as lines, caplog.at_level(logging.INFO, "dialback.access"):
            assert await it.problem() == (503, "invoke-throttled")
        assert it.url.throttled <= 3
        (ended,) = [record for record in caplog.records if record.name == "dialback.access"]
        assert ended.levelno == logging.WARNING
        throttled = [line["request"] for line in lines if line["event"] == "invocation.throttled"]
        assert throttled and set(throttled) == {vars(ended)["id"]}
        await it.gateway.stop(0)
        assert it.pool.starts.ceiling._try_timer is None, "it would go on for ever"


class Steps:
    """A ceiling whose owner starts all that it may, on a platform with `room`."""

    def __init__(self, most: int, room: int, rate: int = 10_000) -> None:
        self.room = room
        self.running = 0
        self.refusals = 0
        self.ceiling = Ceiling(most, rate, self.start)
        self.raised = asyncio.Event()

    def start(self) -> None:
        for _ in range(self.ceiling.room(self.running)):
            self.ceiling.started()
            if self.running < self.room:
                self.running += 1
            else:
                self.refusals += 1
                self.ceiling.refused(self.running)
        if hasattr(self, "raised"):
            self.raised.set()

    async def until(self, running: int) -> None:
        while self.running < running:
            self.raised.clear()
            await self.raised.wait()


async def test_a_ceiling_starts_in_batches_and_finds_what_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"FIRST_PAUSE": 0.002, "LONGEST_PAUSE": 0.02}.items():
        monkeypatch.setattr(ceiling_module, name, seconds)
    steps = Steps(most=100, room=4)
    steps.start()
    assert (steps.running, steps.refusals) == (4, 6)
    assert steps.ceiling.is_lowered
    steps.room = 60  # it grew: found in steps that double
    await asyncio.wait_for(steps.until(60), 5)
    assert steps.refusals < 6 + BATCH
    steps.room = 1000
    await asyncio.wait_for(steps.until(100), 5)
    assert steps.ceiling.room(100) == 0
    steps.ceiling.close()


async def test_no_more_are_started_in_a_second_than_the_configuration_says() -> None:
    steps = Steps(most=1000, room=1000, rate=40)
    loop = asyncio.get_running_loop()
    began = loop.time()
    steps.start()
    assert steps.running == BATCH
    await asyncio.wait_for(steps.until(40), 5)
    assert loop.time() - began >= 0.74  # three more batches, a quarter of a second after one another
    steps.ceiling.close()
    slow = Steps(most=1000, room=1000, rate=2)
    slow.start()
    assert slow.running == 2
    slow.ceiling.close()


async def test_a_platform_that_goes_on_refusing_is_asked_ever_less(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"FIRST_PAUSE": 0.01, "LONGEST_PAUSE": 0.04}.items():
        monkeypatch.setattr(ceiling_module, name, seconds)
    steps = Steps(most=100, room=0)
    loop = asyncio.get_running_loop()
    times = [loop.time()]
    steps.start()
    for number in range(BATCH + 1, BATCH + 6):
        while steps.refusals < number:
            steps.raised.clear()
            await steps.raised.wait()
        times.append(loop.time())
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert pauses[0] >= 0.009 and pauses[1] >= 0.018 and all(pause >= 0.036 for pause in pauses[2:])
    steps.ceiling.close()


# Leases that end


async def test_a_request_at_the_end_of_a_lease_waits_for_the_warm_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between PARKED and the invocation's answer the environment is not free: an invocation would start a cold one."""
    monkeypatch.setattr(starts, "FINISH_PATIENCE", 5)
    environment, cold = Environment(), Environment()
    answer = asyncio.Event()

    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        if environment.session is not None and not answer.is_set():
            return web.json_response(await cold.invoke(url.gateway, token))
        result = await environment.invoke(url.gateway, token)
        parked.set()
        await answer.wait()
        return web.json_response(result)

    parked = asyncio.Event()
    url = FunctionUrl(behave=behave)
    async with whole(url, linger=0) as it:
        await it.get("/one")
        await asyncio.wait_for(parked.wait(), 5)
        asked = it.asking("/two")
        await it.until_waiting(1)
        await until_later(0.1)
        answer.set()
        assert (await asked)[1].endswith(" /two")
        assert cold.streams.empty() and environment.streams.qsize() == 2
        await environment.close()


async def test_an_invocation_that_is_not_answered_after_its_lease_holds_nobody_up_for_long() -> None:
    environment, other = Environment(), Environment()

    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        if environment.session is not None:
            return web.json_response(await other.invoke(url.gateway, token))
        result = await environment.invoke(url.gateway, token)
        parked.set()
        await end.wait()
        return web.json_response(result)

    parked, end = asyncio.Event(), asyncio.Event()
    url = FunctionUrl(behave=behave)
    async with whole(url, linger=0) as it:
        await it.get("/one")
        await asyncio.wait_for(parked.wait(), 5)
        assert (await it.get("/two"))[1].endswith(" /two")
        end.set()
        for one in (environment, other):
            await one.close()


async def test_a_retired_link_keeps_its_stream_and_gets_no_other() -> None:
    old, new = Environment(leave_it, places=2), Environment()
    async with whole(url_of(old, new), linger=5) as it:
        asked = it.asking("/old")
        stream = await first_stream(old)
        it.gateway.retire_links()
        assert (await it.get("/new"))[1].endswith(" /new")
        stream.respond(b"old")
        assert await asked == (200, "old")
        await asyncio.wait_for(old.parked.wait(), 5)  # at once, without the five seconds
        assert new.streams.qsize() == 1


async def test_an_invocation_that_was_on_its_way_when_links_were_retired_serves_nothing() -> None:
    """It would run the old code."""
    old, new = Environment(), Environment()
    old.may_dial.clear()
    async with whole(url_of(old, new), linger=5) as it:
        asked = it.asking("/x")
        await it.url.invited.get()
        it.gateway.retire_links()
        assert (await asked)[1].endswith(" /x")
        old.may_dial.set()
        await asyncio.wait_for(old.parked.wait(), 5)
        assert old.streams.empty() and new.streams.qsize() == 1


async def test_the_answer_of_a_retired_links_invocation_ends_its_session() -> None:
    """The pool forgot retired links, so that a client waited for the grace of a killed environment."""
    environment = Environment(leave_it)
    killed = asyncio.Event()

    async def behave(token: str) -> web.StreamResponse:
        assert url.gateway is not None
        serving = asyncio.create_task(environment.invoke(url.gateway, token))
        await killed.wait()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await environment.close()
        return web.json_response(None, status=502)

    url = FunctionUrl(behave=behave)
    async with whole(url, session=SessionConfig(grace=600)) as it:
        asked = it.asking("/", b"a POST, which is not tried again")
        await first_stream(environment)
        it.gateway.retire_links()
        killed.set()
        status, text = await asyncio.wait_for(asked, 5)
        assert (status, json.loads(text)["type"]) == (502, "urn:dialback:error:function-lost")


async def test_no_stream_is_opened_in_the_second_half_of_a_lease() -> None:
    """It would be cut with the invocation."""
    old, new = Environment(remaining=0.4), Environment()
    async with whole(url_of(old, new), linger=30) as it:
        await it.get()
        await asyncio.wait_for(old.parked.wait(), 5)
        assert old.session is not None and not old.session.is_ended
        it.url.idle.clear()
        assert (await it.get())[0] == 200
        assert new.streams.qsize() == 1


@pytest.mark.parametrize(("share", "remaining"), [(5, 10.0), (75, 1.0)])
async def test_how_much_of_a_lease_takes_streams_is_configured(share: int, remaining: float) -> None:
    environment = Environment(remaining=remaining)
    async with whole(url_of(environment), linger=30, lease_share=share) as it:
        began = time.monotonic()
        await it.get()
        await asyncio.wait_for(environment.parked.wait(), 10)
        passed = time.monotonic() - began
    assert passed >= remaining * share / 100
    assert share > 50 or passed < remaining / 2


async def test_the_half_of_a_lease_that_is_over_does_not_count_for_the_next() -> None:
    environment = Environment(remaining=0.4)
    async with whole(url_of(environment), linger=0) as it:
        await it.get()
        await asyncio.wait_for(environment.parked.wait(), 5)
        environment._remaining = 60
        it.pool.function = replace(it.pool.function, linger=5)
        await it.get()
        await until_later(0.3)
        assert (await it.get())[0] == 200
        assert it.url.invited.qsize() == 2


async def test_what_waits_is_served_when_a_link_has_a_socket_again() -> None:
    environment = Environment(leave_it, places=2)
    async with whole(url_of(environment), linger=5, limits=LimitsConfig(max_invocations=1)) as it:
        first = it.asking("/1")
        one = await first_stream(environment)
        environment.may_dial.clear()
        (link,) = it.pool._leases
        assert link._socket is not None
        gone = link._socket.gone
        environment.cut()
        await gone
        second = it.asking("/2")
        await it.until_waiting(1)
        environment.may_dial.set()
        two = await asyncio.wait_for(environment.streams.get(), 5)
        two.respond(b"two")
        assert await second == (200, "two")
        one.respond(b"one")
        assert await first == (200, "one")


async def test_what_waits_behind_a_link_that_is_lost_gets_another_environment() -> None:
    lost, other = Environment(leave_it), Environment()
    async with whole(url_of(lost, other), limits=LimitsConfig(max_invocations=1)) as it:
        first = it.asking("/1", b"a POST")
        await first_stream(lost)
        second = it.asking("/2")
        await it.until_waiting(1)
        assert lost.session is not None
        lost.session.end("the process is no more")
        await lost.close()
        lost.wake()
        assert (await asyncio.wait_for(first, 5))[0] == 502
        assert (await asyncio.wait_for(second, 5))[1].endswith(" /2")
