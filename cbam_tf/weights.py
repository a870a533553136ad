"""Canonical weights into and out of the tf modules, whose names and layouts are the canonical."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from cbam_core import Architecture, as_canonical, check_weights, network_shapes, weight_shapes
from cbam_tf.attention import CBAM, ChannelAttention, SpatialAttention


def to_canonical(module: tf.Module) -> dict[str, np.ndarray]:
    """The module's weights, copied, under the names and in the layout of `cbam_core.weights`.

    Example:
        >>> from cbam_tf import ChannelAttention, to_canonical
        >>> {name: array.shape for name, array in to_canonical(ChannelAttention(64)).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    return {name: canonical_array(variable) for name, variable in named_weights(module).items()}


def load_canonical(module: tf.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy canonical `weights` into the module, whose dtype and device they take.

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.

    Example:
        >>> from cbam_core import initial_weights
        >>> from cbam_tf import CBAM, load_canonical
        >>> block = CBAM(64)
        >>> load_canonical(block, initial_weights(block.spec, seed=1))
    """
    check_weights(shapes_of(module), weights)
    for name, variable in named_weights(module).items():
        variable.assign(tf.cast(as_canonical(weights[name]), variable.dtype))


def named_weights(module: tf.Module) -> dict[str, tf.Variable]:
    """Canonical name -> the module's own variable."""
    weights = {}
    for name in shapes_of(module):
        is_gate = isinstance(module, ChannelAttention | SpatialAttention)
        path = name.partition(".")[2] if is_gate else name
        weights[name] = operator.attrgetter(path)(module)
    return weights


def shapes_of(module: tf.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of all weights of a block, or of a network with what head it has."""
    if isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        return weight_shapes(module.spec)
    architecture = getattr(module, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention, SqueezeExcitation or backbone of cbam_tf"
        )
    shapes = network_shapes(architecture)
    headless = {name: s for name, s in shapes.items() if not name.startswith("head.")}
    return headless if module.features_only else shapes


def canonical_array(tensor: tf.Tensor | tf.Variable) -> np.ndarray:
    """A copy of a weight, or of its gradient; bfloat16 becomes float32."""
    return as_canonical(tensor.numpy()).copy()
