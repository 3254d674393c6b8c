"""The one door to `protocol`: everything that the function side needs of it. Knows no handler and no socket.

The top-level names of this distribution are general ones, and a function's zip may hold a file of the user's with the
same name. It would be found first; this module then says whose file was found and what to rename.
"""

from __future__ import annotations

from typing import TYPE_CHECKING


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
    from protocol import dial, errors, events, frames, invitation
    from protocol.function_session import FunctionSession
except ImportError as error:
    explained = _explain(error)
    raise explained from (None if explained is error else error)

if TYPE_CHECKING:
    from protocol.gateway_session import GatewaySession

__all__ = ["FunctionSession", "dial", "errors", "events", "frames", "gateway_session", "invitation", "read_dial"]


def gateway_session() -> type[GatewaySession]:
    """The other side's session, which only a test needs."""
    from protocol.gateway_session import GatewaySession

    return GatewaySession


def read_dial(headers: dict[str, str]) -> dial.Dial:
    """The same."""
    from protocol.dial_reader import read_dial

    return read_dial(headers)
