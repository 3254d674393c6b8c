"""What became of an invocation, in the words that the pool acts on. Knows no HTTP and no AWS client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """Of one invocation."""

    ANSWERED = "answered"  # our handler returned
    THROTTLED = "throttled"  # the platform has no room: nothing ran
    REFUSED = "refused"  # our handler refused the invitation: nothing ran
    FOREIGN = "foreign"  # something answered, but not our handler
    ERROR = "error"  # the function failed: raised, ended, timed out
    UNREACHABLE = "unreachable"  # no connection, or one that broke: it is not known whether anything ran


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` is for the log: never sent to a client."""

    outcome: Outcome
    detail: str = ""


class Invoker(Protocol):
    """One function's way to be called. Begins and ends with its pool."""

    async def invoke(self, token: str) -> Answer:
        """Call the function with an invitation and wait as long as the invocation lasts. Raises only CancelledError."""

    async def close(self) -> None: ...


def read_answer(body: bytes) -> Answer:
    """What a 200 with this body means: our handler says `{"dialback": 1, "outcome": …}`."""
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("dialback") != 1:
        return Answer(Outcome.FOREIGN, "the function's answer is not that of stream_handler")
    outcome = str(said.get("outcome", ""))[:200]
    if outcome.startswith("refused"):
        return Answer(Outcome.REFUSED, outcome)
    return Answer(Outcome.ANSWERED, outcome)
