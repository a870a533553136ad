"""What a run of `cbam bench` found, as tables that fit a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crosscheck.benchmark.report import Report, Row, Spread, processor
from crosscheck.report import versions

TITLES = {"forward": "forward", "training": "forward and backward"}


def show(report: Report, console: Console) -> None:
    """Print a table for each map or network and pass, and what their columns mean."""
    plan = report.plan
    console.print(
        f"{plan.framework} on {escape(_where(report))}, {plan.dtype}, {plan.rounds} rounds in turn",
        highlight=False,
    )
    for place in report.places:
        for kind in plan.passes:
            subject = f"{_subject(report, place)}: {TITLES[kind]}"
            console.print(subject, style="bold", highlight=False)
            console.print(_table(report, place, kind))
    for line in (*_legend(report), *report.left_out):
        console.print(line, style="dim", highlight=False)
    console.print(
        ", ".join(f"{name} {version}" for name, version in versions().items()), style="dim"
    )


def _where(report: Report) -> str:
    plan = report.plan
    threads = f"{plan.threads} thread{'s' * (plan.threads > 1)}"
    return f"{processor()} with {threads}" if plan.device == "cpu" else "a GPU"


def _table(report: Report, place: str, kind: str) -> Table:
    rows = [row for row in report.rows if (row.place, row.kind) == (place, kind)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("candidate", "mode"):
        table.add_column(column, no_wrap=True)
    for column in ("ms", *_columns(report, kind)):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        name = f"{row.candidate} ({row.path})" if row.path else row.candidate
        style = "bold" if row.candidate == "ours" else "dim" if not row.mode else ""
        table.add_row(name, row.mode, _milliseconds(row.seconds), *_cells(report, row), style=style)
    return table


def _subject(report: Report, place: str) -> str:
    row = next(row for row in report.rows if row.place == place)
    shape = " x ".join(map(str, row.shape))
    if report.plan.network:
        return f"{report.plan.network} on pictures {shape}"
    return f"{shape} (N, C, H, W), {_bytes(report.size(row))}"


def _bytes(size: float) -> str:
    """
    >>> _bytes(102760448), _bytes(16384)
    ('102.8 MB', '16.4 kB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _columns(report: Report, kind: str) -> Sequence[str]:
    memory = "new" if kind == "forward" else "kept"
    return ("adds",) if report.plan.network else ("faster", "floor", memory)


def _cells(report: Report, row: Row) -> Sequence[str]:
    if report.plan.network:
        added = report.added(row)
        return ("-" if added is None or row.candidate == "none" else _percent(added),)
    faster, floor, share = report.faster(row), report.of_floor(row), report.share(row)
    return (
        "-" if faster is None else f"{faster.median:.2f}x",
        "-" if floor is None else f"{floor:.1f}x",
        "-" if share is None else f"{share:.0%}",
    )


def _milliseconds(seconds: Spread) -> str:
    """Three digits of the median, and half the distance of the quartiles.

    >>> _milliseconds(Spread(0.0821, 0.0803, 0.0845)), _milliseconds(Spread(2e-5, 1e-5, 2e-5))
    ('82.1 ±2.1', '0.0200 ±0.0050')
    """
    digits = max(0, 2 - math.floor(math.log10(1e3 * seconds.median)))
    half = (seconds.upper - seconds.lower) / 2
    return f"{1e3 * seconds.median:.{digits}f} ±{1e3 * half:.{digits}f}"


def _percent(share: Spread) -> str:
    return f"{share.median:+.0%} ±{(share.upper - share.lower) / 2:.0%}"


def baseline(report: Report) -> str:
    """What the report compares with, in words."""
    name, mode = report.baseline
    return f"{name} {mode}" if mode else f"{name} in the same mode"


def _legend(report: Report) -> Sequence[str]:
    lines = ["ms: the median and half the distance of the quartiles"]
    if report.plan.network:
        return [*lines, "adds: to the time of the network without attention, in the same mode"]
    if report.is_compared:
        lines.append(f"faster: than {baseline(report)}, the median over the rounds")
    return [
        *lines,
        "floor: the time over what the copy takes for the bytes that have to be moved",
        "new: bytes that the pass allocates, as a share of x's",
        "kept: bytes kept for the backward pass beyond x, y and weights, likewise",
    ]
