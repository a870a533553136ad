"""A report as a picture: bars for what is faster than the baseline, or for what is added."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from crosscheck.benchmark.plan import label
from crosscheck.benchmark.report import Report, Row, Spread
from crosscheck.benchmark.table import TITLES, baseline

COLORS = {
    "ours": "#1f4e9c",
    "plain": "#8fb3e8",
    "official": "#b0413e",
    "luuuyi": "#d98c5f",
    "timm": "#d9b75f",
    "pytorchcv": "#8f8f8f",
}
# Of the modes after the first, which is the plainest.
HATCHES = ("", "///", "...")
BARS = 0.85


def plot(report: Report, path: Path) -> None:
    """Write the picture, a panel for each pass, in the format of the path's suffix."""
    # No window: the picture goes to a file.
    matplotlib.use("Agg")
    kinds = report.plan.passes
    figure, panels = plt.subplots(
        len(kinds), 1, figsize=(11, 3.4 * len(kinds) + 0.8), squeeze=False, layout="constrained"
    )
    for axes, kind in zip(panels[:, 0], kinds, strict=True):
        _draw(axes, report, kind)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.suptitle(_title(report))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw(axes: Axes, report: Report, kind: str) -> None:
    rows = [row for row in report.rows if row.kind == kind and row.candidate in COLORS]
    series = list(dict.fromkeys((row.candidate, row.mode) for row in rows))
    modes = list(dict.fromkeys(mode for _, mode in series))
    width = BARS / max(1, len(series))
    for number, (name, mode) in enumerate(series):
        own = [row for row in rows if (row.candidate, row.mode) == (name, mode)]
        values = [_value(report, row) for row in own]
        left = [report.places.index(row.place) - BARS / 2 + number * width for row in own]
        axes.bar(
            left,
            [value.median for value in values],
            width,
            yerr=[
                [value.median - value.lower for value in values],
                [value.upper - value.median for value in values],
            ],
            align="edge",
            color=COLORS[name],
            hatch=HATCHES[modes.index(mode)],
            edgecolor="white",
            error_kw={"linewidth": 0.8},
            label=f"{name} {mode}",
        )
    ticks = [report.plan.network or "x".join(place.split(",")) for place in report.places]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_title(TITLES[kind], loc="left", fontsize="medium")
    axes.set_ylabel(_unit(report))
    axes.spines[["top", "right"]].set_visible(False)
    if not report.plan.network and report.is_compared:
        axes.axhline(1, color="black", linewidth=0.8)


def _value(report: Report, row: Row) -> Spread:
    """The height of a bar."""
    if report.plan.network:
        added = report.added(row)
        return added.times(100) if added else row.seconds.times(1e3)
    return report.faster(row) or row.seconds.times(1e3)


def _unit(report: Report) -> str:
    if report.plan.network:
        has_none = any(row.candidate == "none" for row in report.rows)
        return "added by attention, %" if has_none else "ms"
    return f"times faster than\n{baseline(report)}" if report.is_compared else "ms"


def _title(report: Report) -> str:
    plan = report.plan
    what = f"{plan.network} on {label(plan.shapes[0])}" if plan.network else "CBAM"
    place = f"{plan.threads} threads" if plan.device == "cpu" else "a GPU"
    return f"{what} in {plan.framework}, {plan.dtype}, {place}"
