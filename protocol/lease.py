"""The lease of a link: its states, its inputs, and the function's table (docs/protocol.md §4.2)."""

from __future__ import annotations

from enum import Enum
from typing import Final

from protocol.errors import DialbackError

RECYCLE_TIMEOUT: Final = 0.2  # seconds without any frame after LEASE on a socket that an earlier lease used …
RECYCLE_ROUND_TRIPS: Final = 3  # … or so many round trips, where that is more: a slow socket is not a dead one
PARK_TIMEOUT: Final = 1.0  # seconds of silence after PARK, in which PARKED or a REQUEST that voids it has not come


class LeaseState(Enum):
    __hash__ = object.__hash__  # as `State` has
    PARKED = "parked"
    OFFERED = "offered"
    LEASED = "leased"
    PARKING = "parking"


class LeaseInput(Enum):
    __hash__ = object.__hash__
    OFFER = "offer"
    GRANT = "LEASED"
    REQUEST = "REQUEST"
    PARK = "park"
    PARKED = "PARKED"


_S, _I = LeaseState, LeaseInput

#: At the function.
FUNCTION_LEASE: Final[dict[tuple[LeaseState, LeaseInput], LeaseState]] = {
    (_S.PARKED, _I.OFFER): _S.OFFERED,
    (_S.OFFERED, _I.OFFER): _S.OFFERED,
    (_S.OFFERED, _I.GRANT): _S.LEASED,
    (_S.OFFERED, _I.REQUEST): _S.OFFERED,
    (_S.OFFERED, _I.PARKED): _S.PARKED,
    (_S.LEASED, _I.OFFER): _S.OFFERED,
    (_S.LEASED, _I.REQUEST): _S.LEASED,
    (_S.LEASED, _I.PARK): _S.PARKING,
    (_S.PARKING, _I.OFFER): _S.OFFERED,
    (_S.PARKING, _I.REQUEST): _S.LEASED,
    (_S.PARKING, _I.PARKED): _S.PARKED,
}


def step(
    table: dict[tuple[LeaseState, LeaseInput], LeaseState],
    state: LeaseState,
    event: LeaseInput,
    blame: type[DialbackError],
) -> LeaseState:
    """The next state. Raises `blame` for an illegal step; nothing has changed then."""
    try:
        return table[state, event]
    except KeyError:
        raise blame(f"{event.value} while {state.value}") from None
