"""The networks on which implementations are compared in the tests: every choice, few channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cbam_core import Architecture, CBAMSpec, initial_network
from cbam_core.architectures import attention_fields

FILE = Path(__file__).parent / "data" / "networks.npz"
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
    "bottleneck_cbam": _small("bottleneck", attention="cbam"),
    "stride_on_1x1": _small("bottleneck", attention="cbam", stride_on="1x1"),
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
    """Float64 weights without a zero or a one among them, and a positive variance."""
    rng = np.random.default_rng(seed)
    drawn = initial_network(architecture, "kaiming_fan_out", seed=seed)
    return {
        name: np.abs(array + 0.1 * rng.standard_normal(array.shape))
        if name.endswith(".var")
        else array + 0.1 * rng.standard_normal(array.shape)
        for name, array in drawn.items()
    }


def picture(height: int = 33, width: int = 47) -> np.ndarray:
    """Two pictures (2, height, width, 3)."""
    return np.random.default_rng(2).standard_normal((2, height, width, 3))


def cotangent(architecture: Architecture) -> np.ndarray:
    """What the logits of `picture()` are multiplied by."""
    return np.random.default_rng(1).standard_normal((2, architecture.num_classes))


def expected(name: str, mode: str) -> dict[str, np.ndarray]:
    """What tests/data/record_networks.py recorded of a network in "eval" or "train" mode."""
    prefix = f"{name}/{mode}/"
    with np.load(FILE) as file:
        return {key.removeprefix(prefix): file[key] for key in file if key.startswith(prefix)}


def sketch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each large array sixteen projections on random directions, which a small file can hold."""
    return {
        name: array if array.size <= 64 else _directions(array.size) @ array.ravel()
        for name, array in arrays.items()
    }


def _directions(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((16, size)) / np.sqrt(size)
