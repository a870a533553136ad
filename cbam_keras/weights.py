"""Canonical weights into and out of the Keras layers, whose layouts are the canonical ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from cbam_core import CBAMSpec, as_canonical, check_weights, weight_shapes
from cbam_keras.attention import CBAM, ChannelAttention, SpatialAttention

# Canonical leaf -> Keras leaf. Kernels are (*K, in, out) in both.
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

    A layer that is not built yet is built, which needs its channels.

    Raises:
        ValueError: the layer does not know its channels yet.

    Example:
        >>> from cbam_keras import ChannelAttention, to_canonical
        >>> {name: array.shape for name, array in to_canonical(ChannelAttention(64)).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    return {name: canonical_array(variable) for name, variable in named_weights(module).items()}


def load_canonical(
    module: CBAM | ChannelAttention | SpatialAttention, weights: Mapping[str, np.ndarray]
) -> None:
    """Copy canonical `weights` into the module, whose dtype and device they take.

    A layer that is not built yet is built, which needs its channels.

    Raises:
        ValueError: names are missing or unexpected or shapes differ, or the layer does not know
            its channels yet; nothing has been loaded.

    Example:
        >>> from cbam_core import initial_weights
        >>> from cbam_keras import CBAM, load_canonical
        >>> block = CBAM(64)
        >>> load_canonical(block, initial_weights(block.spec, seed=1))
    """
    check_weights(_spec(module), weights)
    for name, variable in named_weights(module).items():
        variable.assign(as_canonical(weights[name]))


def named_weights(
    module: CBAM | ChannelAttention | SpatialAttention,
) -> dict[str, keras.Variable]:
    """Canonical name -> the module's own variable."""
    weights = {}
    for name in weight_shapes(_spec(module)):
        gate, _, leaf = name.partition(".")
        layer, _, attribute = LEAVES[leaf].partition(".")
        part = getattr(module, gate) if isinstance(module, CBAM) else module
        weights[name] = getattr(getattr(part, layer), attribute)
    return weights


def _spec(module: keras.layers.Layer) -> CBAMSpec:
    """The spec of a module, which is built if it has not been."""
    if not isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention or SqueezeExcitation of cbam_keras"
        )
    if not module.built:
        module.build()
    return module.spec


def canonical_array(tensor: Any) -> np.ndarray:
    """A copy of a weight, or of its gradient; bfloat16 becomes float32."""
    return np.array(as_canonical(keras.ops.convert_to_numpy(tensor)))
