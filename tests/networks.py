"""The networks on which implementations are compared in the tests: every choice, few channels."""

from __future__ import annotations

import functools

import numpy as np

from cbam_core import Architecture, CBAMSpec, initial_network, reference_network
from cbam_core.architectures import attention_fields
from crosscheck.case import kindest

# Two blocks in the first stage: one with a projection, and one whose shortcut is its input.
_SMALL = {"depths": (2, 1), "widths": (4, 6), "num_classes": 5}
_SPEC = {"reduction": 2, "kernel_size": 3}


def _small(kind: str, **fields) -> Architecture:
    return Architecture(kind, **{**_SMALL, "spec": _SPEC, **fields})


NETWORKS = {
    "plain": _small("basic", spec={}),
    "basic_cbam": _small("basic", attention="cbam"),
    "wide_se_cifar": _small("basic", attention="se", stem="cifar", widen=1.5),
    "stem_and_tail": _small("basic", attention="cbam", placement="stem_and_tail"),
    # The other network of bottlenecks has its strides on the 3x3.
    "bottleneck_cbam": _small("bottleneck", attention="cbam", stride_on="1x1"),
    "resnext_luuuyi": _small(
        "bottleneck",
        groups=2,
        group_width=32,
        attention="cbam",
        spec={**attention_fields("luuuyi"), **_SPEC},
        stem="cifar",
    ),
    "separable_cbam": _small("separable", attention="cbam", widen=0.5),
    "separable_tail": _small(
        "separable", attention="se", widen=0.5, placement="stem_and_tail", stem="cifar"
    ),
    # x + residual + cbam(residual), the placement of a Keras article.
    "both_sums": _small(
        "basic",
        attention="cbam",
        spec=attention_fields(CBAMSpec.preset("keras", 1, residual=True, **_SPEC)),
    ),
    "dual_pooling": _small("basic", attention="cbam", head="dual_pooling"),
}


def weights(architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Float64 weights without a zero or a one among them, whose maps keep their magnitude."""
    rng = np.random.default_rng(seed)
    drawn = initial_network(architecture, "he_normal", seed=seed)
    # Of one dimension are the biases and the norms, which were drawn as 0 and 1.
    return {
        name: array + 0.1 * rng.standard_normal(array.shape)
        if array.ndim == 1
        else array.astype(np.float64)
        for name, array in drawn.items()
    }


def picture(height: int = 33, width: int = 47) -> np.ndarray:
    """Two pictures (2, height, width, 3) of different contrast and brightness."""
    noise = np.random.default_rng(2).standard_normal((2, height, width, 3))
    contrast, brightness = np.array([[0.5, 2.0], [-1.0, 1.0]]).reshape(2, 2, 1, 1, 1)
    return contrast * noise + brightness


@functools.cache
def cotangent(architecture: Architecture) -> np.ndarray:
    """What the logits of `picture()` are multiplied by.

    The best of a few draws, see `crosscheck.case.kindest`.
    """
    draws = [
        np.random.default_rng([1, k]).standard_normal((2, architecture.num_classes))
        for k in range(4)
    ]
    drawn = weights(architecture)
    steps = [
        reference_network.run(architecture, drawn, picture(), training=training)
        for training in (False, True)
    ]
    return kindest(draws, steps)
