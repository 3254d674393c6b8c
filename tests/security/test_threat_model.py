"""docs/security.md keeps its word: a test holds each row of its tables, and each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
DOCUMENT = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
CLAIM = "| what somebody may try |"
NAMED = re.compile(r"`((?:[a-z0-9_]+/)+test_\w+\.py)(?:::(test_\w+))?`")


def rows() -> list[list[str]]:
    """Of all tables of threats: the cells."""
    found: list[list[str]] = []
    for table in DOCUMENT.split(CLAIM)[1:]:
        lines = table.splitlines()[2:]
        end = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
        found += [line.strip("|").split(" | ") for line in lines[:end]]
    return found


ROWS = rows()


def test_there_are_rows_for_clients_functions_and_links() -> None:
    assert DOCUMENT.count(CLAIM) == 3
    assert len(ROWS) > 45


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip()[:40])
def test_each_row_is_held_by_tests_that_are_there(row: list[str]) -> None:
    assert len(row) == 3
    assert NAMED.search(row[2]), "no test holds it"
    assert not NAMED.sub("", row[2]).replace("`", "").count("test_"), "a test that is not written as PATH or PATH::NAME"


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(DOCUMENT))))
def test_each_test_that_is_named_is_there(file: str, name: str) -> None:
    source = (TESTS / file).read_text(encoding="utf-8")
    assert re.search(rf"^ *(async )?def {name or 'test_'}", source, re.MULTILINE), "no such test"
