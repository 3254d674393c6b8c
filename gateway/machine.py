"""The states of an exchange and every way between them, as a table; the library's machine over it, made cheap.

Knows no request and no socket. The documentation's diagram is made from this table; a test compares the two.
"""

from __future__ import annotations

from typing import Final, Protocol

from transitions import Machine

#: Every state, with the seed's name for it. The last seven have no way out.
STATES: Final[dict[str, str]] = {
    "accepted": "idle",
    "queued": "connecting",
    "invoking": "connecting",
    "opened": "socket received",
    "request_sent": "connected",
    "duplex": "connected",
    "downloading": "connected",
    "uploading": "connected",
    "messages": "connected",
    "closing": "connected",
    "client_closed": "connected",
    "detached": "connected",
    "complete": "complete",
    "discarded": "complete",
    "refused": "error",
    "timed_out": "error",
    "cancelled": "error",
    "aborted": "error",
    "failed": "error",
}
TERMINAL: Final = frozenset(("complete", "discarded", "refused", "timed_out", "cancelled", "aborted", "failed"))

#: (what happened, in which states it may, the state after it). Sources are named: a wildcard would move ended
#: exchanges.
TABLE: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("queued", ("accepted", "invoking"), "queued"),
    ("invocation_started", ("accepted", "queued"), "invoking"),
    ("stream_opened", ("accepted", "queued", "invoking"), "opened"),
    # The function returned the stream, and no code of it saw the request: it goes elsewhere.
    ("stream_returned", ("opened", "request_sent"), "accepted"),
    ("request_ended", ("opened",), "request_sent"),
    ("request_ended", ("duplex",), "downloading"),
    ("request_ended", ("uploading",), "complete"),
    ("response_began", ("opened",), "duplex"),
    ("response_began", ("request_sent",), "downloading"),
    ("response_ended", ("duplex",), "uploading"),
    ("response_ended", ("downloading",), "complete"),
    # A WebSocket: messages both ways; then the function reads no more and its last are on their way, or the client has
    # closed and the function is told.
    ("websocket_accepted", ("request_sent",), "messages"),
    ("request_ended", ("messages",), "closing"),
    ("response_ended", ("messages", "closing", "client_closed"), "complete"),
    ("client_closed", ("messages", "closing"), "client_closed"),
    ("client_detached", ("messages", "closing"), "detached"),
    ("timed_out", ("messages", "closing", "client_closed"), "timed_out"),
    ("client_left", ("messages", "closing", "client_closed"), "cancelled"),
    ("function_failed", ("messages", "closing"), "aborted"),
    ("function_failed", ("client_closed",), "failed"),
    # The client has left, and its route lets the function go on: what comes of it is dropped.
    ("client_detached", ("opened", "request_sent", "duplex", "downloading"), "detached"),
    ("response_ended", ("detached",), "discarded"),
    ("refused", ("accepted", "queued", "invoking", "opened", "request_sent"), "refused"),
    ("timed_out", ("accepted", "queued", "invoking", "opened", "request_sent", "duplex", "downloading"), "timed_out"),
    ("timed_out", ("detached",), "timed_out"),
    ("client_left", ("accepted", "queued", "invoking", "opened", "request_sent"), "cancelled"),
    ("client_left", ("duplex", "downloading", "uploading", "detached"), "cancelled"),
    ("function_failed", ("accepted", "queued", "invoking", "opened", "request_sent", "detached"), "failed"),
    ("function_failed", ("duplex", "downloading"), "aborted"),
)


#: The same to look up: what happened, and in which state: the state after it.
MOVES: Final[dict[str, dict[str, str]]] = {trigger: {} for trigger, _, _ in TABLE}
for _trigger, _sources, _state in TABLE:
    MOVES[_trigger].update(dict.fromkeys(_sources, _state))

MACHINE: Final = Machine(
    model=None,
    states=list(STATES),
    initial="accepted",
    transitions=[
        {"trigger": trigger, "source": source, "dest": state} for trigger, sources, state in TABLE for source in sources
    ],
    auto_transitions=False,
    send_event=False,
    queued=False,
)
"""One for all exchanges, which are never added to it: each keeps its own state."""


class HasState(Protocol):
    """What moves by the table."""

    state: str


def move(model: HasState, trigger: str) -> None:
    """Move `model`, by one look into a dict (0.1 µs, where the library takes 7); raises transitions.MachineError, and
    leaves it, where the table has no such move."""
    after = MOVES[trigger].get(model.state)
    if after is None:
        MACHINE.events[trigger].trigger(model)  # the library refuses
    else:
        model.state = after
