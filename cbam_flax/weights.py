"""Canonical weights into and out of the nnx modules, whose names and layouts are the canonical."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx

from cbam_core import Architecture, as_canonical, check_weights, network_shapes, weight_shapes
from cbam_flax.attention import CBAM, ChannelAttention, SpatialAttention


def to_canonical(module: nnx.Module) -> dict[str, np.ndarray]:
    """The module's weights, copied, under the names and in the layout of `cbam_core.weights`.

    Example:
        >>> from flax import nnx
        >>> from cbam_flax import ChannelAttention, to_canonical
        >>> attention = ChannelAttention(64, rngs=nnx.Rngs(0))
        >>> {name: array.shape for name, array in to_canonical(attention).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    return {name: canonical_array(weight) for name, weight in named_weights(module).items()}


def load_canonical(module: nnx.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy canonical `weights` into the module, whose dtype and sharding they take.

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.

    Example:
        >>> from flax import nnx
        >>> from cbam_core import initial_weights
        >>> from cbam_flax import CBAM, load_canonical
        >>> block = CBAM(64, rngs=nnx.Rngs(0))
        >>> load_canonical(block, initial_weights(block.spec, seed=1))
    """
    check_weights(shapes_of(module), weights)
    for name, variable in named_weights(module).items():
        old = variable.get_value()
        array = as_canonical(weights[name]).astype(old.dtype)
        variable.set_value(jax.device_put(array, old.sharding))


def named_weights(module: nnx.Module) -> dict[str, nnx.Variable]:
    """Canonical name -> the module's own nnx.Param or nnx.BatchStat."""
    weights = {}
    for name in shapes_of(module):
        is_gate = isinstance(module, ChannelAttention | SpatialAttention)
        path = name.partition(".")[2] if is_gate else name
        weights[name] = operator.attrgetter(path)(module)
    return weights


def shapes_of(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of all weights of a block, or of a network with what head it has."""
    if isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        return weight_shapes(module.spec)
    architecture = getattr(module, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention, SqueezeExcitation or backbone of cbam_flax"
        )
    shapes = network_shapes(architecture)
    headless = {name: s for name, s in shapes.items() if not name.startswith("head.")}
    return headless if getattr(module, "features_only", False) else shapes


def canonical_array(weight: nnx.Variable) -> np.ndarray:
    """A copy of a weight, or of its gradient; bfloat16, which NumPy lacks, becomes float32."""
    return as_canonical(np.array(weight.get_value()))
