"""Faults in the descriptors: the pools over space and over channels, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import function, pool


def _count(x: Any, axes: Any) -> int:
    # A loop, since torch.compile does not trace a generator.
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


def _made_of(make: Callable[[list[Any]], list[Any]]) -> Callable[..., Any]:
    """Other descriptors, made of the right ones, beside x, which the primitives hand on."""

    def faulty(target: Target, right: Any, *arguments: Any, **options: Any) -> Any:
        x, descriptors = right(*arguments, **options)
        return x, make(descriptors)

    return faulty


POOLING = [
    Fault(
        "average-pool-only",
        "no maximum in the channel gate",
        "paper-relu",
        function("pool_space"),
        lambda target, right, x, pools, *others, **options: right(x, ("avg",), *others, **options),
    ),
    Fault(
        "pooled-before-the-mlp",
        "MLP(avg + max) for MLP(avg) + MLP(max)",
        "official-odd",
        function("pool_space"),
        _made_of(lambda pooled: [sum(pooled)]),
    ),
    Fault(
        "swapped-descriptors",
        "[max, avg] for [avg, max]",
        "paper-relu",
        function("pool_channels"),
        _made_of(lambda maps: maps[::-1]),
    ),
    Fault(
        "averaged-maps",
        "both maps averaged before the convolution",
        "paper-relu",
        function("pool_channels"),
        _made_of(lambda maps: [sum(maps) / 2] * 2),
    ),
    Fault(
        "mean-for-max-over-space",
        "the channel gate's maximum is an average",
        "paper-relu",
        pool("max"),
        lambda target, right, x, axes: target.ops.avg(x, axes),
    ),
    Fault(
        "max-for-mean-over-space",
        "the channel gate's average is a maximum",
        "paper-relu",
        pool("avg"),
        lambda target, right, x, axes: target.ops.max(x, axes),
    ),
    Fault(
        "sum-for-mean-over-space",
        "the average is not divided",
        "paper-relu",
        pool("avg"),
        lambda target, right, x, axes: right(x, axes) * _count(x, axes),
    ),
    Fault(
        "mean-for-max-over-channels",
        "the spatial gate's maximum is an average",
        "paper-relu",
        function("max"),
        lambda target, right, x, axes: target.ops.avg(x, axes),
    ),
    Fault(
        "max-for-mean-over-channels",
        "the spatial gate's average is a maximum",
        "paper-relu",
        function("avg"),
        lambda target, right, x, axes: target.ops.max(x, axes),
    ),
    Fault(
        "absolute-maximum",
        "the maximum of absolute values",
        "official-odd",
        pool("max"),
        lambda target, right, x, axes: right(abs(x), axes),
    ),
    Fault(
        "lp-without-root",
        "the sum of squares itself",
        "all-pools-lp-relu",
        pool("lp"),
        lambda target, right, x, axes: right(x, axes) ** 2,
    ),
    Fault(
        "lp-of-means",
        "the root of the mean square",
        "all-pools-lp-relu",
        pool("lp"),
        lambda target, right, x, axes: right(x, axes) / math.sqrt(_count(x, axes)),
    ),
    Fault(
        "lse-of-means",
        "the logarithm of the mean of exponentials",
        "all-pools-lse-relu",
        pool("lse"),
        lambda target, right, x, axes: right(x, axes) - math.log(_count(x, axes)),
    ),
    Fault(
        "half-precision-accumulation",
        "sums of squares in float16",
        "lp-large",
        function("at_least_float32"),
        lambda target, right, x: x,
        dtype="float16",
    ),
]
