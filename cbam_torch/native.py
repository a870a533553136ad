"""The kernels of `cbam_core.native`, called on tensors of a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from cbam_core.native import DTYPES, kernels
from cbam_torch.compiling import constant

_NUMBERS = {getattr(torch, name): number for name, number in DTYPES.items()}


def knows(x: Tensor) -> bool:
    """Whether there are kernels for the device and the dtype of x."""
    return x.device.type == "cpu" and x.dtype in _NUMBERS and _are_built()


@constant
def _are_built() -> bool:
    return kernels() is not None


def run(
    name: str, shape: tuple[int, int, int], x: Tensor, *arguments: Tensor | bool | None
) -> None:
    """Call a kernel for x as samples of rows and columns, on as many threads as torch has."""
    # The address of an empty tensor is null, as that of none is.
    places = [
        one if isinstance(one, bool) or one is None else one.data_ptr() for one in (x, *arguments)
    ]
    getattr(kernels(), name)(_NUMBERS[x.dtype], torch.get_num_threads(), *shape, *places)
