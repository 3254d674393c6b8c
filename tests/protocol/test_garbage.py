"""Damaged conversations: at each step of one that goes well, anything on the wire is refused or understood, no more.

A `ProtocolError` is the only thing that comes out, the session it came out of ends in good order, and a neighbour that
shares its memory budget notices nothing. `test_fuzz` draws frames that make sense by themselves; here the material is
what two sides really said, damaged, and plain noise. `-m fuzz` runs many times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from protocol.codec import decode, encode
from protocol.dial import Limits
from protocol.errors import LocalError, ProtocolError
from protocol.flow import Budget
from protocol.function_session import FunctionSession
from protocol.gateway_session import GatewaySession, SessionOptions
from protocol.session import Session
from tests.protocol.pair import IDENTITY, KEY, Pair

LIMITS = Limits(credit=2000, unacked=256 << 10, frames=64)
LARGE = [pytest.mark.fuzz, pytest.mark.timeout(1800)]
#: How many messages are damaged.
AMOUNTS = [pytest.param(2_000, id="bounded"), pytest.param(250_000, id="large", marks=LARGE)]

Budgets = tuple[Budget, Budget]
Step = Callable[[Pair], object]


def new_pair(budgets: Budgets) -> Pair:
    """Two sessions, each of which shares its side's memory with others."""
    pair = Pair()
    pair.function = FunctionSession(IDENTITY, KEY, "token", LIMITS, data_size=700, budget=budgets[0])
    pair.gateway = GatewaySession(IDENTITY, SessionOptions(limits=LIMITS), data_size=700, budget=budgets[1])
    return pair


def upload(pair: Pair) -> None:
    pair.open({}, [(b"content-type", b"text/plain"), (b"cookie", b"a=b")])
    pair.gateway.send_data(1, bytes(3000))
    pair.gateway.send_trailers(1, [(b"digest", b"x")])


def messages(pair: Pair) -> None:
    for session in (pair.function, pair.gateway):
        session.send_message(3, bytes(1500), text=False)
        session.send_message(3, b"text", text=True)


def closes(pair: Pair) -> None:
    pair.function.consume_message(3, pair.now)
    for session in (pair.function, pair.gateway):
        session.send_close(3, 1000, b"bye")
        session.send_data(3, b"", end=True)


def resumed(pair: Pair) -> None:
    """The socket is lost with everything that was on its way."""
    pair.take(pair.function)
    pair.take(pair.gateway)
    pair.cut()
    pair.gateway.accept(pair.function.dial(pair.now), pair.now)


#: A conversation that goes well. After each step everything is delivered, so that every prefix is another state.
STEPS: list[Step] = [
    lambda pair: pair.gateway.accept(pair.function.dial(pair.now), pair.now),
    lambda pair: pair.function.offer_lease("token", 4, 900.0, pair.now),
    lambda pair: pair.gateway.grant(1, 0.5, pair.now),
    upload,
    lambda pair: pair.open({"end": True, "client": ["127.0.0.1", 1]}),
    lambda pair: pair.open({"websocket": ["chat"], "max_message": 2000}),
    lambda pair: pair.open({"expect": True}),
    lambda pair: pair.function.send_informational(1, 103, [(b"link", b"x")]),
    lambda pair: pair.function.send_response(1, 200, [(b"a", b"b")]),
    lambda pair: pair.function.send_data(1, bytes(2500)),
    lambda pair: pair.function.send_response(2, 204, [], end=True),
    lambda pair: pair.function.send_response(3, 101, []),
    messages,
    lambda pair: (pair.function.send_data(1, bytes(900)), resumed(pair)),
    lambda pair: pair.function.start_reading(4),
    lambda pair: pair.gateway.send_data(4, bytes(500)),
    lambda pair: pair.function.stop(4, 0),
    lambda pair: (pair.gateway.reset(4, 1), pair.gateway.stop(4, 1)),
    lambda pair: pair.function.offer_lease("token", 2, 900.0, pair.now),
    lambda pair: pair.gateway.grant(2, 0.0, pair.now),
    lambda pair: pair.function.reset(4, 1, "cancelled"),
    closes,
    lambda pair: (pair.function.send_trailers(1, [(b"z", b"z")]), pair.gateway.release()),
    lambda pair: pair.function.park(pair.now),
    lambda pair: pair.function.offer_lease("token", 1, 900.0, pair.now),
    lambda pair: pair.gateway.decline(3),
]


def run(pair: Pair, steps: list[Step], carry: Callable[[Session, list[bytes]], None]) -> None:
    """The steps, and after each of them everything that is said, by way of `carry`."""
    for step in steps:
        pair.later(0.06)
        step(pair)
        for _ in range(100):
            to_function, to_gateway = pair.take(pair.gateway), pair.take(pair.function)
            if not to_function and not to_gateway:
                break
            carry(pair.function, to_function)
            carry(pair.gateway, to_gateway)


def well(pair: Pair, steps: list[Step]) -> Pair:
    run(pair, steps, lambda session, messages: void(pair.give(session, messages)))
    return pair


def void(_: object) -> None:
    return None


def recorded() -> list[bytes]:
    """Everything that both sides say in the conversation."""
    pair, said = new_pair((Budget(), Budget())), list[bytes]()

    def carry(session: Session, messages: list[bytes]) -> None:
        said.extend(messages)
        pair.give(session, messages)

    run(pair, STEPS, carry)
    assert not pair.function.is_ended and not pair.gateway.is_ended and pair.gateway.open_streams == 0
    return said


SAID = recorded()


def damaged(chance: Random, message: bytes) -> bytes:
    """A message with bits flipped, bytes replaced, a piece missing, or a piece of another inside."""
    data = bytearray(message)
    match chance.randrange(6):
        case 0:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 1:
            data[chance.randrange(min(len(data), 16))] = chance.choice((0, 1, 0x7F, 0x80, 0xC0, 0xFF))
        case 2:
            del data[chance.randrange(len(data)) :]
        case 3:
            at = chance.randrange(len(data))
            del data[at : at + chance.randint(1, 8)]
        case 4:
            other = chance.choice(SAID)
            at = chance.randrange(len(data))
            data[at:at] = other[: chance.randint(1, 20)]
        case _:
            return chance.randbytes(chance.choice((0, 1, 2, 12, 13, 64, len(data))))
    return bytes(data)


class Neighbours:
    """A pair that is fed garbage, and one beside it that shares its budgets and is in the middle of an exchange."""

    def __init__(self) -> None:
        self.budgets = (Budget(), Budget())
        self.beside = well(new_pair(self.budgets), STEPS[:10])
        self.held = [budget.lent for budget in self.budgets]

    def check(self, victim: Pair) -> None:
        """The victim is over, and gave back what it held."""
        for session in (victim.function, victim.gateway):
            session.end("enough")
            assert session.is_ended and session.open_streams == 0 and session.next_timeout() is None
            assert session.frames_to_send(1 << 20, victim.now) == [] and session.receive(SAID[0], victim.now) == []
        assert [budget.lent for budget in self.budgets] == self.held

    def finish(self) -> None:
        """The neighbour's conversation goes on as if nothing had been."""
        well(self.beside, STEPS[10:])
        assert not self.beside.function.is_ended and not self.beside.gateway.is_ended
        assert len(self.beside.body(self.beside.function, 1)) == 3000
        assert len(self.beside.body(self.beside.gateway, 1)) == 3400
        assert [budget.lent for budget in self.budgets] == [0, 0]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_noise_and_damaged_messages_in_the_codec(amount: int) -> None:
    chance = Random(10)
    refused = 0
    for count in range(5 * amount):
        data = chance.randbytes(chance.randrange(100)) if count % 4 == 0 else damaged(chance, chance.choice(SAID))
        try:
            frame = decode(data)
        except ProtocolError:
            refused += 1
        else:
            assert decode(encode(frame)) == frame
    assert amount < refused < 5 * amount, "some of it is good"


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", ["function", "gateway"])
def test_anything_at_each_step_of_a_conversation(name: str, amount: int) -> None:
    chance = Random(11)
    neighbours = Neighbours()
    given, refused, before = 0, 0, 0
    while given < amount:
        before = (before + 1) % (len(STEPS) + 1)
        victim = well(new_pair(neighbours.budgets), STEPS[:before])
        session: Session = getattr(victim, name)
        try:
            for _ in range(30):
                given += 1
                message = chance.choice(SAID)
                victim.give(session, [message if chance.random() < 0.3 else damaged(chance, message)])
                victim.later(chance.choice((0.0, 0.0, 0.06, 1.1)))
                victim.tick(session)
                victim.take(session)
                assert session._sender.bytes <= LIMITS.unacked and session._sender.frames <= LIMITS.frames
        except ProtocolError:
            refused += 1
        neighbours.check(victim)
    assert refused > len(STEPS)
    neighbours.finish()


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_conversation_over_a_wire_that_damages_it(amount: int) -> None:
    chance = Random(12)
    neighbours = Neighbours()
    carried, refused = 0, 0
    while carried < amount:
        victim = new_pair(neighbours.budgets)
        odds = chance.choice((0.01, 0.03, 0.1))

        def carry(session: Session, messages: list[bytes]) -> None:
            nonlocal carried
            carried += len(messages)
            victim.give(session, spoiled(chance, messages, odds))  # noqa: B023 - called in this turn

        try:
            run(victim, STEPS, carry)
        except ProtocolError:
            refused += 1
        except LocalError:
            pass  # a step that has become impossible: its stream was never opened, or its lease
        neighbours.check(victim)
    assert refused > carried // 500
    neighbours.finish()


def spoiled(chance: Random, messages: list[bytes], odds: float) -> list[bytes]:
    """Messages of which some were lost, doubled, swapped, replaced by others or damaged."""
    out: list[bytes] = []
    for message in messages:
        if chance.random() >= odds:
            out.append(message)
            continue
        match chance.randrange(5):
            case 0:
                pass
            case 1:
                out += [message, message]
            case 2:
                out.insert(chance.randint(0, len(out)), message)
            case 3:
                out.append(chance.choice(SAID))
            case _:
                out.append(damaged(chance, message))
    return out
