"""What users install: the wheel is built as a release is, then opened. Nothing is downloaded."""

from __future__ import annotations

import email.message
import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"protocol", "lambda_client", "gateway", "local_lambda"}
# The first is what a function may load, and that is cold start; the last 14 KB of it name code that blocks the loop
# (`watchdog.py`), and where in their own code authors did wrong (`place.py`). The second is the whole wheel, which a
# function's zip may carry too: Lambda loads only what is imported.
FUNCTION_BYTES = 315_000
FOR_TESTS = (
    "lambda_client/testing.py",
    "lambda_client/testing_gateway.py",
    "protocol/dial_reader.py",
    "protocol/gateway_session.py",
)
UNPACKED_BYTES = 932_000

pytest.importorskip("setuptools", reason="the build backend is in the test extra of Python 3.11 and newer")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # A copy of what a release would hold: a build in the tree itself would leave files there, or take old ones in.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ours = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "dialback.py", *sorted(PACKAGES), "tests", "examples")
    for name in ours:
        if (ROOT / name).exists():
            subprocess.run(["cp", "-R", ROOT / name, source / name], check=True)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, out], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.BytesParser().parsebytes(wheel.read(name))


def test_wheel_holds_the_four_packages_and_the_thin_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == PACKAGES | {"dialback.py"}


def test_wheel_holds_every_module_of_the_packages(wheel: zipfile.ZipFile) -> None:
    ours = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert ours - set(wheel.namelist()) == set()


def test_wheel_tells_type_checkers_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_what_a_function_loads_stays_small(wheel: zipfile.ZipFile) -> None:
    assert set(FOR_TESTS) <= set(wheel.namelist())
    ours = (entry for entry in wheel.infolist() if entry.filename.partition("/")[0] in ("protocol", "lambda_client"))
    parts = (entry for entry in ours if entry.filename not in FOR_TESTS)
    assert sum(entry.file_size for entry in parts) <= FUNCTION_BYTES


def test_wheel_stays_small_unpacked(wheel: zipfile.ZipFile) -> None:
    assert sum(entry.file_size for entry in wheel.infolist()) <= UNPACKED_BYTES


def test_wheel_is_for_every_platform_and_carries_its_licence(wheel: zipfile.ZipFile) -> None:
    assert str(wheel.filename).endswith("-py3-none-any.whl")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_metadata_says_what_it_is(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "dialback"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {"gateway", "compression", "dev", "test", "apps"}


def test_a_function_needs_only_websockets_and_msgpack(metadata: email.message.Message) -> None:
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.partition(">=")[0] for line in base) == ["msgpack", "websockets"]


def test_the_runtime_client_is_asked_for_on_linux_only(metadata: email.message.Message) -> None:
    (line,) = (line for line in metadata.get_all("Requires-Dist", []) if line.startswith("awslambdaric"))
    assert 'sys_platform == "linux"' in line and 'extra == "dev"' in line


def test_constraints_pin_every_direct_dependency(metadata: email.message.Message) -> None:
    pins = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    named = {line.partition(">=")[0].partition(";")[0] for line in metadata.get_all("Requires-Dist", [])}
    assert {name for name in named if not name.startswith("dialback")} <= pins
