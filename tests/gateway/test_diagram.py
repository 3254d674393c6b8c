"""The documentation's state diagram is the table's."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.state_diagram import BEGIN, DOCUMENT, END, with_diagram

ROOT = Path(__file__).parents[2]


def test_the_documents_diagram_is_the_tables() -> None:
    document = ROOT / DOCUMENT
    if not document.exists():
        pytest.skip(f"{DOCUMENT} is not written yet")
    text = document.read_text(encoding="utf-8")
    assert text == with_diagram(text), "run: python -m scripts.state_diagram"


def test_a_diagram_replaces_the_one_before() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    new = with_diagram(text)
    assert new.startswith(f"before\n{BEGIN}\n```mermaid\nstateDiagram-v2\n")
    assert new.endswith(f"| error |\n{END}\nafter\n")
    assert "duplex --> aborted: function_failed" in new
    assert with_diagram(new) == new


def test_a_document_without_the_markers_is_said_to_lack_them() -> None:
    with pytest.raises(SystemExit, match="exchange states"):
        with_diagram("nothing here")
