"""The kernels of `triton_kernels`, called on tensors of a CUDA device.

With TRITON_INTERPRET=1 set before Python starts, Triton interprets them, on tensors of any device.
"""

from __future__ import annotations

import functools
import os
import warnings
from types import ModuleType

import torch
from torch import Tensor

from cbam_torch.compiling import constant

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# The compute capability from which cards have all that the kernels use, bfloat16 included.
CAPABILITY = (8, 0)
_IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def knows(x: Tensor) -> bool:
    """Whether there are kernels for the device and the dtype of x."""
    return (
        (x.device.type == "cuda" or (_IS_INTERPRETED and x.device.type == "cpu"))
        and x.dtype in DTYPES
        and _has_kernels(x.device)
    )


@constant
def _has_kernels(device: torch.device) -> bool:
    return (_IS_INTERPRETED or _is_able(device)) and _kernels() is not None


@functools.cache
def _is_able(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= CAPABILITY


@functools.cache
def _kernels() -> ModuleType | None:
    """Loaded when the first map asks for them, since Triton takes long; None, with one warning."""
    try:
        from cbam_torch import triton_kernels
    except ImportError as error:
        warnings.warn(
            f"cbam has no kernels for CUDA here and runs on plain operations ({error}); install "
            "triton, or set CBAM_KERNELS=off to hear no more",
            stacklevel=2,
        )
        return None
    return triton_kernels


def run(
    name: str, shape: tuple[int, int, int], x: Tensor, *arguments: Tensor | bool | None
) -> None:
    """Call a kernel for x as samples of rows and columns."""
    present = [None if isinstance(one, Tensor) and one.numel() == 0 else one for one in arguments]
    with torch.cuda.device_of(x):
        getattr(_kernels(), name)(shape, x, *present)
