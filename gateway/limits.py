"""Every limit that a client of the gateway can meet, in one place. Sizes in bytes, times in seconds.

Knows nothing of who keeps them. The defaults are promises: tests stand at each limit and one past it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What the HTTP side takes and how long it waits; made once, at start."""

    request_line: int = 16 << 10
    """Method, target, version and the two spaces between them; beyond it 414."""
    header_field: int = 16 << 10
    """Name and value of one field; beyond it 431."""
    header_count: int = 256
    """Fields of one request; beyond it 431."""
    head: int = 60 << 10
    """Request line and all fields with their line ends; beyond it 431. (A frame's head: 64 KiB.)"""
    request_head: float = 15
    """How long a client may take over one head, the first of a connection from its accepting on; then 408."""
    keep_alive: float = 75
    """How long a connection may be idle between two requests; then it is closed. Balancers' usual is 60."""
    read_buffer: int = 64 << 10
    """Upload bytes that wait here before the client is held back (twice as many, and one read, at most)."""
    write_buffer: int = 256 << 10
    """Response bytes that may wait for a slow client in user space before the function is held back."""
    kernel_unsent: int = 128 << 10
    """Response bytes that the kernel may hold unsent for one client (TCP_NOTSENT_LOWAT, or else SO_SNDBUF)."""
    body_rate: float = 100
    """Bytes a second that a request's body must bring, on the average of ten seconds, while there is room for it and no
    response has begun; then 408. 0: any."""
    max_exchanges: int = 10_000
    """Open requests; beyond it 503."""
    max_connections: int = 10_000
    """Clients; the requests of those beyond it are answered 503, and functions may still dial in."""
    max_refusals: int = 256
    """Connections that are held beyond those, for their 503; more are cut without a word."""
    flush: float = 60
    """How long a client may take for what the buffers hold once its response is complete; then it is cut off."""
    compression_memory: int = 256 << 20
    """What the compressors of all responses may hold; what is begun beyond it goes out as it is."""
    drain_bytes: int = 1 << 20
    """How much of an upload that nobody wants is read to keep the connection of use; then it is closed."""
    drain: float = 2
    """The same in time."""
    websocket_message: int = 1 << 20
    """Of one WebSocket message, both ways, however it is fragmented; beyond it the client is closed with 1009."""
    websocket_ping_interval: float = 20
    """How long nothing may come of a WebSocket client before it is pinged; 0: it never is."""
    websocket_ping_timeout: float = 20
    """How long it may take to answer; then it counts as gone."""
    websocket_close: float = 10
    """How long a side may take to end when the other has closed: the client for its half of the closing handshake, the
    function's code to stop."""
    linger: float = 2
    """How long a connection that we close early is still read, lest its reset take the response from the client."""
