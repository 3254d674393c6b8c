"""Promise 6, functions: whoever dials in without the right gets the documented refusal, and whoever sends garbage the
documented close code; a healthy stream of another function does not notice."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from gateway.invitations import FIRST_PRESENTATION
from protocol.dial import Dial, Limits
from protocol.dial_reader import CONNECT_PATH
from protocol.frames import MAX_FRAME_SIZE
from protocol.invitation import Invitation, key_id, sign
from tests.e2e.patience import PATIENCE
from tests.e2e.stack import Stack
from tests.e2e.trap import Caught, Trap, dialled, first_dial, open_socket


def refused_reason(port: int, headers: list[tuple[str, str]]) -> tuple[int, str | None]:
    """Status and `Dialback-Reason` of a dial that must be refused."""
    with pytest.raises(InvalidStatus) as refused:
        open_socket(port, headers).close()
    response = refused.value.response
    assert "Server" not in response.headers
    return response.status_code, response.headers.get("Dialback-Reason")


def without(headers: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
    return [pair for pair in headers if pair[0] != name]


def test_a_dial_without_a_token_is_refused(trapped: Stack) -> None:
    headers = first_dial("token").to_headers()
    assert refused_reason(trapped.port, without(headers, "Authorization")) == (403, "proof")
    assert refused_reason(trapped.port, []) == (426, "version")


def test_a_dial_of_another_version_is_told_ours(trapped: Stack) -> None:
    headers = [*without(first_dial("token").to_headers(), "Dialback-Version"), ("Dialback-Version", "2")]
    assert refused_reason(trapped.port, headers) == (426, "version")


def forged_tokens(stack: Stack, genuine: str) -> dict[str, str]:
    """Tokens that are not ours."""
    key, others = stack.secret.encode(), b"x" * 32
    url = f"ws://127.0.0.1:{stack.port}{CONNECT_PATH}"
    invitation = Invitation(key_id(key), bytes(16), "trap", "0" * 16, url, int(time.time()) + 60)
    return {
        "not a token": "echo-me-not",
        "empty": "",
        "one letter changed": genuine[:20] + ("A" if genuine[20] != "A" else "B") + genuine[21:],
        "cut": genuine[:-4],
        "another's key": sign(invitation, others),
        "another's key, our key's id": sign(replace(invitation, kid=key_id(key)), others),
    }


def test_forged_tokens_are_refused(trapped: Stack, trap: Trap) -> None:
    with Caught(trapped, trap) as caught:
        for what, token in forged_tokens(trapped, caught.token).items():
            assert refused_reason(trapped.port, first_dial(token).to_headers()) == (403, "proof"), what


def test_old_tokens_are_refused(trapped: Stack, trap: Trap) -> None:
    key = trapped.secret.encode()
    with Caught(trapped, trap) as caught:
        pass
    assert caught.problem == "invoke-failed"
    assert refused_reason(trapped.port, first_dial(caught.token).to_headers()) == (403, "used"), (
        "its invocation is over"
    )
    url = f"ws://127.0.0.1:{trapped.port}{CONNECT_PATH}"
    elsewhere = sign(Invitation(key_id(key), bytes(16), "trap", "0" * 16, url, int(time.time()) + 60), key)
    assert refused_reason(trapped.port, first_dial(elsewhere).to_headers()) == (421, "wrong-node")


def test_a_token_is_its_first_presenters(trapped: Stack, trap: Trap) -> None:
    with Caught(trapped, trap) as caught, dialled(trapped.port, first_dial(caught.token)):
        assert refused_reason(trapped.port, first_dial(caught.token).to_headers()) == (403, "used")


def test_resumes_of_unknown_sessions_and_with_false_proofs_are_refused(trapped: Stack, trap: Trap) -> None:
    stranger = Dial(bytes(16), 2, 0, Limits(), proof=bytes(32), remaining=10)
    assert refused_reason(trapped.port, stranger.to_headers()) == (404, "unknown")
    with Caught(trapped, trap) as caught:
        first = first_dial(caught.token)
        with dialled(trapped.port, first) as socket:
            false = replace(stranger, session=first.session)
            assert refused_reason(trapped.port, false.to_headers()) == (403, "proof")
            socket.ping().wait(PATIENCE)  # the live one is untouched


def close_code(socket: ClientConnection) -> int | None:
    """The code that the gateway closes with, whatever it sends before."""
    with pytest.raises(ConnectionClosed):
        while True:
            socket.recv(PATIENCE)
    return socket.protocol.close_code


GARBAGE: dict[str, tuple[bytes | str, int]] = {
    "text": ("hello", 1003),
    "nothing": (b"", 1002),
    "random bytes": (random.Random(3).randbytes(500), 1002),
    "not an array": (b"\x81\xa1a\x01", 1002),
    "an unknown type": (b"\x91\x42", 1002),
    "a field too many": (b"\x93\x02\x00\x00", 1002),
    "a field of another type": (b"\x92\x02\xa1a", 1002),
    "two arrays": (b"\x92\x02\x00\x92\x02\x00", 1002),
    "a count that was never sent": (b"\x92\x02\xcd\x03\xe8", 1002),
    "the gateway's own frame": (b"\x94\x01\x00\x01\x80", 1002),
    "data of a stream that was never opened": (b"\x93\x14\xce\x00\x00\x00\x07\xc6\x00\x00\x00\x01x", 1002),
    "data that says another length": (b"\x93\x14\xce\x00\x00\x00\x01\xc6\x00\x00\xff\xffx", 1002),
    "a park without a lease": (b"\x94\x06\x01\x00\x00", 1002),
    "a message above 1 MiB": (bytes(MAX_FRAME_SIZE + 1), 1009),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_frames_end_their_link_with_the_documented_code(trapped: Stack, trap: Trap, case: str) -> None:
    message, code = GARBAGE[case]
    with Caught(trapped, trap) as caught, dialled(trapped.port, first_dial(caught.token)) as socket:
        socket.send(message)
        assert close_code(socket) == code
        assert refused_reason(trapped.port, first_dial(caught.token).to_headers())[0] in (403, 404), (
            "its session lives on"
        )


def test_bytes_that_are_not_websocket_end_their_link(trapped: Stack, trap: Trap) -> None:
    with Caught(trapped, trap) as caught, dialled(trapped.port, first_dial(caught.token)) as socket:
        socket.socket.sendall(random.Random(5).randbytes(4000))
        assert close_code(socket) in (1002, 1006)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_token_that_is_presented_too_late_is_refused(trapped: Stack, trap: Trap) -> None:
    """Its invocation still runs, but the time in which it may be presented first is over."""
    with Caught(trapped, trap) as caught:
        time.sleep(FIRST_PRESENTATION + 1)
        assert refused_reason(trapped.port, first_dial(caught.token).to_headers()) == (403, "expired")
    assert caught.problem == "dial-back-timeout"
