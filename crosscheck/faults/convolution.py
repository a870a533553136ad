"""Faults in the convolution of the spatial gate."""

from __future__ import annotations

from typing import Any

import numpy as np

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import convolution


def _shifted(target: Target, right: Any, layer: Any, x: Any) -> Any:
    """One row more of padding in front, and one less behind."""
    # Rows are those of the last axis but one, which is of space in every layout of an image.
    pad = np.eye(x.shape[-2] + 1, x.shape[-2], k=-1)
    return right(layer, target.as_tensor(pad) @ x)[..., :-1, :]


CONVOLUTION = [
    Fault(
        "missing-spatial-bias",
        "the convolution has no bias",
        "elbuco1-relu",
        convolution,
        lambda target, right, layer, x: right(layer, x) - right(layer, 0 * x),
    ),
    Fault(
        "shifted-padding",
        "padding one more on one side than on the other",
        "paper-relu",
        convolution,
        _shifted,
    ),
]
