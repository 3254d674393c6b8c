"""Who may import whom (docs/architecture.md): every import statement of every shipped module is read, none is run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "lambda_client", "gateway", "local_lambda")
OURS = frozenset((*PACKAGES, "dialback", "tests", "examples", "benchmarks", "scripts", "deploy"))
STANDARD = frozenset(sys.stdlib_module_names) - OURS

# What a sans-I/O package must not reach for: whoever drives it passes in bytes, the time and random identities.
IO_CLOCK_AND_CHANCE = frozenset(
    {"asyncio", "concurrent", "datetime", "http", "logging", "multiprocessing", "os", "pathlib", "queue", "random"}
    | {"sched", "secrets", "select", "selectors", "signal", "socket", "socketserver", "ssl", "subprocess", "tempfile"}
    | {"threading", "time", "urllib", "uuid", "_asyncio", "_random", "_socket", "_ssl", "_thread"}
)

# Importer → the top-level names, beside the standard library, that it may import. docs/dependencies.md has the reasons.
AIOHTTP = {"aiohttp", "aiohappyeyeballs", "multidict", "yarl"}
AWS = {"boto3", "botocore"}
COMMAND_LINE = {"click", "rich", "watchfiles"}
OBSERVATION = {"structlog", "prometheus_client"}
# What every install has: the gateway takes websockets' C routine for masks.
BASE = {"websockets", "msgpack"}
CODINGS = {"brotli", "zstandard"}
MAY_IMPORT: dict[str, set[str]] = {
    "protocol": {"protocol", "msgpack"},
    "lambda_client": {"lambda_client", "protocol", "websockets"},
    "gateway": {"gateway", "protocol", "local_lambda", "transitions", "uvloop"}
    | BASE
    | AIOHTTP
    | AWS
    | COMMAND_LINE
    | OBSERVATION
    | CODINGS,
    "local_lambda": {"local_lambda", "awslambdaric", "uvloop"} | AIOHTTP | OBSERVATION,
}


def imports_of(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) for everything that a module of `package` imports, wherever in it.

    `from a.b import c` yields `a.b.c`, since c may be a module: the walls are prefixes, so that does no harm.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*base, *filter(None, [node.module])))
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "import_module",
            "importlib.import_module",
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def breaches(files: str, is_forbidden: Callable[[str], bool]) -> list[str]:
    """The imports in `files` (a glob from the root) for which `is_forbidden(name)` holds, as `file:line imports name`.

    A wall around nothing would hold for ever: no file at all is an error.
    """
    modules = sorted(ROOT.glob(files))
    assert modules, f"there is no {files}"
    return [
        f"{module.relative_to(ROOT)}:{line} imports {name}"
        for module in modules
        for line, name in imports_of(module.read_text(encoding="utf-8"), module.relative_to(ROOT).parts[:-1])
        if is_forbidden(name)
    ]


def top(name: str) -> str:
    return name.partition(".")[0]


def test_every_form_of_import_is_read() -> None:
    source = (
        "import a.b, c\nfrom d import e\nfrom . import f\nfrom .g import h\nfrom ..i import j\n"
        "def k():\n    from l import m\n    importlib.import_module('n.o')\n"
    )
    names = {name for _line, name in imports_of(source, ("p", "q"))}
    assert names == {"a.b", "c", "d.e", "p.q.f", "p.q.g.h", "p.i.j", "l.m", "n.o"}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_its_side_of_the_wall_has(package: str) -> None:
    allowed = MAY_IMPORT[package] | STANDARD
    assert not breaches(f"{package}/**/*.py", lambda name: top(name) not in allowed)


def test_protocol_has_no_socket_no_clock_and_no_chance() -> None:
    assert not breaches("protocol/**/*.py", lambda name: top(name) in IO_CLOCK_AND_CHANCE)


@pytest.mark.parametrize(("side", "other"), [("ingress", "dialback"), ("dialback", "ingress")])
def test_http_side_and_websocket_side_meet_only_in_the_exchange_and_the_pool(side: str, other: str) -> None:
    files = f"gateway/{side}/**/*.py" if (ROOT / "gateway" / side).is_dir() else f"gateway/{side}*.py"
    assert not breaches(files, lambda name: name.startswith(f"gateway.{other}"))


def test_only_the_command_imports_the_local_lambda() -> None:
    found = breaches("gateway/**/*.py", lambda name: top(name) == "local_lambda")
    assert not [breach for breach in found if not breach.startswith("gateway/cli")]


def test_one_module_of_the_function_side_imports_the_protocol() -> None:
    # `protocol` is a common name: where it is somebody else's file, one place can say so.
    found = breaches("lambda_client/**/*.py", lambda name: top(name) == "protocol")
    assert len({breach.partition(":")[0] for breach in found}) == 1, found


def test_the_thin_module_knows_only_the_public_names_and_the_command() -> None:
    may = STANDARD | {"lambda_client"}
    assert not breaches("dialback.py", lambda name: top(name) not in may and name != "gateway.cli.main")


# Names of package registries, and paths that only one machine has: a reader's machine may have neither.
# Written so that this file does not contain what it looks for.
FOREIGN = re.compile(
    rb"\bp[y]pi\.org|python[h]osted\.org|npm[j]s\.org|"
    rb"(?<![\w.$~}/-])/(?:roo[t]|wor[k]|hom[e]/\w+|User[s]/\w+|tm[p]/dialback)/"
)


def test_no_tracked_file_names_a_registry_or_one_machines_path() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    files = [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
    assert files
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}" for path in files if (match := FOREIGN.search(path.read_bytes()))
    ]
    assert not found
