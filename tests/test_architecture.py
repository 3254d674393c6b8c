"""docs/architecture.md is true: every shipped file is in it, and every file and constant that it names is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from gateway.errors import KINDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TIMEOUTS = DOCUMENT.partition("## Every timeout")[2].partition("\n## ")[0]
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
LISTED = ("protocol", "gateway", "lambda_client")
CONSTANT = re.compile(r"`((?:[a-z_]+\.)+)([A-Z][A-Z_]{3,})`")
AT_THE_FUNCTION = ("link", "environment", "native", "thread")


def files_named(package: str) -> set[str]:
    """What the tables below `**package/**` name in their first column."""
    _, _, rest = DOCUMENT.partition(f"**`{package}/`**")
    section = re.split(r"\n\*\*`|\n## ", rest)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([\w/]+\.py)`", cell)}


@pytest.mark.parametrize("package", LISTED)
def test_every_file_is_in_the_list_and_every_file_of_the_list_is_there(package: str) -> None:
    folder = ROOT / package
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py") if not path.name.startswith("__")}
    named = files_named(package)
    assert there - named == set(), "add a line to docs/architecture.md"
    assert named - there == set(), "docs/architecture.md names what is not there"


def test_every_constant_that_is_named_is_there() -> None:
    named = CONSTANT.findall(DOCUMENT)
    assert len(named) > 15
    for path, constant in named:
        module = path.rstrip(".")
        if not module.startswith("protocol."):
            module = f"{'lambda_client' if module in AT_THE_FUNCTION else 'gateway'}.{module}"
        assert hasattr(import_module(module), constant), f"{module}.{constant}"


@pytest.mark.parametrize("text", [TIMEOUTS, REFERENCE], ids=["architecture", "configuration"])
def test_every_error_that_is_named_with_a_limit_is_the_gateways(text: str) -> None:
    named = re.findall(r"(?:(\d{3}) )?`([a-z]+(?:-[a-z]+)+|draining|overloaded)`", text)
    assert len(named) > 12
    for status, name in named:
        assert name in KINDS and status in ("", str(KINDS[name].status)), f"{status} {name}"


def test_every_status_in_the_reference_is_named() -> None:
    assert re.findall(r"\b(?:408|50[234])\b(?! `)", REFERENCE) == []


def test_the_reference_says_which_error_each_timeout_gives() -> None:
    """As the table of architecture.md has it: what a key gives there, it gives here."""
    for line in TIMEOUTS.splitlines():
        if key := re.match(r"\| `([a-z_.]+)`", line):
            row, *_ = [row for row in REFERENCE.splitlines() if row.startswith(f"| `{key[1]}` ")]
            missing = [name for name in re.findall(r"\d{3} `([a-z-]+)`", line) if f"`{name}`" not in row]
            assert not missing, f"{key[1]}: {missing}"


def test_every_timeout_of_the_configuration_is_in_the_table() -> None:
    seconds = set(re.findall(r"^\| `([\w.]+)` \| seconds,", REFERENCE, re.MULTILINE)) - {"linger"}
    assert seconds
    assert not {key for key in seconds if f"`{key}`" not in DOCUMENT}
