"""Files in a task root that stand where our packages should: whoever imports one name gets the other's file.

Our top-level names are general words; a function's own `protocol.py` comes before ours on its sys.path.
"""

from __future__ import annotations

import csv
from pathlib import Path

OUR_NAMES = ("dialback", "gateway", "lambda_client", "local_lambda", "protocol")
HOME = Path(__file__).resolve().parents[2]
"""Where these packages live: the folder above them."""


def find(root: Path) -> list[Path]:
    """Files of somebody else in `root` (not below it) that bear one of our names."""
    if root.resolve() == HOME:
        return []
    ours = _installed(root)
    found = []
    for name in OUR_NAMES:
        # A folder without __init__.py gives way to a package anywhere on the path (PEP 420), so it does no harm.
        for file in (root / f"{name}.py", root / name / "__init__.py"):
            if file.is_file() and file.relative_to(root).as_posix() not in ours:
                found.append(file)
    return found


def advice(file: Path, root: Path) -> str:
    """What is wrong about one of them, and what to do."""
    what = file.parent if file.name == "__init__.py" else file
    name = what.stem
    return (
        f"{what.relative_to(root)} has the name of a package of Dialback's: `import {name}` finds only one of the two. "
        f"Rename yours, for example to my_{name}{what.suffix}"
    )


def _installed(root: Path) -> frozenset[str]:
    """What `pip install --target ROOT dialback` wrote there, by pip's own record."""
    for record in root.glob("dialback-*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as file:
            return frozenset(row[0] for row in csv.reader(file) if row)
    return frozenset()
