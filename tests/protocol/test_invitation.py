"""Keys, invitations and proofs."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvitationRefused
from protocol.invitation import (
    CLOCK_SKEW,
    MAX_TOKEN_SIZE,
    Invitation,
    Keyring,
    key_id,
    read,
    resume_proof,
    session_key,
    sign,
    verify,
)

KEY = b"correct horse battery staple, and more"
OTHER = b"another key, as long as the first one is"
INVITATION = Invitation(
    key_id(KEY), bytes(range(16)), "checkout", "0123abcd", "wss://gw.example.com/_dialback/v1/connect", 1000
)
TOKEN = sign(INVITATION, KEY)


def test_what_was_signed_is_verified() -> None:
    assert verify(TOKEN, Keyring([KEY]), 0.0) == INVITATION
    assert verify(TOKEN, Keyring([OTHER, KEY]), 0.0) == INVITATION, "each key of the ring is accepted"


def test_a_second_implementation_gets_the_same_token() -> None:
    """docs/protocol.md §7.1, word by word."""
    body = msgpack.packb([1, key_id(KEY), bytes(range(16)), "checkout", "0123abcd", INVITATION.url, 1000])
    mac = hmac.new(KEY, b"dialback invitation 1" + body, sha256).digest()
    assert TOKEN == urlsafe_b64encode(body + mac).rstrip(b"=").decode()
    assert key_id(KEY) == sha256(b"dialback kid" + KEY).hexdigest()[:8]


def test_session_key_and_proof_are_as_specified() -> None:
    key = hmac.new(KEY, b"dialback resume" + b"n" * 16 + b"s" * 16, sha256).digest()
    assert session_key(KEY, b"n" * 16, b"s" * 16) == key
    proof = hmac.new(key, b"s" * 16 + bytes(7) + b"\x02" + bytes(6) + b"\x01\x03", sha256).digest()
    assert resume_proof(key, b"s" * 16, 2, 259) == proof


@pytest.mark.parametrize(
    "changed",
    [
        resume_proof(b"other" * 7, b"s" * 16, 2, 3),
        resume_proof(b"k" * 32, b"t" * 16, 2, 3),
        resume_proof(b"k" * 32, b"s" * 16, 3, 3),
        resume_proof(b"k" * 32, b"s" * 16, 2, 4),
        resume_proof(b"k" * 32, b"s" * 16, 3, 2),
    ],
)
def test_a_proof_depends_on_everything_that_it_proves(changed: bytes) -> None:
    assert changed != resume_proof(b"k" * 32, b"s" * 16, 2, 3)


def test_no_character_of_a_token_can_be_changed() -> None:
    ring = Keyring([KEY])
    for at in range(len(TOKEN)):
        for other in {"A", "B", "_", "-", "!", "=", "\n", " ", chr(ord(TOKEN[at]) ^ 1)} - {TOKEN[at]}:
            with pytest.raises(InvitationRefused):
                verify(TOKEN[:at] + other + TOKEN[at + 1 :], ring, 0.0)
        with pytest.raises(InvitationRefused):
            verify(TOKEN[:at] + TOKEN[at + 1 :], ring, 0.0)
        with pytest.raises(InvitationRefused):
            verify(TOKEN[:at] + "!" + TOKEN[at:], ring, 0.0)
    for tail in ("=", "A", "==", "\n"):
        with pytest.raises(InvitationRefused):
            verify(TOKEN + tail, ring, 0.0)


def test_no_byte_of_what_is_signed_can_be_changed() -> None:
    raw = urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    ring = Keyring([KEY])
    for at in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[at] ^= 1 << bit
            with pytest.raises(InvitationRefused):
                verify(urlsafe_b64encode(changed).rstrip(b"=").decode(), ring, 0.0)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33])
def test_a_token_that_is_too_short_is_malformed(size: int) -> None:
    with pytest.raises(InvitationRefused, match="malformed"):
        verify(urlsafe_b64encode(bytes(size)).rstrip(b"=").decode(), Keyring([KEY]), 0.0)


def test_another_key_is_a_wrong_signature() -> None:
    with pytest.raises(InvitationRefused, match="signature"):
        verify(TOKEN, Keyring([OTHER]), 0.0)
    forged = sign(replace(INVITATION, kid=key_id(KEY)), OTHER)
    with pytest.raises(InvitationRefused, match="signature"):
        verify(forged, Keyring([KEY, OTHER]), 0.0)


def test_it_expires_by_a_clock_that_may_be_a_minute_off() -> None:
    ring = Keyring([KEY])
    assert verify(TOKEN, ring, 1000 + CLOCK_SKEW)
    with pytest.raises(InvitationRefused, match="expired"):
        verify(TOKEN, ring, 1000.1 + CLOCK_SKEW)
    with pytest.raises(InvitationRefused, match="signature"):
        verify(TOKEN[:-2] + "AA", ring, 9e9)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        None,
        [1],
        [2, "kid", b"n" * 16, "f", "b", "u", 1],
        [1, b"kid", b"n" * 16, "f", "b", "u", 1],
        [1, "kid", b"n" * 15, "f", "b", "u", 1],
        [1, "kid", "n" * 16, "f", "b", "u", 1],
        [1, "kid", b"n" * 16, 1, "b", "u", 1],
        [1, "kid", b"n" * 16, "f", None, "u", 1],
        [1, "kid", b"n" * 16, "f", "b", b"u", 1],
        [1, "kid", b"n" * 16, "f", "b", "u", 1.0],
        [1, "kid", b"n" * 16, "f", "b", "u", True],
        [1, "kid", b"n" * 16, "f", "b", "u", 1, 1],
    ],
)
def test_what_is_no_invitation_is_malformed_even_when_it_is_signed(fields: object) -> None:
    body = msgpack.packb(fields)
    raw = body + hmac.new(KEY, b"dialback invitation 1" + body, sha256).digest()
    with pytest.raises(InvitationRefused, match="malformed"):
        read(urlsafe_b64encode(raw).rstrip(b"=").decode())


def test_a_token_that_no_function_would_read_is_not_signed() -> None:
    with pytest.raises(ValueError, match=str(MAX_TOKEN_SIZE)):
        sign(replace(INVITATION, url="wss://" + "x" * 3000), KEY)
    assert len(sign(replace(INVITATION, url="wss://" + "x" * 2048), KEY)) <= MAX_TOKEN_SIZE


@given(
    st.builds(
        Invitation,
        st.text(max_size=8),
        st.binary(min_size=16, max_size=16),
        st.text(max_size=64),
        st.text(max_size=16),
        st.text(max_size=200),
        st.integers(0, 1 << 40),
    )
)
def test_any_invitation_survives_the_journey(invitation: Invitation) -> None:
    assert read(sign(invitation, KEY))[0] == invitation


class TestKeyring:
    def test_secrets_are_parsed_with_commas_between(self) -> None:
        one, two = "a" * 32, "b" * 40
        ring = Keyring.parse(f" {one} , {two},")
        assert ring.signing == one.encode()
        assert ring.get(key_id(one.encode())) == one.encode()
        assert ring.get(key_id(two.encode())) == two.encode()
        assert ring.get("00000000") is None

    @pytest.mark.parametrize("text", ["", " , ", "a" * 31, "a" * 32 + ",short"])
    def test_a_secret_that_is_missing_or_short_is_an_error_that_does_not_say_it(self, text: str) -> None:
        with pytest.raises(ValueError) as caught:
            Keyring.parse(text)
        assert "aaa" not in str(caught.value) and "short" not in str(caught.value)


def test_the_signing_key_vouches_for_no_name_but_its_own() -> None:
    for kid in ("", "00000000", key_id(OTHER)):
        with pytest.raises(InvitationRefused, match="signature"):
            verify(sign(replace(INVITATION, kid=kid), KEY), Keyring([KEY]), 0.0)
