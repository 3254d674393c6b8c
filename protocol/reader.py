"""Messages in pieces: what lets DATA be passed on before its frame is whole, and not twice (docs/protocol.md §2.3)."""

from __future__ import annotations

from typing import Final, TypeAlias

from protocol.codec import DATA, DATA_END, peek_fixed
from protocol.errors import LocalError, ProtocolError
from protocol.frames import DATA_OVERHEAD, MAX_FRAME_SIZE, Bytes

_Head: TypeAlias = tuple[int, int, int]  # a DATA frame's (type, stream, payload size)


class Piece:
    """Payload bytes of one DATA frame that were not passed on before.

    `first` and `last` are of the frame on this socket.
    """

    __slots__ = ("data", "end", "first", "last", "length", "stream")

    def __init__(self, head: _Head, data: memoryview, length: int, *, first: bool, last: bool) -> None:
        self.stream = head[1]
        self.end = head[0] == DATA_END
        self.data = data
        self.first = first
        self.last = last
        self.length = length  # of the whole frame, bytes


_NOTHING: Final = memoryview(b"")


class Reader:
    """Of one session. It outlives sockets: `cut` keeps how much of an unfinished frame was passed on."""

    __slots__ = ("_buffer", "_head", "_is_begun", "_length", "_passed", "_prefix", "_prefix_head", "_seen")

    def __init__(self) -> None:
        self._prefix = 0  # payload bytes of the next counted frame that were passed on already
        self._prefix_head: _Head | None = None  # that frame
        self._reset()

    def _reset(self) -> None:
        self._length = 0
        self._seen = 0  # bytes of the message that came
        self._head: _Head | None = None  # of a DATA frame that is being passed on
        self._passed = 0  # its payload bytes that came on this socket
        self._is_begun = False  # a piece of it was given
        self._buffer = bytearray()  # a message whose kind is not known yet, or that is no DATA

    def feed(self, part: Bytes, offset: int, length: int) -> Piece | Bytes | None:
        """The next part of a message of `length` bytes: a piece of DATA, a whole other message, or nothing yet.

        Raises `ProtocolError` for a message above 1 MiB or a DATA frame that does not fill its message, `LocalError`
        when parts are not in order.
        """
        size = len(part)
        if offset != self._seen or (offset and length != self._length) or offset + size > length:
            raise LocalError("parts of a message out of order")
        if length > MAX_FRAME_SIZE:
            raise ProtocolError("a frame above 1 MiB")
        if size < length:
            return self._feed_part(part, length)
        head = peek_fixed(part, length)
        if head is None or head[0] not in (DATA, DATA_END):
            return part
        data = memoryview(part)[DATA_OVERHEAD + self._prefix :]
        if self._prefix_head is not None:
            self._check_prefix(head)
            self._prefix, self._prefix_head = 0, None
        return Piece(head, data, length, first=True, last=True)

    def _feed_part(self, part: Bytes, length: int) -> Piece | Bytes | None:
        self._length = length
        self._seen += len(part)
        if self._head is not None:
            return self._pass_on(self._head, memoryview(part))
        message: Bytes = part
        if self._buffer or len(part) < DATA_OVERHEAD:
            self._buffer += part
            message = bytes(self._buffer[:DATA_OVERHEAD])
        head = peek_fixed(message, length)
        if head is not None and head[0] in (DATA, DATA_END):
            self._head = head
            return self._pass_on(head, memoryview(bytes(self._buffer) or part)[DATA_OVERHEAD:])
        if not self._buffer:
            self._buffer += part
        if self._seen < length:
            return None
        whole = bytes(self._buffer)
        self._reset()
        return whole

    def _pass_on(self, head: _Head, data: memoryview) -> Piece | None:
        if not self._is_begun and self._prefix_head is not None:
            self._check_prefix(head)
        skip = min(max(self._prefix - self._passed, 0), len(data))
        self._passed += len(data)
        last = self._passed == head[2]
        data = data[skip:]
        first, self._is_begun = not self._is_begun, True
        length = self._length
        if last:
            self._prefix, self._prefix_head = 0, None
            self._reset()
        elif not data and not first:
            return None
        return Piece(head, data or _NOTHING, length, first=first, last=last)

    def _check_prefix(self, head: _Head) -> None:
        if head != self._prefix_head:
            raise ProtocolError("a replayed frame is not the one that was cut")

    def whole_counted(self) -> None:
        """A counted frame came that is no DATA. Raises `ProtocolError` when a DATA frame was to come again."""
        if self._prefix_head is not None:
            raise ProtocolError("a replayed frame is not the one that was cut")

    def cut(self) -> None:
        """The socket is gone: forget what is unfinished, but for how much of it was passed on."""
        if self._head is not None and self._passed > self._prefix:
            self._prefix, self._prefix_head = self._passed, self._head
        self._reset()
