"""The Autobahn testsuite's fuzzing client against an echo function, through the whole stack.

It needs a Python 2.7 and installs itself beside it; where either is missing it is skipped, and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.stack import Stack

#: All but compression (12, 13), which is not offered, and the performance cases (9), which have no right or wrong.
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
COUNT = 247
#: The echo of what came before a broken frame comes from a function, a round trip later than the edge fails the
#: connection; RFC 6455 asks for no more (section 7.1.7).
NOT_STRICT = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
#: Cases without a right answer: a close behind a large message, close codes above 4999.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


@pytest.fixture(scope="module")
def wstest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The command, and the environment that it needs."""
    candidates = [shutil.which("python2.7"), *map(str, Path.home().glob(".pyenv/versions/2.7.*/bin/python2.7"))]
    python = next((candidate for candidate in reversed(candidates) if candidate), None)
    if python is None:
        pytest.skip("the Autobahn testsuite needs a Python 2.7, and there is none")
    base = tmp_path_factory.mktemp("autobahn")
    environment = {**os.environ, "PYTHONUSERBASE": str(base)}
    environment.pop("PYTHONPATH", None)
    install = [python, "-m", "pip", "install", "--user", "--quiet", "autobahntestsuite"]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"the Autobahn testsuite could not be installed: {done.stderr.strip().splitlines()[-1]}")
    return base / "bin" / "wstest", environment


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_case(wstest: tuple[Path, dict[str, str]], shared_stack: Callable[..., Stack], tmp_path: Path) -> None:
    command, environment = wstest
    stack = shared_stack("conversations.py:handler", environments=1)
    server = {"agent": "Dialback", "url": f"ws://{stack.authority}/"}
    spec = {
        "outdir": str(tmp_path),
        "servers": [server],
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    run = [command, "-m", "fuzzingclient", "-s", tmp_path / "spec.json"]
    subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, timeout=300, check=True)
    report = json.loads((tmp_path / "index.json").read_text())["Dialback"]
    assert len(report) == COUNT
    by_behaviour: dict[str, set[str]] = {}
    for case, found in report.items():
        by_behaviour.setdefault(found["behavior"], set()).add(case)
    unclean = {case: found for case, found in report.items() if found["behaviorClose"] not in ("OK", "INFORMATIONAL")}
    assert unclean == {}
    assert by_behaviour.pop("INFORMATIONAL") == INFORMATIONAL
    assert by_behaviour.pop("NON-STRICT", set()) <= NOT_STRICT, "which of them is a matter of timing"
    assert set(by_behaviour) == {"OK"}
