"""The one door to `protocol`: everything that the function side needs of it. Knows no handler and no socket.

The top-level names of this distribution are general ones, and a function's zip may hold a file of the user's with the
same name. It would be found first; this module then says whose file was found and what to rename.
"""

from __future__ import annotations

from typing import Any


def _explain(error: ImportError) -> ImportError:
    from importlib.util import find_spec
    from pathlib import Path

    try:
        spec = find_spec("protocol")
    except (ImportError, ValueError):
        spec = None
    ours = Path(__file__).resolve().parent.parent / "protocol"
    if spec is None or spec.origin is None:
        return ImportError(f"Dialback's package `protocol` is missing beside {Path(__file__).parent}: install it whole")
    found = Path(spec.origin).resolve()
    if found.parent == ours:
        return error
    mine = found.parent if found.name == "__init__.py" else found
    return ImportError(
        f"`import protocol` finds {mine}, which is not Dialback's and hides it. Rename that file, for example to "
        f"{mine.with_name('my_protocol' + mine.suffix).name}, and its imports."
    )


try:
    from protocol.dial import (
        CLOSE_GOING_AWAY,
        CLOSE_NORMAL,
        CLOSE_PROTOCOL_ERROR,
        CLOSE_TOO_BIG,
        CLOSE_UNSUPPORTED,
        REASON_HEADER,
        Dial,
    )
    from protocol.errors import REFUSALS, DialRefused, InvitationRefused, LocalError, ProtocolError
    from protocol.events import (
        DataReceived,
        Event,
        LeaseGranted,
        LeaseOffered,
        LeaseReleased,
        Parked,
        ResponseReceived,
        SessionEnded,
        SocketDead,
        StreamClosed,
        StreamOpened,
        StreamReset,
        StreamStopped,
        StreamWritable,
        TrailersReceived,
        Welcomed,
    )
    from protocol.frames import MAX_FRAME_SIZE, Code, Request
    from protocol.function_session import FunctionSession
    from protocol.invitation import (
        INVITATION_CONTENT_TYPE,
        INVITATION_KEY,
        Invitation,
        Keyring,
        session_key,
        verify,
    )
except ImportError as error:
    raise _explain(error) from error

Headers = list[tuple[bytes, bytes]]


def gateway() -> Any:
    """The other side's names, which only a test needs: `GatewaySession`, `SessionOptions`, `sign`, `key_id`."""
    from types import SimpleNamespace

    from protocol.gateway_session import GatewaySession, SessionOptions
    from protocol.invitation import key_id, sign

    return SimpleNamespace(GatewaySession=GatewaySession, SessionOptions=SessionOptions, sign=sign, key_id=key_id)


__all__ = [
    "CLOSE_GOING_AWAY",
    "CLOSE_NORMAL",
    "CLOSE_PROTOCOL_ERROR",
    "CLOSE_TOO_BIG",
    "CLOSE_UNSUPPORTED",
    "INVITATION_CONTENT_TYPE",
    "INVITATION_KEY",
    "MAX_FRAME_SIZE",
    "REASON_HEADER",
    "REFUSALS",
    "Code",
    "DataReceived",
    "Dial",
    "DialRefused",
    "Event",
    "FunctionSession",
    "Headers",
    "Invitation",
    "InvitationRefused",
    "Keyring",
    "LeaseGranted",
    "LeaseOffered",
    "LeaseReleased",
    "LocalError",
    "Parked",
    "ProtocolError",
    "Request",
    "ResponseReceived",
    "SessionEnded",
    "SocketDead",
    "StreamClosed",
    "StreamOpened",
    "StreamReset",
    "StreamStopped",
    "StreamWritable",
    "TrailersReceived",
    "Welcomed",
    "gateway",
    "session_key",
    "verify",
]
