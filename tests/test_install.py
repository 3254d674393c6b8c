"""`make install` on machines that lack something: one line says what is wrong and what to type, and no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What scripts/install itself needs, beside a Python.
TOOLS = ("sh", "dirname", "cksum", "cat", "grep", "head", "rm")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A tree with what scripts/install reads, and no .venv."""
    (tmp_path / "clone" / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/install"):
        shutil.copy2(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


@pytest.fixture
def bin_without_python(tmp_path: Path) -> Path:
    """A folder to be the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    return folder


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def refusal(clone: Path, **environment: str) -> str:
    """Run scripts/install, which must fail; returns the one line that it prints on stderr."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        [clone / "scripts/install"], env=keep | environment, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dialback: ")
    return line


@pytest.mark.parametrize("version", ["2.7", "3.10", "3.14"])
def test_unsupported_python_is_named_with_the_supported_ones(clone: Path, tmp_path: Path, version: str) -> None:
    python = executable(tmp_path / "python", f"echo {version}")
    line = refusal(clone, PYTHON=str(python))
    assert f"{python} is Python {version}; Dialback needs 3.11, 3.12 or 3.13" in line
    assert "make install PYTHON=" in line


def test_python_that_is_not_there(clone: Path) -> None:
    assert "/nowhere/python is not a Python that runs" in refusal(clone, PYTHON="/nowhere/python")


def test_no_python_at_all(clone: Path, bin_without_python: Path) -> None:
    assert "no Python found" in refusal(clone, PATH=str(bin_without_python))


def test_python_without_venv_says_which_package_brings_it(
    clone: Path, bin_without_python: Path, tmp_path: Path
) -> None:
    # Debian's python3 without python3-venv: the module ensurepip is not there.
    (tmp_path / "ensurepip.py").write_text("raise ModuleNotFoundError(name='ensurepip')")
    executable(bin_without_python / "python3", f'PYTHONPATH={tmp_path} exec {sys.executable} "$@"')
    version = ".".join(map(str, sys.version_info[:2]))
    line = refusal(clone, PATH=str(bin_without_python))
    assert f"sudo apt-get install python{version}-venv" in line


def test_another_python_is_taken_when_the_first_does_not_do(clone: Path, bin_without_python: Path) -> None:
    executable(bin_without_python / "python3", "echo 3.9")
    executable(
        bin_without_python / "python3.12", "case $2 in *version*) echo 3.12 ;; *ensurepip*) ;; *) exit 1 ;; esac"
    )
    assert "python3.12 -m venv .venv failed" in refusal(clone, PATH=str(bin_without_python))


def test_no_network(clone: Path) -> None:
    line = refusal(clone, PYTHON=sys.executable, PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL="http://127.0.0.1:9/")
    assert "could not be downloaded" in line and "type: make install" in line
    assert not (clone / ".venv/installed").exists()
