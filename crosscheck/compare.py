"""The one comparison: names, shapes, values, gradients. NaN fails unless the reference has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

# A gradient that is 0 but for rounding (a bias before a batch norm, say) has no scale of its own:
# below this share of the largest gradient of the pass it is judged on the scale of that one.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class Comparison:
    """One quantity of one pass, judged.

    Attributes:
        quantity: "output", "grad:input", "grad:NAME" or "state:NAME" of a pass; "gate:channel" or
            "gate:spatial" of attention maps; "loss", "grad:NAME", "weight:NAME", "state:NAME" or
            "slot:NAME" of a training run.
        max_abs: the largest absolute difference.
        max_rel: the same over the reference's largest absolute value.
        limit: what max_rel may be.
        reason: why the quantities can't be compared at all, or "".
    """

    quantity: str
    max_abs: float
    max_rel: float
    limit: float
    reason: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason and self.max_rel <= self.limit

    def __str__(self) -> str:
        verdict = self.reason or f"differs by {self.max_rel:.2g} of its largest value"
        return f"{self.quantity}: {verdict}, limit {self.limit:.2g}"


def compare(
    quantity: str,
    actual: np.ndarray,
    expected: np.ndarray,
    limit: float,
    scale: float | None = None,
) -> Comparison:
    """Judge `actual` by `expected`; `scale` replaces the largest finite value of `expected`."""

    def failed(reason: str) -> Comparison:
        return Comparison(quantity, np.inf, np.inf, limit, reason)

    if actual.shape != expected.shape:
        return failed(f"has shape {actual.shape}, expected {expected.shape}")
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(np.isfinite(actual), finite) or not np.array_equal(
        actual[~finite], expected[~finite], equal_nan=True
    ):
        return failed("has NaN or infinity where the reference has not, or the other way round")
    difference = np.abs(actual[finite] - expected[finite]).max(initial=0.0)
    if scale is None:
        scale = np.abs(expected[finite]).max(initial=0.0)
    relative = difference / scale if scale else (np.inf if difference else 0.0)
    return Comparison(quantity, float(difference), float(relative), limit)


def compare_pass(
    actual: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    limits: Mapping[str, float],
) -> Iterator[Comparison]:
    """Judge all quantities of one pass.

    Args:
        limits: by the kind of quantity, the part before the colon, such as grad. A kind that has
            none is not judged.
    """
    largest = max(
        (_largest(array) for name, array in expected.items() if _kind(name) == "grad"), default=0.0
    )
    for name in [*expected, *(set(actual) - set(expected))]:
        if _kind(name) not in limits:
            continue
        limit = limits[_kind(name)]
        if name not in actual:
            yield Comparison(name, np.inf, np.inf, limit, "is missing")
        elif name not in expected:
            yield Comparison(name, np.inf, np.inf, limit, "is unexpected")
        else:
            negligible = _kind(name) == "grad" and _largest(expected[name]) <= NEGLIGIBLE * largest
            scale = largest if negligible else None
            yield compare(name, actual[name], expected[name], limit, scale)


def _kind(quantity: str) -> str:
    return quantity.partition(":")[0]


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
