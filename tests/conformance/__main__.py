"""`make conformance`: run the suite, write docs/conformance.md, fail on a difference without an explanation."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.conformance import servers
from tests.conformance.table import DOCUMENT, compare, render, unused
from tests.conformance.websocket_cases import ALL_CASES as CASES


def main() -> int:
    with (
        tempfile.TemporaryDirectory() as notes,
        servers.uvicorn() as uvicorn,
        servers.dialback(Path(notes)) as dialback,
    ):
        found = {case: compare(case, uvicorn, dialback) for case in CASES}
    DOCUMENT.write_text(render(found), encoding="utf-8")
    differences = [difference for each in found.values() for difference in each]
    wrong = [f"{each.case.feature}, {each.case.name}: {each}" for each in differences if each.explanation is None]
    wrong += [f"nothing needs the explanation {each.text!r}" for each in unused(differences)]
    print(f"{len(CASES)} behaviours, {len(differences)} differences, {len(wrong)} mistakes: {DOCUMENT}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
