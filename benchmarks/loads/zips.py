"""The zip that a user uploads, with us and without: its size, and what its first request waits for (issue D, 4)."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import subject
from benchmarks.bench import Bench, Subjects
from benchmarks.client import Broken, connect, first_byte
from benchmarks.figures import Column, Table
from benchmarks.invoice import Report, reports
from benchmarks.process import REPOSITORY, Process, free_port

BARE: Final = 'def handler(event, context):\n    return "Hello, world\\n"\n'
OURS: Final = """
from dialback import Request, Response, stream_handler


@stream_handler
async def handler(request: Request) -> Response:
    return Response("Hello, world\\n")
"""
#: What a release is built from.
SOURCE: Final = ("pyproject.toml", "README.md", "LICENSE", "dialback.py")
PACKAGES: Final = ("protocol", "lambda_client", "gateway", "local_lambda")
BUILD: Final = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
COMPILE: Final = ("-q", "-f", "--invalidation-mode", "unchecked-hash")
IMPORT: Final = """
import sys, time
began = time.perf_counter()
import handler
took = time.perf_counter() - began
from_elsewhere = {name for name in ("dialback", "msgpack", "websockets") if name in sys.modules}
from_elsewhere -= {name for name in from_elsewhere if sys.modules[name].__file__.startswith(sys.argv[1])}
status = open("/proc/self/status").read()
print(took * 1e3, int(status.split("VmRSS:")[1].split()[0]) / 1024, *from_elsewhere)
"""
NO_BYTECODE: Final = "stream_handler, no valid bytecode"
READ_ONLY: Final = {"PYTHONDONTWRITEBYTECODE": "1"}  # as /var/task is
WILL_DIAL: Final = {"DIALBACK_GATEWAY": "wss://gateway.example.com"}  # what makes init load all that a dial needs


def run(bench: Bench) -> None:
    table = Table(
        "The zip",
        "The wheel by `pip install --target` and `compileall`, as the README has it, and a handler of a line, beside"
        " the handler without us. Each sample is a new local Lambda's first request: init and memory are its REPORT"
        " line's, the first byte is the client's (by the Function URL without us, through the gateway with us, the"
        " function's dial included). The task root is read-only to bytecode, as Lambda's. Import: the handler alone, in"
        " a fresh interpreter, with `DIALBACK_GATEWAY` set, as is the resident memory.",
        (
            Column("zip", "KB", spread=False),
            Column("unpacked", "KB", spread=False),
            Column("import", "ms"),
            Column("resident", "MiB"),
            Column("init", "ms"),
            Column("max_memory", "MB", 0),
            Column("first_byte", "ms"),
        ),
        base="",
    )
    ways: dict[str, tuple[Path, Callable[[Bench, Path], tuple[float, Report]]]] = {
        "bare handler": (_root(bench.folder / "bare", BARE), _bare),
        "stream_handler": (_ours(bench), _ours_begins),
        NO_BYTECODE: (_without_bytecode(bench), _ours_begins),
    }
    table.samples = {name: {} for name in ways}
    for name, (root, begin) in bench.interleaved(list(ways.items()), bench.of(1, bench.rounds)):
        archive = Path(shutil.make_archive(str(root), "zip", root))
        took, resident = _import(root)
        waited, line = begin(bench, root)
        table.add(
            name,
            zip=archive.stat().st_size / 1e3,
            unpacked=sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) / 1e3,
            **{"import": took},
            resident=resident,
            init=line.init,
            max_memory=line.memory,
            first_byte=waited * 1e3,
        )
    table.notes.append(
        "What a first dial needs (asyncio, websockets) is loaded in init, which has the whole processor. No valid"
        " bytecode: a zip without, or with that of another Python's pip, or whose files have other times than pip gave"
        " them; each cold start then compiles anew what it imports."
    )
    bench.tables.append(table)


def _root(folder: Path, handler: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "handler.py").write_text(handler)
    return folder


def _ours(bench: Bench) -> Path:
    """What the README's commands leave in `build`."""
    source, dist, root = bench.folder / "source", bench.folder / "dist", bench.folder / "ours"
    source.mkdir()
    for name in SOURCE:
        shutil.copy(REPOSITORY / name, source)
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(dist)], cwd=source, check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    wanted = ("--platform", f"manylinux2014_{platform.machine()}", "--python-version", platform.python_version())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--only-binary=:all:")
    subprocess.run([*pip, *wanted, "--target", str(root), str(wheel)], check=True)
    _root(root, OURS)
    subprocess.run([sys.executable, "-m", "compileall", *COMPILE, str(root)], check=True)
    return root


def _without_bytecode(bench: Bench) -> Path:
    root = bench.folder / "compiled-elsewhere"
    shutil.copytree(bench.folder / "ours", root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def _import(root: Path) -> tuple[float, float]:
    """Milliseconds, and MiB of the whole process. Raises `Broken` where something came from elsewhere."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(root)],
        cwd=root,
        env=clean | READ_ONLY | WILL_DIAL,
        capture_output=True,
        text=True,
        check=True,
    )
    took, resident, *from_elsewhere = done.stdout.split()
    if from_elsewhere:
        raise Broken(f"not from the zip: {', '.join(from_elsewhere)}")
    return float(took), float(resident)


def _bare(bench: Bench, root: Path) -> tuple[float, Report]:
    port = free_port()
    command = [sys.executable, str(REPOSITORY / "dialback.py"), "lambda", f"{root}/handler.py:handler"]
    process = Process(
        [*command, "--root", str(root), "--port", str(port)], bench.folder / "bare.log", environment=READ_ONLY
    )
    try:
        process.ready(subject.READY)
        with connect(port) as connection:
            waited = first_byte(connection)
    finally:
        process.stop()
    return waited, reports(process.log.read_text())[0]


def _ours_begins(bench: Bench, root: Path) -> tuple[float, Report]:
    with Subjects() as subjects:
        one = subjects.take(
            subject.Dialback(
                root.name, bench.folder, function=f"{root}/handler.py:handler", root=root, function_variables=READ_ONLY
            )
        )
        with connect(one.port) as connection:
            waited = first_byte(connection)
        return waited, one.park()[0]
