"""Messages in pieces: what lets DATA be passed on before its frame is whole, and not twice (docs/protocol.md §2.3)."""

from __future__ import annotations

from typing import Final

from protocol.errors import LocalError, ProtocolError
from protocol.frames import DATA, DATA_END, DATA_OVERHEAD, MAX_FRAME_SIZE, Bytes, peek_fixed


class Piece:
    """Payload bytes of one DATA frame that were not passed on before.

    `first` and `last` are of the frame on this socket.
    """

    __slots__ = ("data", "end", "first", "fresh", "last", "length", "stream")

    def __init__(
        self, stream: int, end: bool, data: memoryview, *, first: bool, last: bool, length: int, fresh: int
    ) -> None:
        self.stream = stream
        self.end = end
        self.data = data
        self.first = first
        self.last = last
        self.length = length  # of the whole frame, bytes
        self.fresh = fresh  # payload bytes of the whole frame that were not passed on on an earlier socket


_NONE: Final = memoryview(b"")


class Reader:
    """Of one session. It outlives sockets: `cut` keeps how much of an unfinished frame was passed on."""

    __slots__ = ("_buffer", "_head", "_length", "_passed", "_prefix", "_prefix_head", "_seen", "_started")

    def __init__(self) -> None:
        self._prefix = 0  # payload bytes of the next counted frame that were passed on already
        self._prefix_head: tuple[int, int, int] | None = None  # that frame's (type, stream, size)
        self._reset()

    def _reset(self) -> None:
        self._length = 0
        self._seen = 0  # bytes of the message that came
        self._head: tuple[int, int, int] | None = None  # of a DATA frame that is being passed on
        self._passed = 0  # its payload bytes that came on this socket
        self._started = False
        self._buffer = bytearray()

    def feed(self, part: Bytes, offset: int, length: int) -> Piece | Bytes | None:
        """The next part of a message of `length` bytes: a piece of DATA, a whole other message, or nothing yet.

        Raises `ProtocolError` for a message above 1 MiB or a DATA frame that does not fill its message, `LocalError`
        when parts are not in order.
        """
        if offset != self._seen or (offset and length != self._length) or offset + len(part) > length:
            raise LocalError("parts of a message out of order")
        if length > MAX_FRAME_SIZE:
            raise ProtocolError("a frame above 1 MiB")
        self._length = length
        self._seen += len(part)
        if self._head is not None:
            return self._pass_on(memoryview(part))
        message: Bytes = part
        if self._buffer or (self._seen < length):
            self._buffer += part
            message = self._buffer
        head = peek_fixed(message, length)
        if head is not None and head[0] in (DATA, DATA_END):
            self._head = head
            rest = memoryview(bytes(message) if message is self._buffer else message)[DATA_OVERHEAD:]
            return self._pass_on(rest)
        if self._seen < length:
            return None
        if message is self._buffer:
            message = bytes(message)
        self._reset()
        return message

    def _pass_on(self, data: memoryview) -> Piece | None:
        head = self._head
        assert head is not None
        kind, stream, size = head
        if not self._started and self._prefix_head is not None and head != self._prefix_head:
            raise ProtocolError("a replayed frame is not the one that was cut")
        skip = min(max(self._prefix - self._passed, 0), len(data))
        self._passed += len(data)
        last = self._passed == size
        data = data[skip:]
        first, self._started = not self._started, True
        length, fresh = self._length, size - self._prefix
        if last:
            self._prefix, self._prefix_head = 0, None
            self._reset()
        elif not data and not first:
            return None
        return Piece(stream, kind == DATA_END, data or _NONE, first=first, last=last, length=length, fresh=fresh)

    def whole_counted(self) -> None:
        """A counted frame came that is no DATA. Raises `ProtocolError` when a DATA frame was to come again."""
        if self._prefix_head is not None:
            raise ProtocolError("a replayed frame is not the one that was cut")

    def cut(self) -> None:
        """The socket is gone: forget what is unfinished, but for how much of it was passed on."""
        if self._head is not None and self._passed > self._prefix:
            self._prefix, self._prefix_head = self._passed, self._head
        self._reset()
