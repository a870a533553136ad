"""Canonical weights into and out of linen variables, whose names and layouts are the canonical.

A linen module does not hold its weights, so the variables are an argument and a result here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cbam_core import STATISTICS, CBAMSpec, as_canonical, check_weights, weight_shapes
from cbam_flax.layers import statistics_dtype
from cbam_flax.linen.attention import CBAM, ChannelAttention, SpatialAttention


def to_canonical(
    module: CBAM | ChannelAttention | SpatialAttention, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The module's `variables`, copied, under the names and in the layout of `cbam_core.weights`.

    Raises:
        ValueError: the variables are not those of the module.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_flax.linen import ChannelAttention, to_canonical
        >>> attention = ChannelAttention(64)
        >>> variables = attention.init(jax.random.key(0), jnp.ones((1, 7, 7, 64)))
        >>> {name: array.shape for name, array in to_canonical(attention, variables).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    spec, weights = _spec(module), {}
    for collection in ("params", "batch_stats"):
        for path, array in flatten_dict(variables.get(collection, {}), sep=".").items():
            weights[_prefix(module) + path] = as_canonical(np.array(array))
    check_weights(spec, weights)
    return {name: weights[name] for name in weight_shapes(spec)}


def load_canonical(
    module: CBAM | ChannelAttention | SpatialAttention, weights: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The variables that `module.init` would give, with canonical `weights` as their values.

    In a network they go under the block's name, "params" to "params" and "batch_stats" to
    "batch_stats".

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.

    Example:
        >>> import jax.numpy as jnp
        >>> from cbam_core import initial_weights
        >>> from cbam_flax.linen import CBAM, load_canonical
        >>> block = CBAM(64)
        >>> variables = load_canonical(block, initial_weights(block.spec, seed=1))
        >>> block.apply(variables, jnp.ones((2, 7, 7, 64))).shape
        (2, 7, 7, 64)
    """
    spec, variables = _spec(module), {}
    check_weights(spec, weights)
    for name in weight_shapes(spec):
        collection = "batch_stats" if name in STATISTICS else "params"
        is_norm = name.startswith("spatial.norm.")
        dtype = statistics_dtype(module.param_dtype) if is_norm else module.param_dtype
        path = f"{collection}.{name.removeprefix(_prefix(module))}"
        variables[path] = jnp.asarray(as_canonical(weights[name]), dtype)
    return unflatten_dict(variables, sep=".")


def _spec(module: nn.Module) -> CBAMSpec:
    if not isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention or SqueezeExcitation of cbam_flax.linen"
        )
    return module.spec


def _prefix(module: nn.Module) -> str:
    """What canonical names have before the path that linen knows."""
    match module:
        case CBAM():
            return ""
        case SpatialAttention():
            return "spatial."
        case _:
            return "channel."
