"""Puts the exchange's state diagram, made from its table, between two markers of docs/architecture.md.

`python -m scripts.state_diagram` from the project's root; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.machine import STATES, TABLE, TERMINAL

DOCUMENT: Final = "docs/architecture.md"
BEGIN: Final = "<!-- exchange states, made by `python -m scripts.state_diagram`: begin -->"
END: Final = "<!-- exchange states: end -->"


def with_diagram(text: str) -> str:
    """`text` with what is between the markers made anew; exits where they are not."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{DOCUMENT} lacks the markers of the exchange states:\n{BEGIN}\n{END}")
    rows = "\n".join(f"| `{state}` | {seed} |" for state, seed in STATES.items())
    table = f"| state | in the seed's words |\n|---|---|\n{rows}"
    return f"{before}{BEGIN}\n```mermaid\n{mermaid()}```\n\n{table}\n{END}{after}"


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> accepted"]
    lines += [f"    {source} --> {state}: {trigger}" for trigger, sources, state in TABLE for source in sources]
    lines += [f"    {state} --> [*]" for state in STATES if state in TERMINAL]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    document = Path(DOCUMENT)
    document.write_text(with_diagram(document.read_text(encoding="utf-8")), encoding="utf-8")
