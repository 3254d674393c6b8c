"""TLS: whose certificates are believed, and which one is shown. Whatever a peer shows is verified, without exception.

Knows files and OpenSSL; nothing of who is served or called.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from gateway.telemetry import RateLimited

_refusals = RateLimited(structlog.get_logger("dialback.tls"))


class _Served(ssl.SSLObject):
    """A client's side of a handshake that fails without a word: asyncio tells nobody of it."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            _refusals.warning("tls.client_certificate_refused", reason=error.verify_message)
            raise


def server_context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """For a listener. With `client_ca` clients are asked for a certificate; who shows none is let in, and who shows one
    of another authority is not. Raises OSError (ssl.SSLError is one) where a file cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(cert, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.sslobject_class = _Served
    return context


def client_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """For what we call: its name and certificate are verified against `ca` alone, or the system's authorities; `cert`
    and `key` are ours. Raises OSError where a file cannot be used."""
    context = ssl.create_default_context(cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context
