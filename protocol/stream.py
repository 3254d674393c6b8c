"""One stream (docs/protocol.md §5): two directions, each a small state machine whose table is data, their credit, and
what waits to be sent."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, TypeAlias

from protocol.errors import DialbackError, ProtocolError
from protocol.flow import ReceiveCredit, SendCredit
from protocol.frames import Bytes, Headers

WRITABLE_MARK: Final = 64 << 10  # bytes queued unsent below which a stream asks for more
MAX_MESSAGE: Final = 16 << 20  # bytes of one WebSocket message, unless REQUEST says otherwise


class State(Enum):
    """Of one direction."""

    IDLE = "idle"
    BODY = "body"
    MESSAGES = "messages"
    CLOSING = "closing"
    ENDED = "ended"
    RESET = "reset"


class Input(Enum):
    """What can happen to one direction."""

    INFORMATIONAL = "INFORMATIONAL"
    HEAD = "head"
    UPGRADE = "head of messages"
    DATA = "DATA"
    MESSAGE = "message"
    CLOSE = "CLOSE"
    TRAILERS = "TRAILERS"
    END = "END"
    RESET = "RESET"


#: Every legal step; whatever is not here is an error and changes nothing.
TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (State.IDLE, Input.INFORMATIONAL): State.IDLE,
    (State.IDLE, Input.HEAD): State.BODY,
    (State.IDLE, Input.UPGRADE): State.MESSAGES,
    (State.IDLE, Input.RESET): State.RESET,
    (State.BODY, Input.DATA): State.BODY,
    (State.BODY, Input.TRAILERS): State.ENDED,
    (State.BODY, Input.END): State.ENDED,
    (State.BODY, Input.RESET): State.RESET,
    (State.MESSAGES, Input.MESSAGE): State.MESSAGES,
    (State.MESSAGES, Input.CLOSE): State.CLOSING,
    (State.MESSAGES, Input.END): State.ENDED,
    (State.MESSAGES, Input.RESET): State.RESET,
    (State.CLOSING, Input.END): State.ENDED,
    (State.CLOSING, Input.RESET): State.RESET,
}

TERMINAL: Final = frozenset({State.ENDED, State.RESET})


def step(state: State, event: Input, blame: type[DialbackError]) -> State:
    """The next state. Raises `blame` for an illegal step: `ProtocolError` for the peer's, `LocalError` for ours."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise blame(f"{event.value} in a direction that is {state.value}") from None


class QueuedData:
    """A piece of body that waits; it is cut and joined with its neighbours when it is sent."""

    __slots__ = ("data",)

    def __init__(self, data: Bytes) -> None:
        self.data = data


class QueuedMessage:
    __slots__ = ("data", "text")

    def __init__(self, data: Bytes, text: bool) -> None:
        self.data = data
        self.text = text


class QueuedClose:
    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: bytes) -> None:
        self.code = code
        self.reason = reason


class QueuedTrailers:
    __slots__ = ("headers",)

    def __init__(self, headers: Headers) -> None:
        self.headers = headers


class QueuedEnd:
    __slots__ = ()


Queued: TypeAlias = QueuedData | QueuedMessage | QueuedClose | QueuedTrailers | QueuedEnd


class Stream:
    """Begins with REQUEST, ends when both directions have ended and what was queued has been handed to a socket."""

    __slots__ = (
        "assembly",
        "assembly_deferred",
        "head_unsent",
        "id",
        "is_discarding",
        "is_full",
        "is_scheduled",
        "is_websocket",
        "max_message",
        "messages_waiting",
        "queue",
        "queued",
        "receive_credit",
        "receive_state",
        "send_credit",
        "send_state",
        "stop_received",
        "stop_sent",
    )

    def __init__(
        self,
        number: int,
        send_credit: SendCredit,
        receive_credit: ReceiveCredit,
        *,
        is_websocket: bool,
        max_message: int,
    ) -> None:
        self.id = number
        self.is_websocket = is_websocket
        self.max_message = max_message
        self.send_state = State.IDLE
        self.receive_state = State.IDLE
        self.send_credit = send_credit
        self.receive_credit = receive_credit
        self.queue: deque[Queued] = deque()
        self.queued = 0  # bytes in the queue
        self.head_unsent = 0  # heads of ours that wait: nothing of the queue goes before them
        self.is_scheduled = False  # stands in the scheduler's round
        self.is_full = False  # the driver was told to wait, and is owed StreamWritable
        self.is_discarding = False  # we sent STOP: what still comes is counted, not delivered
        self.stop_sent = False
        self.stop_received = False
        self.assembly: bytearray | None = None  # of an unfinished message
        self.assembly_deferred = 0  # its bytes that were not granted again, because a finished message waits
        self.messages_waiting: deque[int] = deque()  # finished and not consumed: what each one's last frame counts

    @property
    def is_writable(self) -> bool:
        return self.queued < WRITABLE_MARK

    @property
    def is_receiving(self) -> bool:
        return self.receive_state not in TERMINAL

    @property
    def is_over(self) -> bool:
        return (
            self.send_state in TERMINAL and self.receive_state in TERMINAL and not self.queue and not self.head_unsent
        )

    def receive(self, event: Input) -> None:
        """The peer's step. Raises `ProtocolError`."""
        self.receive_state = step(self.receive_state, event, ProtocolError)
        if self.receive_state in TERMINAL:
            self.receive_credit.close()
            self.assembly = None

    def enqueue(self, item: Queued, size: int = 0) -> None:
        self.queue.append(item)
        self.queued += size

    def discard_queue(self) -> None:
        self.queue.clear()
        self.queued = 0
