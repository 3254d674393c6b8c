"""Requests that belong together: which they are, which environment they go to, and how a frozen one is found again."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from gateway import bonds as bonds_module
from gateway.affinity import Affinity
from gateway.bonds import Bonds
from gateway.config import LimitsConfig, TimeoutsConfig
from gateway.errors import PoolRefusal
from gateway.exchange import Exchange, RequestHead
from protocol.frames import Code
from tests.gateway.environment_fake import Environment, leave_it
from tests.gateway.simulated_function import SimulatedFunction, SimulatedLink, run
from tests.gateway.whole_gateway import first_stream, url_of, whole

SESSION = cast(Affinity, Affinity.read("header:Mcp-Session-Id"))
COOKIE = cast(Affinity, Affinity.read("cookie:room"))


def value(text: str) -> Any:
    return SESSION.tie(((b"mcp-session-id", text.encode()),))


# Which they are


def test_a_value_is_in_a_header_or_in_a_cookie() -> None:
    header = SESSION.tie(((b"cookie", b"mcp-session-id=x"), (b"mcp-session-id", b" one "), (b"mcp-session-id", b"two")))
    assert header.value == SESSION.told([(b"mcp-session-id", b"one")]) is not None
    cookie = COOKIE.tie(((b"cookie", b"a=b; rooms=3"), (b"cookie", b'x=room; room = "one=1" ; room=two')))
    assert cookie.value == COOKIE.told([(b"set-cookie", b"room=one=1; Path=/; HttpOnly")]) is not None
    assert len({header.value, cookie.value, value("One").value, value("two").value}) == 4
    assert len(header.value) == 16 and b"one" not in header.value


@pytest.mark.parametrize(
    ("affinity", "fields"),
    [
        (SESSION, ()),
        (SESSION, ((b"mcp-session-id", b" "),)),
        (COOKIE, ()),
        (COOKIE, ((b"cookie", b"room"), (b"cookie", b"Room=one"))),
        (COOKIE, ((b"cookie", b'room=""'),)),
    ],
)
def test_no_value(affinity: Affinity, fields: Any) -> None:
    assert affinity.tie(fields).value is None


def test_of_several_cookies_with_one_name_the_last_is_the_one_that_clients_keep() -> None:
    fields = [(b"set-cookie", b"room=one"), (b"set-cookie", b"other=x"), (b"set-cookie", b"room=two")]
    assert COOKIE.told(fields) == COOKIE.told([(b"set-cookie", b"room=two")])
    assert COOKIE.told([(b"set-cookie", b"room=; Max-Age=0")]) is None


@pytest.mark.parametrize("text", ["mcp-session-id", "header:", "cookie:a b", "header:é", "query:x", ""])
def test_what_no_affinity_is(text: str) -> None:
    with pytest.raises(ValueError, match="header:NAME"):
        Affinity.read(text)
    assert Affinity.read("off") is None


# The table


def exchange(tie: Any) -> Exchange:
    found = Exchange(RequestHead(b"GET", b"/", ()), cast(Any, None))
    found.tie = tie
    return found


class _Link:
    is_outdated = False


async def test_the_table_is_bounded_whatever_values_are_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bonds_module, "MOST", 100)
    bonds, link = Bonds(), cast(Any, _Link())
    bonds.opened(exchange(value("honest")), link)
    for number in range(1000):
        bonds.opened(exchange(value(f"made up {number}")), link)
        if number % 50 == 0:  # what is used stays
            bonds.opened(exchange(value("honest")), link)
    assert len(bonds) == bonds.on(link) == 100 and bonds.counts.evicted == 901 and bonds.counts.new == 1001
    assert bonds.link(exchange(value("honest"))) is link
    assert bonds.link(exchange(value("made up 1"))) is None


async def test_a_value_that_the_function_does_not_know_takes_no_place() -> None:
    bonds, link = Bonds(), cast(Any, _Link())
    for status in (400, 401, 403, 404, 500):
        tie = value(f"made up {status}")
        bonds.opened(exchange(tie), link)
        tie.answered(status, [(b"mcp-session-id", b"and told")])
    assert len(bonds) == bonds.on(link) == 0
    known = value("known")
    bonds.opened(exchange(known), link)
    known.answered(200, [])
    again = value("known")
    bonds.opened(exchange(again), link)
    again.answered(404, [])  # of something else in that session
    assert bonds.link(exchange(known)) is link


async def test_a_value_is_forgotten_when_it_was_not_used_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    bonds, link = Bonds(), cast(Any, _Link())
    for number in range(3):
        bonds.opened(exchange(value(f"{number}")), link)
    monkeypatch.setattr(bonds_module, "LONGEST", -1.0)
    assert bonds.link(exchange(value("2"))) is None
    assert len(bonds) == 0 and bonds.counts.evicted == 3


async def test_a_value_keeps_a_place_while_it_has_a_stream_and_a_minute_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    bonds, link = Bonds(), cast(Any, _Link())
    tied = [exchange(value(f"{number % 3}")) for number in range(6)]  # two streams each
    for one in tied:
        bonds.opened(one, link)
    for one in tied[:5]:
        bonds.ended(one, link)
    assert bonds.on(link) == 3 == len(bonds), "one has a stream, two had one just now"
    monkeypatch.setattr(bonds_module, "LATELY", -1.0)
    assert bonds.on(link) == 1
    bonds.opened(again := exchange(value("0")), link)
    assert bonds.on(link) == 2
    bonds.ended(again, link)
    bonds.ended(tied[5], link)
    assert bonds.on(link) == 0 and len(bonds) == 3, "they are bound there all the same"
    bonds.lose(link)
    assert not bonds._on and not bonds._lately


async def test_a_value_that_a_response_gives_is_its_environments_and_stays_so() -> None:
    bonds, first, second = Bonds(), cast(Any, _Link()), cast(Any, _Link())
    for link in (first, second):
        nothing = SESSION.tie(())
        bonds.opened(exchange(nothing), link)
        nothing.answered(200, [(b"mcp-session-id", b"abc")])
    assert bonds.link(exchange(value("abc"))) is first
    bonds.lose(first)
    assert bonds.link(exchange(value("abc"))) is None and bonds.counts.lost == 1
    assert not bonds._on


# Which environment they go to, in virtual time


def gives_sessions(function: SimulatedFunction) -> None:
    """It answers a request without a session with one of its environment's number, as an MCP server makes one; it does
    not know those of others."""

    def answer(exchange: Exchange) -> tuple[int, Any]:
        name = f"session {function.links.index(function.where[exchange])}"
        assert exchange.tie is not None
        if exchange.tie.value is None:
            return 200, [(b"mcp-session-id", name.encode())]
        return (200 if exchange.tie.value == value(name).value else 404), []

    function.answer = answer


async def three(function: SimulatedFunction) -> list[SimulatedLink]:
    """Three environments, each with a session of its number."""
    gives_sessions(function)
    await asyncio.gather(*(function.ask_of(SESSION.tie(())) for _ in range(3)))
    assert len(function.links) == 3
    return list(function.links)


def one_each(**options: Any) -> SimulatedFunction:
    options.setdefault("places", 1)
    options.setdefault("linger", 5.0)
    options.setdefault("service", lambda: 0.5)
    return SimulatedFunction(**options)


def test_a_session_stays_with_the_environment_that_made_it() -> None:
    async def scenario() -> None:
        function = one_each()
        links = await three(function)
        chance = Random(1)
        for _ in range(50):
            number = chance.randrange(3)
            assert (await function.ask_of(value(f"session {number}")))[1] is links[number]
        assert len(function.invocations) == 3
        await function.pool.stop()

    run(scenario())


def test_who_belongs_to_a_busy_environment_waits_for_it_and_costs_no_invocation() -> None:
    async def scenario() -> None:
        function = one_each()
        links = await three(function)
        asked = await asyncio.gather(*(function.ask_of(value("session 1")) for _ in range(4)))
        assert {link for _, link in asked} == {links[1]}
        assert sorted(round(wait, 1) for wait, _ in asked) == [0.0, 0.5, 1.0, 1.5]
        assert len(function.invocations) == 3
        await function.pool.stop()

    run(scenario())


def test_who_waits_for_a_busy_environment_waits_no_longer_than_in_any_queue() -> None:
    async def scenario() -> None:
        function = one_each(service=lambda: 20.0, timeouts=TimeoutsConfig(queue_wait=10))
        await three(function)
        asking = asyncio.ensure_future(function.ask_of(value("session 0")))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        with pytest.raises(PoolRefusal) as refused:
            await function.ask_of(value("session 0"))
        assert refused.value.problem.name == "queue-timeout"
        assert asyncio.get_running_loop().time() - began == pytest.approx(10)
        await asking
        await function.pool.stop()

    run(scenario())


def test_who_waits_for_one_environment_counts_to_the_queue() -> None:
    async def scenario() -> None:
        function = one_each(service=lambda: 20.0, limits=LimitsConfig(max_queue=3))
        links = await three(function)
        asking = [asyncio.ensure_future(function.ask_of(value("session 0"))) for _ in range(4)]
        await asyncio.sleep(0)
        assert function.pool.waiting == 3
        with pytest.raises(PoolRefusal, match="overloaded"):
            await function.ask_of(value("session 0"))
        assert [link for _, link in await asyncio.gather(*asking)] == [links[0]] * 4
        assert function.pool.waiting == 0
        await function.pool.stop()

    run(scenario())


def test_two_that_come_at_once_with_a_new_value_are_not_parted() -> None:
    """A room that both want to enter."""

    async def scenario() -> None:
        function = one_each()
        asked = await asyncio.gather(*(function.ask_of(value("lobby")) for _ in range(3)))
        assert len({link for _, link in asked}) == 1
        await function.pool.stop()

    run(scenario())


@pytest.mark.parametrize("linger", [0.0, 0.1])
@pytest.mark.parametrize("thawed", [-1, 0], ids=["the last one first", "the first one first"])
def test_a_frozen_environment_is_woken_for_its_session(thawed: int, linger: float) -> None:
    async def scenario() -> None:
        function = one_each(linger=linger)
        function.thawed = lambda idle: thawed
        links = await three(function)
        for number in (0, 1, 2, 2, 1, 0, 2, 0):
            await function.quiet(5)
            assert function.awake == 0
            waited, link = await function.ask_of(value(f"session {number}"))
            assert link is links[number]
            assert waited < 0.1, "a thaw or three, no cold start"
        assert len(function.links) == 3
        assert function.pool.bonds.counts.lost == 0
        await function.pool.stop()

    run(scenario())


def test_those_that_were_woken_in_its_place_sleep_again_when_it_is_found() -> None:
    async def scenario() -> None:
        function = one_each(linger=0.1, service=lambda: 0.01)
        links = await three(function)
        await function.quiet(5)
        function.idle.sort(key=links.index)  # the wanted one is thawed last
        before = len(function.invocations)
        await function.ask_of(value("session 0"))
        assert len(function.invocations) - before == 3
        await asyncio.sleep(0.15)
        assert function.awake == 0 and not function.pool._rooms._held
        await function.pool.stop()

    run(scenario())


def test_an_environment_among_many_is_found_in_few_rounds() -> None:
    async def scenario() -> None:
        function = one_each(linger=0.1)
        gives_sessions(function)
        await asyncio.gather(*(function.ask_of(SESSION.tie(())) for _ in range(10)))
        assert len(function.links) == 10
        await function.quiet()
        wanted = function.idle[0]  # the platform thaws the last one first
        number = function.links.index(wanted)
        before = len(function.invocations)
        waited, link = await function.ask_of(value(f"session {number}"))
        assert link is wanted and waited < 0.08, "four rounds"
        assert len(function.invocations) - before <= 10
        await function.pool.stop()

    run(scenario())


def test_a_session_whose_environment_the_platform_has_taken_goes_anywhere() -> None:
    """It had closed its socket, as a process that ends does."""

    async def scenario() -> None:
        function = one_each(linger=0.1)
        links = await three(function)
        await function.quiet(5)
        function.ends(links[1])
        waited, link = await function.ask_of(value("session 1"))
        assert link is not links[1] and waited < 0.1
        assert function.pool.bonds.counts.lost == 1
        await function.pool.stop()

    run(scenario())


def test_a_frozen_environment_that_went_without_a_word_is_not_looked_for_without_end() -> None:
    """No FIN comes from a frozen network: that it is gone shows in that others come in its place."""

    async def scenario() -> None:
        function = one_each(linger=0.1, cold=1.0)
        links = await three(function)
        await function.quiet(5)
        function.idle.remove(links[1])
        before = len(function.invocations)
        waited, link = await function.ask_of(value("session 1"))
        assert link is not links[1]
        assert 1.0 < waited < 1.2, "a cold start, beside which the others were woken"
        assert len(function.invocations) - before == 3
        assert function.pool.bonds.counts.lost == 1
        assert (await function.ask_of(value("session 0")))[1] is links[0], "that of the others is left alone"
        await function.pool.stop()

    run(scenario())


def test_an_environment_that_is_not_free_yet_is_not_taken_for_gone() -> None:
    """Its invocation was answered, and for a moment more the platform has others begin anew."""

    async def scenario() -> None:
        function = one_each(linger=0.0, service=lambda: 0.1, cold=0.3)
        function.settling = 0.05
        gives_sessions(function)
        links = [(await function.ask_of(SESSION.tie(())))[1]]
        for _ in range(5):
            await asyncio.sleep(0.01)
            assert (await function.ask_of(value("session 0")))[1] is links[0]
        assert len(function.links) > 1 and function.pool.bonds.counts.lost == 0
        await function.pool.stop()

    run(scenario())


def test_who_waited_for_an_environment_that_ends_is_served_first() -> None:
    async def scenario() -> None:
        function = one_each(service=lambda: 5.0, limits=LimitsConfig(max_invocations=3))
        links = await three(function)
        order: list[str] = []

        async def asking(name: str, tie: Any) -> None:
            await function.ask_of(tie)
            order.append(name)

        busy = [asyncio.ensure_future(function.ask_of(value(f"session {number}"))) for number in range(3)]
        await asyncio.sleep(0.1)
        asked = [asyncio.ensure_future(asking(name, value("session 0"))) for name in ("first", "second")]
        asked.append(asyncio.ensure_future(asking("third", SESSION.tie(()))))
        await asyncio.sleep(0.1)
        links[0].is_leased = False
        function.pool.link_ended(cast(Any, links[0]), "killed")
        await asyncio.gather(*asked)
        assert order[0] == "first"  # the second follows it, where it is now
        await asyncio.gather(*busy)
        await function.pool.stop()

    run(scenario())


def test_who_waits_for_an_environment_that_ends_is_served_elsewhere() -> None:
    async def scenario() -> None:
        function = one_each(service=lambda: 3.0)
        links = await three(function)
        await function.quiet(4)
        busy = asyncio.ensure_future(function.ask_of(value("session 2")))
        await asyncio.sleep(0.5)
        waiting = asyncio.ensure_future(function.ask_of(value("session 2")))
        await asyncio.sleep(0.5)
        links[2].is_leased = False
        function.pool.link_ended(cast(Any, links[2]), "killed")
        waited, link = await waiting
        assert link is not links[2] and 0.4 < waited < 1.6
        busy.cancel()
        await function.pool.stop()

    run(scenario())


def test_a_session_outlives_the_time_of_its_invocation() -> None:
    """Half of its lease is for new streams, the rest for those of its sessions alone; and then it is woken."""

    async def scenario() -> None:
        function = one_each(linger=2000.0, remaining=20.0)
        links = await three(function)
        for _ in range(100):
            await asyncio.sleep(0.9)
            assert (await function.ask_of(value("session 0")))[1] is links[0]
        assert len(function.links) <= 4
        await function.pool.stop()

    run(scenario())


def test_a_herd_of_new_sessions_starts_at_once_as_many_environments_as_it_fills() -> None:
    """Twenty that bring a value fill two environments of twenty places, of which each keeps half for those who come
    back."""

    async def scenario() -> None:
        function = SimulatedFunction(places=20, cold=2.0, service=lambda: 30.0)
        await function.ask()
        await function.quiet()
        function.idle.clear()  # what is known stays known
        asked = await asyncio.gather(*(function.ask_of(value(f"chat {number}")) for number in range(20)))
        assert len(function.invocations) == 1 + 2
        assert max(waited for waited, _ in asked) < function.cold + 0.5, "nobody waits for a second start"
        await function.pool.stop()

    run(scenario())


def test_places_that_new_sessions_may_not_have_are_not_waited_for() -> None:
    """Calls of known sessions come and go in what is kept for them; a new one gets an environment of its own."""

    async def scenario() -> None:
        seconds = 0.05
        function = SimulatedFunction(places=4, cold=1.0, linger=5.0, service=lambda: seconds)
        for _ in range(20):
            await function.ask()  # streams are short
        seconds = 60.0
        sessions = [asyncio.ensure_future(function.ask_of(value(f"{number % 2}"))) for number in range(3)]
        await asyncio.sleep(0.1)
        function.idle.clear()
        before = len(function.invocations)
        waited, _ = await function.ask_of(value("new"))
        assert len(function.invocations) == before + 1
        assert waited < function.cold + 0.2, "the start began at once"
        await asyncio.gather(*sessions)
        await function.pool.stop()

    run(scenario())


def test_a_lease_whose_time_is_up_takes_nobody_elses_requests() -> None:
    async def scenario() -> None:
        function = one_each(remaining=20.0, service=lambda: 15.0, cold=5.0)
        links = [(asyncio.ensure_future(function.ask()))]
        await asyncio.sleep(18)  # its lease is from 5 to 25 s, for new streams to 15 s, and its stream lasts to 20 s
        waited, link = await function.ask_of(SESSION.tie(()))
        assert link is function.links[1] and waited == pytest.approx(5, abs=0.1)
        await asyncio.gather(*links)
        await function.pool.stop()

    run(scenario())


def test_the_last_seconds_of_a_lease_are_for_what_is_open() -> None:
    """What would be opened then would be cut at once: it waits for the next invocation of its environment."""

    async def scenario() -> None:
        seconds = 0.01
        function = one_each(remaining=20.0, places=2, service=lambda: seconds)
        gives_sessions(function)
        await function.ask_of(SESSION.tie(()))  # leased from 1 to 21 s
        (link,) = function.links
        seconds = 18.0
        listening = asyncio.ensure_future(function.ask_of(value("session 0")))
        await asyncio.sleep(13)
        seconds = 0.01
        assert await function.ask_of(value("session 0")) == (0.0, link), "seven seconds are left"
        await asyncio.sleep(3)
        waited, found = await function.ask_of(value("session 0"))
        assert found is link and waited == pytest.approx(2, abs=0.2)
        await listening
        await function.pool.stop()

    run(scenario())


def test_who_waits_for_a_frozen_environment_is_charged_for_invocations_that_fail() -> None:
    async def scenario() -> None:
        function = one_each(linger=0.1)
        await three(function)
        await function.quiet(5)
        function.fails = lambda number: True
        with pytest.raises(PoolRefusal, match="function-error"):
            await function.ask_of(value("session 0"))
        assert function.pool.waiting == 0
        await function.pool.stop()

    run(scenario())


def test_new_code_has_no_sessions() -> None:
    async def scenario() -> None:
        function = one_each()
        links = await three(function)
        function.pool.retire_links()
        await asyncio.sleep(0.1)
        function.idle.clear()
        assert (await function.ask_of(value("session 0")))[1] not in links
        await function.pool.stop()

    run(scenario())


def test_without_a_value_nothing_is_bound_and_nothing_waits() -> None:
    async def scenario() -> None:
        function = one_each()
        links = await three(function)
        function.answer = lambda exchange: (200, ())
        asked = await asyncio.gather(*(function.ask_of(SESSION.tie(())) for _ in range(3)))
        assert {link for _, link in asked} == set(links)
        assert len(function.pool.bonds) == 3
        await function.pool.stop()

    run(scenario())


@pytest.mark.parametrize("seed", range(12))
def test_by_chance(seed: int) -> None:
    """Sessions that come and go, environments that the platform thaws as it likes and takes back when it likes, with a
    word or without: who has a living environment is served there, and nobody waits for long."""

    async def scenario() -> None:
        chance = Random(seed)
        function = one_each(
            places=chance.choice([1, 2, 5]),
            linger=chance.choice([0.0, 0.1, 2.0]),
            remaining=chance.choice([15.0, 900.0]),
            service=lambda: chance.choice([0.01, 0.2, 1.5]),
        )
        function.thawed = lambda idle: chance.randrange(idle)
        gives_sessions(function)
        gone: set[SimulatedLink] = set()
        missed = 0

        async def one_session() -> None:
            nonlocal missed
            link: SimulatedLink | None = None
            for _ in range(chance.randrange(2, 15)):
                await asyncio.sleep(chance.choice([0.0, 0.5, 10.0, 100.0]))
                if link is None:
                    link = (await function.ask_of(SESSION.tie(())))[1]
                    continue
                waited, found = await function.ask_of(value(f"session {function.links.index(link)}"))
                assert waited < 10
                if found is not link:
                    missed += link not in gone
                    link = None  # 404: it begins anew

        async def platform() -> None:
            for _ in range(40):
                await asyncio.sleep(chance.uniform(1, 40))
                if function.idle:
                    taken = chance.choice(function.idle)
                    gone.add(taken)
                    if chance.random() < 0.5:
                        function.ends(taken)
                    else:
                        function.idle.remove(taken)

        taking = asyncio.ensure_future(platform())
        await asyncio.gather(*(one_session() for _ in range(12)))
        taking.cancel()
        counts = function.pool.bonds.counts
        assert missed == 0
        assert counts.kept > 20 and function.pool.waiting == 0
        await function.quiet()
        assert not function.pool._rooms._rooms or not len(function.pool._rooms)
        await function.pool.stop()

    run(scenario())


# On real links


async def test_a_stream_that_its_environment_refuses_goes_to_another() -> None:
    """It is unwell: better an environment that does not know the session than none."""
    environments = [Environment(leave_it, places=2), Environment(leave_it, places=2)]
    headers = {"mcp-session-id": "one"}
    async with whole(url_of(*environments), affinity="header:mcp-session-id", linger=5) as it:

        async def ask() -> str:
            async with it.client.get(it.gateway.url, headers=headers) as response:
                return await response.text()

        long = asyncio.ensure_future(ask())
        open_one = await first_stream(environments[0])
        first = asyncio.ensure_future(ask())
        (await first_stream(environments[0])).respond(b"first")
        assert await first == "first"
        second = asyncio.ensure_future(ask())
        (await first_stream(environments[0])).reset(Code.REFUSED)
        (await first_stream(environments[1])).respond(b"second")
        assert await second == "second"
        third = asyncio.ensure_future(ask())
        (await first_stream(environments[1])).respond(b"third")
        assert await third == "third"
        open_one.respond(b"long")
        assert await long == "long"


async def test_who_only_listens_leaves_places_for_what_its_environment_is_asked_next() -> None:
    """Each session of an MCP client holds a stream open. Were an environment filled with them, no call would get in."""
    environments = [Environment(leave_it, places=4), Environment(leave_it, places=4)]
    async with whole(url_of(*environments), affinity="header:mcp-session-id", linger=5) as it:

        async def ask(session: str) -> str:
            async with it.client.get(it.gateway.url, headers={"mcp-session-id": session}) as response:
                return await response.text()

        listening, streams = [], []
        for number in range(4):
            listening.append(asyncio.ensure_future(ask(f"session {number}")))
            streams.append(await first_stream(environments[number // 2]))
        for number in (0, 1, 2, 3):
            call = asyncio.ensure_future(ask(f"session {number}"))
            (await first_stream(environments[number // 2])).respond(b"called")
            assert await call == "called"
        for stream in streams:
            stream.respond(b"heard")
        assert await asyncio.gather(*listening) == ["heard"] * 4


async def test_it_is_measured_and_no_value_is_in_the_log() -> None:
    with capture_logs() as events:
        async with whole(url_of(Environment()), affinity="cookie:room", linger=5) as it:
            for _ in range(3):
                async with it.client.get(it.gateway.url, headers={"cookie": "room=lobby-secret"}) as response:
                    assert response.status == 200
            async with it.client.get(f"{it.gateway.admin_url}/metrics") as response:
                text = await response.text()
    assert 'dialback_affinity_values{function="function"} 1.0' in text
    assert 'dialback_affinity_total{function="function",outcome="kept"} 2.0' in text
    assert 'dialback_affinity_total{function="function",outcome="new"} 1.0' in text
    assert "lobby-secret" not in repr(events) + text
