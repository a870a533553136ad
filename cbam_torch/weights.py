"""Canonical weights into and out of the torch modules: the one place that knows torch's layouts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cbam_core import as_canonical, check_weights, weight_shapes
from cbam_torch.attention import CBAM, ChannelAttention, SpatialAttention

# Canonical leaf -> torch leaf. Kernels are (out, in, *K) in torch and (*K, in, out) canonically.
LEAVES = {
    "reduce.kernel": "reduce.weight",
    "reduce.bias": "reduce.bias",
    "expand.kernel": "expand.weight",
    "expand.bias": "expand.bias",
    "squeeze.kernel": "squeeze.weight",
    "conv.kernel": "conv.weight",
    "conv.bias": "conv.bias",
    "norm.scale": "norm.weight",
    "norm.bias": "norm.bias",
    "norm.mean": "norm.running_mean",
    "norm.var": "norm.running_var",
}


def to_canonical(module: CBAM | ChannelAttention | SpatialAttention) -> dict[str, np.ndarray]:
    """The module's weights, copied, under the names and in the layout of `cbam_core.weights`.

    Example:
        >>> from cbam_torch import ChannelAttention, to_canonical
        >>> {name: array.shape for name, array in to_canonical(ChannelAttention(64)).items()}
        {'channel.reduce.kernel': (64, 4), 'channel.expand.kernel': (4, 64)}
    """
    shapes = weight_shapes(_spec(module))
    return {
        name: canonical_array(tensor, shapes[name])
        for name, tensor in named_weights(module).items()
    }


def load_canonical(
    module: CBAM | ChannelAttention | SpatialAttention, weights: Mapping[str, np.ndarray]
) -> None:
    """Copy canonical `weights` into the module, whose dtype and device they take.

    Raises:
        ValueError: names are missing or unexpected or shapes differ; nothing has been loaded.

    Example:
        >>> from cbam_core import initial_weights
        >>> from cbam_torch import CBAM, load_canonical
        >>> block = CBAM(64)
        >>> load_canonical(block, initial_weights(block.spec, seed=1))
    """
    check_weights(_spec(module), weights)
    with torch.no_grad():
        for name, tensor in named_weights(module).items():
            tensor.copy_(_from_canonical(weights[name], tensor))


def named_weights(module: CBAM | ChannelAttention | SpatialAttention) -> dict[str, Tensor]:
    """Canonical name -> the module's own parameter or buffer (in torch's layout)."""
    weights = {}
    for name in weight_shapes(_spec(module)):
        gate, _, leaf = name.partition(".")
        layer, _, attribute = LEAVES[leaf].partition(".")
        part = getattr(module, gate) if isinstance(module, CBAM) else module
        weights[name] = getattr(getattr(part, layer), attribute)
    return weights


def _spec(module: nn.Module):
    if not isinstance(module, CBAM | ChannelAttention | SpatialAttention):
        raise TypeError(
            f"module={type(module).__name__} holds no canonical weights; pass a CBAM, "
            f"ChannelAttention, SpatialAttention or SqueezeExcitation of cbam_torch"
        )
    return module.spec


def canonical_array(tensor: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """A copy of a weight, or of its gradient, in canonical layout; bfloat16 becomes float32."""
    array = to_numpy(tensor)
    return (np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array).reshape(shape).copy()


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values; bfloat16, which NumPy lacks, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _from_canonical(weight: np.ndarray, tensor: Tensor) -> Tensor:
    array = as_canonical(weight)
    if tensor.ndim > 1:
        outputs, inputs, *kernel = tensor.shape
        array = np.moveaxis(array.reshape(*kernel, inputs, outputs), (-1, -2), (0, 1))
    return torch.from_numpy(np.ascontiguousarray(array))
