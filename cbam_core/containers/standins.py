"""What people pickle beside their weights, as classes of our own that do nothing but hold it.

Arguments, the best accuracy as a NumPy scalar, the state of NumPy's generator. A pickle that names
them gets these in their place, so none of its code runs for them, and NumPy's own unpickling does
not see a hostile file's bytes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np


class Namespace(dict):
    """For argparse.Namespace."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class DType:
    """For numpy.dtype, which is made from a name and then told its byte order."""

    def __init__(self, name: str, *rest: Any) -> None:
        self.text = name

    def __setstate__(self, state: tuple) -> None:
        self.text = f"{state[1]}{self.text}"

    def array(self, data: bytes) -> np.ndarray:
        if not re.fullmatch("[<>|=]?[fiub][1248]", self.text):
            raise ValueError(f"it holds NumPy's dtype {self.text[:100]!r}")
        return np.frombuffer(data, self.text)


class Array:
    """For what numpy.core.multiarray._reconstruct makes, which is then told what it is."""

    def __init__(self, *rest: Any) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = dtype.array(data).reshape(shape, order="F" if is_fortran else "C")


def number(dtype: DType, data: bytes) -> int | float | bool:
    """For numpy.core.multiarray.scalar."""
    return dtype.array(data)[0].item()


# NumPy 2 has moved what NumPy 1 pickled.
BY_NAME: list[Any] = [
    (Namespace, "argparse.Namespace"),
    (DType, "numpy.dtype"),
    (Array, "numpy.ndarray"),
    (Array, "numpy.core.multiarray._reconstruct"),
    (Array, "numpy._core.multiarray._reconstruct"),
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
]
