"""The table of docs/conformance.md is true: each behaviour is tried on both servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn")

from tests.conformance import servers
from tests.conformance.cases import Case, Site
from tests.conformance.table import DOCUMENT, Difference, compare, render, unused
from tests.conformance.websocket_cases import ALL_CASES as CASES


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    with servers.uvicorn() as uvicorn, servers.dialback(tmp_path_factory.mktemp("notes")) as dialback:
        yield uvicorn, dialback


@pytest.fixture(scope="module")
def found() -> dict[Case, list[Difference]]:
    """What the cases that have run have shown."""
    return {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_a_difference_has_its_explanation(
    case: Case, sites: tuple[Site, Site], found: dict[Case, list[Difference]]
) -> None:
    found[case] = compare(case, *sites)
    assert not [str(difference) for difference in found[case] if difference.explanation is None]


def test_the_document_says_what_was_seen_and_every_explanation_is_needed(found: dict[Case, list[Difference]]) -> None:
    if len(found) < len(CASES):
        pytest.skip("only a part of the suite was run")
    assert unused(difference for each in found.values() for difference in each) == []
    assert render(found) == DOCUMENT.read_text(encoding="utf-8"), "type: make conformance"


def test_names_are_keys() -> None:
    assert len({case.key for case in CASES}) == len(CASES)
