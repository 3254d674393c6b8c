"""What is printed of anything: one short line, and no secret."""

from __future__ import annotations

import pytest

from protocol import events as ev
from protocol import frames as fr
from protocol.dial import Dial, Limits
from protocol.errors import DialRefused, InvitationRefused
from protocol.function_session import FunctionSession
from protocol.gateway_session import GatewaySession
from protocol.invitation import Invitation, Keyring

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
BYTES = SECRET.encode()
HEADERS = [(b"authorization", BYTES), (b"cookie", BYTES)]
REQUEST = fr.Request(1, b"e" * 16, b"GET", b"/path?token=" + BYTES, HEADERS, {"client": ["192.0.2.1", 1]})
RESPONSE = fr.Response(1, 200, [(b"set-cookie", BYTES)])


@pytest.mark.parametrize(
    "thing",
    [
        fr.Lease(1, SECRET, 1, 1, 1),
        REQUEST,
        RESPONSE,
        fr.Informational(1, 103, HEADERS),
        fr.Trailers(1, HEADERS),
        fr.Data(1, BYTES),
        fr.Message(1, BYTES, text=True),
        ev.LeaseOffered(1, SECRET, 1, 9.0),
        ev.StreamOpened(1, REQUEST),
        ev.ResponseReceived(1, RESPONSE, False),
        ev.InformationalReceived(1, 103, HEADERS),
        ev.DataReceived(1, BYTES, False),
        ev.TrailersReceived(1, HEADERS),
        ev.MessageReceived(1, BYTES, True),
        Dial(b"s" * 16, 1, 0, Limits(), invitation=SECRET),
        Dial(b"s" * 16, 2, 0, Limits(), proof=BYTES),
        Keyring([BYTES]),
        Invitation("kid", BYTES[:16], "function", "boot", f"wss://gw/{SECRET}", 1),
        FunctionSession(b"s" * 16, BYTES, SECRET),
        GatewaySession(b"s" * 16),
        DialRefused("proof"),
        InvitationRefused("signature"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_it_prints_itself_in_one_short_line_without_the_secret(thing: object) -> None:
    for text in (repr(thing), str(thing)):
        assert len(text) < 120 and "\n" not in text
        assert "hunter2" not in text and BYTES.hex() not in text and BYTES[:16].hex() not in text


def test_a_session_prints_its_state() -> None:
    assert repr(GatewaySession(b"s" * 16)) == "GatewaySession(73737373, epoch=0, parked, streams=0)"


def test_a_path_is_printed_and_its_query_is_not() -> None:
    assert repr(REQUEST) == "Request(stream=1, GET /path)"
