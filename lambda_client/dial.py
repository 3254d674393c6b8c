"""One WebSocket to a gateway: opened, read, written, closed. Messages in, messages out; knows no session or handler.

`websockets` does RFC 6455 (sans-I/O); the writing is ours, so that what is ready in one turn of the loop leaves in one
write. Redirects are never followed: a 3xx is a refused dial.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket as sockets
from functools import lru_cache
from struct import pack
from typing import TYPE_CHECKING, Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.uri import WebSocketURI

from lambda_client import wire

try:
    from websockets.speedups import apply_mask
except ImportError:  # see `_warn_without_speedups`
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    import ssl

    from lambda_client.trust import Endpoint

LOG = logging.getLogger("dialback")

UNSENT_LIMIT = 128 << 10  # bytes in the kernel, and as many in the transport (docs/protocol.md §2.6)
READ_SIZE = 256 << 10  # bytes; one made for each read, as asyncio does, may cost 35 µs
BINARY, MASKED = 0x82, 0x80  # RFC 6455 §5.2: a whole binary message, a client's
TLS_FILES = ("DIALBACK_CA_FILE", "DIALBACK_CERT_FILE", "DIALBACK_KEY_FILE")  # PEM, in the function's environment
NEXT_ADDRESS_DELAY = 0.25  # seconds before a host's next address is tried beside the first (RFC 8305 §8)


class DialFailed(Exception):
    """No WebSocket came of a dial. `is_final`: another try would end the same."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Socket(Protocol):
    """What a link sends through."""

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""

    def send(self, messages: list[bytes]) -> None: ...

    def close(self, code: int) -> None:
        """Say why and leave; nothing is heard of the socket any more. Idempotent."""


class Listener(Protocol):
    """What a socket tells its link. Nothing comes after `lost`, or after `close` was called."""

    def opened(self, socket: Socket) -> None: ...
    def received(self, message: bytes) -> None: ...
    def heard(self) -> None:
        """Something came: after the messages in it."""

    def writable(self) -> None: ...
    def lost(self, reason: str, *, is_final: bool) -> None: ...


class WebSocketDial(asyncio.BufferedProtocol):
    """Begins with a dial, ends when `lost` was told or `close` called."""

    def __init__(self, endpoint: Endpoint, headers: list[tuple[str, str]], listener: Listener) -> None:
        uri = WebSocketURI(endpoint.is_secure, endpoint.host, endpoint.port, endpoint.path, endpoint.query)
        self._protocol = ClientProtocol(uri, max_size=wire.frames.MAX_FRAME_SIZE, logger=_quiet())
        self._listener: Listener | None = listener
        self._headers = headers
        self._fragments: list[bytes] = []
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_open = False
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_LIMIT // 2, low=UNSENT_LIMIT // 4)
        _bound_unsent(transport.get_extra_info("socket"))
        request = self._protocol.connect()
        for name, value in self._headers:
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._listener is None:
            return
        self._protocol.receive_data(cast(bytes, self._buffer[:nbytes]))  # which copies it
        self._take_events()
        if self._listener is not None:
            self._listener.heard()

    def eof_received(self) -> bool:
        # All that is seen of a client certificate that asyncio's server refused: it sends no alert.
        self._lose("the gateway closed the connection" + ("" if self._is_open else " before it answered: see its log"))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        # An alert of TLS 1.3 about our certificate comes after the handshake, and only its text says what it is.
        self._lose(
            f"the connection was lost: {type(error).__name__}: {error}" if error else "the connection was closed"
        )

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._listener is not None:
            self._listener.writable()

    # What the link asks

    @property
    def room(self) -> int:
        if self._transport is None or self._is_paused or not self._is_open:
            return 0
        return max(0, UNSENT_LIMIT - self._transport.get_write_buffer_size())

    def send(self, messages: list[bytes]) -> None:
        """Binary messages, in one write: `send_binary` at a third of its cost, without its copy."""
        if self._transport is None or self._transport.is_closing():
            return
        parts: list[bytes] = []
        masks = os.urandom(4 * len(messages))
        for at, message in enumerate(messages):
            size, mask = len(message), masks[4 * at : 4 * at + 4]
            if size < 126:
                parts.append(pack("!BB4s", BINARY, MASKED | size, mask))
            elif size < 1 << 16:
                parts.append(pack("!BBH4s", BINARY, MASKED | 126, size, mask))
            else:
                parts.append(pack("!BBQ4s", BINARY, MASKED | 127, size, mask))
            parts.append(apply_mask(message, mask))
        self._transport.write(b"".join(parts))

    def close(self, code: int) -> None:
        self._listener = None
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_open and self._protocol.close_sent is None:
            self._protocol.send_close(code)
            self._flush()
        # TLS would wait for the peer's goodbye, and a full buffer for its reading: both outlast an invocation.
        if self._is_paused or self._protocol.uri.secure:
            self._transport.abort()
        else:
            self._transport.close()

    # Inside

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if self._listener is None:
                return
            if isinstance(event, Frame):
                self._take_frame(event)
            elif self._protocol.handshake_exc is None:
                self._is_open = True
                self._listener.opened(self)
                if not self.answered.done():
                    self.answered.set_result(None)
        self._flush()
        if self._protocol.handshake_exc is not None:
            self._refuse(self._protocol.handshake_exc)
        elif self._protocol.parser_exc is not None:
            self._lose(f"not WebSocket: {self._protocol.parser_exc}", is_final=True)

    def _take_frame(self, frame: Frame) -> None:
        assert self._listener is not None
        if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message, self._fragments = b"".join(self._fragments), []
                self._listener.received(message)
        elif frame.opcode is Opcode.TEXT:
            listener = self._listener
            self.close(wire.dial.CLOSE_UNSUPPORTED)
            listener.lost("a text message", is_final=True)
        elif frame.opcode is Opcode.CLOSE:
            close = self._protocol.close_rcvd
            code = close.code if close is not None else 1006
            self._flush()
            self._lose(f"the socket was closed: {code}", is_final=code in wire.dial.FINAL_CLOSES)

    def _refuse(self, error: Exception) -> None:
        """The answer to the upgrade was none: a refusal with its reason, or a failure."""
        self._listener = None
        if self._transport is not None:
            self._transport.abort()
        if self.answered.done():
            return
        if isinstance(error, InvalidStatus):
            status, reason = error.response.status_code, error.response.headers.get(wire.dial.REASON_HEADER, "")
            if reason in wire.errors.REFUSALS:
                self.answered.set_exception(wire.errors.DialRefused(reason))
            else:
                self.answered.set_exception(DialFailed(f"HTTP {status}", is_final=status < 500 and status != 429))
        else:
            self.answered.set_exception(DialFailed(f"{type(error).__name__}: {error}"))

    def _lose(self, reason: str, *, is_final: bool = False) -> None:
        listener, self._listener = self._listener, None
        if self._transport is not None:
            self._transport.close()
        if not self.answered.done():
            self.answered.set_exception(DialFailed(reason))
        elif listener is not None:
            listener.lost(reason, is_final=is_final)

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            # Its mark for the end of the stream is empty, and closing is ours.
            if data := b"".join(self._protocol.data_to_send()):
                self._transport.write(data)


async def dial(endpoint: Endpoint, headers: list[tuple[str, str]], listener: Listener) -> Socket:
    """Open a WebSocket to the endpoint. The caller bounds the time.

    Raises `DialRefused` (the gateway said why) and `DialFailed` (nothing came of it).
    """
    _warn_without_speedups()
    loop = asyncio.get_running_loop()
    context = _tls_context(*map(os.environ.get, TLS_FILES)) if endpoint.is_secure else None
    socket = WebSocketDial(endpoint, headers, listener)
    try:
        await loop.create_connection(
            lambda: socket,
            endpoint.host,
            endpoint.port,
            ssl=context,
            server_hostname=endpoint.host if context else None,
            happy_eyeballs_delay=NEXT_ADDRESS_DELAY,
        )
        await socket.answered
    except OSError as error:
        raise DialFailed(f"{type(error).__name__}: {error}") from error
    except BaseException:
        socket.close(1000)
        if socket.answered.done() and not socket.answered.cancelled():
            socket.answered.exception()  # whatever it was, the caller has its own reason now
        raise
    return socket


@lru_cache(maxsize=4)
def _tls_context(ca: str | None, cert: str | None, key: str | None) -> ssl.SSLContext:
    """Names and certificates are always verified, against the system's authorities or those of the file `ca`; `cert`
    and `key` are the function's own. Raises `DialFailed` where a file cannot be used."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert or key:
            context.load_cert_chain(cert or "", key or None)
    except OSError as error:
        given = ", ".join(f"{name}={file}" for name, file in zip(TLS_FILES, (ca, cert, key), strict=True) if file)
        raise DialFailed(f"{given} cannot be used: {error}", is_final=True) from None
    return context


@lru_cache(maxsize=1)
def _warn_without_speedups() -> None:
    if apply_mask.__module__ == "websockets.utils":
        LOG.warning(
            "websockets.speedups is missing and streams cost more CPU: install the wheel of the function's platform"
        )


@lru_cache(maxsize=1)
def _quiet() -> logging.Logger:
    """websockets logs whole messages at DEBUG, headers with secrets among them: not through the function's log."""
    logger = logging.Logger("dialback.websocket", logging.WARNING)
    logger.parent = LOG
    return logger


def _bound_unsent(sock: sockets.socket) -> None:
    if hasattr(sockets, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, UNSENT_LIMIT)
    else:
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, UNSENT_LIMIT)
