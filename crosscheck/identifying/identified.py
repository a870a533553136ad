"""What was found out about a module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cbam_core import CBAMSpec
from crosscheck.identifying.departure import POINTS, Departure

# Where the gradient of a maximum may go that several values attain.
TIES = {
    "even": "the gradient is split evenly",
    "first": "the first takes the whole gradient",
    "last": "the last takes the whole gradient",
    "other": "the gradient is neither split evenly nor one value's",
}


@dataclass(frozen=True, eq=False)
class Identified:
    """The spec of a module, or why it has none.

    Attributes:
        spec: what it is; if it is no CBAM the nearest spec, or None where nothing is near.
        departures: where it is no CBAM, the first point first; none if it is one.
        difference: the largest that is left to the reference with this spec, in evaluation,
            relative to the largest value.
        dtype: that it was probed in.
        weights: its own weights in canonical layout, for `cbam_core.write` or `load_canonical`.
        names: canonical name -> the names of the module's arrays.
        returns: what each array is that it returns, such as "the refined map".
        ties: by "space" and "channels", where the gradient of a maximum goes that several values
            attain, one of `TIES`.
        running_variance: "unbiased" or "biased", where a norm keeps one.
        presets: the public variants with this spec, whatever their width.
        dialect: whose names its weights have, or "".
        notes: what else is worth knowing.
    """

    spec: CBAMSpec | None
    departures: tuple[Departure, ...] = ()
    difference: float | None = None
    dtype: str = ""
    weights: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    returns: tuple[str, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    running_variance: str = ""
    presets: tuple[str, ...] = ()
    dialect: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_cbam(self) -> bool:
        return not self.departures

    @property
    def parts_at(self) -> str:
        """The first point at which it is no CBAM, one of `POINTS`; "" if it is one."""
        return min((d.point for d in self.departures), key=POINTS.index, default="")

    def to_dict(self) -> dict[str, Any]:
        """The same facts as values that JSON can hold, without the weights."""
        return {
            "schema": 1,
            "is_cbam": self.is_cbam,
            "spec": self.spec and self.spec.to_dict(),
            "parts_at": self.parts_at,
            "departures": [{"point": d.point, "words": d.words} for d in self.departures],
            "difference": self._difference,
            "dtype": self.dtype,
            "names": {name: list(own) for name, own in self.names.items()},
            "returns": list(self.returns),
            "ties": dict(self.ties),
            "running_variance": self.running_variance,
            "presets": list(self.presets),
            "dialect": self.dialect,
            "notes": list(self.notes),
        }

    @property
    def _difference(self) -> float | None:
        """Infinity, which JSON has not, is None."""
        is_finite = self.difference is not None and math.isfinite(self.difference)
        return self.difference if is_finite else None

    def __str__(self) -> str:
        head = repr(self.spec)
        if not self.is_cbam:
            ordered = sorted(self.departures, key=lambda d: POINTS.index(d.point))
            head = "not a CBAM: " + "; ".join(departure.words for departure in ordered)
        return "\n".join([head, *(f"  {title:<17} {text}" for title, text in self._facts())])

    def _facts(self) -> list[tuple[str, str]]:
        facts = []
        if not self.is_cbam:
            facts.append(("parts at", f"the {self.parts_at}"))
            facts.append(("nearest spec", repr(self.spec) if self.spec else "none"))
        if self.difference is not None:
            where = f"of the largest value, in {self.dtype}"
            facts.append(("difference", f"{self.difference:.1e} {where}"))
        facts += [("presets", ", ".join(self.presets))] if self.presets else []
        facts += [("names", f"{self.dialect}'s")] if self.dialect else []
        facts += [("returns", " and ".join(self.returns))] if self.returns else []
        facts += [(f"ties over {over}", TIES[rule]) for over, rule in self.ties.items()]
        facts += [("running variance", self.running_variance)] if self.running_variance else []
        return facts + [("note", note) for note in self.notes]
