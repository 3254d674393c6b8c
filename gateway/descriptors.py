"""How many files this process may have open, which bounds how many clients and links it can serve.

Knows the operating system's limit; of the gateway only numbers.
"""

from __future__ import annotations

from typing import Final

RESERVE: Final = 128
"""Files for what is neither a client nor a link: listeners, logs, libraries, certificates."""


def open_files(wanted: int) -> int | None:
    """How many files this process may open, after its soft limit was raised towards `wanted`, as far as the hard one
    lets it (nothing here uses select(), which is what the low soft limit is for). None: nobody says (Windows), or any
    number."""
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    if soft < wanted:
        best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
            return best
        except (OSError, ValueError):
            pass  # macOS has a second limit, which it does not tell
    return soft


def files_for(clients: int, invocations: int) -> int:
    """Files that so many clients take, and so many invocations: each its request and its link."""
    return clients + 2 * invocations + RESERVE


def room_for_clients(wanted: int, invocations: int, limit: int | None) -> int:
    """How many clients may connect: `wanted`, or fewer where `limit` files have to do. At least one."""
    if limit is None:
        return wanted
    return max(1, min(wanted, limit - files_for(0, invocations)))
