"""A report as a table that fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crosscheck.report import Report, Row, versions
from crosscheck.training.faults import ALL_FAULTS

KINDS = {
    "output": "output",
    "loss": "loss",
    "grad": "gradients",
    "weight": "parameters",
    "state": "statistics",
    "slot": "slots",
}
# Columns that the widest table takes.
WIDTH = 100
# Failing rows that are printed one by one; the JSON has them all.
SHOWN = 20


def show(report: Report, console: Console, *, by_case: bool = False) -> None:
    """Print the table, one for each case if `by_case`, the rows that failed, and the verdict."""
    if not console.is_terminal:
        # Nothing ends at column 80 of a pipe, and a number cut short says nothing.
        console.width = max(console.width, WIDTH)
    faulty = [row for row in report.rows if row.fault]
    sound = [row for row in report.rows if not row.fault]
    console.print("Largest difference from the NumPy reference, relative to its largest value")
    for case in dict.fromkeys(row.case for row in sound) if by_case else []:
        console.print(_equality_table([row for row in sound if row.case == case], case))
    if not by_case:
        console.print(_equality_table(sound))
    if faulty:
        console.print("Planted faults, and in how many frameworks each was caught")
        console.print(_fault_table(faulty))
    failed = [row for row in report.rows if not row.ok]
    for row in failed[:SHOWN]:
        console.print(f"[red]✗[/red] {escape(_describe(row))}", highlight=False)
    if len(failed) > SHOWN:
        console.print(f"  … and {len(failed) - SHOWN} more; --json PATH has them all")
    console.print(_verdict(report, sound, faulty), highlight=False)
    console.print(
        ", ".join(f"{name} {version}" for name, version in versions().items()), style="dim"
    )


def _equality_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """Each framework's largest difference from the reference, by kind of quantity."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=title,
        title_style="bold",
        title_justify="left",
    )
    for column in ("framework", "dtype"):
        table.add_column(column, no_wrap=True)
    kinds = [kind for kind in KINDS if any(_kind(row) == kind for row in rows)]
    for column in ("passes", *(KINDS[kind] for kind in kinds), ""):
        width = len("1.0e-15") if column in KINDS.values() else None
        table.add_column(column, justify="right", no_wrap=True, min_width=width)
    for framework, dtype in dict.fromkeys((row.framework, row.dtype) for row in rows):
        own = [row for row in rows if (row.framework, row.dtype) == (framework, dtype)]
        passes = len({(row.case, row.mode) for row in own})
        verdict = "[green]equal[/green]" if all(row.ok for row in own) else "[red]DIFFERS[/red]"
        table.add_row(framework, dtype, str(passes), *(_worst(own, k) for k in kinds), verdict)
    return table


def _kind(row: Row) -> str:
    return row.comparison.quantity.partition(":")[0]


def _worst(rows: Sequence[Row], kind: str) -> str:
    own = [row for row in rows if _kind(row) == kind]
    if not own:
        return "-"
    worst = max(row.comparison.max_rel for row in own)
    style = "" if all(row.ok for row in own) else "[red]"
    return f"{style}{worst:.1e}"


def _fault_table(rows: Sequence[Row]) -> Table:
    """One line for each fault: the mistake, and in how many frameworks it was caught."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("fault", no_wrap=True)
    table.add_column("the mistake")
    table.add_column("caught", justify="right")
    for fault in dict.fromkeys(row.fault for row in rows):
        own = [row for row in rows if row.fault == fault]
        missed = ", ".join(row.framework for row in own if not row.caught)
        caught = f"{sum(row.caught for row in own)} of {len(own)}"
        verdict = f"[red]MISSED: {missed}[/red]" if missed else f"[green]{caught}[/green]"
        table.add_row(fault, escape(ALL_FAULTS[fault].about), verdict)
    return table


def _describe(row: Row) -> str:
    place = f"{row.framework} {row.case} {row.dtype} {row.mode}"
    if row.crashed and row.fault:
        return f"{place}: the fault {row.fault} crashed instead: {row.comparison.reason}"
    if row.fault:
        return f"{place}: the fault {row.fault} was not caught"
    return f"{place}: {row.comparison}"


def _verdict(report: Report, sound: Sequence[Row], faulty: Sequence[Row]) -> str:
    right = sum(row.ok for row in sound)
    parts = [f"{right} of {len(sound)} quantities equal"]
    if faulty:
        parts.append(f"{sum(row.caught for row in faulty)} of {len(faulty)} planted faults caught")
    mark = "[green]✓[/green]" if report.ok else "[red]✗[/red]"
    return f"{mark} {', '.join(parts)}, on {report.device} with TF32 off, {report.seconds:.0f} s"
