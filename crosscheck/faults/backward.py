"""Faults in the backward pass, whose forward pass is right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import function, gate, method, pool


def winner_takes_all(target: Target, right: Any, x: Any, axes: Any) -> Any:
    """The maximum, whose gradient all goes to one of several equal positions."""
    ramp = 1e-12 * np.arange(math.prod(x.shape), dtype=np.float64).reshape(tuple(x.shape))
    ramped = right(x + target.as_tensor(ramp), axes)
    # The gradient of the ramped values, and the value of the right ones.
    return ramped + target.stop_gradient(right(x, axes) - ramped)


def _cut_off(target: Target, right: Any, *arguments: Any, **options: Any) -> Any:
    return target.stop_gradient(right(*arguments, **options))


def _cut_off_beside(target: Target, right: Any, *arguments: Any, **options: Any) -> Any:
    """Of a function that hands x on: what it returns with x."""
    x, found = right(*arguments, **options)
    return x, target.stop_gradient(found)


BACKWARD = [
    Fault(
        "winner-takes-all-over-space",
        "a gradient at ties goes to one position",
        "ties-integers",
        pool("max"),
        winner_takes_all,
    ),
    Fault(
        "winner-takes-all-over-channels",
        "a gradient at ties goes to one channel",
        "ties-integers",
        function("max"),
        winner_takes_all,
    ),
    Fault(
        "channel-gate-without-gradient",
        "the channel gate is cut off",
        "paper-relu",
        method("ChannelAttention", "attend"),
        _cut_off_beside,
    ),
    Fault(
        "spatial-gate-without-gradient",
        "the spatial gate is cut off",
        "paper-relu",
        method("SpatialAttention", "attend"),
        _cut_off_beside,
    ),
    Fault(
        "descriptors-without-gradient",
        "weights learn, but x gets no gradient through the gate",
        "paper-relu",
        method("SpatialAttention", "descriptor"),
        _cut_off_beside,
    ),
    Fault(
        "maximum-without-gradient",
        "the maximum is treated as a constant",
        "paper-relu",
        pool("max"),
        _cut_off,
    ),
    Fault(
        "doubled-gradient",
        "the gate's gradient counts twice",
        "paper-relu",
        gate("sigmoid"),
        lambda target, right, logits: 2 * right(logits) - target.stop_gradient(right(logits)),
    ),
]
