"""Starlette's and FastAPI's own tests, with a real client before a real gateway in place of their in-process client.

Their code is not part of this project: it is taken from the package index, as the release of the version that is
installed, checked by its hash and thrown away. What does not apply is in suites/*.toml, with the reason.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tomllib

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from tests.e2e.command import REPOSITORY

SUITES = Path(__file__).parent / "suites"
SECONDS = 900
"""For one suite, on a machine that does something else as well."""


def download(name: str, suite: dict[str, Any], cache: Path) -> Path:
    """The release's source, from the index or the cache."""
    sdist = cache / f"{name}-{suite['version']}.tar.gz"
    if not sdist.exists():
        wanted = cache / f"{name}.txt"
        wanted.write_text(f"{name}=={suite['version']} --hash=sha256:{suite['sha256']}\n")
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps")
        subprocess.run((*pip, "--no-binary", name, "--require-hashes", "-r", wanted, "-d", cache), check=True)
    assert hashlib.sha256(sdist.read_bytes()).hexdigest() == suite["sha256"]
    return sdist


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("name", ["starlette", "fastapi"])
def test_its_own_tests_pass(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    description = SUITES / f"{name}.toml"
    suite = tomllib.loads(description.read_text())
    assert suite["version"] == importlib.metadata.version(name), "take the tests of the version that is installed"
    assert pytestconfig.cache is not None
    with tarfile.open(download(name, suite, pytestconfig.cache.mkdir("sdists"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    root = tmp_path / f"{name}-{suite['version']}"
    (root / name).rename(root / f"not-{name}")  # the installed one is tested
    outcomes = tmp_path / "outcomes.json"
    paths = [str(path.relative_to(root)) for pattern in suite["paths"] for path in sorted(root.glob(pattern))]
    ours = ("-p", "real_client", "--suite", description, "--outcomes", outcomes, "-p", "no:asyncio")
    theirs = ("-c", "pyproject.toml", "--rootdir", root, *(f"--ignore={path}" for path in suite["without"]))
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *ours, *theirs, *paths],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{SUITES}{os.pathsep}{REPOSITORY}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stdout[-20_000:]
    found = Counter[str]()
    for test in json.loads(outcomes.read_text()).values():
        found["without a request" if test["outcome"] == "passed" and not test["exchanges"] else test["outcome"]] += 1
    print(f"{name} {suite['version']}: {dict(found)}")
    assert found["failed"] == 0 and found["passed"] >= suite["at_least"], found
