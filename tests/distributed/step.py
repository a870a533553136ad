"""One training step, for every engine the same: its network and batch, and what it has to give."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from cbam_core import reference_network
from cbam_core.costs import is_statistic
from crosscheck.compare import compare_pass
from tests import networks

# A norm in every block and in every spatial gate.
ARCHITECTURE = networks.NETWORKS["basic_cbam"]
WEIGHTS = networks.weights(ARCHITECTURE)
BATCH, RATE, LIMIT = 8, 0.5, 1e-12


def pictures() -> np.ndarray:
    """(8, 64, 16, 3), of such contrast and brightness that no part of them is like another."""
    noise = np.random.default_rng(3).standard_normal((BATCH, 64, 16, 3))
    place = np.arange(BATCH).reshape(BATCH, 1, 1, 1) + np.linspace(0, 1, 64).reshape(1, 64, 1, 1)
    return (0.5 + place / 4) * noise + np.sin(place)


def labels() -> np.ndarray:
    """The class of each picture, (8,)."""
    return np.arange(BATCH) % ARCHITECTURE.num_classes


def expected() -> dict[str, np.ndarray]:
    """The mean cross-entropy of the batch, and all weights after a step of SGD by it.

    By the NumPy reference, to which every package is equal on a single device.
    """
    step = reference_network.run(ARCHITECTURE, WEIGHTS, pictures(), training=True)
    exponentials = np.exp(step.output - step.output.max(-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    right = np.eye(ARCHITECTURE.num_classes)[labels()]
    quantities = step.quantities((probabilities - right) / BATCH)
    arrays = {"loss": -(right * np.log(probabilities)).sum(-1).mean()}
    for name, weight in WEIGHTS.items():
        if is_statistic(name):
            arrays[f"state:{name}"] = quantities[f"state:{name}"]
        else:
            arrays[f"parameter:{name}"] = weight - RATE * quantities[f"grad:{name}"]
    return arrays


def judge(loss: float, weights: Mapping[str, np.ndarray]) -> None:
    """Print how far a step's loss and canonical weights are off, and exit with 1 if too far."""
    actual = {"loss": np.asarray(loss, np.float64)}
    for name, weight in weights.items():
        actual[f"{'state' if is_statistic(name) else 'parameter'}:{name}"] = weight
    compared = list(compare_pass(actual, expected(), dict.fromkeys(_KINDS, LIMIT)))
    for kind in _KINDS:
        worst = max(one.max_rel for one in compared if one.quantity.partition(":")[0] == kind)
        print(f"{kind}: differs by {worst:.1e} of the largest value, limit {LIMIT:.0e}")
    sys.exit(not all(one.ok for one in compared))


_KINDS = ("loss", "parameter", "state")
