"""Whole networks on the photograph: the cases of `cbam check --model`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cbam_core import Architecture, initial_network, reference_network
from cbam_core.architectures import NORM_MOMENTUM
from crosscheck import photograph
from crosscheck.case import Case, made

# Standard deviation of the noise on the pictures. In a flat area positions of a max pool's window
# would tie, and rounding would decide which of them gets the gradient.
GRAIN = 0.02
# Draws of a network's cotangent, of which the best is taken.
DRAWS = 3


def network_case(
    name: str, architecture: Architecture, *, size: int = photograph.SIDE, image: Path | None = None
) -> Case:
    """A network on two pictures, the photograph and its mirror image, of `size` x `size`.

    Args:
        image: a picture to take instead of scikit-image's astronaut.
    """
    pictures = photograph.pictures(image, size)
    x = pictures + GRAIN * np.random.default_rng(11).standard_normal(pictures.shape)
    return made(name, architecture, _weights(architecture, x), x, draws=DRAWS)


def _weights(architecture: Architecture, x: np.ndarray) -> dict[str, np.ndarray]:
    """Weights without a special value, with which maps and gradients keep their magnitude.

    A norm in front of a relu has a bias of about 1, so that most of its map passes: where half of
    it is cut off in every layer, rounding errors grow from layer to layer in training. The running
    statistics are near those of the pictures, so that maps keep their magnitude in evaluation too,
    but not equal to them, so that the modes differ.
    """
    rng = np.random.default_rng(17)
    passing = set(_norms_before_relu(architecture))
    weights = {}
    for name, array in initial_network(architecture, seed=3).items():
        path, _, leaf = name.rpartition(".")
        match leaf:
            case "scale":
                weights[name] = rng.uniform(0.5, 1.0, array.shape)
            case "bias":
                weights[name] = float(path in passing) + 0.3 * rng.standard_normal(array.shape)
            case _:
                weights[name] = array.astype(np.float64)
    for path, (mean, var) in _batch_statistics(architecture, weights, x).items():
        weights[f"{path}.mean"] = mean + 0.03 * np.sqrt(var) * rng.standard_normal(mean.shape)
        weights[f"{path}.var"] = var * rng.uniform(0.9, 1.1, var.shape)
    return weights


def _norms_before_relu(architecture: Architecture) -> Iterator[str]:
    """Paths of the norms behind which a relu stands; of a residual block's last, the sum does."""
    yield architecture.stem_unit.norm
    for block in (block for stage in architecture.stages for block in stage):
        units = block.units if architecture.kind == "separable" else block.units[:-1]
        yield from (unit.norm for unit in units)


def _batch_statistics(
    architecture: Architecture, weights: dict[str, np.ndarray], x: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Path -> mean and unbiased variance of what each norm sees of x."""
    spec = {**dict(architecture.spec), "norm_momentum": NORM_MOMENTUM}
    alike = dataclasses.replace(architecture, spec=tuple(spec.items()))
    after = reference_network.run(alike, weights, x, training=True).statistics

    def seen(name: str) -> np.ndarray:
        return (after[name] - (1 - NORM_MOMENTUM) * weights[name]) / NORM_MOMENTUM

    paths = (name.removesuffix(".mean") for name in after if name.endswith(".mean"))
    return {path: (seen(f"{path}.mean"), seen(f"{path}.var")) for path in paths}
