"""What a run of `cbam bench` found: rows, how they compare, and the JSON that programs read."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crosscheck.benchmark import work
from crosscheck.benchmark.plan import Plan
from crosscheck.report import versions


class Spread(NamedTuple):
    """The median of samples, and their quartiles."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, samples: np.ndarray) -> Spread:
        """
        >>> Spread.of(np.array([4.0, 1.0, 2.0, 3.0, 5.0]))
        Spread(median=3.0, lower=2.0, upper=4.0)
        """
        lower, median, upper = np.percentile(samples, [25, 50, 75]).tolist()
        return cls(median, lower, upper)

    def times(self, factor: float) -> Spread:
        return Spread(*(factor * part for part in self))


@dataclass(frozen=True)
class Row:
    """One pass of one candidate on one map or network.

    Attributes:
        place: the network, or the shape as `--shape` takes it.
        shape: of the maps or pictures.
        candidate, mode, path, kind: what ran; kind is "forward" or "training".
        samples: seconds, one of each round.
        counted: bytes; of a forward pass those that it allocates, of a training pass those that it
            keeps for the backward pass beyond x, y and the weights. None where nothing counts them.
    """

    place: str
    shape: tuple[int, ...]
    candidate: str
    mode: str
    path: str
    kind: str
    samples: tuple[float, ...]
    counted: int | None

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Row:
        tuples = {name: tuple(fields[name]) for name in ("shape", "samples")}
        return cls(**{**fields, **tuples})

    @property
    def seconds(self) -> Spread:
        return Spread.of(np.array(self.samples))


@dataclass
class Report:
    """All rows, and the plan that they are of."""

    plan: Plan
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)

    @property
    def places(self) -> list[str]:
        return list(dict.fromkeys(row.place for row in self.rows))

    def row(self, place: str, candidate: str, mode: str, kind: str) -> Row | None:
        """The row of this, if it was measured."""
        asked = (place, candidate, mode, kind)
        found = (r for r in self.rows if (r.place, r.candidate, r.mode, r.kind) == asked)
        return next(found, None)

    @property
    def baseline(self) -> tuple[str, str | None]:
        """The candidate with which blocks are compared, and its mode; None for the row's own."""
        if self.plan.framework == "torch":
            return "official", self.plan.modes[0]
        return "plain", None

    @property
    def is_compared(self) -> bool:
        """Whether the baseline was measured."""
        return any(row.candidate == self.baseline[0] for row in self.rows)

    def faster(self, row: Row) -> Spread | None:
        """How many times faster than the baseline, round by round; None for the floor."""
        candidate, mode = self.baseline
        other = self._compared(row, candidate, mode or row.mode)
        return None if other is None or not row.mode else Spread.of(other / np.array(row.samples))

    def added(self, row: Row) -> Spread | None:
        """What attention adds to a network's time in the same mode, as a share, round by round."""
        other = self._compared(row, "none", row.mode)
        return None if other is None else Spread.of(np.array(row.samples) / other - 1)

    def _compared(self, row: Row, candidate: str, mode: str) -> np.ndarray | None:
        other = self.row(row.place, candidate, mode, row.kind)
        return None if other is None else np.array(other.samples)

    def of_floor(self, row: Row) -> float | None:
        """The time over that which the copy would take for the bytes that the pass has to move."""
        copy = self.row(row.place, "copy", "", "forward")
        if copy is None or row.mode == "":
            return None
        moved = work.total(row.kind, row.shape, self.plan.item_size)
        floor = copy.seconds.median * moved / (2 * self.size(row))
        return row.seconds.median / floor

    def share(self, row: Row) -> float | None:
        """The counted bytes over those of x."""
        return None if row.counted is None else row.counted / self.size(row)

    def size(self, row: Row) -> int:
        """The bytes of x."""
        return math.prod(row.shape) * self.plan.item_size

    def to_dict(self) -> dict[str, Any]:
        plan = self.plan.to_dict()
        return {
            "schema": 1,
            "versions": versions(),
            "machine": {"processor": processor(), "cores": os.cpu_count()},
            **{name: plan[name] for name in _OF_THE_PLAN},
            "left_out": self.left_out,
            "seconds": round(self.seconds, 1),
            "rows": [self._described(row) for row in self.rows],
        }

    def _described(self, row: Row) -> dict[str, Any]:
        described = {
            "shape": list(row.shape),
            "candidate": row.candidate,
            "mode": row.mode,
            "path": row.path,
            "pass": row.kind,
            "ms": row.seconds.times(1e3)._asdict(),
            "samples_ms": [1e3 * seconds for seconds in row.samples],
        }
        if self.plan.network:
            return described | {"adds": _or_none(self.added(row))}
        moved = work.total(row.kind, row.shape, self.plan.item_size) if row.mode else None
        counted = {"forward": "allocated_bytes", "training": "kept_bytes"}[row.kind]
        return described | {
            "faster": _or_none(self.faster(row)),
            "x_bytes": self.size(row),
            "moved_bytes": moved,
            "of_floor": self.of_floor(row),
            counted: row.counted,
        }


def _or_none(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else spread._asdict()


_OF_THE_PLAN = ("framework", "network", "dtype", "device", "threads", "rounds")


def processor() -> str:
    """The name of the processor, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
