"""What the gateway is measured beside does what its row says."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvloop", reason="not on this platform")

from benchmarks import subject
from benchmarks.arrivals import arrive

PATH = f"{os.environ['PATH']}:/usr/sbin"
needs_nginx = pytest.mark.skipif(shutil.which("nginx", path=PATH) is None, reason="nginx is not installed")


@pytest.fixture
def nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subject.Subject]:
    monkeypatch.setenv("PATH", PATH)
    origin = subject.origin(tmp_path)
    started = subject.nginx(tmp_path, origin.port)
    yield started
    started.stop()
    origin.stop()


@needs_nginx
def test_nginx_without_buffering_passes_a_chunk_on_before_the_next_is_made(nginx: subject.Subject) -> None:
    (answer,) = arrive(nginx.port, "/ticks?count=1&interval=1&wait=1", [0.0])
    assert answer.head < 1 <= answer.whole
