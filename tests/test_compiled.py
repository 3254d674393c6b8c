"""What mypyc compiles where it is asked to (setup.py): the list, and what is said where it cannot.

scripts/check-compiled tries the build itself.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

tomllib = pytest.importorskip("tomllib", reason="a gateway needs Python 3.11, and so does its build")

ROOT: Final = Path(__file__).resolve().parent.parent
COMPILED: Final[list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dialback"]["compiled"]
MODULES: Final = [path.removesuffix(".py").replace("/", ".") for path in COMPILED]
# What those import and is not compiled. A new file that is split off the data path is to be on the list.
INTERPRETED: Final = {
    "gateway.affinity": "a value of a request, where its route asks for one",
    "gateway.alarm": "rare",
    "gateway.bill": "of an invocation",
    "gateway.bonds": "of requests that ask for an environment",
    "gateway.breaker": "of an invocation",
    "gateway.ceiling": "of an invocation",
    "gateway.client_connection": "a protocol of asyncio's: see BASES",
    "gateway.client_websocket": "a protocol of asyncio's",
    "gateway.client_server": "of a connection",
    "gateway.compression": "its time is the codec's",
    "gateway.compressors": "the same",
    "gateway.config": "read once",
    "gateway.detached": "of clients that have left",
    "gateway.invitations": "of an invocation",
    "gateway.invoke": "of an invocation",
    "gateway.key_values": "read once",
    "gateway.keys": "read once",
    "gateway.limits": "made once",
    "gateway.link_socket": "a protocol of asyncio's",
    "gateway.open_websockets": "of an upgrade",
    "gateway.queue": "of requests that wait",
    "gateway.retention": "of a link without a lease",
    "gateway.retry": "of requests that failed",
    "gateway.rooms": "of requests that wait",
    "gateway.silent_side": "a base of an asyncio protocol's",
    "gateway.starts": "of an invocation",
    "gateway.telemetry": "its own lines are few",
    "gateway.upgrade": "of an upgrade",
    "protocol.dial": "of a socket",
    "protocol.invitation": "of an invocation",
}
# Whose classes may be bases. Weak references to instances of any other make a compiled process crash.
BASES: Final = {"abc", "builtins", "enum", "typing", "prometheus_client.registry", *MODULES}


def imported(path: str) -> set[str]:
    """Our modules that this file imports."""
    tree = ast.parse((ROOT / path).read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    names = {
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("gateway", "protocol")
        for name in node.names
    }
    ours = {".".join(name.split(".")[:2]) for name in found | names}
    return {name for name in ours if name.partition(".")[0] in ("gateway", "protocol") and "." in name}


def test_the_list_names_files_in_their_order() -> None:
    assert [path for path in COMPILED if not (ROOT / path).is_file()] == []
    assert len(COMPILED) == len(set(COMPILED))
    assert sorted(path for path in COMPILED if path.startswith("gateway/")) == COMPILED[len(COMPILED) - _gateways() :]


def _gateways() -> int:
    return sum(path.startswith("gateway/") for path in COMPILED)


def test_what_compiled_modules_import_is_compiled_or_is_left_out_for_a_reason() -> None:
    """A file that is split off one of them is noticed here."""
    missing = {name for path in COMPILED for name in imported(path)} - set(MODULES) - set(INTERPRETED)
    assert missing == set(), "put it on the list in pyproject.toml, or say here why not"
    assert set(INTERPRETED) & set(MODULES) == set()


def test_no_class_has_a_base_that_weak_references_would_break() -> None:
    """mypyc gives those whose base is interpreted room for weak references, and does not tell these of their end."""
    found = {
        f"{module}.{name}: {base.__module__}.{base.__name__}"
        for module in MODULES
        for name, kind in vars(importlib.import_module(module)).items()
        if inspect.isclass(kind) and kind.__module__ == module
        for base in kind.__mro__
        if base.__module__ not in BASES
    }
    assert found == set()


def test_the_pinned_mypyc_is_the_tested_one() -> None:
    (pin,) = re.findall(r'^MYPYC = "(.*)"$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert pin in (ROOT / "constraints.txt").read_text().splitlines()


def test_a_missing_compiler_is_one_line(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    environment = os.environ | {"DIALBACK_COMPILE": "1", "CC": "/nowhere/cc -pthread"}
    command = [sys.executable, "-c", build, tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "dialback: DIALBACK_COMPILE asks for a C compiler, and /nowhere/cc is"
    )
    assert "Traceback" not in done.stderr
