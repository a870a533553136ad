"""What stands in the places of a CBAM's functions: ours, and what other copies have there."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cbam_core import reference

Array = np.ndarray
Pool = Callable[[Array, int], Array]
Curve = Callable[[Array], Array]


def _ours(function: Callable) -> Callable:
    """The reference's function without its pullback."""
    return lambda *arguments: function(*arguments)[0]


def _pool(name: str) -> Pool:
    return lambda x, axis: reference.POOLS[name](x, (axis,))[0].squeeze(axis)


def _sigmoid(logits: Array) -> Array:
    return reference.GATES["sigmoid"](logits)[0]


def _softmax(logits: Array) -> Array:
    """Over the channels of a channel gate (N, C), the positions of a spatial one (N, *S, 1)."""
    axes = tuple(range(1, logits.ndim))
    shifted = np.exp(logits - logits.max(axes, keepdims=True))
    return shifted / shifted.sum(axes, keepdims=True)


def _leaky(slope: float) -> Curve:
    return lambda v: np.where(v > 0, v, slope * v)


# (x, axis) -> x without that axis.
POOLS: dict[str, Pool] = {name: _pool(name) for name in reference.POOLS}
OTHER_POOLS: dict[str, Pool] = {
    "the sum": lambda x, axis: x.sum(axis),
    "the minimum": lambda x, axis: x.min(axis),
    "the maximum of absolute values": lambda x, axis: np.abs(x).max(axis),
    "the mean of absolute values": lambda x, axis: np.abs(x).mean(axis),
    "the root mean square": lambda x, axis: np.sqrt((x * x).mean(axis)),
    "the sum of squares": lambda x, axis: (x * x).sum(axis),
    "the standard deviation": lambda x, axis: x.std(axis),
    "the unbiased standard deviation": lambda x, axis: x.std(axis, ddof=1),
    "the logarithm of the mean of exponentials": lambda x, axis: np.log(np.exp(x).mean(axis)),
}

RELU = "relu"
ACTIVATIONS: dict[str, Curve] = {
    RELU: lambda v: np.maximum(v, 0.0),
    "no activation": lambda v: v,
    "leaky relu (0.01)": _leaky(0.01),
    "leaky relu (0.1)": _leaky(0.1),
    "leaky relu (0.2)": _leaky(0.2),
    "leaky relu (0.3)": _leaky(0.3),
    "elu": lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0.0))),
    "relu6": lambda v: np.clip(v, 0.0, 6.0),
    "silu": lambda v: v * _sigmoid(v),
    "hard swish": lambda v: v * np.clip(v / 6 + 0.5, 0.0, 1.0),
    "gelu": lambda v: v * (1 + np.vectorize(math.erf)(v / math.sqrt(2))) / 2,
    "gelu (tanh)": lambda v: v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) / 2,
    "mish": lambda v: v * np.tanh(np.logaddexp(0.0, v)),
    "softplus": lambda v: np.logaddexp(0.0, v),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
}

GATES: dict[str, Curve] = {name: _ours(gate) for name, gate in reference.GATES.items()}
OTHER_GATES: dict[str, Curve] = {
    "no function at all, the logits": lambda logits: logits,
    "softmax": _softmax,
    "tanh": np.tanh,
    "1 + tanh": lambda logits: 1 + np.tanh(logits),
    "relu": lambda logits: np.maximum(logits, 0.0),
    "relu6": lambda logits: np.clip(logits, 0.0, 6.0),
    "the sigmoid of a sigmoid": lambda logits: _sigmoid(_sigmoid(logits)),
    "the square of a sigmoid": lambda logits: _sigmoid(logits) ** 2,
    "the sigmoid of a relu": lambda logits: _sigmoid(np.maximum(logits, 0.0)),
    "the clipped logits": lambda logits: np.clip(logits, 0.0, 1.0),
}


def inverse(gate: str, values: Array) -> Array:
    """Logits of one of our gates; what is saturated gives NaN."""
    match gate:
        case "sigmoid":
            share, slope = values, 0.0
        case "double_sigmoid":
            share, slope = values / 2, 0.0
        case "hard_sigmoid":
            share, slope = values, 1 / 6
        case _:
            share, slope = values, 0.2
    inside = np.where((share > SATURATED) & (share < 1 - SATURATED), share, np.nan)
    return (inside - 0.5) / slope if slope else np.log(inside / (1 - inside))


# A gate this near to 0 or 1 does not tell its logits.
SATURATED = 0.02
