"""Whom the function answers: invitations that are verified, addresses that are allowed."""

from __future__ import annotations

import os

import pytest

from lambda_client.trust import Endpoint, Trust
from protocol.errors import InvitationRefused
from protocol.invitation import Invitation, key_id, sign

KEY = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
NOW = 1_000_000.0


def token(url: str = "wss://gw.example.com/_dialback/v1/connect", *, key: bytes = KEY, expires: float = 60) -> str:
    return sign(Invitation(key_id(key), os.urandom(16), "f", "b007", url, int(NOW + expires)), key)


def trust(gateway: str = "wss://gw.example.com", secret: str = KEY.decode(), **more: str) -> Trust:
    return Trust({"DIALBACK_GATEWAY": gateway, "DIALBACK_SECRET": secret, **more})


def refusal(trust: Trust, token: str) -> str:
    with pytest.raises(InvitationRefused) as raised:
        trust.admit(token, NOW)
    return raised.value.reason


def test_a_good_invitation_is_admitted() -> None:
    admitted = trust().admit(token("wss://GW.example.com/a/b?c=d"), NOW)
    assert admitted.endpoint == Endpoint("wss", "gw.example.com", 443, "/a/b", "c=d")
    assert admitted.key == KEY and admitted.invitation.boot == "b007"


def test_every_key_of_the_list_is_good() -> None:
    ring = trust(secret=f"{OTHER.decode()}, {KEY.decode()}")
    assert ring.admit(token(key=KEY), NOW).key == KEY
    assert ring.admit(token(key=OTHER), NOW).key == OTHER


def test_a_forged_changed_old_or_broken_invitation_is_refused() -> None:
    good = token()
    assert refusal(trust(), token(key=OTHER)) == "signature"
    flipped = good[:40] + ("A" if good[40] != "A" else "B") + good[41:]
    assert refusal(trust(), flipped) in ("signature", "malformed")
    assert refusal(trust(), good[:-4]) in ("signature", "malformed")
    assert refusal(trust(), token(expires=-61)) == "expired"
    assert refusal(trust(), "") == "malformed"
    assert refusal(trust(), "é" * 50) == "malformed"
    assert refusal(trust(), "A" * 100_000) == "malformed"


@pytest.mark.parametrize(
    ("gateway", "secret"),
    [
        ("", KEY.decode()),
        ("wss://gw.example.com", ""),
        ("", ""),
        ("wss://gw.example.com", "short"),
        ("gw", KEY.decode()),
    ],
)
def test_with_nothing_to_check_by_everything_is_refused(
    gateway: str, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert refusal(trust(gateway, secret), token()) == "unconfigured"
    assert KEY.decode() not in caplog.text
    assert "DIALBACK_" in caplog.text


ALLOWED = [
    ("wss://gw.example.com", "wss://gw.example.com/x"),
    ("wss://gw.example.com:443/ignored", "wss://gw.example.com/x"),
    ("wss://a.example.com, wss://gw.example.com:8443", "wss://gw.example.com:8443/x"),
    ("wss://*.example.com", "wss://gw.example.com/x"),
    ("wss://*.eu.example.com:8443", "wss://a.eu.example.com:8443/x"),
    ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/x"),
    ("ws://localhost:8080", "ws://localhost:8080/x"),
    ("ws://[::1]:8080", "ws://[::1]:8080/x"),
]
NOT_ALLOWED = [
    ("wss://gw.example.com", "wss://gw.example.com:444/x"),
    ("wss://gw.example.com", "wss://gw.example.com:0/x"),
    ("wss://gw.example.com", "wss://evil.com/x"),
    ("wss://gw.example.com", "wss://gw.example.com.evil.com/x"),
    ("wss://gw.example.com", "wss://gw.example.com@evil.com/x"),
    ("wss://gw.example.com", "wss://evil.com/gw.example.com"),
    ("wss://gw.example.com", "wss://evil.com\\@gw.example.com/x"),
    ("wss://gw.example.com", "wss://gw.example.com/x#y"),
    ("wss://gw.example.com", "wss://gw.example.com\n/x"),
    ("wss://gw.example.com", "wss://gw.example.com./x"),
    ("wss://gw.example.com", "https://gw.example.com/x"),
    ("wss://gw.example.com", "ws://gw.example.com:443/x"),
    ("wss://gw.example.com", "wss://gw.example.com:port/x"),
    ("wss://*.example.com", "wss://example.com/x"),
    ("wss://*.example.com", "wss://a.b.example.com/x"),
    ("wss://*.example.com", "wss://.example.com/x"),
    ("wss://*.example.com", "wss://gw.example.com.evil.com/x"),
    ("wss://gw.example.com", "wss:///x"),
    ("wss://gw.example.com", ""),
    # no ws:// but to this machine
    ("ws://gw.example.com:80", "ws://gw.example.com/x"),
    ("ws://10.0.0.1:8080", "ws://10.0.0.1:8080/x"),
    ("ws://127.evil.com:8080", "ws://127.evil.com:8080/x"),
    ("ws://localhost.evil.com:8080", "ws://localhost.evil.com:8080/x"),
]


@pytest.mark.parametrize(("gateway", "url"), ALLOWED)
def test_an_allowed_address(gateway: str, url: str) -> None:
    assert trust(gateway).admit(token(url), NOW)


@pytest.mark.parametrize(("gateway", "url"), NOT_ALLOWED)
def test_an_address_that_is_not_allowed(gateway: str, url: str) -> None:
    assert refusal(trust(gateway), token(url)) == "address"


def test_unencrypted_dialling_is_allowed_on_request_and_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    insecure = trust("ws://gateway:8080", DIALBACK_ALLOW_INSECURE="1")
    assert insecure.admit(token("ws://gateway:8080/x"), NOW)
    assert insecure.admit(token("ws://gateway:8080/x"), NOW)
    assert caplog.text.count("unencrypted") == 1
    assert refusal(trust("ws://gateway:8080", DIALBACK_ALLOW_INSECURE="yes"), token("ws://gateway:8080/x")) == "address"


def test_an_address_that_cannot_be_read_is_named_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert trust("https://gw.example.com, wss://gw.example.com").admit(token(), NOW)
    assert "'https://gw.example.com' is ignored" in caplog.text


def test_an_admitted_invitation_prints_no_secret() -> None:
    admitted = trust().admit(token(), NOW)
    assert KEY.decode() not in repr(admitted) and admitted.token not in repr(admitted)
