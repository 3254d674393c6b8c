"""Frames put on the wire by hand, and the states of a pair that most tests of rules begin with."""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.codec import encode
from protocol.errors import ProtocolError
from protocol.session import Session
from tests.protocol.pair import Pair


def give(pair: Pair, session: Session, *frames: fr.Frame) -> list[ev.Event]:
    return pair.give(session, [encode(frame) for frame in frames])


def refuses(pair: Pair, session: Session, *frames: fr.Frame) -> None:
    """The last of them breaks the rules; those before do not."""
    give(pair, session, *frames[:-1])
    with pytest.raises(ProtocolError):
        give(pair, session, frames[-1])


def kinds(events: list[ev.Event]) -> list[type[ev.Event]]:
    return [type(event) for event in events]


def acknowledged(pair: Pair) -> Pair:
    """Nothing is left to acknowledge on either side."""
    pair.later(0.05)
    pair.pump()
    pair.forget()
    return pair


def parked(pair: Pair) -> Pair:
    pair.function.park(pair.now)
    pair.pump()
    return pair
