"""What the gateway is measured beside does what its row says."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("uvloop", reason="not on this platform")

from benchmarks import subject
from benchmarks.client import connect, request

PATH = f"{os.environ['PATH']}:/usr/sbin"
needs_nginx = pytest.mark.skipif(shutil.which("nginx", path=PATH) is None, reason="nginx is not installed")
MIB = 1 << 20
PATIENCE = 10.0
"""Seconds for what is expected."""


def nginx_holds_a_file(folder: Path) -> bool:
    """Whether it keeps in a file what a client who does not read has asked for. It unlinks such files at once."""
    origin = subject.origin(folder)
    nginx = subject.nginx(folder, origin.port)
    try:
        with connect(nginx.port, receive_buffer=32 << 10) as client:
            client.sendall(request(f"/bulk?size={64 * MIB}"))
            deadline = time.monotonic() + PATIENCE
            idle, cpu = 0, -1.0
            while idle < 5 and time.monotonic() < deadline:  # until neither of them moves any more
                now = origin.measured.cpu() + nginx.measured.cpu()
                idle, cpu = (idle + 1 if now - cpu < 0.002 else 0), now
                time.sleep(0.1)
            targets = []
            for descriptor in Path(f"/proc/{nginx.measured.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    targets.append(str(descriptor.readlink()))
            return any("nginx-proxy" in target for target in targets)
    finally:
        nginx.stop()
        origin.stop()


@needs_nginx
def test_nginx_holds_nothing_of_a_response_back_where_buffering_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", PATH)
    assert not nginx_holds_a_file(tmp_path)
    monkeypatch.setattr(subject, "NGINX", subject.NGINX.replace("proxy_buffering off", "proxy_buffering on"))
    assert nginx_holds_a_file(tmp_path), "else the first of these shows nothing"
