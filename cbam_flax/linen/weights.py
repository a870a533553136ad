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

from cbam_core import (
    as_canonical,
    check_weights,
    initial_network,
    network_shapes,
    weight_shapes,
)
from cbam_core.costs import is_statistic
from cbam_flax.layers import statistics_dtype
from cbam_flax.linen.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_flax.linen.backbones import Backbone


def to_canonical(module: nn.Module, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
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
    shapes, weights = shapes_of(module), {}
    for collection in ("params", "batch_stats"):
        for path, array in flatten_dict(variables.get(collection, {}), sep=".").items():
            weights[_prefix(module) + path] = as_canonical(np.array(array))
    check_weights(shapes, weights)
    return {name: weights[name] for name in shapes}


def load_canonical(module: nn.Module, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
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
    shapes, variables = shapes_of(module), {}
    check_weights(shapes, weights)
    for name in shapes:
        collection = "batch_stats" if is_statistic(name) else "params"
        path = f"{collection}.{name.removeprefix(_prefix(module))}"
        dtype = statistics_dtype(module.param_dtype) if _is_norm(name) else module.param_dtype
        variables[path] = jnp.asarray(as_canonical(weights[name]), dtype)
    return unflatten_dict(variables, sep=".")


def initial_variables(
    network: Backbone, scheme: str = "authors", *, seed: int = 0
) -> dict[str, Any]:
    """The variables of a network with the values of `cbam_core.initial_network`.

    Raises:
        ValueError: an unknown scheme, or one that its attention can't have.

    Example:
        >>> from cbam_flax.linen import resnet18
        >>> network = resnet18(attention="cbam")
        >>> variables = initial_variables(network)
        >>> variables["params"]["stage1"]["block0"]["attention"]["spatial"]["norm"]["scale"]
        Array([0.], dtype=float32)
    """
    drawn = initial_network(network.architecture, scheme, seed=seed)
    return load_canonical(network, {name: drawn[name] for name in shapes_of(network)})


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of all weights of a block, or of a network with what head it has."""
    if isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        return weight_shapes(module.spec)
    if not isinstance(module, Backbone):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention, SqueezeExcitation or backbone of "
            f"cbam_flax.linen"
        )
    shapes = network_shapes(module.architecture)
    headless = {name: s for name, s in shapes.items() if not name.startswith("head.")}
    return headless if module.features_only else shapes


def _is_norm(name: str) -> bool:
    return name.split(".")[-2].startswith("norm")


def _prefix(module: nn.Module) -> str:
    """What canonical names have before the path that linen knows."""
    match module:
        case SpatialAttention():
            return "spatial."
        case ChannelAttention():
            return "channel."
        case _:
            return ""
