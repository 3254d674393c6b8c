"""Which line of a log's is in the user's own code, where packages lie beside it as in a function's flat zip."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from lambda_client.place import place_of

CALLS = "def call(function):\n    return function()\n"
RAISES = "def call():\n    raise ValueError\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.fixture
def put(folder: Path) -> Callable[[str, str], ModuleType]:
    def write(name: str, text: str) -> ModuleType:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))

    return write


def install(folder: Path, distribution: str, note: str, text: str) -> None:
    info = folder / f"{distribution}.dist-info"
    info.mkdir()
    (info / note).write_text(text)


def place(function: Callable[[], object]) -> str:
    try:
        function()
    except ValueError as error:
        return place_of(error, None)
    raise AssertionError("it raises")


@pytest.mark.parametrize(
    ("distribution", "note", "text", "file"),
    [
        (
            "python_socketio-5.1",
            "RECORD",
            "../../bin/x,,\npysocketio/__init__.py,sha256=a,1\n",
            "pysocketio/__init__.py",
        ),
        ("PyYAML-6.0", "top_level.txt", "_pyyaml\npyyaml_\n", "pyyaml_/deep/inner.py"),
        ("attrs_-25.1", "RECORD", "attr_.py,sha256=a,1\nattrs_-25.1.dist-info/RECORD,,\n", "attr_.py"),
    ],
)
def test_a_package_is_known_by_its_names_for_imports(
    folder: Path, put: Callable[[str, str], ModuleType], distribution: str, note: str, text: str, file: str
) -> None:
    install(folder, distribution, note, text)
    package = put(file, RAISES)
    mine = put("mine.py", CALLS)
    assert place(lambda: mine.call(package.call)) == f", at {folder}/mine.py:2 in call"


@pytest.mark.parametrize(
    "file", ["attrs_.py", "flaskapp/views.py", "flas.py", "flaskapp/__init__.py", "mine/flask_.py"]
)
def test_what_is_only_named_alike_is_the_users_own(
    folder: Path, put: Callable[[str, str], ModuleType], file: str
) -> None:
    install(folder, "attrs_-25.1", "RECORD", "attr_/__init__.py,sha256=a,1\n")
    install(folder, "Flask_-3.1", "RECORD", "flask_/__init__.py,sha256=a,1\n")
    mine = put(file, RAISES)
    assert place(mine.call) == f", at {folder}/{file}:2 in call"


def test_a_folder_on_the_way_may_have_a_packages_name(
    folder: Path, put: Callable[[str, str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = folder / "socketio_" / "task"
    inner.mkdir(parents=True)
    install(inner, "python_socketio-5.1", "RECORD", "socketio_/__init__.py,sha256=a,1\n")
    (inner / "socketio_").mkdir()
    (inner / "socketio_" / "__init__.py").write_text(RAISES)
    monkeypatch.syspath_prepend(inner)
    package = importlib.import_module("socketio_")
    mine = put("mine.py", CALLS)
    assert place(lambda: mine.call(package.call)) == f", at {folder}/mine.py:2 in call"
