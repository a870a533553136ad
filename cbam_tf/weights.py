"""Canonical weights into and out of the tf modules, which use the same names and layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from cbam_core import CBAMSpec, as_canonical, check_weights, weight_shapes
from cbam_tf.attention import CBAM, ChannelAttention, SpatialAttention

# Canonical leaf -> tf leaf. Kernels are (*K, in, out) in both.
LEAVES = {
    "reduce.kernel": "reduce.kernel",
    "reduce.bias": "reduce.bias",
    "expand.kernel": "expand.kernel",
    "expand.bias": "expand.bias",
    "squeeze.kernel": "squeeze.kernel",
    "conv.kernel": "conv.kernel",
    "conv.bias": "conv.bias",
    "norm.scale": "norm.scale",
    "norm.bias": "norm.bias",
    "norm.mean": "norm.mean",
    "norm.var": "norm.var",
}


def to_canonical(module: CBAM | ChannelAttention | SpatialAttention) -> dict[str, np.ndarray]:
    """The module's weights, copied, under the names and in the layout of `cbam_core.weights`.

    Example:
        >>> from cbam_tf import ChannelAttention, to_canonical
        >>> {name: array.shape for name, array in to_canonical(ChannelAttention(64)).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    return {name: canonical_array(variable) for name, variable in named_weights(module).items()}


def load_canonical(
    module: CBAM | ChannelAttention | SpatialAttention, weights: Mapping[str, np.ndarray]
) -> None:
    """Copy canonical `weights` into the module, whose dtype and device they take.

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.

    Example:
        >>> from cbam_core import initial_weights
        >>> from cbam_tf import CBAM, load_canonical
        >>> block = CBAM(64)
        >>> load_canonical(block, initial_weights(block.spec, seed=1))
    """
    check_weights(_spec(module), weights)
    for name, variable in named_weights(module).items():
        variable.assign(tf.cast(as_canonical(weights[name]), variable.dtype))


def named_weights(module: CBAM | ChannelAttention | SpatialAttention) -> dict[str, tf.Variable]:
    """Canonical name -> the module's own variable."""
    parts: dict[str, Any] = {"channel": module, "spatial": module}
    if isinstance(module, CBAM):
        parts = {gate: getattr(module, gate, None) for gate in parts}
    weights = {}
    for name in weight_shapes(_spec(module)):
        gate, _, leaf = name.partition(".")
        layer, _, attribute = LEAVES[leaf].partition(".")
        weights[name] = getattr(getattr(parts[gate], layer), attribute)
    return weights


def _spec(module: tf.Module) -> CBAMSpec:
    if not isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention or SqueezeExcitation of cbam_tf"
        )
    return module.spec


def canonical_array(tensor: tf.Tensor | tf.Variable) -> np.ndarray:
    """A copy of a weight, or of its gradient; bfloat16 becomes float32."""
    return as_canonical(tensor.numpy()).copy()
