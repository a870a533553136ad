"""Attention maps: what the gates of a block were on its input, in one framework and truly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Maps:
    """The gates of one block in one framework, beside the reference's.

    Attributes:
        framework, case, dtype: what ran, and in what precision.
        gates, expected: "gate:channel", (N, 1.., C), and "gate:spatial", (N, *S, 1), of the
            framework and of the reference.
    """

    framework: str
    case: str
    dtype: str
    gates: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
