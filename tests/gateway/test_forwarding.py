"""What functions are told of a request's way, whoever made up what on it."""

from __future__ import annotations

import ipaddress

import pytest

from gateway.forwarding import Forwarding, is_clients_to_say, is_host
from tests.gateway.function_fake import FakePool, answer, listening
from tests.gateway.test_ingress_malformed import get

PEER = ("10.0.0.1", 4711)
TRUSTING = Forwarding([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])


def told(
    forwarding: Forwarding, fields: dict[bytes, bytes], peer: tuple[str, int] = PEER
) -> tuple[tuple[str, int], dict[bytes, bytes]]:
    origin = forwarding.origin(fields.items(), peer, "http", b"x:8080", 8080)
    said = dict(origin.fields)
    assert said[b"x-forwarded-proto"].decode() == origin.scheme
    return origin.client, said


def test_a_client_is_told_by_its_socket() -> None:
    client, said = told(Forwarding(), {b"x-forwarded-for": b"1.2.3.4", b"x-forwarded-proto": b"https"})
    assert client == PEER
    assert said == {
        b"x-forwarded-for": b"10.0.0.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"x:8080",
        b"x-forwarded-port": b"8080",
        b"forwarded": b'for=10.0.0.1;host="x:8080";proto=http',
    }


def test_a_trusted_proxy_is_believed() -> None:
    fields = {
        b"x-forwarded-for": b"192.0.2.7",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": b"shop.example",
        b"x-forwarded-port": b"8443",
    }
    client, said = told(TRUSTING, fields)
    assert client == ("192.0.2.7", 0)
    assert said == {
        b"x-forwarded-for": b"192.0.2.7, 10.0.0.1",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": b"shop.example",
        b"x-forwarded-port": b"8443",
        b"forwarded": b'for=192.0.2.7;host="shop.example";proto=https, for=10.0.0.1',
    }


@pytest.mark.parametrize(
    ("chain", "client", "shown"),
    [
        (b"6.6.6.6, 192.0.2.7", "192.0.2.7", b"192.0.2.7, 10.0.0.1"),  # what a client put before it is cut off
        (b"192.0.2.7, 10.1.1.1", "192.0.2.7", b"192.0.2.7, 10.1.1.1, 10.0.0.1"),
        (b"rubbish, 10.1.1.1", "10.1.1.1", b"10.1.1.1, 10.0.0.1"),
        (b"192.0.2.7\xff", "10.0.0.1", b"10.0.0.1"),
        (b"192.0.2.7:1234", "192.0.2.7", b"192.0.2.7, 10.0.0.1"),
        (b"[2001:db8::7]:1234", "2001:db8::7", b"2001:db8::7, 10.0.0.1"),
        (b"2001:db8::7", "2001:db8::7", b"2001:db8::7, 10.0.0.1"),
        (b"192.0.2.7, fd00::1", "192.0.2.7", b"192.0.2.7, fd00::1, 10.0.0.1"),
        (b"", "10.0.0.1", b"10.0.0.1"),
        (b", ,", "10.0.0.1", b"10.0.0.1"),
        (b"unknown", "10.0.0.1", b"10.0.0.1"),
        (b",".join([b"192.0.2.7"] + [b"10.1.1.1"] * 40), "10.1.1.1", b", ".join([b"10.1.1.1"] * 32 + [b"10.0.0.1"])),
    ],
)
def test_a_chain_is_believed_as_far_as_it_is_trusted(chain: bytes, client: str, shown: bytes) -> None:
    (address, _), said = told(TRUSTING, {b"x-forwarded-for": chain})
    assert (address, said[b"x-forwarded-for"]) == (client, shown)
    assert b'"[2001' in said[b"forwarded"] or b"2001" not in shown


def test_what_a_trusted_proxy_says_must_make_sense() -> None:
    rubbish = {
        b"x-forwarded-proto": b"gopher",
        b"x-forwarded-host": b"a b\x00",
        b"x-forwarded-port": b"99999999",
        b"forwarded": b"for=6.6.6.6",
    }
    client, said = told(TRUSTING, rubbish)
    assert client == PEER
    assert said[b"x-forwarded-host"] == b"x:8080"
    assert said[b"x-forwarded-port"] == b"8080"
    assert b"6.6.6.6" not in said[b"forwarded"]


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.1", "10.255.0.1", "fd00::1"])
def test_addresses_of_trusted_networks(peer: str) -> None:
    assert told(TRUSTING, {b"x-forwarded-for": b"192.0.2.7"}, (peer, 1))[0] == ("192.0.2.7", 0)


@pytest.mark.parametrize("peer", ["11.0.0.1", "::1", "::ffff:11.0.0.1", "", "no address"])
def test_others_are_not_trusted(peer: str) -> None:
    client, said = told(TRUSTING, {b"x-forwarded-for": b"192.0.2.7"}, (peer, 1))
    assert client == (peer, 1)
    assert said[b"x-forwarded-for"] == (peer.encode() or b"unknown")


def test_what_else_a_trusted_proxy_says_is_passed_on() -> None:
    said = {b"x-forwarded-prefix": b"/shop", b"x-forwarded-ssl": b"on", b"x-forwarded": b"for=x"}
    assert told(TRUSTING, said)[1].items() >= said.items()
    assert not told(Forwarding(), said)[1].keys() & said.keys()


@pytest.mark.parametrize(
    "name",
    ["x-forwarded-for", "X_FORWARDED_FOR", "x-forwarded-prefix", "X_Forwarded_User", "x-forwarded", "forwarded"]
    + ["dialback-id", "dialback_id"],
)
def test_names_that_are_not_a_clients(name: str) -> None:
    assert not is_clients_to_say(name.lower().encode())


@pytest.mark.parametrize("name", [b"x-original-host", b"my_field", b"dialback", b"cookie", b"via"])
def test_names_that_are(name: bytes) -> None:
    assert is_clients_to_say(name)


@pytest.mark.parametrize(
    "host", [b"", b"x", b"x:80", b"x:", b"[::1]", b"[::1]:80", b"a.b-c_d.example", b"%20", b"x" * 255]
)
def test_hosts(host: bytes) -> None:
    assert is_host(host)


@pytest.mark.parametrize("host", [b"a b", b"a,b", b"a/b", b"u@h", b"a:b", b"a:1:2", b"[", b"::1", b"\xe9", b"x" * 300])
def test_no_hosts(host: bytes) -> None:
    assert not is_host(host)


async def test_a_whole_request_from_a_trusted_proxy() -> None:
    forwarding = Forwarding([ipaddress.ip_network("127.0.0.0/8")])
    async with listening(FakePool(answer()), forwarding=forwarding) as front:
        fields = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n"
        await front.ask(get(fields=fields))
        head = (await front.pool.opened.get()).exchange.head
    assert (head.client, head.scheme) == (("192.0.2.7", 0), "https")
    names = [name for name, _ in head.headers]
    assert len(names) == len(set(names))
    assert dict(head.headers)[b"forwarded"] == b'for=192.0.2.7;host="x";proto=https, for=127.0.0.1'
