"""A report as a table that fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crosscheck import outcome
from crosscheck.outcome import KINDS
from crosscheck.report import Report, Row

# Columns that the widest table takes.
WIDTH = 100
# Failing rows that are printed one by one; the JSON has them all.
SHOWN = 20


def show(report: Report, console: Console, *, by_case: bool = False) -> None:
    """Print the table, one for each case if `by_case`, the rows that failed, and the verdict."""
    if not console.is_terminal:
        # Nothing ends at column 80 of a pipe, and a number cut short says nothing.
        console.width = max(console.width, WIDTH)
    sound, faulty = outcome.parted(report)
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
        console.print(f"[red]✗[/red] {escape(outcome.describe(row))}", highlight=False)
    if len(failed) > SHOWN:
        console.print(f"  … and {len(failed) - SHOWN} more; --json PATH has them all")
    mark = "[green]✓[/green]" if report.ok else "[red]✗[/red]"
    verdict = f"{mark} {outcome.verdict(report)}, {outcome.circumstances(report)}"
    console.print(verdict, highlight=False)
    console.print(", ".join(f"{name} {it}" for name, it in report.made_with.items()), style="dim")


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
    kinds = outcome.kinds_of(rows)
    for column in ("passes", *(KINDS[kind] for kind in kinds), ""):
        width = len("1.0e-15") if column in KINDS.values() else None
        table.add_column(column, justify="right", no_wrap=True, min_width=width)
    for line in outcome.lines(rows):
        verdict = "[green]equal[/green]" if line.ok else "[red]DIFFERS[/red]"
        worst = (_worst(line, kind) for kind in kinds)
        table.add_row(line.framework, line.dtype, str(line.passes), *worst, verdict)
    return table


def _worst(line: outcome.Line, kind: str) -> str:
    if kind not in line.worst:
        return "-"
    difference, ok = line.worst[kind]
    return f"{'' if ok else '[red]'}{difference:.1e}"


def _fault_table(rows: Sequence[Row]) -> Table:
    """One line for each fault: the mistake, and in how many frameworks it was caught."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("fault", no_wrap=True)
    table.add_column("the mistake")
    table.add_column("caught", justify="right")
    for line in outcome.fault_lines(rows):
        caught = f"{len(line.caught)} of {len(line.caught) + len(line.missed)}"
        missed = ", ".join(line.missed)
        verdict = f"[red]MISSED: {missed}[/red]" if missed else f"[green]{caught}[/green]"
        table.add_row(line.fault, escape(line.about), verdict)
    return table
