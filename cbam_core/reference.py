"""The block in float64 NumPy, forward and backward: the judge of the four packages.

Derived from the equations alone. Every function below returns its value and its pullback, the
function that takes the gradient of a loss by the value to the gradients by the arguments, so that
the backward pass is the forward pass read from the end. Arrays are float64, layout (N, *S, C),
with S the spatial axes. What holds where a derivative does not exist is said in
`cbam_core.pullbacks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cbam_core.inputs import check_input
from cbam_core.pullbacks import (
    GATES,
    POOLS,
    at,
    avg_and_max,
    batch_norm,
    convolve,
    linear,
    named,
    relu,
    running_statistics,
    under,
)
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
        before, reduce_pullback = at("channel.reduce", linear, v, self.weights)
        hidden, relu_pullback = relu(before)
        logits, expand_pullback = at("channel.expand", linear, hidden, self.weights)

        def pullback(dlogits):
            dhidden, expand_gradients = expand_pullback(dlogits)
            dv, reduce_gradients = reduce_pullback(relu_pullback(dhidden))
            return dv, reduce_gradients | expand_gradients

        return logits, pullback

    def spatial_gate(self, x):
        """Ms = gate( norm( conv [avg over channels ; max over channels] ) )."""
        maps, descriptor_pullback = self.descriptor(x)
        convolved, conv_pullback = at("spatial.conv", convolve, maps, self.weights)
        logits, norm_pullback = self.norm(convolved)
        gate, gate_pullback = GATES[self.spec.gate](logits)
        self.gates["spatial"] = gate

        def pullback(dgate):
            dconvolved, norm_gradients = norm_pullback(gate_pullback(dgate))
            dmaps, conv_gradients = conv_pullback(dconvolved)
            dx, squeeze_gradients = descriptor_pullback(dmaps)
            return dx, squeeze_gradients | conv_gradients | norm_gradients

        return gate, pullback

    def descriptor(self, x):
        """[avg ; max] over channels, their mean, or a 1x1 convolution."""
        if self.spec.spatial_descriptor == "conv":
            return at("spatial.squeeze", linear, x, self.weights)
        maps, pullback = avg_and_max(x, (-1,))
        if self.spec.pooling == "light":
            return maps.mean(-1, keepdims=True), lambda dmap: (
                pullback(np.concatenate([dmap, dmap], -1) / 2),
                {},
            )
        return maps, lambda dmaps: (pullback(dmaps), {})

    def norm(self, x):
        """Batch norm, where the spec has one."""
        if not self.spec.spatial_norm:
            return x, lambda dy: (dy, {})
        weights = under("spatial.norm", self.weights)
        if self.training:
            after = running_statistics(x, weights, momentum=self.spec.norm_momentum)
            self.statistics = named("spatial.norm", after)
        options = {"eps": self.spec.norm_eps, "training": self.training}
        return at("spatial.norm", batch_norm, x, self.weights, **options)


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
