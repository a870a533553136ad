"""Trained weights on real images: the network that examples/train_digits.py made, on digits."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from cbam_core import Architecture, read, reference_network
from cbam_core.pullbacks import under
from crosscheck.case import DRAWS, Case, made
from crosscheck.training.data import digits

PATH = Path(__file__).parent / "data" / "digits.safetensors"
NETWORK, ATTENTION = "trained-digits", "trained-attention-digits"
# The first of scikit-learn's digits are 0 to 9, again and again.
DIGITS = 20


@functools.cache
def network() -> tuple[Architecture, dict[str, np.ndarray]]:
    """The architecture of the trained network, and its weights.

    >>> network()[0].num_classes
    10
    """
    found = read(PATH)
    assert found.architecture is not None
    return found.architecture, found.weights


def cases() -> list[Case]:
    """The network's first attention, on the map that it is given there, and the network itself."""
    architecture, weights = network()
    x = digits().pictures[:DIGITS]
    path, spec = next(architecture.attentions())
    attended = reference_network.run(architecture, weights, x).attended[path]
    return [
        made(ATTENTION, spec, under(path, weights), attended, draws=DRAWS),
        made(NETWORK, architecture, weights, x, draws=DRAWS),
    ]
