"""The picture: CPU over nginx's, and what is billed over one request at a time; with the ranges that were seen."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from benchmarks.figures import Table

SERVERS: Final = {
    "dialback": "#1f6feb",
    "dialback, quiet": "#79b8ff",
    "nginx": "#2da44e",
    "nginx, 64 KiB buffers": "#7ee787",
    "aiohttp reverse proxy": "#bf8700",
    "uvicorn, direct": "#8c959f",
}
WAYS: Final = {"concurrency 20": "#1f6feb", "concurrency 1": "#8c959f"}
SIZE: Final = (13.0, 4.5)  # inches
WIDTHS: Final = (8, 3)  # of the two, to each other
TITLE_WIDTH: Final = 16  # letters in a line


def write(path: Path, tables: list[Table]) -> None:
    """An SVG file; the same figures give the same file."""
    matplotlib.rcParams["svg.hashsalt"] = "dialback"
    figure, (cpu, bill) = pyplot.subplots(1, 2, figsize=SIZE, width_ratios=WIDTHS, layout="constrained")
    cpu.set_yscale("log", base=2)
    _panel(cpu, tables, "cpu", SERVERS, "CPU, × nginx")
    _panel(bill, tables, "billed", WAYS, "billed for a stream, × one at a time")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(axes: Axes, tables: list[Table], column: str, colours: Mapping[str, str], label: str) -> None:
    """A group of bars for each table that has the column, and a row that is its base."""
    shown = [table for table in tables if table.base in colours and table.figure(table.base, column)]
    width = 0.8 / len(colours)
    for place, (subject, colour) in enumerate(colours.items()):
        for group, table in enumerate(shown):
            ours, base = table.figure(subject, column), table.figure(table.base, column)
            if ours is None or base is None:
                continue
            height = ours.median / base.median
            error = [[height - ours.low / base.median], [ours.high / base.median - height]]
            at = group + (place - (len(colours) - 1) / 2) * width
            axes.bar(at, height, width, color=colour, yerr=error, error_kw={"elinewidth": 0.8})
    axes.axhline(1.0, color="#57606a", linewidth=0.8)
    titles = ["\n".join(textwrap.wrap(table.title, TITLE_WIDTH)) for table in shown]
    axes.set_xticks(range(len(shown)), titles, fontsize=8)
    axes.set_ylabel(label)
    axes.yaxis.set_major_formatter("{x:g}")
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(colours), fontsize=8, frameon=False
    )
