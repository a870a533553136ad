"""The rows as compact JSON: each text stands there once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from crosscheck.page.markup import Markup
from crosscheck.report import Row


def rows_json(rows: Sequence[Row]) -> Markup:
    """What page.js reads; nothing in it ends the element of a script.

    "texts" has for each column its distinct values, and for each row the number of its own;
    "numbers" has four digits of each, and null for what could not be compared; "failed" has the
    numbers of the rows that are not as they should be.
    """
    texts: dict[str, list[str]] = {
        "framework": [row.framework for row in rows],
        "case": [row.case for row in rows],
        "dtype": [row.dtype for row in rows],
        "mode": [row.mode for row in rows],
        "quantity": [row.comparison.quantity for row in rows],
        "fault": [row.fault for row in rows],
        "verdict": [_verdict(row) for row in rows],
        "reason": [row.comparison.reason for row in rows],
    }
    numbers = {
        "max_abs": [_short(row.comparison.max_abs) for row in rows],
        "max_rel": [_short(row.comparison.max_rel) for row in rows],
        "limit": [_short(row.comparison.limit) for row in rows],
    }
    facts = {
        "texts": {name: _coded(column) for name, column in texts.items()},
        "numbers": numbers,
        "failed": [number for number, row in enumerate(rows) if not row.ok],
    }
    return Markup(json.dumps(facts, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _verdict(row: Row) -> str:
    if not row.fault:
        return "equal" if row.ok else "differs"
    return "caught" if row.caught else "crashed" if row.crashed else "missed"


def _coded(column: Sequence[str]) -> dict[str, Any]:
    """
    >>> _coded(["torch", "tf", "torch"])
    {'values': ['torch', 'tf'], 'rows': [0, 1, 0]}
    """
    numbers = {value: number for number, value in enumerate(dict.fromkeys(column))}
    return {"values": list(numbers), "rows": [numbers[value] for value in column]}


def _short(value: float) -> float | None:
    return float(f"{value:.3e}") if math.isfinite(value) else None
