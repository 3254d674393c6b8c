"""Where a request came from, as functions are told: X-Forwarded-* and Forwarded (RFC 7239), ours and nobody else's.

Knows addresses and fields; no socket. What a client says of its own origin is worth nothing, what a trusted proxy says
of it is believed as far back as the chain of trusted proxies reaches.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.key_values import Network
from gateway.response_head import HOP_BY_HOP, Pair

#: A name, an IPv4 address or an IPv6 address in brackets, and a port (RFC 9110, section 7.2), without the comma that a
#: name might have: two hosts in one field are no host.
HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(?::[0-9]{0,5})?")
MAX_HOST: Final = 255 + len(":65535")  # bytes; RFC 1035, section 2.3.4
MAX_HOPS: Final = 32  # proxies that are looked at
CACHED: Final = 1024  # names and addresses
#: What a trusted proxy says, and we say anew.
TOLD: Final = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip")
)
FORWARDED: Final = b"x-forwarded"  # how more names begin than anybody has listed: -Prefix, -Ssl, -User
OURS: Final = (b"dialback-", b"x-dialback-", FORWARDED)
FRAMING: Final = HOP_BY_HOP | frozenset((b"content-length", b"host", b"content-type", b"authorization", b"cookie"))


@dataclass(frozen=True, slots=True)
class Origin:
    """What a function is told of a request's way."""

    client: tuple[str, int]
    """Address and port; 0 where a proxy told the address."""
    scheme: str
    fields: tuple[Pair, ...]
    """Those that say it."""


class Forwarding:
    """Of one gateway; begins and ends with it."""

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        """`trusted`: the networks of proxies; each must set or remove all four of X-Forwarded-For, -Proto, -Host and
        -Port."""
        self._trusted = tuple(trusted)
        self._is_trusted = lru_cache(CACHED)(self._look_up)

    def origin(self, fields: Iterable[Pair], peer: tuple[str, int], scheme: str, host: bytes, port: int) -> Origin:
        """`fields` as they came, names lower-cased; `peer`, `scheme`, `port`: of our own socket; `host`: the Host that
        is served."""
        chain = [peer[0] or "unknown"]
        client = peer
        others: tuple[Pair, ...] = ()
        if self._trusted and self._is_trusted(peer[0]):
            told = _told(fields)
            hops = b",".join(told.get(b"x-forwarded-for", [])).decode("latin-1").split(",")
            for hop in reversed(hops[-MAX_HOPS:]):
                address = _address(hop)
                if not address:
                    break
                chain.insert(0, address)
                client = (address, 0)
                if not self._is_trusted(address):
                    break
            scheme, host, port = _outside(told, scheme, host, port)
            others = tuple([field for field in fields if field[0].startswith(FORWARDED) and field[0] not in TOLD])
        return Origin(client, scheme, _as_fields(tuple(chain), scheme, host, port) + others)

    def _look_up(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._trusted)


@lru_cache(CACHED)
def is_clients_to_say(name: bytes) -> bool:
    """False for a field, by its lower-cased name, that would tell a function what only the gateway may: its origin, our
    own, and what CGI and WSGI, which know no difference between `-` and `_`, would take for one of them or for framing.
    """
    if b"_" in name:
        name = name.replace(b"_", b"-")
        if name in FRAMING:
            return False
    return name not in TOLD and not name.startswith(OURS)


def is_host(value: bytes) -> bool:
    """Whether it is a Host field's value (RFC 9110, section 7.2); an empty one is."""
    return len(value) <= MAX_HOST and HOST.fullmatch(value) is not None


def _told(fields: Iterable[Pair]) -> dict[bytes, list[bytes]]:
    told: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in TOLD:
            told.setdefault(name, []).append(value)
    return told


def _last(told: dict[bytes, list[bytes]], name: bytes) -> bytes:
    """What the nearest proxy said."""
    return told[name][-1].rpartition(b",")[2].strip() if name in told else b""


def _outside(told: dict[bytes, list[bytes]], scheme: str, host: bytes, port: int) -> tuple[str, bytes, int]:
    said = _last(told, b"x-forwarded-proto").lower()
    if said in (b"http", b"https"):
        scheme, port = said.decode("ascii"), 443 if said == b"https" else 80
    if is_host(said := _last(told, b"x-forwarded-host")) and said:
        host = said
    said = _last(told, b"x-forwarded-port")
    if said.isdigit() and len(said) <= 5:
        port = int(said)
    return scheme, host, port


def _address(hop: str) -> str:
    """The address of one element, without its port; empty where it is none."""
    hop = hop.strip()
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return ""


@lru_cache(CACHED)
def _as_fields(chain: tuple[str, ...], scheme: str, host: bytes, port: int) -> tuple[Pair, ...]:
    nodes = [f'for="[{address}]"' if ":" in address else f"for={address}" for address in chain]
    first = nodes[0].encode("ascii") + (b';host="%b"' % host if host else b"") + b";proto=" + scheme.encode("ascii")
    fields = [
        (b"x-forwarded-for", ", ".join(chain).encode("ascii")),
        (b"x-forwarded-proto", scheme.encode("ascii")),
        (b"x-forwarded-port", b"%d" % port),
        (b"forwarded", b", ".join([first, *(node.encode("ascii") for node in nodes[1:])])),
    ]
    if host:
        fields.append((b"x-forwarded-host", host))
    return tuple(fields)
