"""Faults in the batch norm: its mode, its arithmetic, and the statistics that a step leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from crosscheck.faults.fault import Fault, Target
from crosscheck.faults.places import norm, update


def _always(training: bool) -> Callable[..., Any]:
    """The norm in this mode, whatever it is told."""

    def faulty(target: Target, right: Any, layer: Any, x: Any, **options: Any) -> Any:
        # The mode is an argument in tf, keras and linen, an attribute in torch and nnx.
        for name, value in (("training", training), ("use_running_average", not training)):
            if name in options:
                options[name] = value
            elif hasattr(layer, name):
                setattr(layer, name, value)
        return right(layer, x, **options)

    return faulty


def _positions(x: Any, channels: int = 1) -> int:
    """What a statistic is taken of."""
    return math.prod(x.shape) // channels


def _normalised_by_unbiased(target: Target, right: Any, layer: Any, x: Any, **options: Any) -> Any:
    y = right(layer, x, **options)
    # The norm's bias, since the values that it is added to have the mean 0.
    bias = target.ops.avg(y, tuple(range(len(y.shape))))
    return bias + (y - bias) * math.sqrt(1 - 1 / _positions(x))


def kept_biased(target: Target, right: Any, *arguments: Any) -> Any:
    match arguments:
        case layer, x:  # torch, whose own code updates; so by hand
            y = _kept_old(target, right, layer, x)
            batch = target.stop_gradient(x).transpose(0, 1).flatten(1)
            layer.running_mean.lerp_(batch.mean(1), layer.momentum)
            layer.running_var.lerp_(batch.var(1, correction=0), layer.momentum)
            return y
        case layer, x, mean, var:  # tf and keras
            return right(layer, x, mean, var * (1 - 1 / _positions(x, math.prod(var.shape))))
        case *running, mean, var, count, momentum:  # flax and linen
            return right(*running, mean, var * (1 - 1 / count), count, momentum)


def _kept_old(target: Target, right: Any, *arguments: Any) -> Any:
    match arguments:
        case layer, x:  # torch
            layer.track_running_stats = False
            return right(layer, x)
        case running_mean, running_var, _, _, _, _:  # flax and linen
            return running_mean, running_var
        case _:  # tf and keras, which return nothing
            return None


NORM = [
    Fault(
        "missing-norm",
        "no norm behind the convolution",
        "official-relu",
        norm,
        lambda target, right, layer, x, **options: x,
    ),
    Fault(
        "batch-statistics-in-eval",
        "evaluation normalises by the batch",
        "official-relu",
        norm,
        _always(training=True),
    ),
    Fault(
        "running-statistics-in-train",
        "training normalises by the running statistics",
        "official-relu",
        norm,
        _always(training=False),
        mode="train",
    ),
    Fault(
        "unbiased-normalisation",
        "the unbiased variance normalises",
        "official-relu",
        norm,
        _normalised_by_unbiased,
        mode="train",
    ),
    Fault(
        "biased-running-variance",
        "the biased variance is kept",
        "official-relu",
        update,
        kept_biased,
        mode="train",
    ),
    Fault(
        "statistics-not-updated",
        "a step leaves the running statistics",
        "official-relu",
        update,
        _kept_old,
        mode="train",
    ),
]
