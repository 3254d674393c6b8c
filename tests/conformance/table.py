"""Compares what was seen of the two servers, and writes the table. Every difference has an explanation, or fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.cases import Case, Observed, Site
from tests.conformance.explanations import EVERYWHERE, EXPLANATIONS, Explanation
from tests.conformance.websocket_cases import ALL_CASES as CASES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
MOST_SHOWN = 60
"""Characters of a value in the table."""

HEAD = """\
# Conformance: the same ASGI app on uvicorn and on Dialback

Made by `make conformance`: a suite (`tests/conformance`) runs one raw ASGI app on uvicorn (with httptools, as
`uvicorn[standard]` has it) and on Dialback's real stack: gateway, local Lambda, link. Both get the same bytes from one
client, which compares what comes back: status, fields and their order, body, where it is cut in time, trailers, interim
responses, whether the connection is kept, how it ends, WebSocket messages and closes, and what the app itself saw. A
difference that the suite has no explanation for fails it, and so does an explanation that nothing needs.

{count} behaviours, {same} of them the same, byte for byte.
"""


@dataclass(frozen=True)
class Difference:
    """One aspect of a case that is not the same."""

    case: Case
    aspect: str
    uvicorn: Any
    dialback: Any

    @property
    def explanation(self) -> Explanation | None:
        return next((each for each in EXPLANATIONS if each.is_of(self.case, self.aspect)), None)

    def __str__(self) -> str:
        return f"{self.aspect}: {show(self.uvicorn)} on uvicorn, {show(self.dialback)} on Dialback"


def compare(case: Case, uvicorn: Site, dialback: Site) -> list[Difference]:
    ours, theirs = clean(case.observe(dialback)), clean(case.observe(uvicorn))
    if "no response" in (ours.get("end"), theirs.get("end")):
        ours, theirs = summed_up(ours), summed_up(theirs)
    aspects = dict.fromkeys([*theirs, *ours])
    return [
        Difference(case, aspect, theirs.get(aspect), ours.get(aspect))
        for aspect in aspects
        if theirs.get(aspect) != ours.get(aspect)
    ]


def clean(observed: Observed) -> Observed:
    """Without what differs in every response, for a reason that is given once."""
    if "headers" not in observed:
        return observed
    headers = [pair for pair in observed["headers"] if pair[0].lower() not in EVERYWHERE]
    return {**observed, "headers": headers}


def summed_up(observed: Observed) -> Observed:
    """Where one of the two has not answered, there is nothing to compare but that."""
    end = observed.get("end")
    said = end if end == "no response" else f"{observed['status']}, {end}"
    return {"response": said, **({"app": observed["app"]} if "app" in observed else {})}


def unused(differences: Iterable[Difference]) -> list[Explanation]:
    used = [difference.explanation for difference in differences]
    return [explanation for explanation in EXPLANATIONS if explanation not in used]


def render(differences: dict[Case, list[Difference]]) -> str:
    """The document."""
    same = sum(not each for each in differences.values())
    lines = [HEAD.format(count=len(differences), same=same)]
    notes: list[Explanation] = []
    for feature in dict.fromkeys(case.feature for case in CASES):
        lines += [f"## {feature}", "", "| behaviour | |", "|---|---|"]
        for case in (case for case in CASES if case.feature == feature):
            found = differences[case]
            cells = []
            for difference in found:
                explanation = difference.explanation
                if explanation is not None and explanation not in notes:
                    notes.append(explanation)
                number = f" [{notes.index(explanation) + 1}]" if explanation is not None else " **unexplained**"
                cells.append(f"{difference}{number}")
            lines.append(f"| {case.name} | {'; '.join(cells) or 'same'} |")
        lines.append("")
    lines += ["## Why", ""]
    lines += [f"{number}. {note.text}" for number, note in enumerate(notes, 1)]
    lines += ["", "In every response, and therefore left out above:", ""]
    lines += [f"- `{name}`: {reason}" for name, reason in EVERYWHERE.items()]
    return "\n".join(lines) + "\n"


def show(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list) and all(isinstance(part, tuple) for part in value):
        value = ", ".join(f"{name}: {text}" for name, text in value) or "none"
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return f"`{text}`".replace("|", "\\|")
