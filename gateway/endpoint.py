"""Where functions dial in: an upgrade request is checked, and its socket goes to its link (docs/protocol.md §3).

Knows dials, invitations and links; nothing of the requests that go over them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from gateway.dialback import Link
from gateway.errors import GatewayError
from gateway.invitations import Invitations
from gateway.link_socket import LinkSocket
from gateway.pool import Pool
from gateway.received_request import ReceivedRequest
from gateway.starts import Start
from gateway.telemetry import RateLimited
from gateway.upgrade import accept_websocket, check_handshake, reply
from protocol.dial import REASON_HEADER, VERSION, Dial
from protocol.dial_reader import is_proved, read_dial
from protocol.errors import DialRefused
from protocol.flow import Budget
from protocol.gateway_session import GatewaySession, SessionOptions
from protocol.invitation import Keyring, session_key

log = structlog.get_logger("dialback.dial")

# Of the process, over all its links. Each has in its own right its streams' first credits, and an eighth of what it may
# keep for replay (docs/protocol.md §2.4, §6.3).
WINDOWS_BUDGET: Final = 256 << 20  # bytes by which windows are wider
REPLAY_BUDGET: Final = 256 << 20  # bytes that are kept until they are acknowledged


class Endpoint:
    """Begins and ends with the gateway; knows every link by its session."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        keyrings: Mapping[str, Keyring],
        invitations: Invitations[Start],
        options: SessionOptions,
        *,
        dialled: Callable[[str], None],
        wants_certificate: bool = False,
    ) -> None:
        """`dialled`: told of each dial, `first`, `resumed`, or the reason of its refusal. `wants_certificate`: only who
        has shown one that TLS has verified may dial in."""
        self._pools = pools
        self._keyrings = keyrings
        self._invitations = invitations
        self._options = options
        self._wants_certificate = wants_certificate
        self._links: dict[bytes, Link] = {}
        self._sockets: set[LinkSocket] = set()
        self._windows = Budget(WINDOWS_BUDGET)
        self._replay = Budget(REPLAY_BUDGET)
        self._is_draining = False
        self._limited = RateLimited(log)
        self._dialled = dialled

    @property
    def links(self) -> int:
        """Links that have not ended, parked ones among them."""
        return len(self._links)

    def handle(self, request: ReceivedRequest) -> None:
        """The handler of `CONNECT_PATH`. Raises `RequestRefused` for what is no WebSocket upgrade."""
        transport = request.connection.transport
        check_handshake(request)  # who is no WebSocket client is told so, in the gateway's usual form
        try:
            if self._wants_certificate and not (transport and transport.get_extra_info("peercert")):
                raise DialRefused("certificate")
            dial = read_dial(request.message.headers)
            link = self._admit(dial)
            socket = LinkSocket(link)
            link.attach(dial, socket)
        except DialRefused as refused:
            self._dialled(refused.reason)
            self._limited.warning("dial.refused", reason=refused.reason, peer=request.connection.peer[0])
            _refuse(request, refused)
            return
        if dial.epoch > 1:
            self._dialled("resumed")
            self._limited.warning("link.resumed", session=dial.session.hex(), epoch=dial.epoch)
        else:
            self._dialled("first")
        log.debug("link.dialled", session=dial.session.hex(), epoch=dial.epoch)
        try:
            accept_websocket(request, socket)
        except ConnectionError:
            link.socket_lost("gone before the upgrade")
            return
        except GatewayError:  # no handshake, or bytes before WELCOME: a broken peer, although it has the proof
            link.end("the upgrade was refused")
            raise
        self._sockets.add(socket)
        socket.gone.add_done_callback(lambda _: self._sockets.discard(socket))

    def drain(self) -> None:
        """Refuse from now on whom no request waits for. Resumes go on."""
        self._is_draining = True

    async def stop(self) -> None:
        """End every link, and wait until their sockets are gone, 2 s at most. Idempotent."""
        self._is_draining = True
        for link in list(self._links.values()):
            link.end("the gateway is stopping")
        if self._sockets:
            await asyncio.wait([socket.gone for socket in self._sockets])

    # inside

    def _admit(self, dial: Dial) -> Link:
        """The link of a dial, whose proof is checked. Raises `DialRefused`, with nothing changed."""
        link = self._links.get(dial.session)
        if link is not None:
            if not is_proved(dial, link.key):
                raise DialRefused("proof")
            return link
        if not dial.invitation:
            raise DialRefused("unknown")
        if dial.received:  # of a session that has received nothing; found later, it had consumed
            raise DialRefused("proof")
        issued, signing_key = self._invitations.find(dial.invitation, self._keyrings, dial.session)
        pool = self._pools[issued.function]
        if self._is_draining and not pool.waiting:
            raise DialRefused("draining")
        issued.owner = dial.session
        windows = Budget(within=self._windows)
        session = GatewaySession(dial.session, self._options, budget=windows, replay=self._replay)
        key = session_key(signing_key, issued.nonce, dial.session)
        link = Link(session, pool, key, self._options.limits.credit, self._forget)
        self._links[dial.session] = link
        return link

    def _forget(self, link: Link) -> None:
        del self._links[link.session.id]


def _refuse(request: ReceivedRequest, refused: DialRefused) -> None:
    fields = (
        (REASON_HEADER.lower().encode(), refused.reason.encode()),
        (b"dialback-version", VERSION.encode()),
        (b"content-type", b"text/plain"),
    )
    reply(request, refused.status, fields, f"{refused.reason}\n".encode())
