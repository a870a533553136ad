"""What a cross-check found: rows, and the JSON that programs read."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosscheck.compare import Comparison

DISTRIBUTIONS = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "keras": ("keras",),
    "jax": ("jax",),
    "flax": ("flax",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai-edge-litert",),
}


@dataclass(frozen=True)
class Row:
    """One quantity of one pass in one framework."""

    framework: str
    case: str
    dtype: str
    mode: str
    comparison: Comparison
    fault: str = ""
    crashed: bool = False

    @property
    def caught(self) -> bool:
        """Whether the comparison found the planted fault; a crash is no verdict of it."""
        return not self.comparison.ok and not self.crashed

    @property
    def ok(self) -> bool:
        """Whether all is as it should be: equal, or, with a fault planted, caught."""
        return self.caught if self.fault else self.comparison.ok

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON; what could not be compared has null for its differences."""
        comparison = self.comparison
        row = {
            "framework": self.framework,
            "case": self.case,
            "dtype": self.dtype,
            "mode": self.mode,
            "quantity": comparison.quantity,
            "max_abs": _finite(comparison.max_abs),
            "max_rel": _finite(comparison.max_rel),
            "limit": comparison.limit,
            "ok": comparison.ok,
        }
        if comparison.reason:
            row["reason"] = comparison.reason
        if self.fault:
            row |= {"fault": self.fault, "caught": self.caught}
        return row


@dataclass
class Report:
    """All rows, and what they were made with."""

    device: str
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every quantity is equal, or, where a fault was planted, every fault caught."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "reference": "numpy-float64",
            "versions": versions(),
            "device": self.device,
            "tf32": False,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "rows": [row.to_dict() for row in self.rows],
        }


def versions() -> dict[str, str]:
    """Versions of Python and of all that is installed of the frameworks."""
    found = {"python": platform.python_version()}
    for name, distributions in {
        "cbam": ("cbam",),
        "numpy": ("numpy",),
        **DISTRIBUTIONS,
    }.items():
        for distribution in distributions:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(distribution)
    return found


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Write what a report's `to_dict` has, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
