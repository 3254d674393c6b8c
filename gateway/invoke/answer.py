"""What became of an invocation, in the words that the pool acts on. Knows no HTTP and no AWS client."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

LONGEST_AWAKE: Final = 900_000  # milliseconds; what says more is not believed
LOGGED: Final = 200  # characters of a function's own words that are kept for the log


class Outcome(Enum):
    """Of one invocation: the class of its failure, or that it had none."""

    ANSWERED = "answered"  # our handler returned
    UNHEALTHY = "unhealthy"  # the same, and its environment says that it is unwell, and ends
    THROTTLED = "throttled"  # the platform has no room: nothing ran
    REFUSED = "refused"  # our handler refused the invitation: nothing was dialled
    FORBIDDEN = "forbidden"  # the platform does not let this gateway call the function: nothing ran
    FOREIGN = "foreign"  # something answered, but not our handler
    ERROR = "error"  # the function failed: raised, ended, timed out
    UNSIGNED = "unsigned"  # the gateway's AWS credentials cannot be had: nothing was sent
    DNS = "dns"  # its host has no address: nothing ran
    CONNECTION_REFUSED = "connection-refused"  # nobody listens there: nothing ran
    TLS = "tls"  # who is there cannot prove to be it: nothing ran
    TIMEOUT = "timeout"  # no connection, or no answer, in time
    BROKEN = "broken"  # the connection broke after the request was sent: it is not known whether anything ran
    UNREACHABLE = "unreachable"  # no connection for any other reason: nothing ran


@dataclass(frozen=True, slots=True)
class Answer:
    """`detail` is for the log: never sent to a client."""

    outcome: Outcome
    detail: str = ""
    retry_after: float = 0.0
    """Seconds for which the platform asked not to be asked again; 0: it did not say."""
    awake: float = 0.0
    """Seconds for which the environment was awake, by its own clock; 0: it did not say."""


class Invoker(Protocol):
    """One function's way to be called. Begins and ends with its pool."""

    async def invoke(self, token: str) -> Answer:
        """Call the function with an invitation and wait as long as the invocation lasts. Raises only CancelledError."""

    async def close(self) -> None:
        """Idempotent."""


def read_returned(body: bytes) -> Answer:
    """What a handler returned: ours says `{"dialback": 1, "outcome": …, "awake": …}`, in milliseconds."""
    said = _object(body)
    if said.get("dialback") != 1:
        return Answer(Outcome.FOREIGN, "the function's answer is not that of stream_handler")
    awake = said.get("awake")
    if not isinstance(awake, int) or not 0 <= awake <= LONGEST_AWAKE:
        awake = 0
    detail = str(said.get("outcome", ""))[:LOGGED]
    if detail == Outcome.UNHEALTHY.value:
        return Answer(Outcome.UNHEALTHY, "its `healthy` says no", awake=awake / 1000)
    return Answer(Outcome.ANSWERED, detail, awake=awake / 1000)


def read_forbidden(body: bytes) -> Answer:
    """What a 403 means: our handler's comes with a problem document that says why."""
    problem = _object(body)
    if str(problem.get("type", "")).startswith("urn:dialback:"):
        why = str(problem.get("detail", ""))[:LOGGED]
        return Answer(Outcome.REFUSED, f"{why}: its DIALBACK_SECRET and DIALBACK_GATEWAY must match this gateway's")
    return Answer(Outcome.FORBIDDEN, "status 403: may this gateway call the function at all?")


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):  # the second: arrays in arrays without end
        return {}
    return said if isinstance(said, dict) else {}
