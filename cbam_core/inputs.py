"""What a feature map must be: the checks and messages that all four packages share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cbam_core.spec import CBAMSpec

_SPATIAL_AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


def check_input(
    spec: CBAMSpec,
    shape: Sequence[Any],
    dtype: Any,
    *,
    channel_axis: int,
    batch_statistics: bool = False,
) -> None:
    """Raise unless a feature map of `shape` and `dtype` fits a module of `spec`.

    Args:
        shape: the sizes of all axes; None where a size is not known yet.
        dtype: the framework's dtype or its name, such as torch.float32 or "float32".
        channel_axis: 1 (channels first) or -1 (channels last).
        batch_statistics: whether the spatial norm is about to take its statistics from the map.

    Raises:
        TypeError: the dtype is not a floating-point type.
        ValueError: a wrong number of axes or channels, a map without positions, or batch
            statistics of a single value.
    """
    shape = tuple(shape)
    spatial = _SPATIAL_AXES[spec.rank]
    layout = f"batch, channels, {spatial}" if channel_axis == 1 else f"batch, {spatial}, channels"
    _check_dtype(dtype)
    if len(shape) != spec.rank + 2:
        raise ValueError(
            f"x has {len(shape)} axes (shape {shape}), expected {spec.rank + 2} for "
            f"rank={spec.rank}: ({layout}); reshape x or build the module with another rank"
        )
    channels = shape[channel_axis]
    if channels is not None and channels != spec.channels:
        raise ValueError(
            f"x has {channels} channels (shape {shape}, read as ({layout})), expected "
            f"channels={spec.channels}; build the module with channels={channels} or check the "
            f"layout of x"
        )
    sizes = [size for axis, size in enumerate(shape) if axis not in (0, channel_axis % len(shape))]
    if any(size is not None and size == 0 for size in sizes):
        raise ValueError(
            f"x has a map without positions (shape {shape}, read as ({layout})), and nothing has "
            f"neither average nor maximum; pass maps of at least one position"
        )
    counts = [shape[0], *sizes]
    if batch_statistics and None not in counts and math.prod(counts) == 1:
        raise ValueError(
            f"x has one position in all (shape {shape}), and the spatial norm's batch statistics "
            f"need at least 2; pass a larger batch or map, or switch to evaluation"
        )


def check_pictures(shape: Sequence[Any], dtype: Any, *, channel_axis: int) -> None:
    """Raise unless x of `shape` and `dtype` is what networks take; arguments as `check_input`.

    Raises:
        TypeError: the dtype is not a floating-point type.
        ValueError: a wrong number of axes, another number of channels than 3, or no position.
    """
    shape = tuple(shape)
    _check_dtype(dtype)
    if len(shape) != 4 or shape[channel_axis] not in (3, None) or 0 in shape[1:]:
        layout = "batch, 3, height, width" if channel_axis == 1 else "batch, height, width, 3"
        raise ValueError(
            f"x has shape {shape}, expected pictures of at least one position, ({layout}); "
            f"reshape x or check its layout"
        )


def _check_dtype(dtype: Any) -> None:
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2]
    if "float" not in name:
        raise TypeError(
            f"x has dtype {name}, expected a floating-point type; convert it first, "
            f"for example to float32"
        )
