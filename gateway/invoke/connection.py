"""One HTTP/1.1 connection to a function's URL: a POST after the other, each with one answer. Knows bytes, and aiohttp's
C parser; nothing of invitations.

It goes under aiohttp's client, which takes three times as long for what is left of a request here: a head that is made
once, and an answer of some hundred bytes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, Final, cast

import aiohappyeyeballs
from aiohttp.abc import AbstractResolver
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpResponseParser, RawResponseMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

TCP_KEEPALIVE: Final = 60  # seconds; what idles longer is forgotten by NATs on the way
ATTEMPT_DELAY: Final = 0.25  # seconds from one address to the next (RFC 8305, section 8)
MAX_ANSWER: Final = 64 << 10  # bytes of an answer's body: ours has some hundred


class NoAddress(Exception):
    """The name could not be resolved."""


class NotConnected(Exception):
    """Nobody could be reached. `code` is the error number of the last try, if it had one."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.code = error.errno


class Foreign(Exception):
    """What came is no HTTP response."""


class HttpAnswer:
    """A final response; a body above `MAX_ANSWER` is empty."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Connection(BaseProtocol):
    """Begins with `connect`; ends with `close`, or when the peer or an error ends it (`is_usable`)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._parser = HttpResponseParser(self, loop, MAX_ANSWER, read_until_eof=True, auto_decompress=False)
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._message: RawResponseMessage | None = None
        self._content: StreamReader | None = None
        self.idle_since = 0.0
        """When its last answer was complete, on the loop's clock."""

    @property
    def is_usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def post(self, request: bytes, patience: float) -> HttpAnswer:
        """Send a whole request; its answer, whose next byte comes within `patience` seconds.

        Raises `Foreign`, TimeoutError, and OSError where the connection breaks. After an error, or when it is
        cancelled, the connection is closed.
        """
        assert self._answer is None, "one after the other"
        if self.transport is None:  # a refusal may overtake the end of the handshake (RFC 8446, section 4.4.2.4)
            raise ConnectionResetError("the connection was closed before the request was sent")
        self._answer = self._loop.create_future()
        self._timer = self._loop.call_later(patience, self._fail, TimeoutError(f"no answer in {patience:g} s"))
        self.transport.write(request)
        try:
            return await self._answer
        except BaseException:
            self.close()
            raise
        finally:
            self._answer = None
            self._timer.cancel()

    def close(self) -> None:
        """Now. Idempotent."""
        if self.transport is not None:
            self.transport.abort()

    # what an answer's body asks for

    def pause_reading(self) -> None:
        """Never: what comes is bounded by `MAX_ANSWER`, and read when it is whole."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing was held back."""

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        made = transport.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # not on every system
            if hasattr(socket, option):
                made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), TCP_KEEPALIVE)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # what nobody asked for would be taken for the next answer
            return
        try:
            messages, is_upgraded, _ = cast(Any, self._parser).feed_data(data)
        except HttpProcessingError as error:
            self._fail(Foreign(error.message))
            return
        if is_upgraded:
            self._fail(Foreign("it changes the protocol"))
            return
        for message, content in messages:
            if message.code < 200:
                continue  # interim (RFC 9110, section 15.2)
            if self._message is not None:
                self._fail(Foreign("two answers"))
                return
            self._message, self._content = message, content
        self._look()

    def connection_lost(self, error: BaseException | None) -> None:
        super().connection_lost(error)
        if error is None and self._content is not None:  # its end may be that of the body
            try:
                cast(Any, self._parser).feed_eof()
            except Exception as cut:
                error = ConnectionResetError(str(cut))
            else:
                self._look()
        self._fail(error or ConnectionResetError("the connection was closed before the answer was whole"))

    # inside

    def _look(self) -> None:
        """Whether the answer is whole."""
        message, content = self._message, self._content
        if message is None or content is None or self._answer is None or self._answer.done():
            return
        if (fault := content.exception()) is not None:
            self._fail(Foreign(str(fault)))
            return
        is_whole = content.is_eof()
        if not is_whole and content.total_bytes <= MAX_ANSWER:
            return
        self._message = self._content = None
        body = content.read_nowait() if content.total_bytes <= MAX_ANSWER else b""
        self._answer.set_result(HttpAnswer(message.code, message.headers, body))
        self.idle_since = self._loop.time()
        if not is_whole or message.should_close:
            self.close()

    def _fail(self, error: BaseException) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def connect(host: str, port: int, tls: ssl.SSLContext | None, resolver: AbstractResolver) -> Connection:
    """Dial. Raises `NoAddress`, `NotConnected`, and ssl.SSLError for a handshake that fails."""
    loop = asyncio.get_running_loop()
    try:
        found = await resolver.resolve(host, port, socket.AF_UNSPEC)
    except OSError as error:
        raise NoAddress(str(error)) from None
    addresses = [(one["family"], socket.SOCK_STREAM, one["proto"], "", _address(one)) for one in found]
    try:
        connected = await aiohappyeyeballs.start_connection(
            addresses, loop=loop, happy_eyeballs_delay=ATTEMPT_DELAY, interleave=1
        )
        name = host.rstrip(".") if tls else None
        _, made = await loop.create_connection(lambda: Connection(loop), sock=connected, ssl=tls, server_hostname=name)
    except ssl.SSLError:
        raise
    except OSError as error:
        raise NotConnected(error) from None
    return made


def _address(found: Any) -> Any:
    if found["family"] == socket.AF_INET6:
        return found["host"], found["port"], 0, 0
    return found["host"], found["port"]
