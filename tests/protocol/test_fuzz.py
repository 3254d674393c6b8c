"""Random and mutated input raises the protocol's own error and nothing else: codec, sessions, dials, tokens.

A bounded run in the default suite; `-m fuzz` runs many times as much.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from random import Random
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest

from protocol import frames as fr
from protocol.codec import decode, encode
from protocol.dial import Dial, Limits
from protocol.dial_reader import read_dial
from protocol.errors import REFUSALS, DialRefused, InvitationRefused, LocalError, ProtocolError
from protocol.invitation import Invitation, Keyring, key_id, sign, verify
from protocol.session import Session
from tests.protocol.pair import EXCHANGE, Pair

AMOUNTS = [
    pytest.param(1, id="bounded"),
    pytest.param(40, id="large", marks=[pytest.mark.fuzz, pytest.mark.timeout(900)]),
]


def mutated(chance: Random, message: bytes) -> bytes:
    """The message with a few bytes changed, dropped, doubled or swapped."""
    data = bytearray(message)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 4)]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 4))
            case 3 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case _:
                data[at:at] = data[: chance.randrange(len(data) + 1)]
    return bytes(data)


def nested(chance: Random, depth: int = 3) -> Any:
    """Any value that msgpack knows."""
    kind = chance.randrange(10 if depth else 7)
    match kind:
        case 0:
            return chance.choice((0, 1, 2, 16, 127, 128, 255, -1, -33, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1))
        case 1:
            return chance.choice((None, True, False))
        case 2:
            return chance.choice((0.0, -1.5, float("inf")))
        case 3:
            return chance.randbytes(chance.randrange(20))
        case 4:
            return chance.choice(("", "end", "websocket", "window", "client", "\x00ä€"))
        case 5:
            return msgpack.ExtType(chance.randrange(128), chance.randbytes(chance.randrange(9)))
        case 6:
            return chance.choice((EXCHANGE, b"GET", b"/"))
        case 7:
            return {chance.choice(("end", "linger", "window", "x", b"y")): nested(chance, depth - 1) for _ in range(2)}
        case _:
            return [nested(chance, depth - 1) for _ in range(chance.randrange(6))]


def plausible(chance: Random) -> fr.Frame:
    """A good frame whose small numbers are likely to mean something to a session."""
    stream = chance.choice((1, 1, 2, 3, 4, 5, 9, fr.MAX_STREAM))
    few = chance.choice((0, 0, 1, 2, 3, 5, 10, fr.MAX_OFFSET))
    flag: dict[str, Any] = chance.choice(({}, {}, {"end": True}))
    return chance.choice(
        (
            lambda: fr.Welcome(
                few, chance.choice((1, 2)), {"credit": 100, "unacked": 1 << 18, "frames": 64, "ping": few}
            ),
            lambda: fr.Ack(few),
            lambda: fr.Lease(few, "t", few, few, few),
            lambda: fr.Leased(few, {"linger": few}),
            lambda: fr.Release(few),
            lambda: fr.Park(few, chance.choice((0, 1, 2, 3, 4)), few),
            lambda: fr.Parked(few, few),
            lambda: fr.Request(
                stream, EXCHANGE, b"GET", b"/", [], flag | chance.choice(({}, {"expect": True}, {"websocket": []}))
            ),
            lambda: fr.Response(stream, chance.choice((101, 200, 204)), [], flag),
            lambda: fr.Informational(stream, 103),
            lambda: fr.Trailers(stream),
            lambda: fr.Data(stream, bytes(chance.choice((0, 1, 10, 70_000))), chance.random() < 0.3),
            lambda: fr.Message(stream, bytes(chance.choice((0, 1, 200))), chance.random() < 0.5, chance.random() < 0.5),
            lambda: fr.Close(stream, 1000),
            lambda: fr.Credit(stream, few),
            lambda: fr.Reset(stream, chance.randrange(9), {"reason": "x"}),
            lambda: fr.Stop(stream, chance.randrange(9)),
        )
    )()


def message(chance: Random) -> bytes:
    """Good, mutated, structured or random."""
    pick = chance.random()
    if pick < 0.55:
        return encode(plausible(chance))
    if pick < 0.85:
        return mutated(chance, encode(plausible(chance)))
    if pick < 0.97:
        packed: bytes = msgpack.packb(
            [chance.choice((1, 2, 3, 7, 16, 17, 33, 20)), *(nested(chance) for _ in range(3))]
        )
        return packed
    return chance.randbytes(chance.randrange(200))


@pytest.mark.parametrize("amount", AMOUNTS)
def test_the_codec_raises_nothing_else(amount: int) -> None:
    chance = Random(1)
    refused = 0
    for _ in range(20_000 * amount):
        data = message(chance)
        try:
            frame = decode(data)
        except ProtocolError:
            refused += 1
        else:
            # What was taken can be said again, if not always in the same bytes: msgpack has several for a number.
            assert decode(encode(frame)) == frame
    assert refused > 3000 * amount


def stopped(pair: Pair, session: Session) -> None:
    session.stop(pair.answered(), 0)
    pair.take(session)


def function_states() -> Iterator[tuple[str, Callable[[], tuple[Pair, Session]]]]:
    def state(prepare: Callable[[Pair], object], *, dialled: bool = True) -> Callable[[], tuple[Pair, Session]]:
        def make() -> tuple[Pair, Session]:
            pair = Pair.leased() if dialled else Pair()
            prepare(pair)
            return pair, pair.function

        return make

    def offered(pair: Pair) -> None:
        pair.dial()
        pair.function.offer_lease("t", 1, 1.0, pair.now)

    def parking(pair: Pair) -> None:
        pair.function.park(pair.now)
        pair.take(pair.function)

    def parked(pair: Pair) -> None:
        pair.function.park(pair.now)
        pair.pump()

    def recycled(pair: Pair) -> None:
        parked(pair)
        pair.function.offer_lease("token", 1, 1.0, pair.now)
        pair.take(pair.function)

    def cut(pair: Pair) -> None:
        stream = pair.opened()
        pair.gateway.send_data(stream, bytes(5000))
        (data,) = pair.take(pair.gateway)
        pair.function.receive_part(data[:1000], 0, len(data), pair.now)
        pair.cut()
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)
        pair.give(pair.function, pair.gateway.frames_to_send(1, pair.now))

    yield "idle", state(lambda pair: None, dialled=False)
    yield "dialled", state(lambda pair: pair.function.dial(pair.now), dialled=False)
    yield "welcomed", state(Pair.dial, dialled=False)
    yield "offered", state(offered, dialled=False)
    yield "leased", state(lambda pair: None)
    yield "streams", state(lambda pair: [pair.opened(), pair.answered(), pair.opened({"end": True})])
    yield "websockets", state(lambda pair: [pair.answered({"websocket": [], "max_message": 150}, 101), pair.opened()])
    yield "stopped", state(lambda pair: stopped(pair, pair.function))
    yield "parking", state(parking)
    yield "parked", state(parked)
    yield "recycled", state(recycled)
    yield "cut", state(cut)


def gateway_states() -> Iterator[tuple[str, Callable[[], tuple[Pair, Session]]]]:
    def state(prepare: Callable[[Pair], object], *, dialled: bool = True) -> Callable[[], tuple[Pair, Session]]:
        def make() -> tuple[Pair, Session]:
            pair = Pair.leased() if dialled else Pair()
            prepare(pair)
            return pair, pair.gateway

        return make

    def parked(pair: Pair) -> None:
        pair.function.park(pair.now)
        pair.pump()

    def cut(pair: Pair) -> None:
        stream = pair.answered()
        pair.function.send_data(stream, bytes(5000))
        (data,) = pair.take(pair.function)
        pair.gateway.receive_part(data[:1000], 0, len(data), pair.now)
        pair.cut()
        pair.dial()

    def accepted(pair: Pair) -> None:
        pair.gateway.accept(pair.function.dial(pair.now), pair.now)

    def second_offer(pair: Pair) -> None:
        pair.opened()
        pair.function.offer_lease("t", 1, 1.0, pair.now)
        pair.pump()

    yield "idle", state(lambda pair: None, dialled=False)
    yield "accepted", state(accepted, dialled=False)
    yield "welcomed", state(Pair.dial, dialled=False)
    yield "leased", state(lambda pair: None)
    yield "streams", state(lambda pair: [pair.opened(), pair.answered(), pair.opened({"end": True}), pair.open()])
    yield "websockets", state(lambda pair: [pair.answered({"websocket": [], "max_message": 150}, 101), pair.opened()])
    yield "stopped", state(lambda pair: stopped(pair, pair.gateway))
    yield "second offer", state(second_offer)
    yield "parked", state(parked)
    yield "cut", state(cut)


STATES = [
    pytest.param(make, id=f"{side}-{name}")
    for side, states in (("function", function_states()), ("gateway", gateway_states()))
    for name, make in states
]


def feed(chance: Random, pair: Pair, session: Session, data: bytes) -> None:
    """One message, whole or in parts, and what a driver would do then."""
    cuts = [0, len(data)]
    if len(data) > 1 and chance.random() < 0.3:
        cuts = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(3))})
    for start, end in zip(cuts, cuts[1:], strict=False):
        session.receive_part(data[start:end], start, len(data), pair.now)
    pair.now += chance.choice((0.0, 0.0, 0.06, 1.1, 40.0))
    session.handle_timeout(pair.now)
    for frame in session.frames_to_send(1 << 20, pair.now):
        decode(frame)
    session.pending_events()
    session.next_timeout()


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("make", STATES)
def test_a_session_in_any_state_raises_nothing_else(make: Callable[[], tuple[Pair, Session]], amount: int) -> None:
    chance = Random(2)
    for _ in range(600 * amount):
        pair, session = make()
        try:
            for _ in range(10):
                feed(chance, pair, session, message(chance))
                limits = session.limits
                assert session._sender.bytes <= limits.unacked and session._sender.frames <= limits.frames
        except ProtocolError:
            session.end("protocol error")
        assert session.is_ended or session.end("enough")
        assert session.is_ended and session.open_streams == 0 and session.next_timeout() is None
        assert session.frames_to_send(1 << 20, pair.now) == []
        assert session.receive(encode(fr.Ack(0)), pair.now) == [], "nothing comes out of a session that is over"


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_dial_is_refused_and_nothing_else(amount: int) -> None:
    chance = Random(3)
    good = [
        Dial(b"s" * 16, 1, 0, Limits(), invitation="token", features=("a", "b")).to_headers(),
        Dial(b"s" * 16, 7, 123, Limits(1, 1 << 20, 100), proof=bytes(32), remaining=12.5).to_headers(),
    ]
    reasons = set()
    for _ in range(10_000 * amount):
        headers = dict(chance.choice(good))
        for name in chance.sample(list(headers), chance.randint(1, 2)):
            match chance.randrange(4):
                case 0:
                    del headers[name]
                case 1:
                    headers[name] = "".join(
                        chr(chance.choice((0, 32, 48, 57, 61, 65, 0x660, 0xDC80))) for _ in range(5)
                    )
                case 2:
                    headers[name] = mutated(chance, headers[name].encode()).decode("latin-1")
                case _:
                    headers[name] *= 50
        try:
            dial = read_dial(headers)
        except DialRefused as refused:
            reasons.add(refused.reason)
            assert refused.status == REFUSALS[refused.reason]
        else:
            assert len(dial.session) == 16 and dial.epoch > 0 and dial.limits.is_valid()
            assert bool(dial.invitation) != bool(dial.proof)
    assert reasons == {"version", "proof"}


@pytest.mark.parametrize("amount", AMOUNTS)
def test_an_invitation_is_refused_and_nothing_else(amount: int) -> None:
    chance = Random(4)
    key = b"k" * 32
    ring = Keyring([key])
    good = sign(Invitation(key_id(key), b"n" * 16, "function", "boot", "wss://gw.example.com/", 1000), key)
    reasons = set()
    for _ in range(10_000 * amount):
        token: Any = mutated(chance, good.encode()).decode("latin-1")
        if chance.random() < 0.2:
            body = msgpack.packb(nested(chance))
            token = sign_anything(body if chance.random() < 0.5 else chance.randbytes(40), key)
        try:
            verify(token, ring, 500.0)
        except InvitationRefused as refused:
            reasons.add(refused.reason)
        else:
            assert token == good
    assert reasons == {"malformed", "signature"}
    for token in (None, 1, b"bytes", ["token"], {}, "", "=", "a" * 5000, "ä", "\udc80"):
        with pytest.raises(InvitationRefused):
            verify(token, ring, 500.0)


def sign_anything(body: bytes, key: bytes) -> str:
    """A token whose signature is good and whose content is anything."""
    mac = hmac.new(key, b"dialback invitation 1" + body, sha256).digest()
    return urlsafe_b64encode(body + mac).decode().rstrip("=")


def a_call(chance: Random, pair: Pair) -> Callable[[], object]:
    """Something that a driver might do, right or wrong."""
    function, gateway, now = pair.function, pair.gateway, pair.now
    side, stream = chance.choice((function, gateway)), chance.choice((1, 2, 3))
    return chance.choice(
        (
            lambda: pair.open({"websocket": []} if chance.random() < 0.3 else {}),
            lambda: function.send_response(stream, chance.choice((101, 200, 1)), []),
            lambda: function.send_informational(stream, 103, []),
            lambda: side.send_data(stream, bytes(chance.randrange(3)), end=True),
            lambda: side.send_data(stream, b"x"),
            lambda: side.send_trailers(stream, []),
            lambda: side.send_message(stream, b"x", text=True),
            lambda: side.send_close(stream, chance.choice((1, 1000))),
            lambda: side.reset(stream, 3, "\udc80" * 500),
            lambda: side.stop(stream, 1),
            lambda: side.consume(stream, chance.randrange(-1, 3), now),
            lambda: function.offer_lease("t" * chance.choice((1, 5000)), 3, chance.choice((-1.0, 9.0)), now),
            lambda: gateway.grant(function.lease, chance.choice((-1.0, 0.5)), now),
            lambda: gateway.decline(function.lease),
            gateway.release,
            lambda: function.park(now),
            pair.pump,
        )
    )


def test_calls_of_ours_raise_local_errors_and_nothing_else() -> None:
    chance = Random(5)
    refused = 0
    for _ in range(1000):
        pair = Pair.leased(places=3)
        for _ in range(25):
            try:
                a_call(chance, pair)()
            except LocalError:
                refused += 1
        pair.pump()  # whatever was asked for, the two understand each other
    assert refused > 1000
