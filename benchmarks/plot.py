"""The picture: each load's CPU over nginx's, side by side, with the ranges that were seen."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.patches import Patch

from benchmarks.figures import Table

COLOURS: Final = {
    "dialback": "#1f6feb",
    "dialback, quiet": "#79b8ff",
    "nginx": "#2da44e",
    "nginx, 64 KiB buffers": "#7ee787",
    "aiohttp reverse proxy": "#bf8700",
    "uvicorn, direct": "#8c959f",
}
SIZE: Final = (10.0, 4.5)  # inches


def write(path: Path, tables: list[Table]) -> None:
    """An SVG file; the same figures give the same file."""
    matplotlib.rcParams["svg.hashsalt"] = "dialback"
    shown = [table for table in tables if table.base and table.figure(table.base, "cpu")]
    figure, axes = pyplot.subplots(figsize=SIZE, layout="constrained")
    width = 0.8 / len(COLOURS)
    for place, (subject, colour) in enumerate(COLOURS.items()):
        for group, table in enumerate(shown):
            ours, base = table.figure(subject, "cpu"), table.figure(table.base, "cpu")
            if ours is None or base is None:
                continue
            height = ours.median / base.median
            error = [[height - ours.low / base.median], [ours.high / base.median - height]]
            at = group + (place - (len(COLOURS) - 1) / 2) * width
            axes.bar(at, height, width, color=colour, yerr=error, error_kw={"elinewidth": 0.8})
    axes.axhline(1.0, color="#2da44e", linewidth=0.8)
    axes.set_xticks(range(len(shown)), [table.title.replace(", ", ",\n") for table in shown], fontsize=8)
    axes.set_ylabel("CPU, × nginx")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(
        handles=[Patch(color=colour, label=name) for name, colour in COLOURS.items()], fontsize=8, frameon=False
    )
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
