"""Faults in the code: functions and methods of a package, replaced at run time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from crosscheck.faults.fault import Fault, Patch, Target

Patches = Callable[[Target], list[Patch]]


def _pool(name: str, faulty: Callable[[Target, Any, Any, Any], Any]) -> Patches:
    """Replace a pool of the channel gate: faulty(target, right, x, axes)."""

    def patches(target: Target) -> list[Patch]:
        right = target.ops.POOLS[name]
        return [(target.ops.POOLS, name, lambda x, axes: faulty(target, right, x, axes))]

    return patches


def _map_pool(name: str, faulty: Callable[[Target, Any, Any, Any], Any]) -> Patches:
    """Replace a pool of the spatial gate."""

    def patches(target: Target) -> list[Patch]:
        right = getattr(target.ops, name)
        return [(target.ops, name, lambda x, axes: faulty(target, right, x, axes))]

    return patches


def _method(cls: str, name: str, faulty: Callable[..., Any]) -> Patches:
    """Replace a method: faulty(target, right, self, x)."""

    def patches(target: Target) -> list[Patch]:
        owner = getattr(target.attention, cls)
        # A linen module has its arguments as fields, so its method has another name than they.
        attribute = f"{name}_of" if hasattr(owner, f"{name}_of") else name
        right = getattr(owner, attribute)

        def method(self: Any, x: Any, **options: Any) -> Any:
            return faulty(target, lambda self, x: right(self, x, **options), self, x)

        return [(owner, attribute, method)]

    return patches


def _function(name: str, faulty: Callable[..., Any]) -> Patches:
    """Replace a function of ops: faulty(target, right, *arguments)."""

    def patches(target: Target) -> list[Patch]:
        right = getattr(target.ops, name)
        return [(target.ops, name, lambda *arguments: faulty(target, right, *arguments))]

    return patches


def _gate(name: str, faulty: Callable[[Target, Any, Any], Any]) -> Patches:
    """Replace a gate function: faulty(target, right, logits)."""

    def patches(target: Target) -> list[Patch]:
        right = target.ops.GATES[name]
        return [(target.ops.GATES, name, lambda logits: faulty(target, right, logits))]

    return patches


def _winner_takes_all(target: Target, right: Any, x: Any, axes: Any) -> Any:
    """The maximum, whose gradient all goes to one of several equal positions."""
    # Far below the limit, and far above what could be equal.
    ramp = 1e-15 * np.arange(math.prod(x.shape), dtype=np.float64).reshape(tuple(x.shape))
    return right(x + target.as_tensor(ramp), axes)


def _count(x: Any, axes: Any) -> int:
    # A loop, since torch.compile does not trace a generator.
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


def _relu(x: Any) -> Any:
    return (x + abs(x)) / 2


CODED = [
    # The code of the forward pass.
    Fault(
        "swapped-descriptors",
        "[max, avg] for [avg, max]",
        "paper-relu",
        patches=_function("pool_channels", lambda target, right, x: right(x)[::-1]),
    ),
    Fault(
        "pooled-before-the-mlp",
        "MLP(avg + max) for MLP(avg) + MLP(max)",
        "official-odd",
        patches=_function("pool_space", lambda target, right, x, pools: [sum(right(x, pools))]),
    ),
    Fault(
        "averaged-logits",
        "the mean of both logits for their sum",
        "paper-relu",
        patches=_method(
            "ChannelAttention", "mlp", lambda target, right, self, v: right(self, v) / 2
        ),
    ),
    Fault(
        "mean-for-max-over-space",
        "the channel gate's maximum is an average",
        "paper-relu",
        patches=_pool("max", lambda target, right, x, axes: target.ops.avg(x, axes)),
    ),
    Fault(
        "max-for-mean-over-space",
        "the channel gate's average is a maximum",
        "paper-relu",
        patches=_pool("avg", lambda target, right, x, axes: target.ops.max(x, axes)),
    ),
    Fault(
        "sum-for-mean-over-space",
        "the average is not divided",
        "paper-relu",
        patches=_pool("avg", lambda target, right, x, axes: right(x, axes) * _count(x, axes)),
    ),
    Fault(
        "mean-for-max-over-channels",
        "the spatial gate's maximum is an average",
        "paper-relu",
        patches=_map_pool("max", lambda target, right, x, axes: target.ops.avg(x, axes)),
    ),
    Fault(
        "max-for-mean-over-channels",
        "the spatial gate's average is a maximum",
        "paper-relu",
        patches=_map_pool("avg", lambda target, right, x, axes: target.ops.max(x, axes)),
    ),
    Fault(
        "absolute-maximum",
        "the maximum of absolute values",
        "official-odd",
        patches=_pool("max", lambda target, right, x, axes: right(abs(x), axes)),
    ),
    Fault(
        "lp-without-root",
        "the sum of squares itself",
        "all-pools-lp-relu",
        patches=_pool("lp", lambda target, right, x, axes: right(x, axes) ** 2),
    ),
    Fault(
        "lp-of-means",
        "the root of the mean square",
        "all-pools-lp-relu",
        patches=_pool(
            "lp", lambda target, right, x, axes: right(x, axes) / math.sqrt(_count(x, axes))
        ),
    ),
    Fault(
        "lse-of-means",
        "the logarithm of the mean of exponentials",
        "all-pools-lse-relu",
        patches=_pool(
            "lse", lambda target, right, x, axes: right(x, axes) - math.log(_count(x, axes))
        ),
    ),
    Fault(
        "missing-relu",
        "no relu between the layers of the MLP",
        "paper-relu",
        patches=_method(
            "ChannelAttention", "mlp", lambda target, right, self, v: self.expand(self.reduce(v))
        ),
    ),
    Fault(
        "relu-behind-the-mlp",
        "a relu more, behind the MLP",
        "paper-relu",
        patches=_method(
            "ChannelAttention", "mlp", lambda target, right, self, v: _relu(right(self, v))
        ),
    ),
    Fault(
        "logits-for-gate",
        "the sigmoid is missing",
        "paper-relu",
        patches=_gate("sigmoid", lambda target, right, logits: logits),
    ),
    Fault(
        "gate-applied-twice",
        "the gate squared",
        "paper-relu",
        patches=_gate("sigmoid", lambda target, right, logits: right(logits) * right(logits)),
    ),
    Fault(
        "gate-of-the-gate",
        "a second sigmoid",
        "paper-relu",
        patches=_gate("sigmoid", lambda target, right, logits: right(right(logits))),
    ),
    Fault(
        "gate-never-applied",
        "the gate is computed and dropped",
        "paper-relu",
        patches=_method(
            "SpatialAttention", "gate", lambda target, right, self, x: right(self, x) * 0 + 1
        ),
    ),
    Fault(
        "half-precision-accumulation",
        "sums of squares in float16",
        "lp-large",
        dtype="float16",
        patches=_function("at_least_float32", lambda target, right, x: x),
    ),
    # The code of the backward pass.
    Fault(
        "winner-takes-all-over-space",
        "a gradient at ties goes to one position",
        "paper-relu",
        patches=_pool("max", _winner_takes_all),
    ),
    Fault(
        "winner-takes-all-over-channels",
        "a gradient at ties goes to one channel",
        "paper-relu",
        patches=_map_pool("max", _winner_takes_all),
    ),
    Fault(
        "channel-gate-without-gradient",
        "the channel gate is cut off",
        "paper-relu",
        patches=_method(
            "ChannelAttention",
            "gate",
            lambda target, right, self, x: target.stop_gradient(right(self, x)),
        ),
    ),
    Fault(
        "spatial-gate-without-gradient",
        "the spatial gate is cut off",
        "paper-relu",
        patches=_method(
            "SpatialAttention",
            "gate",
            lambda target, right, self, x: target.stop_gradient(right(self, x)),
        ),
    ),
    Fault(
        "descriptors-without-gradient",
        "weights learn, but x gets no gradient through the gate",
        "paper-relu",
        patches=_method(
            "SpatialAttention",
            "descriptor",
            lambda target, right, self, x: target.stop_gradient(right(self, x)),
        ),
    ),
    Fault(
        "maximum-without-gradient",
        "the maximum is treated as a constant",
        "paper-relu",
        patches=_pool("max", lambda target, right, x, axes: target.stop_gradient(right(x, axes))),
    ),
    Fault(
        "doubled-gradient",
        "the gate's gradient counts twice",
        "paper-relu",
        patches=_gate(
            "sigmoid",
            lambda target, right, logits: 2 * right(logits) - target.stop_gradient(right(logits)),
        ),
    ),
]
