"""Invitations and keys: what is signed is what is read, every tampering is refused, and no secret is printed."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvitationRefused
from protocol.events import LeaseOffered
from protocol.frames import Lease
from protocol.function_session import FunctionSession
from protocol.gateway_session import GatewaySession
from protocol.invitation import (
    CLOCK_SKEW,
    MAX_TOKEN_SIZE,
    MIN_SECRET_SIZE,
    Invitation,
    Keyring,
    key_id,
    read,
    resume_proof,
    session_key,
    sign,
    verify,
)

KEY = b"the first secret, at least 32 bytes"
OTHER = b"the other secret, at least 32 bytes"
INVITATION = Invitation(key_id(KEY), bytes(range(16)), "function", "boot", "wss://gateway.example.com/connect", 1000)
TOKEN = sign(INVITATION, KEY)
FIELDS = [
    1,
    INVITATION.kid,
    INVITATION.nonce,
    INVITATION.function,
    INVITATION.boot,
    INVITATION.url,
    INVITATION.expires,
]

texts = st.text(max_size=60)


def raw_of(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def token_of(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def signed(content: Any, key: bytes = KEY) -> str:
    """A token whose signature is good, whatever it holds."""
    body = content if isinstance(content, bytes) else msgpack.packb(content)
    return token_of(body + hmac.new(key, b"dialback invitation 1" + body, sha256).digest())


def refusal(token: Any, keyring: Keyring | None = None, now: float = 500.0) -> str:
    with pytest.raises(InvitationRefused) as refused:
        verify(token, keyring or Keyring([KEY]), now)
    return refused.value.reason


class TestTokens:
    @given(st.binary(min_size=16, max_size=16), texts, texts, texts, st.integers(0, 1 << 62))
    def test_what_was_signed_is_verified(self, nonce: bytes, function: str, boot: str, url: str, expires: int) -> None:
        invitation = Invitation(key_id(KEY), nonce, function, boot, url, expires)
        token = sign(invitation, KEY)
        assert verify(token, Keyring([KEY]), 0.0) == invitation
        assert read(token)[0] == invitation

    def test_the_exact_form(self) -> None:
        # Made by hand from docs/protocol.md §7.1.
        assert signed(FIELDS) == TOKEN
        assert "=" not in TOKEN and "+" not in TOKEN and "/" not in TOKEN

    def test_every_bit_that_is_changed_is_noticed(self) -> None:
        raw = raw_of(TOKEN)
        for at in range(len(raw)):
            for bit in range(8):
                tampered = bytearray(raw)
                tampered[at] ^= 1 << bit
                assert refusal(token_of(bytes(tampered))) in ("signature", "malformed")
        for at in range(len(raw) - 32, len(raw)):
            tampered = bytearray(raw)
            tampered[at] ^= 1
            assert refusal(token_of(bytes(tampered))) == "signature", "the content is still good"

    def test_every_character_that_is_changed_left_out_or_put_in_is_noticed(self) -> None:
        # One invitation has one token: also the last character's unused bits, and what the decoder would skip.
        for at in range(len(TOKEN)):
            for wrong in ("A", "_", "/", "=", " ", "\n", "é"):
                if wrong != TOKEN[at]:
                    refusal(TOKEN[:at] + wrong + TOKEN[at + 1 :])
                refusal(TOKEN[:at] + wrong + TOKEN[at:])
            refusal(TOKEN[:at] + TOKEN[at + 1 :])
        for wrong in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            if wrong != TOKEN[-1]:
                refusal(TOKEN[:-1] + wrong)
        for padded in (TOKEN + "=", TOKEN + "==", TOKEN + "\n"):
            assert refusal(padded) == "malformed"

    def test_another_invitations_signature_is_refused(self) -> None:
        for change in ({"boot": "toob"}, {"expires": 1001}, {"nonce": bytes(16)}, {"url": "wss://evil.example.com/"}):
            other = sign(replace(INVITATION, **change), KEY)  # type: ignore[arg-type]
            assert refusal(token_of(raw_of(other)[:-32] + raw_of(TOKEN)[-32:])) == "signature"

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xc1",
            [],
            FIELDS[:-1],
            [*FIELDS, 1],
            dict(enumerate(FIELDS[:3])),
            7,
            None,
            [2, *FIELDS[1:]],
            ["1", *FIELDS[1:]],
            *([*FIELDS[:at], wrong, *FIELDS[at + 1 :]] for at in (1, 3, 4, 5) for wrong in (b"bytes", None, 1, [])),
            *([*FIELDS[:2], wrong, *FIELDS[3:]] for wrong in (b"", bytes(15), bytes(17), "0123456789abcdef", None)),
            *([*FIELDS[:6], wrong] for wrong in (1.5, "1000", None, True, b"")),
            msgpack.packb(FIELDS) + b"\0",
        ],
        ids=repr,
    )
    def test_a_good_signature_of_anything_else_is_malformed(self, content: Any) -> None:
        assert refusal(signed(content)) == "malformed"

    @pytest.mark.parametrize(
        "token", ["", "A", "=", "====", "ä", "\udc80", "a" * 5000, None, 1, TOKEN.encode(), [TOKEN], {}], ids=repr
    )
    def test_what_is_no_token_is_malformed(self, token: Any) -> None:
        assert refusal(token) == "malformed"

    def test_4096_characters_are_the_longest(self) -> None:
        def of(size: int) -> Invitation:
            return replace(INVITATION, url="u" * size)

        size = next(
            size for size in range(2800, 3100) if len(signed([*FIELDS[:5], "u" * size, 1000])) == MAX_TOKEN_SIZE
        )
        longest = sign(of(size), KEY)
        assert verify(longest, Keyring([KEY]), 0.0) == of(size)
        with pytest.raises(ValueError):
            sign(of(size + 3), KEY)
        assert refusal(signed([*FIELDS[:5], "u" * (size + 3), 1000])) == "malformed"


class TestTime:
    def test_the_function_allows_60_seconds(self) -> None:
        assert CLOCK_SKEW == 60
        for now in (-1e9, 999.0, 1000.0, 1060.0):
            assert verify(TOKEN, Keyring([KEY]), now) == INVITATION
        for now in (1060.1, 1e12, float("inf")):
            assert refusal(TOKEN, now=now) == "expired"

    def test_a_bad_signature_is_not_said_to_be_expired(self) -> None:
        assert refusal(sign(INVITATION, OTHER), now=1e9) == "signature"


class TestKeys:
    def test_the_kid_is_a_hash_of_the_key(self) -> None:
        assert key_id(KEY) == sha256(b"dialback kid" + KEY).hexdigest()[:8]
        assert key_id(KEY) != key_id(OTHER)

    def test_an_unknown_key_is_a_wrong_signature(self) -> None:
        assert refusal(TOKEN, Keyring([OTHER])) == "signature"

    def test_a_known_kid_over_another_keys_signature_is_one_too(self) -> None:
        assert refusal(sign(INVITATION, OTHER), Keyring([KEY, OTHER])) == "signature"
        assert refusal(sign(replace(INVITATION, kid=key_id(OTHER)), KEY), Keyring([KEY, OTHER])) == "signature"

    def test_an_unknown_kid_over_the_signing_keys_signature_is_one_too(self) -> None:
        for kid in ("", "00000000", "x" * 100):
            assert refusal(sign(replace(INVITATION, kid=kid), KEY)) == "signature"

    def test_a_rotation(self) -> None:
        old, both, new = Keyring([KEY]), Keyring([OTHER, KEY]), Keyring([OTHER])
        assert (old.signing, both.signing, new.signing) == (KEY, OTHER, OTHER)
        fresh = sign(replace(INVITATION, kid=key_id(both.signing)), both.signing)
        for token in (TOKEN, fresh):
            verify(token, both, 0.0)  # the function knows both before the gateway signs with the second
        assert refusal(fresh, old) == "signature"
        assert refusal(TOKEN, new) == "signature"
        verify(fresh, new, 0.0)

    def test_a_key_is_found_by_its_kid(self) -> None:
        ring = Keyring([KEY, OTHER])
        assert ring.get(key_id(OTHER)) == OTHER
        assert ring.get("00000000") is None

    @pytest.mark.parametrize("keys", [[], [b""], [bytes(31)], [KEY, bytes(31)]])
    def test_no_key_or_a_short_one_is_refused(self, keys: list[bytes]) -> None:
        with pytest.raises(ValueError) as error:
            Keyring(keys)
        assert "the first secret" not in str(error.value)
        assert MIN_SECRET_SIZE == 32
        Keyring([bytes(32)])

    def test_the_form_of_the_environment_variable(self) -> None:
        text = f" {KEY.decode().replace(',', ';')} , {'k' * 32},,\n"
        ring = Keyring.parse(text)
        assert ring.signing == KEY.replace(b",", b";") and ring.get(key_id(b"k" * 32)) == b"k" * 32
        for nothing in ("", " ", ",", " , "):
            with pytest.raises(ValueError):
                Keyring.parse(nothing)


class TestProofs:
    def test_the_session_key_and_the_proof_are_those_of_the_specification(self) -> None:
        session = b"s" * 16
        key = hmac.new(KEY, b"dialback resume" + INVITATION.nonce + session, sha256).digest()
        assert session_key(KEY, INVITATION.nonce, session) == key
        stated = session + (7).to_bytes(8, "big") + (300).to_bytes(8, "big")
        assert resume_proof(key, session, 7, 300) == hmac.new(key, stated, sha256).digest()

    def test_every_part_changes_them(self) -> None:
        session, nonce = b"s" * 16, b"n" * 16
        keys = {session_key(*args) for args in ((KEY, nonce, session), (OTHER, nonce, session), (KEY, session, nonce))}
        assert len(keys) == 3
        proofs = {
            resume_proof(*args)
            for args in ((KEY, session, 1, 2), (OTHER, session, 1, 2), (KEY, nonce, 1, 2), (KEY, session, 2, 1))
        }
        assert len(proofs) == 4


@pytest.mark.parametrize(
    "value",
    [
        INVITATION,
        Keyring([KEY, OTHER]),
        Lease(1, TOKEN, 1, 1000, 0),
        LeaseOffered(1, TOKEN, 1, 1.0),
        FunctionSession(b"s" * 16, KEY, TOKEN),
        GatewaySession(b"s" * 16),
        InvitationRefused("malformed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_prints_a_secret(value: object) -> None:
    for text in (repr(value), str(value), f"{value}"):
        for secret in (KEY.decode(), OTHER.decode(), TOKEN, INVITATION.nonce.hex(), repr(INVITATION.nonce)):
            assert secret not in text
