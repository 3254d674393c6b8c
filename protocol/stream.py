"""One stream (docs/protocol.md §5): two directions, each a small state machine whose table is data, their credit, and
what waits to be sent."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, TypeAlias

from protocol.errors import DialbackError, ProtocolError
from protocol.flow import ReceiveCredit, SendCredit
from protocol.frames import Bytes

WRITABLE_MARK: Final = 64 << 10  # bytes queued unsent below which a stream asks for more
WRITABLE_ITEMS: Final = 1024  # the same for queued pieces and heads: a piece of one byte costs a hundred to keep
MAX_MESSAGE: Final = 16 << 20  # bytes of one WebSocket message, unless REQUEST says otherwise


class State(Enum):
    """Of one direction."""

    __hash__ = object.__hash__  # `Enum`'s own is written in Python, and every frame asks for it
    IDLE = "idle"
    BODY = "body"
    MESSAGES = "messages"
    CLOSING = "closing"
    ENDED = "ended"
    RESET = "reset"


class Input(Enum):
    """What can happen to one direction."""

    __hash__ = object.__hash__
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


class QueuedMessage:
    """A WebSocket message that waits, or what is left of one; it is cut when it is sent."""

    __slots__ = ("data", "text")

    def __init__(self, data: Bytes, text: bool) -> None:
        self.data = data
        self.text = text


class QueuedFrame:
    """A whole frame that keeps its place among the data: TRAILERS or CLOSE."""

    __slots__ = ("frame",)

    def __init__(self, frame: bytes) -> None:
        self.frame = frame


class QueuedEnd:
    __slots__ = ()


#: Pieces of body are queued as they are, and cut and joined with their neighbours when they are sent.
Queued: TypeAlias = Bytes | QueuedMessage | QueuedFrame | QueuedEnd


class Stream:
    """Begins with REQUEST, ends when both directions have ended and what was queued has been handed to a socket."""

    __slots__ = (
        "assembly", "assembly_deferred", "assembly_is_text", "head_unsent", "id", "is_announced", "is_discarding",
        "is_full", "is_scheduled", "is_stopped", "is_websocket", "max_message", "messages_waiting", "queue", "queued",
        "receive_credit", "receive_state", "send_credit", "send_state",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        send_credit: SendCredit,
        receive_credit: ReceiveCredit,
        *,
        is_websocket: bool,
        is_announced: bool,
        max_message: int,
    ) -> None:
        self.id = number
        self.is_websocket = is_websocket
        self.is_announced = is_announced  # the peer knows it, or will: its REQUEST was handed to a socket
        self.max_message = max_message
        self.send_state = State.IDLE
        self.receive_state = State.IDLE
        self.send_credit = send_credit
        self.receive_credit = receive_credit
        self.queue: deque[Queued] = deque()
        self.queued = 0  # bytes in the queue
        self.head_unsent = 0  # heads of ours that wait: nothing of the queue goes before them
        self.is_scheduled = False  # stands in the scheduler's ring
        self.is_full = False  # the driver was told to wait, and is owed StreamWritable
        self.is_discarding = False  # we sent STOP: what still comes is counted, not delivered
        self.is_stopped = False  # the peer sent STOP
        self.assembly: bytearray | None = None  # of an unfinished message
        self.assembly_is_text = False
        self.assembly_deferred = 0  # its bytes that were not granted again, because a finished message waits
        self.messages_waiting: deque[int] = deque()  # finished and not consumed: what each one's last frame counts

    @property
    def is_writable(self) -> bool:
        return self.queued < WRITABLE_MARK and len(self.queue) + self.head_unsent < WRITABLE_ITEMS

    @property
    def is_receiving(self) -> bool:
        return self.receive_state not in TERMINAL

    @property
    def has_unsent(self) -> bool:
        return bool(self.queue or self.head_unsent)

    @property
    def is_over(self) -> bool:
        return self.send_state in TERMINAL and self.receive_state in TERMINAL and not self.has_unsent

    def receive(self, event: Input) -> None:
        """The peer's step. Raises `ProtocolError`."""
        self.receive_state = step(self.receive_state, event, ProtocolError)
        if self.receive_state in TERMINAL:
            self.stop_consuming()

    def stop_consuming(self) -> None:
        """Nothing more of the peer's direction is wanted, or will come."""
        self.receive_credit.close()
        self.assembly = None

    def discard_unsent(self) -> None:
        """Drop what was not handed to a socket; heads of a stream that has none unsent are skipped by the scheduler."""
        self.queue.clear()
        self.queued = 0
        self.head_unsent = 0
