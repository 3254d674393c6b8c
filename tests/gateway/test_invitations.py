"""Invitations: good once, for one session of one function of this process, and in time."""

from __future__ import annotations

import pytest

from gateway.invitations import Invitations
from protocol.errors import DialRefused
from protocol.invitation import Keyring, read

URL = "ws://127.0.0.1:1/_dialback/v1/connect"
KEYRINGS = {"a": Keyring.parse("a" * 32), "b": Keyring.parse("b" * 32 + "," + "c" * 32)}
ONE, OTHER = b"1" * 16, b"2" * 16


def refusal(invitations: Invitations[str], token: str, session: bytes = ONE) -> str:
    with pytest.raises(DialRefused) as refused:
        invitations.find(token, KEYRINGS, session)
    return refused.value.reason


def test_an_invitation_says_where_to_dial_and_comes_back_as_what_it_was_issued_for() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, issued = invitations.issue("a", KEYRINGS["a"], "start")
    said = read(token)[0]
    assert (said.url, said.boot, said.function) == (URL, invitations.boot, "a")
    found, key = invitations.find(token, KEYRINGS, ONE)
    assert found is issued and found.start == "start"
    assert key == b"a" * 32
    assert found.owner is None, "looking is not taking"


def test_it_is_its_owners_until_it_is_consumed_and_then_nobodys() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, issued = invitations.issue("a", KEYRINGS["a"], "start")
    issued.owner = ONE
    assert refusal(invitations, token, OTHER) == "used"
    assert invitations.find(token, KEYRINGS, ONE)[0] is issued
    assert invitations.consume(token, KEYRINGS, ONE) is issued
    assert refusal(invitations, token, ONE) == "used"
    assert len(invitations) == 0


def test_it_goes_with_its_invocation() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, issued = invitations.issue("a", KEYRINGS["a"], "start")
    invitations.withdraw(issued)
    invitations.withdraw(issued)
    assert refusal(invitations, token) == "used"


def test_expiry_limits_the_first_presentation_only() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, issued = invitations.issue("a", KEYRINGS["a"], "start", -1)
    assert refusal(invitations, token) == "expired"
    issued.owner = ONE
    assert invitations.find(token, KEYRINGS, ONE)[0] is issued


def test_every_key_of_the_ring_is_good_and_the_first_signs() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, _ = invitations.issue("b", KEYRINGS["b"], "start")
    assert invitations.find(token, KEYRINGS, ONE)[1] == b"b" * 32
    old, _ = invitations.issue("b", Keyring.parse("c" * 32), "start")
    assert invitations.find(old, KEYRINGS, ONE)[1] == b"c" * 32


def test_what_is_not_ours_is_no_proof() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, _ = invitations.issue("a", KEYRINGS["a"], "start")
    strange, _ = invitations.issue("a", Keyring.parse("x" * 32), "start")
    nowhere, _ = invitations.issue("nowhere", KEYRINGS["a"], "start")
    others, _ = invitations.issue("b", KEYRINGS["a"], "start")
    last = token[:-1] + ("A" if token[-1] != "A" else "Q")
    for bad in ("", "x", "é", "A" * 5000, token[1:], last, strange, nowhere, others):
        assert refusal(invitations, bad) == "proof", bad


def test_another_process_of_the_same_keys_is_told_apart() -> None:
    token, _ = Invitations[str](URL).issue("a", KEYRINGS["a"], "start")
    assert refusal(Invitations(URL), token) == "wrong-node"


def test_only_the_functions_that_are_asked_for_are_known() -> None:
    invitations: Invitations[str] = Invitations(URL)
    token, _ = invitations.issue("b", KEYRINGS["b"], "start")
    with pytest.raises(DialRefused, match="proof"):
        invitations.consume(token, {"a": KEYRINGS["a"]}, ONE)
    assert len(invitations) == 1
