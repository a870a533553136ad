"""Faults that public ports of CBAM have had, and others, planted one at a time.

A fault that no case reveals would pass for equality, so `cbam check --faults` plants every one of
these in every framework and demands that the comparison turns red. A fault is planted in the
place where a programmer would make it: in the code of the package (a function replaced at run
time), in what is built (another spec), in how weights are read, or in what a step leaves behind.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from cbam_core import CBAMSpec, weight_shapes
from crosscheck.frameworks import Framework

Weights = dict[str, np.ndarray]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Target:
    """The modules of a package into which a fault is planted."""

    ops: ModuleType
    attention: ModuleType
    stop_gradient: Callable[[Any], Any]
    as_tensor: Callable[[np.ndarray], Any]

    @classmethod
    def of(cls, framework: Framework) -> Target:
        attention = importlib.import_module(f"{framework.package}.attention")
        functions = (
            _resolve(framework.library.stop_gradient),
            _resolve(framework.library.as_tensor),
        )
        return cls(attention.ops, attention, *functions)


def _resolve(reference: str) -> Any:
    module, _, path = reference.partition(":")
    return operator.attrgetter(path)(importlib.import_module(module))


@dataclass(frozen=True)
class Pass:
    """What an implementation is asked to run; `count` is the number of positions, N times S."""

    spec: CBAMSpec
    weights: Weights
    training: bool
    count: int


Patch = tuple[Any, str, Any]


def _no_patches(target: Target) -> list[Patch]:
    return []


def _unaltered(one: Pass) -> Pass:
    return one


def _uncorrupted(arrays: Arrays, one: Pass) -> Arrays:
    return arrays


@dataclass(frozen=True)
class Fault:
    """One mistake, and a case of `cases.default_cases` that reveals it.

    Attributes:
        about: the mistake in words.
        case, mode, dtype: where it shows.
        patches: (object, attribute, replacement) for each part of the package to be replaced.
        alter: what the implementation runs instead of the pass.
        corrupt: what becomes of the resulting arrays.
    """

    name: str
    about: str
    case: str
    mode: str = "eval"
    dtype: str = "float64"
    patches: Callable[[Target], list[Patch]] = _no_patches
    alter: Callable[[Pass], Pass] = _unaltered
    corrupt: Callable[[Arrays, Pass], Arrays] = _uncorrupted


@contextlib.contextmanager
def planted(fault: Fault | None, target: Target) -> Iterator[None]:
    """The package with the code of `fault` in it; afterwards as it was."""
    patches = fault.patches(target) if fault else []
    with contextlib.ExitStack() as stack:
        for place, attribute, replacement in patches:
            if isinstance(place, dict):
                stack.enter_context(mock.patch.dict(place, {attribute: replacement}))
            else:
                stack.enter_context(mock.patch.object(place, attribute, replacement))
        if patches:
            # JAX keeps what it compiled by the Python function, which a patch leaves the same.
            stack.callback(_forget_compiled)
            _forget_compiled()
        yield


def _forget_compiled() -> None:
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def _spec(**changes: Any) -> Callable[[Pass], Pass]:
    """Build another spec, of the weights only what it has."""

    def alter(one: Pass) -> Pass:
        spec = one.spec.replace(**changes)
        return replace(one, spec=spec, weights=_fit(one.weights, spec))

    return alter


def _fit(weights: Weights, spec: CBAMSpec) -> Weights:
    """As much of `weights` as `spec` has room for; what it has besides is 0, or 1 for a variance."""
    fitted = {}
    for name, shape in weight_shapes(spec).items():
        fitted[name] = np.full(shape, 1.0 if name.endswith((".var", ".scale")) else 0.0)
        if name in weights and weights[name].ndim == len(shape):
            common = tuple(
                slice(min(a, b)) for a, b in zip(weights[name].shape, shape, strict=True)
            )
            fitted[name][common] = weights[name][common]
    return fitted


def _weights(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Pass], Pass]:
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


def _pool(
    name: str, faulty: Callable[[Target, Any, Any, Any], Any]
) -> Callable[[Target], list[Patch]]:
    """Replace a pool of the channel gate: faulty(target, right, x, axes)."""

    def patches(target: Target) -> list[Patch]:
        right = target.ops.POOLS[name]
        return [(target.ops.POOLS, name, lambda x, axes: faulty(target, right, x, axes))]

    return patches


def _map_pool(
    name: str, faulty: Callable[[Target, Any, Any, Any], Any]
) -> Callable[[Target], list[Patch]]:
    """Replace a pool of the spatial gate."""

    def patches(target: Target) -> list[Patch]:
        right = getattr(target.ops, name)
        return [(target.ops, name, lambda x, axes: faulty(target, right, x, axes))]

    return patches


def _method(cls: str, name: str, faulty: Callable[..., Any]) -> Callable[[Target], list[Patch]]:
    """Replace a method: faulty(target, right, self, x)."""

    def patches(target: Target) -> list[Patch]:
        owner = getattr(target.attention, cls)
        right = getattr(owner, name)

        def method(self: Any, x: Any, **options: Any) -> Any:
            return faulty(target, lambda self, x: right(self, x, **options), self, x)

        return [(owner, name, method)]

    return patches


def _function(name: str, faulty: Callable[..., Any]) -> Callable[[Target], list[Patch]]:
    """Replace a function of ops: faulty(target, right, *arguments)."""

    def patches(target: Target) -> list[Patch]:
        right = getattr(target.ops, name)
        return [(target.ops, name, lambda *arguments: faulty(target, right, *arguments))]

    return patches


def _gate(name: str, faulty: Callable[[Target, Any, Any], Any]) -> Callable[[Target], list[Patch]]:
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
    return math.prod(x.shape[axis] for axis in axes)


def _relu(x: Any) -> Any:
    return (x + abs(x)) / 2


def _shifted(kernel: np.ndarray) -> np.ndarray:
    shifted = np.zeros_like(kernel)
    shifted[1:] = kernel[:-1]
    return shifted


def _truncate_hidden(one: Pass) -> Pass:
    return _spec(hidden=max(1, one.spec.channels // 16))(one)


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


_ALL = [
    # The block that is built.
    Fault("missing-mlp-bias", "the MLP has no biases", "official-relu", alter=_spec(mlp_bias=False)),
    Fault("missing-spatial-bias", "the convolution has no bias", "elbuco1-relu", alter=_spec(spatial_bias=False)),
    Fault("missing-norm", "no norm behind the convolution", "official-relu", alter=_spec(spatial_norm=False)),
    Fault("eps-1e-3", "Keras' epsilon for torch's", "official-relu", alter=_spec(norm_eps=1e-3)),
    Fault("eps-0", "no epsilon", "official-relu", alter=_spec(norm_eps=0.0)),
    Fault("momentum-complement", "Keras' momentum taken for torch's", "official-relu", "train", alter=_spec(norm_momentum=0.99)),
    Fault("default-momentum", "torch's default for the authors' 0.01", "official-relu", "train", alter=_spec(norm_momentum=0.1)),
    Fault("gates-in-the-wrong-order", "spatial before channel", "paper-relu", alter=_spec(order="spatial_channel")),
    Fault("gates-in-parallel", "the spatial gate reads x, not x'", "paper-relu", alter=_spec(order="parallel")),
    Fault("no-spatial-gate", "the channel gate alone", "paper-relu", alter=_spec(order="channel")),
    Fault("no-channel-gate", "the spatial gate alone", "paper-relu", alter=_spec(order="spatial")),
    Fault("ignored-ratio", "channels // 16 whatever the ratio", "official-odd", alter=_truncate_hidden),
    Fault("other-hard-sigmoid", "today's hard sigmoid for Keras 2's", "keras-relu", alter=_spec(gate="hard_sigmoid")),
    Fault("hard-sigmoid", "a hard sigmoid for the sigmoid", "paper-relu", alter=_spec(gate="hard_sigmoid")),
    Fault("single-sigmoid", "sigmoid for 2 sigmoid", "identity-relu", alter=_spec(gate="sigmoid")),
    Fault("average-pool-only", "no maximum in the channel gate", "paper-relu", alter=_spec(channel_pools=("avg",))),
    Fault("light-pooling", "pools averaged before the convolution and the MLP", "paper-relu", alter=_spec(pooling="light")),
    Fault("separate-pooling", "timm's light block read as its other one", "timm_light-relu", alter=_spec(pooling="separate")),
    Fault("kernel-3", "a 3 x 3 convolution for 7 x 7", "paper-relu", alter=_spec(kernel_size=3)),
    Fault("added-residual", "the input added once more", "paper-relu", alter=_spec(residual=True)),
    Fault("missing-residual", "the input not added", "xmu-relu", alter=_spec(residual=False)),
    # How weights are read.
    Fault("transposed-mlp", "a kernel read as (out, in)", "paper-relu", alter=_weights(channel__reduce__kernel=lambda w: w.T.reshape(w.shape))),
    Fault("transposed-convolution-kernel", "rows read as columns", "paper-relu", alter=_weights(spatial__conv__kernel=lambda w: w.swapaxes(0, 1))),
    Fault("mirrored-convolution-kernel", "a true convolution for a correlation", "paper-relu", alter=_weights(spatial__conv__kernel=lambda w: w[::-1, ::-1])),
    Fault("shifted-padding", "padding one more on one side than on the other", "paper-relu", alter=_weights(spatial__conv__kernel=_shifted)),
    Fault("swapped-kernel-inputs", "the kernel read as [max, avg]", "paper-relu", alter=_weights(spatial__conv__kernel=lambda w: w[:, :, ::-1])),
    Fault("swapped-mlp-biases", "hidden units in another order", "official-relu", alter=_weights(channel__reduce__bias=lambda w: w[::-1])),
    Fault("swapped-scale-and-bias", "the norm's scale read as its bias", "official-relu", alter=_swap("spatial.norm.scale", "spatial.norm.bias")),
    Fault("swapped-statistics", "the running mean read as the variance", "official-relu", alter=_swap("spatial.norm.mean", "spatial.norm.var")),
    Fault("variance-read-as-deviation", "the running variance squared", "official-relu", alter=_weights(spatial__norm__var=np.square)),
    Fault("weights-in-float32", "float64 weights cut to float32", "paper-relu", alter=lambda one: replace(one, weights={n: w.astype(np.float32).astype(np.float64) for n, w in one.weights.items()})),
    # The mode, and what a step leaves behind.
    Fault("batch-statistics-in-eval", "evaluation normalises by the batch", "official-relu", alter=_mode(True)),
    Fault("running-statistics-in-train", "training normalises by the running statistics", "official-relu", "train", alter=_mode(False)),
    Fault("unbiased-normalisation", "the unbiased variance normalises", "official-relu", "train", alter=_unbiased_normalisation),
    Fault("biased-running-variance", "the biased variance is kept", "official-relu", "train", corrupt=_biased_running_variance),
    Fault("statistics-not-updated", "a step leaves the running statistics", "official-relu", "train", corrupt=_kept_statistics),
    # The code of the forward pass.
    Fault("swapped-descriptors", "[max, avg] for [avg, max]", "paper-relu", patches=_function("pool_channels", lambda target, right, x: right(x)[::-1])),
    Fault("pooled-before-the-mlp", "MLP(avg + max) for MLP(avg) + MLP(max)", "official-odd", patches=_function("pool_space", lambda target, right, x, pools: [sum(right(x, pools))])),
    Fault("averaged-logits", "the mean of both logits for their sum", "paper-relu", patches=_method("ChannelAttention", "mlp", lambda target, right, self, v: right(self, v) / 2)),
    Fault("mean-for-max-over-space", "the channel gate's maximum is an average", "paper-relu", patches=_pool("max", lambda target, right, x, axes: target.ops.avg(x, axes))),
    Fault("max-for-mean-over-space", "the channel gate's average is a maximum", "paper-relu", patches=_pool("avg", lambda target, right, x, axes: target.ops.max(x, axes))),
    Fault("sum-for-mean-over-space", "the average is not divided", "paper-relu", patches=_pool("avg", lambda target, right, x, axes: right(x, axes) * _count(x, axes))),
    Fault("mean-for-max-over-channels", "the spatial gate's maximum is an average", "paper-relu", patches=_map_pool("max", lambda target, right, x, axes: target.ops.avg(x, axes))),
    Fault("max-for-mean-over-channels", "the spatial gate's average is a maximum", "paper-relu", patches=_map_pool("avg", lambda target, right, x, axes: target.ops.max(x, axes))),
    Fault("absolute-maximum", "the maximum of absolute values", "official-odd", patches=_pool("max", lambda target, right, x, axes: right(abs(x), axes))),
    Fault("lp-without-root", "the sum of squares itself", "all-pools-lp-relu", patches=_pool("lp", lambda target, right, x, axes: right(x, axes) ** 2)),
    Fault("lp-of-means", "the root of the mean square", "all-pools-lp-relu", patches=_pool("lp", lambda target, right, x, axes: right(x, axes) / math.sqrt(_count(x, axes)))),
    Fault("lse-of-means", "the logarithm of the mean of exponentials", "all-pools-lse-relu", patches=_pool("lse", lambda target, right, x, axes: right(x, axes) - math.log(_count(x, axes)))),
    Fault("missing-relu", "no relu between the layers of the MLP", "paper-relu", patches=_method("ChannelAttention", "mlp", lambda target, right, self, v: self.expand(self.reduce(v)))),
    Fault("relu-behind-the-mlp", "a relu more, behind the MLP", "paper-relu", patches=_method("ChannelAttention", "mlp", lambda target, right, self, v: _relu(right(self, v)))),
    Fault("logits-for-gate", "the sigmoid is missing", "paper-relu", patches=_gate("sigmoid", lambda target, right, logits: logits)),
    Fault("gate-applied-twice", "the gate squared", "paper-relu", patches=_gate("sigmoid", lambda target, right, logits: right(logits) * right(logits))),
    Fault("gate-of-the-gate", "a second sigmoid", "paper-relu", patches=_gate("sigmoid", lambda target, right, logits: right(right(logits)))),
    Fault("gate-never-applied", "the gate is computed and dropped", "paper-relu", patches=_method("SpatialAttention", "gate", lambda target, right, self, x: right(self, x) * 0 + 1)),
    Fault("half-precision-accumulation", "sums of squares in float16", "lp-large", dtype="float16", patches=_function("at_least_float32", lambda target, right, x: x)),
    # The code of the backward pass.
    Fault("winner-takes-all-over-space", "a gradient at ties goes to one position", "paper-relu", patches=_pool("max", _winner_takes_all)),
    Fault("winner-takes-all-over-channels", "a gradient at ties goes to one channel", "paper-relu", patches=_map_pool("max", _winner_takes_all)),
    Fault("channel-gate-without-gradient", "the channel gate is cut off", "paper-relu", patches=_method("ChannelAttention", "gate", lambda target, right, self, x: target.stop_gradient(right(self, x)))),
    Fault("spatial-gate-without-gradient", "the spatial gate is cut off", "paper-relu", patches=_method("SpatialAttention", "gate", lambda target, right, self, x: target.stop_gradient(right(self, x)))),
    Fault("descriptors-without-gradient", "weights learn, but x gets no gradient through the gate", "paper-relu", patches=_method("SpatialAttention", "descriptor", lambda target, right, self, x: target.stop_gradient(right(self, x)))),
    Fault("maximum-without-gradient", "the maximum is treated as a constant", "paper-relu", patches=_pool("max", lambda target, right, x, axes: target.stop_gradient(right(x, axes)))),
    Fault("doubled-gradient", "the gate's gradient counts twice", "paper-relu", patches=_gate("sigmoid", lambda target, right, logits: 2 * right(logits) - target.stop_gradient(right(logits)))),
]  # fmt: skip

FAULTS = {fault.name: fault for fault in _ALL}
