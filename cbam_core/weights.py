"""Canonical weights: names, shapes, layouts, and strict checking.

A set of weights is a flat dict of name -> NumPy array in channels-last layout: kernels of the MLP
are (in, out), convolutions (k, ..., k, in, out). With C channels, h hidden units and d pooled maps
(2, or 1 where the descriptor is "conv" or the pooling "light"):

    channel.reduce.kernel (C, h)              channel.reduce.bias (h,)
    channel.expand.kernel (h, C)              channel.expand.bias (C,)
    spatial.squeeze.kernel (C, 1)             where the spatial descriptor is "conv"
    spatial.conv.kernel (k, ..., k, d, 1)     input order [avg, max]
    spatial.conv.bias (1,)
    spatial.norm.scale, .bias, .mean, .var (1,)

A network's block has the same names under its path: stage1.block0.cbam.channel.reduce.kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cbam_core.spec import CBAMSpec

# The norm's running statistics are weights that training updates without a gradient.
STATISTICS = ("spatial.norm.mean", "spatial.norm.var")
# Weight -> the field of a spec that says whether a block has it; the others stand with their gate.
SWITCHES = {
    "channel.reduce.bias": "mlp_bias",
    "channel.expand.bias": "mlp_bias",
    "spatial.squeeze.kernel": "spatial_descriptor",
    "spatial.conv.bias": "spatial_bias",
    **{f"spatial.norm.{leaf}": "spatial_norm" for leaf in ("scale", "bias", "mean", "var")},
}


def weight_shapes(spec: CBAMSpec) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every weight that a module of `spec` has, in a fixed order.

    >>> weight_shapes(CBAMSpec(64, order="channel"))
    {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    channels, hidden = spec.channels, spec.hidden_channels
    shapes: dict[str, tuple[int, ...]] = {}
    if spec.has_channel_gate:
        shapes["channel.reduce.kernel"] = (channels, hidden)
        if spec.mlp_bias:
            shapes["channel.reduce.bias"] = (hidden,)
        shapes["channel.expand.kernel"] = (hidden, channels)
        if spec.mlp_bias:
            shapes["channel.expand.bias"] = (channels,)
    if spec.has_spatial_gate:
        if spec.spatial_descriptor == "conv":
            shapes["spatial.squeeze.kernel"] = (channels, 1)
        shapes["spatial.conv.kernel"] = (spec.kernel_size,) * spec.rank + (spatial_maps(spec), 1)
        if spec.spatial_bias:
            shapes["spatial.conv.bias"] = (1,)
        if spec.spatial_norm:
            for leaf in ("scale", "bias", "mean", "var"):
                shapes[f"spatial.norm.{leaf}"] = (1,)
    return shapes


def spatial_maps(spec: CBAMSpec) -> int:
    """Maps that the spatial gate's convolution reads: [avg, max], or one."""
    return 1 if spec.spatial_descriptor == "conv" or spec.pooling == "light" else 2


def check_weights(
    expected: CBAMSpec | Mapping[str, tuple[int, ...]], weights: Mapping[str, np.ndarray]
) -> None:
    """Raise one ValueError that lists all that is missing, unexpected, misshaped or no float.

    Args:
        expected: a spec, or a table of name -> shape.
        weights: canonical name -> array.
    """
    shapes = weight_shapes(expected) if isinstance(expected, CBAMSpec) else expected
    found = {name: np.asarray(array) for name, array in weights.items()}
    problems = [f"missing: {name} {shape}" for name, shape in shapes.items() if name not in found]
    problems += [
        f"unexpected: {name} {array.shape}" for name, array in found.items() if name not in shapes
    ]
    problems += [
        f"misshaped: {name} has shape {found[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in found and found[name].shape != tuple(shape)
    ]
    problems += [
        f"of another dtype: {name} has {array.dtype}, expected {', '.join(FLOATS)}"
        for name, array in found.items()
        if name in shapes and array.dtype.name not in FLOATS
    ]
    if problems:
        raise ValueError(
            "these weights do not fit, and none has been loaded:\n  "
            + "\n  ".join(problems)
            + "\npass exactly the names and shapes of cbam_core.weight_shapes(spec)"
        )


def as_canonical(array: np.ndarray) -> np.ndarray:
    """`array` as NumPy alone can hold it: bfloat16 becomes float32, big-endian the native order.

    Neither loses a bit.
    """
    array = np.asarray(array)
    native = np.float32 if array.dtype.name == "bfloat16" else array.dtype.newbyteorder("=")
    return array.astype(native, copy=False)


# bfloat16 is ml_dtypes', which the core does not import, so names decide.
FLOATS = ("float64", "float32", "float16", "bfloat16")
