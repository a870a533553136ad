"""What the rows of a report come to: lines of a table, failures and the verdict, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crosscheck.report import Report, Row
from crosscheck.training.faults import ALL_FAULTS

# The kinds of quantities, and what a table calls them.
KINDS = {
    "output": "output",
    "gate": "gates",
    "loss": "loss",
    "grad": "gradients",
    "weight": "parameters",
    "state": "statistics",
    "slot": "slots",
}


def kind_of(row: Row) -> str:
    """The part of the quantity before the colon, a key of `KINDS`."""
    return row.comparison.quantity.partition(":")[0]


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """Those that the rows have, in the order of `KINDS`."""
    there = set(map(kind_of, rows))
    return [kind for kind in KINDS if kind in there]


def parted(report: Report) -> tuple[list[Row], list[Row]]:
    """The rows of sound implementations, and those of planted faults."""
    sound = [row for row in report.rows if not row.fault]
    return sound, [row for row in report.rows if row.fault]


@dataclass(frozen=True)
class Line:
    """A framework in one dtype: its largest differences from the reference.

    Attributes:
        passes: how many it ran.
        worst: kind of quantity -> the largest relative difference, and whether all are equal.
    """

    framework: str
    dtype: str
    passes: int
    worst: dict[str, tuple[float, bool]]

    @property
    def ok(self) -> bool:
        return all(ok for _, ok in self.worst.values())


def lines(rows: Sequence[Row]) -> list[Line]:
    """One for each framework and dtype, in the order of the rows."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.framework, row.dtype), []).append(row)
    return [
        Line(*place, len({(row.case, row.mode) for row in own}), _worst(own))
        for place, own in groups.items()
    ]


def _worst(rows: Sequence[Row]) -> dict[str, tuple[float, bool]]:
    found: dict[str, tuple[float, bool]] = {}
    for row in rows:
        difference, ok = found.get(kind_of(row), (0.0, True))
        found[kind_of(row)] = max(difference, row.comparison.max_rel), ok and row.ok
    return found


@dataclass(frozen=True)
class FaultLine:
    """A planted fault: the mistake in words, and the frameworks in which it was caught or not."""

    fault: str
    about: str
    caught: list[str]
    missed: list[str]


def fault_lines(rows: Sequence[Row]) -> list[FaultLine]:
    """One for each fault, in the order of the rows."""
    found: dict[str, FaultLine] = {}
    for row in rows:
        about = ALL_FAULTS[row.fault].about if row.fault in ALL_FAULTS else ""
        line = found.setdefault(row.fault, FaultLine(row.fault, about, [], []))
        (line.caught if row.caught else line.missed).append(row.framework)
    return list(found.values())


def describe(row: Row) -> str:
    """A row that failed, in a sentence."""
    place = f"{row.framework} {row.case} {row.dtype} {row.mode}"
    if row.crashed and row.fault:
        return f"{place}: the fault {row.fault} crashed instead: {row.comparison.reason}"
    if row.fault:
        return f"{place}: the fault {row.fault} was not caught"
    return f"{place}: {row.comparison}"


def verdict(report: Report) -> str:
    """How many are equal, and how many faults were caught.

    >>> verdict(Report("cpu"))
    '0 of 0 quantities equal'
    """
    sound, faulty = parted(report)
    parts = [f"{sum(row.ok for row in sound)} of {len(sound)} quantities equal"]
    if faulty:
        parts.append(f"{sum(row.caught for row in faulty)} of {len(faulty)} planted faults caught")
    return ", ".join(parts)


def circumstances(report: Report) -> str:
    """On what it ran, and for how long.

    >>> circumstances(Report("cpu", seconds=152.3))
    'on cpu with TF32 off, 152 s'
    """
    return f"on {report.device} with TF32 off, {report.seconds:.0f} s"
