"""Whole networks in float64 NumPy, forward and backward: the judge of the four packages' backbones.

Derived from the equations alone, as `cbam_core.reference` is, which judges the attentions in them.
Every layer below takes x, float64 (N, H, W, C), to its value and its pullback, from the gradient
of a loss by the value to (gradient by x, gradients by canonical name).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cbam_core import reference
from cbam_core.architectures import (
    NORM_EPS,
    NORM_MOMENTUM,
    Architecture,
    Block,
    Unit,
    network_shapes,
)
from cbam_core.explaining import checked_target, explained_path
from cbam_core.inputs import check_pictures
from cbam_core.pullbacks import (
    at,
    avg,
    avg_and_max,
    batch_norm,
    convolve,
    linear,
    max_pool,
    named,
    relu,
    running_statistics,
    under,
)
from cbam_core.reference import Array, Gradients, Step, Weights
from cbam_core.spec import CBAMSpec
from cbam_core.weights import check_weights

Layer = Callable[[Array], tuple[Array, Callable[[Array], tuple[Array, Gradients]]]]
SPACE = (1, 2)


@dataclass(frozen=True)
class NetworkStep(Step):
    """One pass of a network: a `Step` whose output is the logits, (N, num_classes).

    Attributes:
        statistics, gates: of all norms and attentions, under their paths.
        attended: path -> the map that the attention there is given.
        maps: path -> the map that the layer, block or stage there gives.
        map_pullback: from the gradient by the logits to that by each of `maps`.
    """

    attended: dict[str, Array]
    maps: dict[str, Array]
    map_pullback: Callable[[Array], dict[str, Array]]

    @property
    def features(self) -> tuple[Array, ...]:
        """The maps behind the stem and behind each stage, the last behind the tail."""
        ends = [path for path in self.maps if "." not in path]
        if ends[-1] == "tail":
            ends.pop(-2)
        return tuple(self.maps[path] for path in ends)


def run(
    architecture: Architecture, weights: Weights, x: Array, *, training: bool = False
) -> NetworkStep:
    """The network of `architecture` with canonical `weights`, applied to x (N, H, W, 3).

    Args:
        training: whether the norms take their statistics from the batch. Dropout is off.

    Raises:
        TypeError, ValueError: x or the weights do not fit the architecture.

    Example:
        >>> import numpy as np
        >>> from cbam_core import initial_network
        >>> small = Architecture("basic", (1, 1), (4, 8), attention="se", num_classes=10)
        >>> run(small, initial_network(small), np.ones((1, 32, 32, 3))).output.shape
        (1, 10)
    """
    check_pictures(x.shape, x.dtype, channel_axis=-1)
    check_weights(network_shapes(architecture), weights)
    float64 = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}
    network = _Network(architecture, float64, training)
    with np.errstate(all="ignore"):
        output, pullback = network(np.asarray(x, np.float64))

    def quiet_pullback(cotangent: Array) -> tuple[Array, Gradients]:
        with np.errstate(all="ignore"):
            dx, gradients = pullback(np.asarray(cotangent, np.float64))
        return dx, {name: g for name, g in gradients.items() if name not in network.maps}

    def map_pullback(cotangent: Array) -> dict[str, Array]:
        with np.errstate(all="ignore"):
            gradients = pullback(np.asarray(cotangent, np.float64))[1]
        return {path: gradients[path] for path in network.maps}

    return NetworkStep(
        output,
        network.statistics,
        network.gates,
        quiet_pullback,
        network.attended,
        network.maps,
        map_pullback,
    )


def attention_maps(architecture: Architecture, weights: Weights, x: Array) -> dict[str, Array]:
    """The gates of the network for x, as `attention_maps` of every package gives them.

    Returns:
        "PATH.channel", (N, 1, 1, C), and "PATH.spatial", (N, H, W, 1), of every attention.
    """
    return run(architecture, weights, x).gates


def grad_cam(
    architecture: Architecture,
    weights: Weights,
    x: Array,
    target: Any = None,
    at: str | None = None,
) -> Array:
    """Grad-CAM of the network for x, as `grad_cam` of every package gives it: (N, H, W).

    Example:
        >>> import numpy as np
        >>> from cbam_core import initial_network
        >>> small = Architecture("basic", (1, 1), (4, 8), attention="cbam", num_classes=10)
        >>> grad_cam(small, initial_network(small), np.ones((1, 32, 32, 3)), target=3).shape
        (1, 4, 4)
    """
    step = run(architecture, weights, x)
    path = explained_path(at or f"stage{len(architecture.stages)}", step.maps, architecture)
    shape = step.output.shape
    chosen = step.output.argmax(1) if target is None else checked_target(target, *shape)
    one_hot = np.broadcast_to(np.eye(architecture.num_classes)[chosen], shape)
    alpha = step.map_pullback(one_hot)[path].mean(SPACE, keepdims=True)
    return np.maximum((alpha * step.maps[path]).sum(-1), 0)


class _Network:
    """The layers of one architecture, with one set of weights and in one mode."""

    def __init__(self, architecture: Architecture, weights: Weights, training: bool) -> None:
        self.architecture, self.weights, self.training = architecture, weights, training
        self.statistics: dict[str, Array] = {}
        self.gates: dict[str, Array] = {}
        self.attended: dict[str, Array] = {}
        self.maps: dict[str, Array] = {}

    def __call__(self, x: Array):
        """head(tail(stages(stem(x))))."""
        stages = map(self.stage, self.architecture.stages)
        tail = self.attention("tail", self.architecture.tail_attention)
        return _chain(self.shown("stem", self.stem()), *stages, tail, self.head())(x)

    def shown(self, path: str, layer: Layer) -> Layer:
        """The layer, whose value is one of the maps, and the gradient by it under its path."""

        def show(x):
            self.maps[path], pullback = layer(x)

            def back(dy):
                dx, gradients = pullback(dy)
                return dx, gradients | {path: dy}

            return self.maps[path], back

        return show

    def stem(self) -> Layer:
        """max_pool(attention(relu(norm(conv(x)))))."""
        unit = self.unit(self.architecture.stem_unit)
        attention = self.attention("stem.attention", self.architecture.stem_attention)
        pool = _weightless(max_pool) if self.architecture.has_max_pool else _identity
        return _chain(unit, _RELU, attention, pool)

    def stage(self, blocks: Sequence[Block]) -> Layer:
        build = self.separable if self.architecture.kind == "separable" else self.residual
        path = blocks[0].path.partition(".")[0]
        return self.shown(path, _chain(*(self.shown(b.path, build(b)) for b in blocks)))

    def residual(self, block: Block) -> Layer:
        """relu(attention(units(x)) + shortcut(x)), with a relu between the units."""
        first, *others = map(self.unit, block.units)
        units = _chain(first, *(_chain(_RELU, unit) for unit in others))
        attentions = (self.attention(path, spec) for path, spec in block.attentions.items())
        shortcut = self.unit(block.projection) if block.projection else _identity
        return _chain(_sum(_chain(units, *attentions), shortcut), _RELU)

    def separable(self, block: Block) -> Layer:
        """attention(relu(norm(conv(x)))), depthwise, then pointwise."""
        paths = [f"{block.path}.attention1", f"{block.path}.attention2"]
        attentions = (self.attention(path, block.attentions.get(path)) for path in paths)
        pairs = zip(map(self.unit, block.units), attentions, strict=True)
        return _chain(*(_chain(unit, _RELU, attention) for unit, attention in pairs))

    def unit(self, unit: Unit) -> Layer:
        """norm(conv(x))."""
        return _chain(self.conv(unit), self.norm(unit.norm))

    def conv(self, unit: Unit) -> Layer:
        options = {"stride": unit.stride, "groups": unit.groups}
        return self.shown(unit.conv, lambda x: at(unit.conv, convolve, x, self.weights, **options))

    def norm(self, path: str) -> Layer:
        weights = under(path, self.weights)

        def normalise(x):
            after = {leaf: weights[leaf] for leaf in ("mean", "var")}
            if self.training:
                _check_count(path, x)
                after = running_statistics(x, weights, momentum=NORM_MOMENTUM)
            self.statistics |= named(path, after)
            options = {"eps": NORM_EPS, "training": self.training}
            return at(path, batch_norm, x, self.weights, **options)

        return self.shown(path, normalise)

    def attention(self, path: str, spec: CBAMSpec | None) -> Layer:
        if spec is None:
            return _identity

        def attend(x, weights):
            step = reference.run(spec, weights, x, training=self.training)
            self.statistics |= named(path, step.statistics)
            self.gates |= named(path, step.gates)
            self.attended[path] = x
            return step.output, step.pullback

        return self.shown(path, lambda x: at(path, attend, x, self.weights))

    def head(self) -> Layer:
        """linear(avg over space), or linear(reduce([avg ; max over space]))."""
        if self.architecture.head == "dual_pooling":
            pools, reduce = _weightless(avg_and_max, SPACE), self.linear("head.reduce")
        else:
            pools, reduce = _weightless(avg, SPACE), _identity
        return _chain(pools, reduce, self.linear("head.linear"), _weightless(_flatten))

    def linear(self, path: str) -> Layer:
        return lambda x: at(path, linear, x, self.weights)


def _chain(*layers: Layer) -> Layer:
    """The layers one behind the other."""

    def chain(x):
        pullbacks = []
        for layer in layers:
            x, pullback = layer(x)
            pullbacks.append(pullback)

        def back(dy):
            gradients: Gradients = {}
            for pullback in reversed(pullbacks):
                dy, own = pullback(dy)
                gradients |= own
            return dy, gradients

        return x, back

    return chain


def _sum(left: Layer, right: Layer) -> Layer:
    """left(x) + right(x)."""

    def both(x):
        y, left_pullback = left(x)
        z, right_pullback = right(x)

        def pullback(dy):
            by_left, left_gradients = left_pullback(dy)
            by_right, right_gradients = right_pullback(dy)
            return by_left + by_right, left_gradients | right_gradients

        return y + z, pullback

    return both


def _weightless(function: Callable[..., Any], *arguments: Any) -> Layer:
    """A function without weights, whose pullback gives the gradient by x alone."""

    def layer(x):
        y, pullback = function(x, *arguments)
        return y, lambda dy: (pullback(dy), {})

    return layer


def _identity(x):
    return x, lambda dy: (dy, {})


def _flatten(x):
    """(N, 1, 1, C) -> (N, C)."""
    return x[:, 0, 0], lambda dy: dy[:, None, None]


def _check_count(path: str, x: Array) -> None:
    if x.size == x.shape[-1]:
        raise ValueError(
            f"{path} sees one position in all (shape {x.shape}), and batch statistics need at "
            f"least 2; pass a larger batch or picture, or switch to evaluation"
        )


_RELU = _weightless(relu)
