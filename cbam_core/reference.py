"""The block in float64 NumPy, forward and backward: the judge of the four packages.

Derived from the equations alone. Every function below returns its value and its pullback, the
function that takes the gradient of a loss by the value to the gradients by the arguments, so that
the backward pass is the forward pass read from the end. Arrays are float64, layout (N, *S, C),
with S the spatial axes. Where a derivative does not exist, the rule of the project is:

    max       a gradient at ties is split evenly among all positions that attain the maximum
    relu      0 at 0; so for the hard sigmoids at both kinks; NaN passes
    lp        0 for a map of zeros
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cbam_core.inputs import check_input
from cbam_core.spec import CBAMSpec
from cbam_core.weights import check_weights

Array = np.ndarray
Weights = Mapping[str, Array]
Gradients = dict[str, Array]


@dataclass(frozen=True)
class Step:
    """One pass of a block.

    Attributes:
        output: y, with the shape of x.
        statistics: the norm's running mean and variance after the pass, under their canonical
            names; the given ones unless training.
        gates: "channel", (N, 1.., C), and "spatial", (N, *S, 1), as far as the spec has them.
        pullback: from the gradient by y to (gradient by x, gradients by canonical name).
    """

    output: Array
    statistics: dict[str, Array]
    gates: dict[str, Array]
    pullback: Callable[[Array], tuple[Array, Gradients]]

    def quantities(self, cotangent: Array) -> dict[str, Array]:
        """All that the pass gives for the loss sum(output * cotangent), as `evaluate` names it.

        "output", "grad:input", "grad:NAME" of each weight and "state:NAME" of each statistic.
        """
        dx, gradients = self.pullback(cotangent)
        named = {f"grad:{name}": gradient for name, gradient in gradients.items()}
        named |= {f"state:{name}": statistic for name, statistic in self.statistics.items()}
        return {"output": self.output, "grad:input": dx, **named}


def run(spec: CBAMSpec, weights: Weights, x: Array, *, training: bool = False) -> Step:
    """The block of `spec` with canonical `weights`, applied to x (N, *S, C).

    Args:
        training: whether the spatial norm takes its statistics from the batch.

    Raises:
        TypeError, ValueError: x or the weights do not fit the spec.

    Example:
        >>> import numpy as np
        >>> spec = CBAMSpec(4, order="channel", hidden=1)
        >>> weights = {"channel.reduce.kernel": np.zeros((4, 1)),
        ...            "channel.expand.kernel": np.zeros((1, 4))}
        >>> float(run(spec, weights, np.ones((1, 2, 2, 4))).output[0, 0, 0, 0])
        0.5
    """
    batch_statistics = training and spec.spatial_norm and spec.has_spatial_gate
    check_input(spec, x.shape, x.dtype, channel_axis=-1, batch_statistics=batch_statistics)
    check_weights(spec, weights)
    block = _Block(spec, {name: np.asarray(w, np.float64) for name, w in weights.items()}, training)
    with np.errstate(all="ignore"):
        output, pullback = block(np.asarray(x, np.float64))

    def quiet_pullback(cotangent: Array) -> tuple[Array, Gradients]:
        with np.errstate(all="ignore"):
            return pullback(np.asarray(cotangent, np.float64))

    return Step(output, block.statistics, block.gates, quiet_pullback)


class _Block:
    """The equations, for one spec, one set of weights and one mode."""

    def __init__(self, spec: CBAMSpec, weights: Weights, training: bool) -> None:
        self.spec, self.weights, self.training = spec, weights, training
        self.space = tuple(range(1, spec.rank + 1))
        self.statistics = {n: weights[n] for n in weights if n.endswith((".mean", ".var"))}
        self.gates: dict[str, Array] = {}

    def __call__(self, x: Array):
        match self.spec.order:
            case "channel_spatial":
                y, pullback = _chain(x, self.channel, self.spatial)
            case "spatial_channel":
                y, pullback = _chain(x, self.spatial, self.channel)
            case "parallel":
                y, pullback = self.parallel(x)
            case "channel":
                y, pullback = self.channel(x)
            case "spatial":
                y, pullback = self.spatial(x)
        if not self.spec.residual:
            return y, pullback

        def residual_pullback(dy):
            dx, gradients = pullback(dy)
            return dx + dy, gradients

        return x + y, residual_pullback

    def channel(self, x):
        """x' = Mc(x) * x."""
        return _scale(x, self.channel_gate)

    def spatial(self, x):
        """y = Ms(x) * x."""
        return _scale(x, self.spatial_gate)

    def parallel(self, x):
        """y = Mc(x) * Ms(x) * x."""
        channel, channel_pullback = self.channel_gate(x)
        spatial, spatial_pullback = self.spatial_gate(x)

        def pullback(dy):
            by_channel, channel_gradients = channel_pullback(
                (dy * x * spatial).sum(self.space, keepdims=True)
            )
            by_spatial, spatial_gradients = spatial_pullback(
                (dy * x * channel).sum(-1, keepdims=True)
            )
            dx = dy * channel * spatial + by_channel + by_spatial
            return dx, channel_gradients | spatial_gradients

        return x * channel * spatial, pullback

    def channel_gate(self, x):
        """Mc = gate( sum over the pools of MLP(pool over space) )."""
        descriptors, pool_pullbacks = zip(
            *(POOLS[pool](x, self.space) for pool in self.spec.channel_pools), strict=True
        )
        pools = len(descriptors)
        light = self.spec.pooling == "light"
        read = (sum(descriptors) / pools,) if light else descriptors
        logits, mlp_pullbacks = zip(*(self.mlp(v) for v in read), strict=True)
        gate, gate_pullback = GATES[self.spec.gate](sum(logits))
        self.gates["channel"] = gate

        def pullback(dgate):
            dlogits = gate_pullback(dgate)
            by_descriptor, gradients = zip(*(back(dlogits) for back in mlp_pullbacks), strict=True)
            if light:
                by_descriptor = (by_descriptor[0] / pools,) * pools
            dx = sum(back(dv) for back, dv in zip(pool_pullbacks, by_descriptor, strict=True))
            return dx, {name: sum(g[name] for g in gradients) for name in gradients[0]}

        return gate, pullback

    def mlp(self, v):
        """W1 relu(W0 v + b0) + b1."""
        w0, w1 = self.weights["channel.reduce.kernel"], self.weights["channel.expand.kernel"]
        b0 = self.weights.get("channel.reduce.bias", 0.0)
        b1 = self.weights.get("channel.expand.bias", 0.0)
        before = v @ w0 + b0
        hidden, relu_pullback = _relu(before)

        def pullback(dlogits):
            dbefore = relu_pullback(dlogits @ w1.T)
            gradients = {
                "channel.reduce.kernel": _outer(v, dbefore),
                "channel.reduce.bias": _rows(dbefore).sum(0),
                "channel.expand.kernel": _outer(hidden, dlogits),
                "channel.expand.bias": _rows(dlogits).sum(0),
            }
            return dbefore @ w0.T, {n: g for n, g in gradients.items() if n in self.weights}

        return hidden @ w1 + b1, pullback

    def spatial_gate(self, x):
        """Ms = gate( norm( conv [avg over channels ; max over channels] ) )."""
        maps, descriptor_pullback = self.descriptor(x)
        convolved, conv_pullback = _convolve(maps, self.weights["spatial.conv.kernel"])
        convolved = convolved + self.weights.get("spatial.conv.bias", 0.0)
        logits, norm_pullback = self.norm(convolved)
        gate, gate_pullback = GATES[self.spec.gate](logits)
        self.gates["spatial"] = gate

        def pullback(dgate):
            dconvolved, gradients = norm_pullback(gate_pullback(dgate))
            dmaps, gradients["spatial.conv.kernel"] = conv_pullback(dconvolved)
            if self.spec.spatial_bias:
                gradients["spatial.conv.bias"] = _rows(dconvolved).sum(0)
            dx, squeeze_gradients = descriptor_pullback(dmaps)
            return dx, gradients | squeeze_gradients

        return gate, pullback

    def descriptor(self, x):
        """[avg ; max] over channels, their mean, or a 1x1 convolution."""
        if self.spec.spatial_descriptor == "conv":
            kernel = self.weights["spatial.squeeze.kernel"]
            return x @ kernel, lambda dmap: (
                dmap @ kernel.T,
                {"spatial.squeeze.kernel": _outer(x, dmap)},
            )
        avg, avg_pullback = _avg(x, (-1,))
        maximum, max_pullback = _max(x, (-1,))
        if self.spec.pooling == "light":
            return (avg + maximum) / 2, lambda dmap: (
                avg_pullback(dmap / 2) + max_pullback(dmap / 2),
                {},
            )
        return np.concatenate([avg, maximum], -1), lambda dmaps: (
            avg_pullback(dmaps[..., :1]) + max_pullback(dmaps[..., 1:]),
            {},
        )

    def norm(self, x):
        """Batch norm: biased variance to normalise, unbiased variance into the running one."""
        if not self.spec.spatial_norm:
            return x, lambda dy: (dy, {})
        scale, bias = self.weights["spatial.norm.scale"], self.weights["spatial.norm.bias"]
        running_mean = self.statistics["spatial.norm.mean"]
        running_var = self.statistics["spatial.norm.var"]
        count = math.prod(x.shape[:-1])
        batch_statistics = self.training and count > 0
        mean, var = running_mean, running_var
        if batch_statistics:
            mean, var = _rows(x).mean(0), _rows(x).var(0)
            momentum = self.spec.norm_momentum
            unbiased = var * count / (count - 1)
            self.statistics = {
                "spatial.norm.mean": (1 - momentum) * running_mean + momentum * mean,
                "spatial.norm.var": (1 - momentum) * running_var + momentum * unbiased,
            }
        deviation = np.sqrt(var + self.spec.norm_eps)
        normal = (x - mean) / deviation

        def pullback(dy):
            gradients = {
                "spatial.norm.scale": _rows(dy * normal).sum(0),
                "spatial.norm.bias": _rows(dy).sum(0),
            }
            dnormal = dy * scale
            if batch_statistics:
                dnormal = (
                    dnormal - _rows(dnormal).mean(0) - normal * _rows(dnormal * normal).mean(0)
                )
            return dnormal / deviation, gradients

        return normal * scale + bias, pullback


def _chain(x, first, second):
    between, first_pullback = first(x)
    y, second_pullback = second(between)

    def pullback(dy):
        dbetween, second_gradients = second_pullback(dy)
        dx, first_gradients = first_pullback(dbetween)
        return dx, first_gradients | second_gradients

    return y, pullback


def _scale(x, gate_of):
    """gate(x) * x; the gate is broadcast, so its gradient sums over the axes it lacks."""
    gate, gate_pullback = gate_of(x)
    lacking = tuple(axis for axis in range(1, x.ndim) if gate.shape[axis] != x.shape[axis])

    def pullback(dy):
        by_gate, gradients = gate_pullback((dy * x).sum(lacking, keepdims=True))
        return dy * gate + by_gate, gradients

    return gate * x, pullback


def _avg(x, axes):
    count = math.prod(x.shape[axis] for axis in axes)
    return x.mean(axes, keepdims=True), lambda dy: np.broadcast_to(dy / count, x.shape)


def _max(x, axes):
    maximum = x.max(axes, keepdims=True)
    attained = x == maximum
    return maximum, lambda dy: dy * (attained / attained.sum(axes, keepdims=True))


def _lp(x, axes):
    norm = np.sqrt((x * x).sum(axes, keepdims=True))
    return norm, lambda dy: dy * (x / np.where(norm == 0, 1.0, norm))


def _lse(x, axes):
    shift = x.max(axes, keepdims=True)
    exponentials = np.exp(x - shift)
    total = exponentials.sum(axes, keepdims=True)
    return shift + np.log(total), lambda dy: dy * (exponentials / total)


def _relu(x):
    return np.maximum(x, 0.0), lambda dy: np.where(x <= 0, 0.0, dy)


def _sigmoid(x):
    # exp of a negative number never overflows.
    small = np.exp(-np.abs(x))
    gate = np.where(x >= 0, 1.0, small) / (1 + small)
    return gate, lambda dy: dy * (small / (1 + small) ** 2)


def _double_sigmoid(x):
    gate, pullback = _sigmoid(x)
    return 2 * gate, lambda dy: pullback(2 * dy)


def _hard(slope):
    def gate(x):
        line = slope * x + 0.5
        return np.clip(line, 0.0, 1.0), lambda dy: np.where(
            (line <= 0) | (line >= 1), 0.0, slope * dy
        )

    return gate


def _convolve(maps, kernel):
    """Cross-correlation with zero padding that keeps the size; (N, *S, d) -> (N, *S, 1)."""
    rank = kernel.ndim - 2
    size = kernel.shape[0]
    space = tuple(range(1, rank + 1))
    letters = "abc"[:rank]

    def windows(array):
        half = size // 2
        padded = np.pad(array, [(0, 0), *[(half, half)] * rank, (0, 0)])
        return np.lib.stride_tricks.sliding_window_view(padded, (size,) * rank, space)

    def correlate(array, weights):  # windows are (N, *S, in, *K), weights (*K, in, out)
        return np.einsum(f"n...i{letters},{letters}io->n...o", windows(array), weights)

    def pullback(dy):
        # The adjoint of a correlation is the correlation with the mirrored kernel.
        mirrored = np.flip(kernel, tuple(range(rank))).swapaxes(-1, -2)
        by_maps = correlate(dy, mirrored)
        flat = windows(maps).reshape(-1, maps.shape[-1], size**rank)
        by_kernel = np.einsum("pik,p->ki", flat, dy.reshape(-1))
        return by_maps, by_kernel.reshape(kernel.shape)

    return correlate(maps, kernel), pullback


def _rows(array):
    return array.reshape(-1, array.shape[-1])


def _outer(inputs, doutputs):
    """Gradient of a kernel (in, out) that is applied at every position."""
    return _rows(inputs).T @ _rows(doutputs)


POOLS = {"avg": _avg, "max": _max, "lp": _lp, "lse": _lse}
GATES = {
    "sigmoid": _sigmoid,
    "hard_sigmoid": _hard(1 / 6),
    "hard_sigmoid_keras2": _hard(0.2),
    "double_sigmoid": _double_sigmoid,
}
