"""Faults in how canonical weights are read into a package's own layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import load

Weights = dict[str, np.ndarray]


def _read(name: str, wrongly: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    """Read one of the weights wrongly."""

    def faulty(target: Target, right: Any, block: Any, weights: Weights) -> Any:
        return right(block, weights | {name: np.ascontiguousarray(wrongly(weights[name]))})

    return faulty


def _swap(first: str, second: str) -> Callable[..., Any]:
    def faulty(target: Target, right: Any, block: Any, weights: Weights) -> Any:
        return right(block, weights | {first: weights[second], second: weights[first]})

    return faulty


def _in_float32(target: Target, right: Any, block: Any, weights: Weights) -> Any:
    return right(block, {name: weight.astype(np.float32) for name, weight in weights.items()})


def _middle(kernel: np.ndarray) -> np.ndarray:
    edge = (len(kernel) - 3) // 2
    return np.pad(kernel[edge:-edge, edge:-edge], ((edge, edge), (edge, edge), (0, 0), (0, 0)))


WEIGHTS = [
    Fault(
        "transposed-mlp",
        "a kernel read as (out, in)",
        "paper-relu",
        load,
        _read("channel.reduce.kernel", lambda w: w.T.reshape(w.shape)),
    ),
    Fault(
        "swapped-mlp-biases",
        "hidden units in another order",
        "official-relu",
        load,
        _read("channel.reduce.bias", lambda w: w[::-1]),
    ),
    Fault(
        "transposed-convolution-kernel",
        "rows read as columns",
        "paper-relu",
        load,
        _read("spatial.conv.kernel", lambda w: w.swapaxes(0, 1)),
    ),
    Fault(
        "mirrored-convolution-kernel",
        "a true convolution for a correlation",
        "paper-relu",
        load,
        _read("spatial.conv.kernel", lambda w: w[::-1, ::-1]),
    ),
    Fault(
        "swapped-kernel-inputs",
        "the kernel read as [max, avg]",
        "paper-relu",
        load,
        _read("spatial.conv.kernel", lambda w: w[:, :, ::-1]),
    ),
    Fault(
        "kernel-3",
        "of a 7 x 7 kernel only the middle 3 x 3",
        "paper-relu",
        load,
        _read("spatial.conv.kernel", _middle),
    ),
    Fault(
        "swapped-scale-and-bias",
        "the norm's scale read as its bias",
        "official-relu",
        load,
        _swap("spatial.norm.scale", "spatial.norm.bias"),
    ),
    Fault(
        "swapped-statistics",
        "the running mean read as the variance",
        "official-relu",
        load,
        _swap("spatial.norm.mean", "spatial.norm.var"),
    ),
    Fault(
        "variance-read-as-deviation",
        "the running variance squared",
        "official-relu",
        load,
        _read("spatial.norm.var", np.square),
    ),
    Fault("weights-in-float32", "float64 weights cut to float32", "paper-relu", load, _in_float32),
]
