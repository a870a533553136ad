"""What a cross-check found: rows, and the JSON that programs read and write back."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cbam_core.atomic import whole_file
from crosscheck.compare import Comparison
from crosscheck.maps import Maps

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

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Row:
        """The row that `to_dict` gave these fields."""
        told = {name: fields[name] for name in ("quantity", "limit")}
        for name in ("max_abs", "max_rel"):
            told[name] = math.inf if fields[name] is None else fields[name]
        place = {name: fields[name] for name in ("framework", "case", "dtype", "mode")}
        return cls(
            **place,
            comparison=Comparison(**told, reason=fields.get("reason", "")),
            fault=fields.get("fault", ""),
            crashed=not fields["ok"] and fields.get("caught") is False,
        )


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


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass
class Report:
    """All rows, and what they were made with.

    Attributes:
        command: the call that repeats it, or "".
        date: when it began, in UTC.
        made_with: name -> version.
        maps: of the photograph, where a page was asked for; the JSON has none.
    """

    device: str
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    command: str = ""
    date: str = field(default_factory=_now)
    made_with: dict[str, str] = field(default_factory=versions)
    maps: list[Maps] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every quantity is equal, or, where a fault was planted, every fault caught."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "reference": "numpy-float64",
            "versions": self.made_with,
            "device": self.device,
            "command": self.command,
            "date": self.date,
            "tf32": False,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Report:
        """The report that `to_dict` gave these facts."""
        rows = [Row.from_dict(fields) for fields in facts["rows"]]
        told = (facts[name] for name in ("seconds", "command", "date", "versions"))
        return cls(facts["device"], rows, *told)


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Write what a report's `to_dict` has, whole or not at all."""
    with whole_file(path) as beside:
        beside.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
