"""Faults in what is built, in how weights are read, in the mode, and in what a step leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from cbam_core import CBAMSpec, weight_shapes
from crosscheck.faults.fault import Arrays, Fault, Pass, Weights


def _build(**changes: Any) -> Callable[[Pass], Pass]:
    """Build another spec, of the weights only what it has."""

    def alter(one: Pass) -> Pass:
        spec = one.spec.replace(**changes)
        return replace(one, spec=spec, weights=_fit(one.weights, spec))

    return alter


def _fit(weights: Weights, spec: CBAMSpec) -> Weights:
    """As much of `weights` as `spec` has room for; the rest is 0, a scale and a variance 1."""
    fitted = {}
    for name, shape in weight_shapes(spec).items():
        fitted[name] = np.full(shape, 1.0 if name.endswith((".var", ".scale")) else 0.0)
        if name in weights and weights[name].ndim == len(shape):
            common = tuple(
                slice(min(a, b)) for a, b in zip(weights[name].shape, shape, strict=True)
            )
            fitted[name][common] = weights[name][common]
    return fitted


def _read(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pass], Pass]:
    """Read some weights wrongly; a double underscore stands for the dot in a name."""
    by_name = {name.replace("__", "."): change for name, change in changes.items()}

    def alter(one: Pass) -> Pass:
        read = {n: by_name[n](w) if n in by_name else w for n, w in one.weights.items()}
        return replace(one, weights={n: np.ascontiguousarray(w) for n, w in read.items()})

    return alter


def _swap(first: str, second: str) -> Callable[[Pass], Pass]:
    def alter(one: Pass) -> Pass:
        swapped = {first: one.weights[second], second: one.weights[first]}
        return replace(one, weights=one.weights | swapped)

    return alter


def _mode(training: bool) -> Callable[[Pass], Pass]:
    return lambda one: replace(one, training=training)


def _shifted(kernel: np.ndarray) -> np.ndarray:
    shifted = np.zeros_like(kernel)
    shifted[1:] = kernel[:-1]
    return shifted


def _truncate_hidden(one: Pass) -> Pass:
    return _build(hidden=max(1, one.spec.channels // 16))(one)


def _biased_running_variance(arrays: Arrays, one: Pass) -> Arrays:
    old = (1 - one.spec.norm_momentum) * one.weights["spatial.norm.var"]
    new = (arrays["state:spatial.norm.var"] - old) * (one.count - 1) / one.count
    return arrays | {"state:spatial.norm.var": old + new}


def _kept_statistics(arrays: Arrays, one: Pass) -> Arrays:
    return arrays | {
        f"state:{name}": one.weights[name] for name in ("spatial.norm.mean", "spatial.norm.var")
    }


def _unbiased_normalisation(one: Pass) -> Pass:
    # Dividing by the unbiased deviation is a scale that is smaller by sqrt((n - 1) / n).
    scale = one.weights["spatial.norm.scale"] * np.sqrt((one.count - 1) / one.count)
    return replace(one, weights=one.weights | {"spatial.norm.scale": scale})


BUILT = [
    # The block that is built.
    Fault(
        "missing-mlp-bias", "the MLP has no biases", "official-relu", alter=_build(mlp_bias=False)
    ),
    Fault(
        "missing-spatial-bias",
        "the convolution has no bias",
        "elbuco1-relu",
        alter=_build(spatial_bias=False),
    ),
    Fault(
        "missing-norm",
        "no norm behind the convolution",
        "official-relu",
        alter=_build(spatial_norm=False),
    ),
    Fault("eps-1e-3", "Keras' epsilon for torch's", "official-relu", alter=_build(norm_eps=1e-3)),
    Fault("eps-0", "no epsilon", "official-relu", alter=_build(norm_eps=0.0)),
    Fault(
        "momentum-complement",
        "Keras' momentum taken for torch's",
        "official-relu",
        "train",
        alter=_build(norm_momentum=0.99),
    ),
    Fault(
        "default-momentum",
        "torch's default for the authors' 0.01",
        "official-relu",
        "train",
        alter=_build(norm_momentum=0.1),
    ),
    Fault(
        "gates-in-the-wrong-order",
        "spatial before channel",
        "paper-relu",
        alter=_build(order="spatial_channel"),
    ),
    Fault(
        "gates-in-parallel",
        "the spatial gate reads x, not x'",
        "paper-relu",
        alter=_build(order="parallel"),
    ),
    Fault("no-spatial-gate", "the channel gate alone", "paper-relu", alter=_build(order="channel")),
    Fault("no-channel-gate", "the spatial gate alone", "paper-relu", alter=_build(order="spatial")),
    Fault(
        "ignored-ratio", "channels // 16 whatever the ratio", "official-odd", alter=_truncate_hidden
    ),
    Fault(
        "other-hard-sigmoid",
        "today's hard sigmoid for Keras 2's",
        "keras-relu",
        alter=_build(gate="hard_sigmoid"),
    ),
    Fault(
        "hard-sigmoid",
        "a hard sigmoid for the sigmoid",
        "paper-relu",
        alter=_build(gate="hard_sigmoid"),
    ),
    Fault("single-sigmoid", "sigmoid for 2 sigmoid", "identity-relu", alter=_build(gate="sigmoid")),
    Fault(
        "average-pool-only",
        "no maximum in the channel gate",
        "paper-relu",
        alter=_build(channel_pools=("avg",)),
    ),
    Fault(
        "light-pooling",
        "pools averaged before the convolution and the MLP",
        "paper-relu",
        alter=_build(pooling="light"),
    ),
    Fault(
        "separate-pooling",
        "timm's light block read as its other one",
        "timm_light-relu",
        alter=_build(pooling="separate"),
    ),
    Fault("kernel-3", "a 3 x 3 convolution for 7 x 7", "paper-relu", alter=_build(kernel_size=3)),
    Fault("added-residual", "the input added once more", "paper-relu", alter=_build(residual=True)),
    Fault("missing-residual", "the input not added", "xmu-relu", alter=_build(residual=False)),
    # How weights are read.
    Fault(
        "transposed-mlp",
        "a kernel read as (out, in)",
        "paper-relu",
        alter=_read(channel__reduce__kernel=lambda w: w.T.reshape(w.shape)),
    ),
    Fault(
        "transposed-convolution-kernel",
        "rows read as columns",
        "paper-relu",
        alter=_read(spatial__conv__kernel=lambda w: w.swapaxes(0, 1)),
    ),
    Fault(
        "mirrored-convolution-kernel",
        "a true convolution for a correlation",
        "paper-relu",
        alter=_read(spatial__conv__kernel=lambda w: w[::-1, ::-1]),
    ),
    Fault(
        "shifted-padding",
        "padding one more on one side than on the other",
        "paper-relu",
        alter=_read(spatial__conv__kernel=_shifted),
    ),
    Fault(
        "swapped-kernel-inputs",
        "the kernel read as [max, avg]",
        "paper-relu",
        alter=_read(spatial__conv__kernel=lambda w: w[:, :, ::-1]),
    ),
    Fault(
        "swapped-mlp-biases",
        "hidden units in another order",
        "official-relu",
        alter=_read(channel__reduce__bias=lambda w: w[::-1]),
    ),
    Fault(
        "swapped-scale-and-bias",
        "the norm's scale read as its bias",
        "official-relu",
        alter=_swap("spatial.norm.scale", "spatial.norm.bias"),
    ),
    Fault(
        "swapped-statistics",
        "the running mean read as the variance",
        "official-relu",
        alter=_swap("spatial.norm.mean", "spatial.norm.var"),
    ),
    Fault(
        "variance-read-as-deviation",
        "the running variance squared",
        "official-relu",
        alter=_read(spatial__norm__var=np.square),
    ),
    Fault(
        "weights-in-float32",
        "float64 weights cut to float32",
        "paper-relu",
        alter=lambda one: replace(
            one,
            weights={n: w.astype(np.float32).astype(np.float64) for n, w in one.weights.items()},
        ),
    ),
    # The mode, and what a step leaves behind.
    Fault(
        "batch-statistics-in-eval",
        "evaluation normalises by the batch",
        "official-relu",
        alter=_mode(True),
    ),
    Fault(
        "running-statistics-in-train",
        "training normalises by the running statistics",
        "official-relu",
        "train",
        alter=_mode(False),
    ),
    Fault(
        "unbiased-normalisation",
        "the unbiased variance normalises",
        "official-relu",
        "train",
        alter=_unbiased_normalisation,
    ),
    Fault(
        "biased-running-variance",
        "the biased variance is kept",
        "official-relu",
        "train",
        corrupt=_biased_running_variance,
    ),
    Fault(
        "statistics-not-updated",
        "a step leaves the running statistics",
        "official-relu",
        "train",
        corrupt=_kept_statistics,
    ),
]
