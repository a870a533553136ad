"""What an evaluation computes once: the spatial gate's norm, put into its convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import numpy as np

from cbam_core.architectures import Architecture, network_shapes
from cbam_core.spec import CBAMSpec
from cbam_core.weights import check_weights

Weights = Mapping[str, np.ndarray]
_NORM = ("scale", "bias", "mean", "var")
_CHANGES = {"spatial_norm": False, "spatial_bias": True}


@overload
def fold(described: CBAMSpec, weights: Weights) -> tuple[CBAMSpec, dict[str, np.ndarray]]: ...
@overload
def fold(
    described: Architecture, weights: Weights
) -> tuple[Architecture, dict[str, np.ndarray]]: ...
def fold(
    described: CBAMSpec | Architecture, weights: Weights
) -> tuple[CBAMSpec | Architecture, dict[str, np.ndarray]]:
    """The block or network without norms in its spatial gates, and weights for it.

    It computes in evaluation what it did, to rounding; it can't go on with training as it was.

    Args:
        described: of the weights.
        weights: canonical name -> array.

    Raises:
        ValueError: the weights are not those of `described`, or a spatial gate has no norm.

    Example:
        >>> from cbam_core import CBAMSpec, initial_weights
        >>> spec = CBAMSpec.preset("official", channels=64)
        >>> folded, weights = fold(spec, initial_weights(spec))
        >>> folded.spatial_norm, folded.spatial_bias
        (False, True)
        >>> sorted(name for name in weights if name.startswith("spatial"))
        ['spatial.conv.bias', 'spatial.conv.kernel']
    """
    if isinstance(described, CBAMSpec):
        check_weights(described, weights)
        specs = {"": described}
        folded: CBAMSpec | Architecture = described.replace(**_CHANGES)
    else:
        check_weights(network_shapes(described), weights)
        specs = dict(described.attentions())
        fields = described.to_dict()
        folded = Architecture.from_dict({**fields, "spec": {**fields["spec"], **_CHANGES}})
    if not any(spec.has_spatial_gate and spec.spatial_norm for spec in specs.values()):
        raise ValueError(f"{described!r} has no norm in a spatial gate, so nothing can be folded")
    fewer = dict(weights)
    for path, spec in specs.items():
        _fold_one(f"{path}.spatial." if path else "spatial.", spec, fewer)
    return folded, fewer


def _fold_one(prefix: str, spec: CBAMSpec, weights: dict[str, np.ndarray]) -> None:
    """scale (w x + b - mean) / root + bias = (w scale / root) x + (b - mean) scale / root + bias"""
    scale, bias, mean, var = (
        np.asarray(weights.pop(f"{prefix}norm.{name}"), np.float64) for name in _NORM
    )
    slope = scale / np.sqrt(var + spec.norm_eps)
    kernel = weights[f"{prefix}conv.kernel"]
    before = np.asarray(weights.get(f"{prefix}conv.bias", 0.0), np.float64)
    weights[f"{prefix}conv.kernel"] = (kernel.astype(np.float64) * slope).astype(kernel.dtype)
    weights[f"{prefix}conv.bias"] = ((before - mean) * slope + bias).astype(kernel.dtype)
