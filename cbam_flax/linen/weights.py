"""Canonical weights into and out of linen variables, whose names and layouts are the canonical.

A linen module does not hold its weights, so the variables are an argument and a result here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from flax.typing import Dtype

from cbam_core import (
    CBAMSpec,
    as_canonical,
    check_weights,
    initial_network,
    network_shapes,
    weight_shapes,
)
from cbam_core.costs import is_statistic
from cbam_core.planning import plan
from cbam_flax.layers import statistics_dtype
from cbam_flax.linen.attention import CBAM, ChannelAttention, SpatialAttention
from cbam_flax.linen.backbones import Backbone

if TYPE_CHECKING:
    from cbam_core import Checkpoint


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


def pretrained(
    name: str,
    weights: os.PathLike[str] | str | Checkpoint,
    *,
    spec: CBAMSpec | str | None = None,
    features_only: bool = False,
    init: str = "authors",
    seed: int = 0,
    dtype: Dtype | None = None,
    param_dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    use_running_average: bool | None = None,
    **choices: Any,
) -> tuple[Backbone, dict[str, Any]]:
    """The network of a factory, and its variables, from a file.

    Args:
        name: of the factory, a key of `cbam_core.ARCHITECTURES`.
        weights: a file of a whole network in any dialect, or what `cbam_core.read` found in it;
            the architecture comes from there. head="new" gives it a new head of `num_classes`,
            and an attention that it lacks is new; a warning names what is.
        spec, choices: as for the factory; what the file has may be left out.
        init, seed: a scheme of `cbam_core.initial_network` for what is new.
        features_only, dtype, param_dtype, axis_name, use_running_average: see `Backbone`.

    Raises:
        ValueError, TypeError: an argument that is not in accord with the file's network.
        FileNotFoundError, ImportError, CheckpointError: as `cbam_core.read`.

    Example:
        >>> import tempfile, cbam_core
        >>> architecture = cbam_core.Architecture.named("resnet18", num_classes=10)
        >>> path = tempfile.mkdtemp() + "/network.safetensors"
        >>> cbam_core.write(path, initial_network(architecture), architecture)
        >>> network, variables = pretrained("resnet18", path)
        >>> network.architecture.num_classes
        10
    """
    architecture, values = plan(
        name,
        weights=weights,
        spec=spec,
        features_only=features_only,
        init=init,
        seed=seed,
        **choices,
    )
    network = Backbone(
        architecture,
        features_only=features_only,
        dtype=dtype,
        param_dtype=param_dtype,
        axis_name=axis_name,
        use_running_average=use_running_average,
    )
    assert values is not None
    return network, load_canonical(network, {n: values[n] for n in shapes_of(network)})


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
