"""The headers of a dial: what is said is what is read, and everything malformed is refused with its reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dial import Dial, Limits
from protocol.errors import REFUSALS, DialRefused
from protocol.flow import MAX_WINDOW
from protocol.frames import MAX_OFFSET
from protocol.invitation import resume_proof
from protocol.ledger import MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES

SESSION = bytes(range(16))
KEY = b"k" * 32
FIRST = Dial(SESSION, 1, 0, Limits(), invitation="aW52aXRhdGlvbg")
RESUME = Dial(SESSION, 7, 12, Limits(), proof=resume_proof(KEY, SESSION, 7, 12), remaining=12.345)

limits = st.builds(
    Limits,
    st.integers(1, MAX_WINDOW),
    st.integers(MIN_UNACKED_BYTES, MAX_OFFSET),
    st.integers(MIN_UNACKED_FRAMES, MAX_OFFSET),
)
features = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True), max_size=32).map(tuple)
epochs = st.integers(1, MAX_OFFSET)
counts = st.integers(0, MAX_OFFSET)
dials = st.one_of(
    st.builds(
        Dial,
        st.binary(min_size=16, max_size=16),
        epochs,
        counts,
        limits,
        invitation=st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True),
        features=features,
    ),
    st.builds(
        Dial,
        st.binary(min_size=16, max_size=16),
        epochs,
        counts,
        limits,
        proof=st.binary(min_size=32, max_size=32),
        remaining=st.integers(0, 1 << 40).map(lambda milliseconds: milliseconds / 1000),
        features=features,
    ),
)


def headers_of(dial: Dial, **changed: str | None) -> dict[str, str]:
    """A dial's headers, with some changed, or left out where None. Dialback_Epoch is written epoch."""
    headers = dict(dial.to_headers())
    for name, value in changed.items():
        full = "Authorization" if name == "authorization" else f"Dialback-{name.capitalize()}"
        assert full in headers or value is not None, "a header that is there"
        headers.pop(full, None)
        if value is not None:
            headers[full] = value
    return headers


def refusal(headers: dict[str, str]) -> str:
    with pytest.raises(DialRefused) as refused:
        Dial.from_headers(headers)
    assert refused.value.status == REFUSALS[refused.value.reason]
    return refused.value.reason


@given(dials)
def test_what_is_said_is_what_is_read(dial: Dial) -> None:
    headers = dict(dial.to_headers())
    read = Dial.from_headers(headers)
    assert abs(read.remaining - dial.remaining) <= 0.001 + dial.remaining * 1e-9
    assert Dial(
        read.session, read.epoch, read.received, read.limits, read.invitation, read.proof, 0.0, read.features
    ) == (Dial(dial.session, dial.epoch, dial.received, dial.limits, dial.invitation, dial.proof, 0.0, dial.features))
    assert Dial.from_headers({name.lower(): value for name, value in headers.items()}) == read


def test_the_exact_headers_of_a_first_dial() -> None:
    assert FIRST.to_headers() == [
        ("Dialback-Version", "1"),
        ("Dialback-Session", "000102030405060708090a0b0c0d0e0f"),
        ("Dialback-Epoch", "1"),
        ("Dialback-Received", "0"),
        ("Dialback-Limits", "credit=65536, unacked=8388608, frames=8192"),
        ("Authorization", "Dialback-Invitation aW52aXRhdGlvbg"),
    ]


def test_the_exact_headers_of_a_resume() -> None:
    dial = Dial(SESSION, 7, 12, Limits(1, 1 << 18, 64), proof=b"\xab" * 32, remaining=12.3456, features=("a", "b"))
    assert dial.to_headers()[2:] == [
        ("Dialback-Epoch", "7"),
        ("Dialback-Received", "12"),
        ("Dialback-Limits", "credit=1, unacked=262144, frames=64"),
        ("Authorization", "Dialback-Resume " + "ab" * 32),
        ("Dialback-Remaining", "12345"),
        ("Dialback-Features", "a, b"),
    ]


@pytest.mark.parametrize("version", ["0", "2", "1.0", "", "one", "1,1", None])
def test_another_version_is_refused_before_anything_else(version: str | None) -> None:
    assert refusal(headers_of(FIRST, version=version)) == "version"
    assert refusal({"Dialback-Version": version or ""}) == "version"


NUMBERS = [
    "",
    "-1",
    "+1",
    "1.0",
    "0x1",
    "1e3",
    "1_0",
    " 1",
    "1 ",
    "٣",
    "²",
    str(1 << 63),
    "9" * 20,
    "0" * 20,
    "1,1",
    "a",
]
MALFORMED: list[tuple[str, list[str | None]]] = [
    ("session", [None, "", "00" * 15, "00" * 17, "0" * 31, "g" * 32, "00 " * 16, "0x" + "00" * 15, "٣" * 32]),
    ("epoch", [None, "0", *NUMBERS]),
    ("received", [None, *NUMBERS]),
    (
        "limits",
        [
            None,
            "",
            "credit=65536",
            "credit=65536, unacked=8388608",
            "unacked=8388608, frames=8192",
            "credit=0, unacked=8388608, frames=8192",
            f"credit={MAX_WINDOW + 1}, unacked=8388608, frames=8192",
            f"credit=1, unacked={MIN_UNACKED_BYTES - 1}, frames=8192",
            f"credit=1, unacked=8388608, frames={MIN_UNACKED_FRAMES - 1}",
            "credit=-1, unacked=8388608, frames=8192",
            "credit=1; unacked=8388608; frames=8192",
            "credit=1, unacked=8388608, frames=",
            "credit=1, unacked=8388608, frames",
            "credit=1, unacked=8388608, frames=8192,",
            f"credit=1, unacked={1 << 63}, frames=8192",
        ],
    ),
    (
        "authorization",
        [
            None,
            "",
            "Bearer token",
            "Dialback-Invitation",
            "Dialback-Invitation ",
            "dialback-invitation token",
            "Dialback-Resume ",
            "Dialback-Resume xyz",
            "Dialback-Resume a",
            "Dialback-Resume ab ab",
            " Dialback-Invitation token",
        ],
    ),
    ("remaining", [value for value in NUMBERS if value]),
    ("features", [",".join(f"f{n}" for n in range(33))]),
]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in MALFORMED for value in values if value is not None]
)
def test_a_malformed_header_is_refused(name: str, value: str) -> None:
    assert refusal(headers_of(RESUME, **{name: value})) == "proof"


@pytest.mark.parametrize("name", ["session", "epoch", "received", "limits", "authorization"])
def test_a_missing_header_is_refused(name: str) -> None:
    assert refusal(headers_of(RESUME, **{name: None})) == "proof"


def test_what_may_be_absent_or_empty() -> None:
    for changed in ({"features": ""}, {"features": " , ,"}, {"remaining": None}, {"remaining": ""}):
        dial = Dial.from_headers(headers_of(RESUME, **changed))  # type: ignore[arg-type]
        assert dial.features == ()
        assert dial.remaining == (0.0 if "remaining" in changed else 12.345)
    spaced = headers_of(RESUME, limits=" credit=1 ,unacked=262144,  frames=64, later=5", features="a,b ,, c")
    read = Dial.from_headers(spaced)
    assert read.limits == Limits(1, 1 << 18, 64), "a limit that is not known yet is ignored"
    assert read.features == ("a", "b", "c")


@pytest.mark.parametrize(
    ("limits", "is_valid"),
    [
        (Limits(), True),
        (Limits(1, MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES), True),
        (Limits(MAX_WINDOW, MAX_OFFSET, MAX_OFFSET), True),
        (Limits(0), False),
        (Limits(MAX_WINDOW + 1), False),
        (Limits(unacked=MIN_UNACKED_BYTES - 1), False),
        (Limits(unacked=MAX_OFFSET + 1), False),
        (Limits(frames=MIN_UNACKED_FRAMES - 1), False),
        (Limits(frames=MAX_OFFSET + 1), False),
    ],
)
def test_the_range_of_limits(limits: Limits, is_valid: bool) -> None:
    assert limits.is_valid() is is_valid
    assert (MIN_UNACKED_BYTES, MIN_UNACKED_FRAMES) == (256 << 10, 64)


class TestProof:
    def test_a_good_one(self) -> None:
        assert RESUME.is_proved_by(KEY)
        assert Dial.from_headers(dict(RESUME.to_headers())).is_proved_by(KEY)

    @pytest.mark.parametrize(
        "changed",
        [
            {"session": "01" * 16},
            {"epoch": "8"},
            {"received": "13"},
            {"authorization": "Dialback-Resume " + "00" * 32},
            {"authorization": "Dialback-Resume " + RESUME.proof.hex()[:-2]},
            {"authorization": "Dialback-Resume " + RESUME.proof.hex() + "00"},
            {"authorization": "Dialback-Invitation token"},
        ],
        ids=repr,
    )
    def test_one_of_anything_else(self, changed: dict[str, Any]) -> None:
        assert not Dial.from_headers(headers_of(RESUME, **changed)).is_proved_by(KEY)

    def test_every_byte_of_it_counts(self) -> None:
        for at in range(32):
            proof = bytearray(RESUME.proof)
            proof[at] ^= 1
            assert not Dial(SESSION, 7, 12, Limits(), proof=bytes(proof)).is_proved_by(KEY)

    def test_another_key(self) -> None:
        assert not RESUME.is_proved_by(b"x" * 32)


def test_a_dial_prints_neither_its_invitation_nor_its_proof() -> None:
    for dial in (FIRST, RESUME):
        for text in (repr(dial), str(dial)):
            assert FIRST.invitation not in text and RESUME.proof.hex() not in text and repr(RESUME.proof) not in text
            assert dial.session.hex() in text


def test_every_reason_has_its_status() -> None:
    for reason, status in REFUSALS.items():
        assert DialRefused(reason).status == status and str(DialRefused(reason)) == reason
