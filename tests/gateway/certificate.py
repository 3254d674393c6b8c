"""A certificate for localhost, made anew for a test."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

COMMAND = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
NAMES = ("-addext", "subjectAltName=DNS:localhost")


async def localhost_pair(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and one of a client that trusts it alone."""
    files = folder / "cert.pem", folder / "key.pem"
    made = await asyncio.create_subprocess_exec(
        "openssl", *COMMAND.split(), *NAMES, "-out", files[0], "-keyout", files[1], stderr=asyncio.subprocess.DEVNULL
    )
    assert await made.wait() == 0
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(*files)
    return server, ssl.create_default_context(cafile=files[0])
