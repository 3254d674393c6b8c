"""The handshake's headers."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import encode
from protocol.dial import FINAL_CLOSES, Dial, Limits
from protocol.dial_reader import is_proved, read_dial
from protocol.errors import REFUSALS, DialRefused
from protocol.flow import MAX_FIRST_CREDIT
from protocol.frames import MAX_OFFSET, Lease, Leased
from protocol.invitation import resume_proof
from protocol.ledger import MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES

SESSION = bytes(range(16))
FIRST = Dial(SESSION, 1, 0, Limits(), invitation="token")
OFFER = encode(Lease(1, "token", 20, 890_000, 0))
OFFERING = Dial(SESSION, 1, 0, Limits(), invitation="token", lease=OFFER)
UNWELCOMED = Dial(SESSION, 2, 0, Limits(), "token", bytes(32), OFFER, remaining=880.0)
LATER = Dial(SESSION, 3, 17, Limits(1000, 1 << 20, 100), proof=bytes(32), remaining=1.5, features=("a", "b"))

limits = st.builds(
    Limits,
    st.integers(1, MAX_FIRST_CREDIT),
    st.integers(MIN_UNACKED_BYTES, MAX_OFFSET),
    st.integers(MIN_UNACKED_FRAMES, MAX_OFFSET),
)
counts = st.integers(0, MAX_OFFSET)
names = st.lists(st.text("abc-9", min_size=1), max_size=5).map(tuple)


def test_the_closes_after_which_a_session_is_over() -> None:
    assert FINAL_CLOSES == {1000, 1002, 1003, 1009, 4002}


def test_the_exact_headers() -> None:
    assert FIRST.to_headers() == [
        ("Dialback-Version", "1"),
        ("Dialback-Session", "000102030405060708090a0b0c0d0e0f"),
        ("Dialback-Epoch", "1"),
        ("Dialback-Received", "0"),
        ("Dialback-Limits", "credit=65536, unacked=16777216, frames=8192"),
        ("Authorization", "Dialback-Invitation token"),
    ]
    assert LATER.to_headers()[2:] == [
        ("Dialback-Epoch", "3"),
        ("Dialback-Received", "17"),
        ("Dialback-Limits", "credit=1000, unacked=1048576, frames=100"),
        ("Authorization", "Dialback-Resume " + "00" * 32),
        ("Dialback-Remaining", "1500"),
        ("Dialback-Features", "a, b"),
    ]
    offer = ("Dialback-Lease", "lwMBpXRva2VuFM4ADZSQAIA")
    assert OFFERING.to_headers()[5:] == [("Authorization", "Dialback-Invitation token"), offer]
    assert UNWELCOMED.to_headers()[5:] == [
        ("Authorization", f"Dialback-Resume {'00' * 32} token"),
        offer,
        ("Dialback-Remaining", "880000"),
    ]


@given(
    st.one_of(
        st.builds(
            Dial,
            st.binary(min_size=16, max_size=16),
            st.integers(1, MAX_OFFSET),
            counts,
            limits,
            invitation=st.text("aZ0_-", min_size=1),
            lease=st.sampled_from((b"", OFFER)),
            features=names,
        ),
        st.builds(
            Dial,
            st.binary(min_size=16, max_size=16),
            st.integers(1, MAX_OFFSET),
            counts,
            limits,
            invitation=st.text("aZ0_-", min_size=1),
            proof=st.binary(min_size=32, max_size=32),
            lease=st.sampled_from((b"", OFFER)),
            remaining=st.integers(0, 10**7).map(lambda ms: ms / 1000),
        ),
        st.builds(
            Dial,
            st.binary(min_size=16, max_size=16),
            st.integers(1, MAX_OFFSET),
            counts,
            limits,
            proof=st.binary(min_size=32, max_size=32),
            remaining=st.integers(0, 10**7).map(lambda ms: ms / 1000),
            features=names,
        ),
    )
)
def test_a_dial_survives_the_journey(dial: Dial) -> None:
    headers = dial.to_headers()
    assert read_dial(dict(headers)) == dial
    assert read_dial({name.lower(): value for name, value in headers}) == dial


def changed(dial: Dial, **headers: str | None) -> dict[str, str]:
    result = dict(dial.to_headers())
    for name, value in headers.items():
        name = name.replace("_", "-").title().replace("Dialback-", "Dialback-")
        if value is None:
            result.pop(name)
        else:
            result[name] = value
    return result


@pytest.mark.parametrize("version", [None, "", "2", "1.0", "one", "1,1"])
def test_another_version_is_refused_as_such(version: str | None) -> None:
    with pytest.raises(DialRefused) as caught:
        read_dial(changed(FIRST, dialback_version=version))
    assert (caught.value.reason, caught.value.status) == ("version", 426)


@pytest.mark.parametrize(
    "headers",
    [
        {"dialback_session": None},
        {"dialback_session": "00" * 15},
        {"dialback_session": "00" * 17},
        {"dialback_session": "0" * 31},
        {"dialback_session": "zz" * 16},
        {"dialback_session": "00 " * 16},
        {"dialback_epoch": None},
        {"dialback_epoch": "0"},
        {"dialback_epoch": "-1"},
        {"dialback_epoch": "+1"},
        {"dialback_epoch": "1.0"},
        {"dialback_epoch": "1_0"},
        {"dialback_epoch": "١"},
        {"dialback_epoch": str(MAX_OFFSET + 1)},
        {"dialback_epoch": "1" * 5000},
        {"dialback_received": None},
        {"dialback_received": "x"},
        {"dialback_limits": None},
        {"dialback_limits": ""},
        {"dialback_limits": "credit=1, unacked=1048576"},
        {"dialback_limits": "credit=0, unacked=1048576, frames=100"},
        {"dialback_limits": f"credit={MAX_FIRST_CREDIT + 1}, unacked=1048576, frames=100"},
        {"dialback_limits": f"credit=1, unacked={MIN_UNACKED_BYTES - 1}, frames=100"},
        {"dialback_limits": f"credit=1, unacked=1048576, frames={MIN_UNACKED_FRAMES - 1}"},
        {"dialback_limits": "credit=1, unacked=1048576, frames=1e3"},
        {"dialback_limits": "credit, unacked, frames"},
        {"authorization": None},
        {"authorization": ""},
        {"authorization": "Bearer token"},
        {"authorization": "Dialback-Invitation "},
        {"authorization": "Dialback-Resume "},
        {"authorization": "Dialback-Resume zz"},
        {"authorization": "Dialback-Resume 00 00"},
        {"authorization": f"Dialback-Resume {'00' * 31} token"},
        {"authorization": "Dialback-Resume  token"},
        {"dialback_lease": "not base64"},
        {"dialback_lease": "AA"},
        {"dialback_lease": base64.urlsafe_b64encode(encode(Leased(1, {}))).decode().rstrip("=")},
        {"dialback_lease": base64.urlsafe_b64encode(OFFER + b"\0").decode().rstrip("=")},
        {"dialback_remaining": "-5"},
        {"dialback_features": ",".join("abcdefghijklmnopqrstuvwxyz0123456789")},
    ],
)
def test_what_is_missing_or_malformed_is_no_proof(headers: dict[str, str | None]) -> None:
    with pytest.raises(DialRefused) as caught:
        read_dial(changed(FIRST, **headers))
    assert (caught.value.reason, caught.value.status) == ("proof", 403)


def test_a_lease_travels_with_an_invitation_alone() -> None:
    with pytest.raises(DialRefused, match="proof"):
        read_dial(dict(Dial(SESSION, 2, 0, Limits(), proof=bytes(32), lease=OFFER).to_headers()))


def test_a_proof_is_checked_with_everything_that_it_covers() -> None:
    key = b"k" * 32
    good = Dial(SESSION, 2, 5, Limits(), proof=resume_proof(key, SESSION, 2, 5))
    assert is_proved(good, key)
    for bad in (
        Dial(SESSION, 3, 5, Limits(), proof=good.proof),
        Dial(SESSION, 2, 6, Limits(), proof=good.proof),
        Dial(bytes(16), 2, 5, Limits(), proof=good.proof),
        Dial(SESSION, 2, 5, Limits(), proof=good.proof[:-1]),
        Dial(SESSION, 2, 5, Limits(), proof=good.proof[:-1] + b"\0"),
        Dial(SESSION, 2, 5, Limits(), invitation="token"),
    ):
        assert not is_proved(bad, key)
    assert not is_proved(good, b"l" * 32)


def test_every_refusal_has_a_status_of_an_error() -> None:
    for reason, status in REFUSALS.items():
        assert DialRefused(reason).status == status >= 400
