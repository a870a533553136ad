"""Canonical weights into and out of the torch modules: the one place that knows torch's layouts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cbam_core import Architecture, as_canonical, check_weights, network_shapes, weight_shapes
from cbam_torch.attention import CBAM, ChannelAttention, SpatialAttention

# Canonical leaf -> torch leaf; the modules on the way to it have the canonical names.
LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def to_canonical(module: nn.Module) -> dict[str, np.ndarray]:
    """The module's weights, copied, under the names and in the layout of `cbam_core.weights`.

    Example:
        >>> from cbam_torch import ChannelAttention, to_canonical
        >>> {name: array.shape for name, array in to_canonical(ChannelAttention(64)).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    shapes = shapes_of(module)
    return {
        name: canonical_array(tensor, shapes[name])
        for name, tensor in named_weights(module).items()
    }


def load_canonical(module: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy canonical `weights` into the module, whose dtype and device they take.

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.

    Example:
        >>> from cbam_core import initial_weights
        >>> from cbam_torch import CBAM, load_canonical
        >>> block = CBAM(64)
        >>> load_canonical(block, initial_weights(block.spec, seed=1))
    """
    check_weights(shapes_of(module), weights)
    with torch.no_grad():
        for name, tensor in named_weights(module).items():
            tensor.copy_(tensor_like(tensor, weights[name]))


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """Canonical name -> the module's own parameter or buffer (in torch's layout)."""
    weights = {}
    for name in shapes_of(module):
        path, _, leaf = name.rpartition(".")
        if isinstance(module, ChannelAttention | SpatialAttention):
            path = path.partition(".")[2]
        weights[name] = getattr(module.get_submodule(path), LEAVES[leaf])
    return weights


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of all weights of a block, or of a network with what head it has."""
    if isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        return weight_shapes(module.spec)
    architecture = getattr(module, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention, SqueezeExcitation or backbone of cbam_torch"
        )
    shapes = network_shapes(architecture)
    headless = {name: s for name, s in shapes.items() if not name.startswith("head.")}
    return headless if module.features_only else shapes


def canonical_array(tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """A copy of a weight, or of its gradient, in canonical layout; bfloat16 becomes float32."""
    array = to_numpy(tensor)
    return (np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array).reshape(shape).copy()


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values; bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def tensor_like(tensor: Tensor, weight: np.ndarray) -> Tensor:
    """A canonical weight, or its like, in the layout, dtype and place of `tensor`."""
    array = as_canonical(weight)
    if tensor.ndim > 1:
        outputs, inputs, *kernel = tensor.shape
        array = np.moveaxis(array.reshape(*kernel, inputs, outputs), (-1, -2), (0, 1))
    return torch.from_numpy(np.array(array, order="C")).to(tensor)
