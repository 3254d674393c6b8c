"""Every state × every input: the tables, and the specification that prints them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import pytest

from protocol.codec import peek_fixed
from protocol.errors import REFUSALS, LocalError, ProtocolError
from protocol.flow import Budget, ReceiveCredit, SendCredit
from protocol.frames import Data, Frame, Message
from protocol.gateway_session import GATEWAY_LEASE
from protocol.lease import FUNCTION_LEASE, LeaseInput, LeaseState
from protocol.lease import step as lease_step
from protocol.stream import TERMINAL, TRANSITIONS, Input, State, Stream, step

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def printed_tables(first: str, second: str) -> list[list[list[str]]]:
    """The rows, headings first, of the specification's tables whose first two headings are these."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", DOCUMENT, re.MULTILINE)
    tables = [[[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()] for block in blocks]
    return [[table[0], *table[2:]] for table in tables if table[0][:2] == [first, second]]


DIRECTIONS = list(itertools.product(State, Input))
LEASES = list(itertools.product(LeaseState, LeaseInput))


@pytest.mark.parametrize(("state", "event"), DIRECTIONS)
def test_a_direction_steps_as_its_table_says(state: State, event: Input) -> None:
    for blame in (LocalError, ProtocolError):
        if (state, event) in TRANSITIONS:
            assert step(state, event, blame) is TRANSITIONS[state, event]
        else:
            with pytest.raises(blame):
                step(state, event, blame)


@pytest.mark.parametrize(("state", "event"), DIRECTIONS)
def test_an_illegal_step_of_the_peer_leaves_the_stream_as_it_was(state: State, event: Input) -> None:
    budget = Budget()
    credit = ReceiveCredit(100, 100, budget, 0.0)
    credit.receive(100, 0.0)
    credit.consume(100, 0.0, 0.1)  # so fast that its window is twice as wide
    stream = Stream(1, SendCredit(0), credit, is_websocket=True, is_announced=True, max_message=1)
    stream.receive_state = state
    if (state, event) in TRANSITIONS:
        stream.receive(event)
        assert stream.receive_state is TRANSITIONS[state, event]
        assert (budget.lent == 0) == (stream.receive_state in TERMINAL)
    else:
        with pytest.raises(ProtocolError):
            stream.receive(event)
        assert stream.receive_state is state
        assert budget.lent == 100


def test_nothing_leads_out_of_a_terminal_state_and_everything_leads_into_one() -> None:
    assert not [key for key in TRANSITIONS if key[0] in TERMINAL]
    reached = {State.IDLE}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    assert reached == set(State)
    for state in set(State) - TERMINAL:
        assert TRANSITIONS[state, Input.RESET] is State.RESET


def test_the_printed_table_of_directions_is_the_one_in_the_code() -> None:
    ((headings, *rows),) = printed_tables("state", "INFORMATIONAL")
    assert headings[1:] == [event.value for event in Input]
    printed = {}
    for names, *cells in rows:
        for name, (event, cell) in itertools.product(names.split(", "), zip(Input, cells, strict=True)):
            printed[State(name), event] = None if cell == "–" else State(cell)
    assert printed == {key: TRANSITIONS.get(key) for key in DIRECTIONS}


@pytest.mark.parametrize("table", [FUNCTION_LEASE, GATEWAY_LEASE], ids=["function", "gateway"])
@pytest.mark.parametrize(("state", "event"), LEASES)
def test_a_lease_steps_as_its_table_says(
    table: dict[tuple[LeaseState, LeaseInput], LeaseState], state: LeaseState, event: LeaseInput
) -> None:
    if (state, event) in table:
        assert lease_step(table, state, event, ProtocolError) is table[state, event]
    else:
        with pytest.raises(ProtocolError):
            lease_step(table, state, event, ProtocolError)


def test_the_printed_tables_of_leases_are_the_ones_in_the_code() -> None:
    function, gateway = printed_tables("state", "offer")
    for (headings, *rows), table in ((function, FUNCTION_LEASE), (gateway, GATEWAY_LEASE)):
        inputs = [LeaseInput(name) for name in headings[1:]]
        states = [LeaseState(name) for name, *_ in rows]
        printed = {
            (state, event): None if cell == "error" else LeaseState(cell)
            for state, (_, *cells) in zip(states, rows, strict=True)
            for event, cell in zip(inputs, cells, strict=True)
        }
        assert printed == {key: table.get(key) for key in itertools.product(states, inputs)}
        assert set(table) <= set(printed), "a step that is not printed"


def test_the_printed_frames_are_the_ones_in_the_code() -> None:
    ((_, *rows),) = printed_tables("type", "frame")
    printed: dict[int, str] = {}
    for kinds, names, *_ in rows:
        printed |= zip((int(kind, 16) for kind in kinds.split(" / ") if "–" not in kind), names.split(" / "))  # noqa: B905
    assert printed.pop(0x23).startswith("HANDOVER")  # reserved
    fixed = {
        0x14: "DATA",
        0x15: "DATA+END",
        0x18: "TEXT more",
        0x19: "TEXT last",
        0x1A: "BINARY more",
        0x1B: "BINARY last",
    }
    others = {kind.TYPE: kind.__name__.upper() for kind in get_args(Frame) if kind not in (Data, Message)}
    assert printed == fixed | others
    assert {kind for kind in range(256) if is_fixed(kind)} == set(fixed)


def is_fixed(kind: int) -> bool:
    return peek_fixed(b"\x93%c\xce\0\0\0\1\xc6\0\0\0\0" % kind, 12) is not None


def test_the_printed_refusals_are_the_ones_in_the_code() -> None:
    ((_, *rows),) = printed_tables("reason", "status")
    assert {name.strip("`"): int(status) for name, status, _ in rows} == REFUSALS
