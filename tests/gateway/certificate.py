"""Certificates made anew for a test, by the openssl command: of an authority of its own, good ones and others."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files (PEM)."""

    cert: Path
    key: Path


class Authority:
    """Who signs certificates. Its files are in a folder of the test's."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.ca, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl("req", "-x509", *KEY, "-days", "1", "-subj", f"/CN={name}", "-out", self.ca, "-keyout", self._key)

    def issue(self, name: str = "localhost", *, days: int = 1) -> Pair:
        """For a DNS name, or `IP:127.0.0.1`; `days` below 0: it has expired."""
        stem = f"{self.ca.stem}-{name.replace(':', '-')}{days}"
        request, key, cert, extensions = (self._folder / f"{stem}.{end}" for end in ("csr", "key", "pem", "cnf"))
        extensions.write_text(f"subjectAltName={name if ':' in name else f'DNS:{name}'}\n")
        _openssl("req", *KEY, "-subj", "/CN=test", "-out", request, "-keyout", key)
        signing = ("-CA", self.ca, "-CAkey", self._key, "-days", str(days), "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signing, "-out", cert)
        return Pair(cert, key)


def localhost_pair(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and one of a client that trusts it alone."""
    authority = Authority(folder)
    files = authority.issue()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files.cert, files.key)
    return server, ssl.create_default_context(cafile=authority.ca)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
