"""Where functions dial in: the upgrade request is checked, and its socket goes to its link (docs/protocol.md §3)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from http import HTTPStatus

import structlog
from aiohttp.web import BaseRequest, StreamResponse

from gateway.client_connection import CLOSE, connection_of
from gateway.dialback import Link
from gateway.errors import Problem, RequestRefused
from gateway.invitations import Invitations
from gateway.link_socket import LinkSocket
from gateway.pool import Pool, Start
from gateway.websocket import accept_key
from protocol.dial import REASON_HEADER, VERSION, Dial
from protocol.errors import DialRefused, ProtocolError
from protocol.flow import Budget
from protocol.gateway_session import GatewaySession, SessionOptions
from protocol.invitation import Keyring, session_key

log = structlog.get_logger("dialback.dial")


class Endpoint:
    """Begins and ends with the gateway; knows every link by its session."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        keyrings: dict[str, Keyring],
        invitations: Invitations[Start],
        options: SessionOptions,
    ) -> None:
        self._pools = pools
        self._keyrings = keyrings
        self._invitations = invitations
        self._options = options
        self._links: dict[bytes, Link] = {}
        self._is_draining = False

    @property
    def links(self) -> int:
        return len(self._links)

    async def handle(self, request: BaseRequest) -> StreamResponse:
        """The handler of `CONNECT_PATH`; it returns when the socket is gone."""
        connection = connection_of(request)
        transport = connection.transport
        if transport is None:
            return CLOSE
        try:
            switching, socket, link = self.connect(request.headers, connection.connection_lost)
        except DialRefused as refused:
            log.info("dial.refused", reason=refused.reason, peer=request.remote)
            transport.write(_refusal(refused))
            return CLOSE
        except ValueError as error:
            raise RequestRefused(Problem("bad-request", str(error))) from None
        # From the 101 to the takeover there is no await: a frame sent right after the 101 would be lost to aiohttp.
        transport.write(switching)
        socket.serve(transport, link)
        link.flush()
        await socket.gone
        return CLOSE

    def drain(self) -> None:
        """Refuse first dials from now on, and ask every environment to park when its streams have ended."""
        self._is_draining = True
        for link in list(self._links.values()):
            link.release()

    def stop(self) -> None:
        """End every link."""
        self._is_draining = True
        for link in list(self._links.values()):
            link.go_away()

    def connect(
        self, headers: Mapping[str, str], release: Callable[[Exception | None], None]
    ) -> tuple[bytes, LinkSocket, Link]:
        """Check an upgrade request: (the 101, the socket that must take the transport over in the same step, its link).

        `headers` are case-insensitive. Raises `DialRefused`; `ValueError` when it is no WebSocket upgrade.
        """
        key = _websocket_key(headers)
        dial = Dial.from_headers(headers)
        link = self._links.get(dial.session)
        if link is not None and link.session.is_ended:
            link = None
        if dial.proof:
            if link is None:
                raise DialRefused("unknown")
            if not dial.is_proved_by(link.key):
                raise DialRefused("proof")
        else:
            link = self._first_dial(dial, link)
        socket = LinkSocket(release)
        try:
            link.attach(dial, socket)
        except ProtocolError:
            link.go_away()
            raise DialRefused("unknown") from None
        log.debug("link.dialled", session=dial.session.hex(), epoch=dial.epoch, resumed=bool(dial.proof))
        return _switching_protocols(key), socket, link

    def _first_dial(self, dial: Dial, link: Link | None) -> Link:
        if self._is_draining:
            raise DialRefused("draining")
        issued, key = self._invitations.present(dial.invitation, self._keyrings, dial.session)
        if link is not None:
            return link
        session = GatewaySession(dial.session, self._options, budget=Budget())
        proof_key = session_key(key, issued.nonce, dial.session)
        link = Link(session, _Registered(self, self._pools[issued.function]), proof_key, self._options.limits.credit)
        self._links[dial.session] = link
        return link

    def forget(self, link: Link) -> None:
        self._links.pop(link.session.id, None)


class _Registered:
    """A link's pool, and the endpoint that must forget the link with it."""

    def __init__(self, endpoint: Endpoint, pool: Pool) -> None:
        self._endpoint = endpoint
        self.lease_offered = pool.lease_offered
        self.place_freed = pool.place_freed
        self.link_parked = pool.link_parked
        self._pool = pool

    def link_ended(self, link: Link) -> None:
        self._endpoint.forget(link)
        self._pool.link_ended(link)


def _websocket_key(headers: Mapping[str, str]) -> str:
    """The key of a well-formed upgrade request (RFC 6455 §4.2.1)."""
    tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        is_key = False
    if headers.get("Upgrade", "").strip().lower() != "websocket" or "upgrade" not in tokens or not is_key:
        raise ValueError("not a WebSocket upgrade")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        raise ValueError("not version 13 of WebSocket")
    return key


def _switching_protocols(key: str) -> bytes:
    lines = (
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _refusal(refused: DialRefused) -> bytes:
    body = f"{refused.reason}\n"
    lines = (
        f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}",
        f"{REASON_HEADER}: {refused.reason}",
        f"Dialback-Version: {VERSION}",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", body)).encode("ascii")
