"""ResNet, ResNeXt, Wide ResNet and MobileNet, with attention or without, for Flax linen.

A network is built from a `cbam_core.Architecture`, whose paths are its modules' names; feature
maps are (N, H, W, C) of any size. As nn.BatchNorm does, a network takes `use_running_average` as
a field or at the call, and keeps its statistics in "batch_stats".

- ResNet: He et al., https://arxiv.org/abs/1512.03385; ResNeXt: Xie et al.,
  https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko and Komodakis,
  https://arxiv.org/abs/1605.07146; MobileNet: Howard et al., https://arxiv.org/abs/1704.04861.
- Attention in the blocks: Woo et al., https://arxiv.org/abs/1807.06521, figure 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Dtype
from jax import Array

from cbam_core import Architecture, CBAMSpec, check_pictures
from cbam_core.architectures import NORM_EPS, NORM_MOMENTUM, Block, Unit
from cbam_core.planning import plan
from cbam_flax.linen.attention import CBAM
from cbam_flax.linen.layers import BatchNorm
from cbam_flax.ops import avg, max, relu


class Part(nn.Module):
    """A part of a network, with the options that it hands on to its own parts."""

    _: KW_ONLY
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "axis_name": self.axis_name,
        }


class Stem(Part):
    """relu(norm(conv(x))), then attention where there is one, then the max pool likewise."""

    architecture: Architecture

    def setup(self) -> None:
        self.conv, self.norm = conv_and_norm(self.architecture.stem_unit, **self.options)
        self.attention = attention(self.architecture.stem_attention, **self.options)

    def __call__(self, x: Array, use_running_average: bool) -> Array:
        x = relu(self.norm(self.conv(x), use_running_average))
        x = self.attention(x, use_running_average)
        has_max_pool = self.architecture.has_max_pool
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if has_max_pool else x


class ResidualBlock(Part):
    """relu(attention(units(x)) + shortcut(x)), basic or bottleneck; a relu between the units."""

    block: Block

    def setup(self) -> None:
        for number, unit in enumerate(self.block.units, 1):
            conv, norm = conv_and_norm(unit, **self.options)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"norm{number}", norm)
        self.attention = attention(next(iter(self.block.attentions.values()), None), **self.options)
        self.projection = projection(self.block.projection, **self.options)

    def units(self, x: Array, use_running_average: bool) -> Array:
        depth = len(self.block.units)
        for number in range(1, depth + 1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            x = norm(conv(x), use_running_average)
            x = relu(x) if number < depth else x
        return x

    def __call__(self, x: Array, use_running_average: bool) -> Array:
        y = self.attention(self.units(x, use_running_average), use_running_average)
        return relu(y + self.projection(x, use_running_average))


class Projection(Part):
    """norm(conv(x)), the shortcut where a block changes the shape of its map."""

    unit: Unit

    def setup(self) -> None:
        self.conv, self.norm = conv_and_norm(self.unit, **self.options)

    def __call__(self, x: Array, use_running_average: bool) -> Array:
        return self.norm(self.conv(x), use_running_average)


class SeparableBlock(Part):
    """attention(relu(norm(conv(x)))) of a depthwise convolution, then of a pointwise one."""

    block: Block

    def setup(self) -> None:
        depthwise, pointwise = self.block.units
        self.conv1, self.norm1 = conv_and_norm(depthwise, **self.options)
        self.conv2, self.norm2 = conv_and_norm(pointwise, **self.options)
        specs, path = self.block.attentions, self.block.path
        self.attention1 = attention(specs.get(f"{path}.attention1"), **self.options)
        self.attention2 = attention(specs.get(f"{path}.attention2"), **self.options)

    def __call__(self, x: Array, use_running_average: bool) -> Array:
        x = relu(self.norm1(self.conv1(x), use_running_average))
        x = self.attention1(x, use_running_average)
        x = relu(self.norm2(self.conv2(x), use_running_average))
        return self.attention2(x, use_running_average)


class Stage(Part):
    """Blocks one behind the other."""

    build: type[ResidualBlock | SeparableBlock]
    blocks: tuple[Block, ...]

    def setup(self) -> None:
        for number, block in enumerate(self.blocks):
            setattr(self, f"block{number}", self.build(block, **self.options))

    def __call__(self, x: Array, use_running_average: bool) -> Array:
        for number in range(len(self.blocks)):
            x = getattr(self, f"block{number}")(x, use_running_average)
        return x


class PlainHead(nn.Module):
    """linear(avg over space): (N, H, W, C) -> (N, num_classes)."""

    features: int
    num_classes: int
    _: KW_ONLY
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        options: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.linear = nn.Dense(self.num_classes, **options)

    def __call__(self, x: Array, deterministic: bool) -> Array:
        return self.linear(x.mean((-3, -2)))


class DualPoolingHead(nn.Module):
    """linear(dropout(reduce([avg over space ; max over space]))): (N, H, W, C) -> (N, num_classes).

    `reduce` is a 1x1 convolution from 2 C back to C channels, on a map of one position.
    """

    features: int
    num_classes: int
    _: KW_ONLY
    dropout: float = 0.5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        options: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.reduce = nn.Dense(self.features, **options)
        self.drop = nn.Dropout(self.dropout)
        self.linear = nn.Dense(self.num_classes, **options)

    def __call__(self, x: Array, deterministic: bool) -> Array:
        space = (-3, -2)
        descriptors = jnp.concatenate([avg(x, space), max(x, space)], -1).squeeze(space)
        return self.linear(self.drop(self.reduce(descriptors), deterministic))


class Backbone(Part):
    """The network of an architecture.

    Args:
        architecture: what to build.
        features_only: whether the head is left out and a call gives the maps of the stem and
            of every stage, as detectors want them.
        dtype: of the computation and the output, to which the input is cast; None for that of the
            input and the parameters together.
        param_dtype: of the parameters; a norm's stay at least float32.
        axis_name: the mapped axis (of jax.pmap, say) over which the norms take their statistics.
        use_running_average: whether the norms use their running statistics and not those of the
            batch, and a head drops nothing out; here or at the call.

    Shape:
        x (N, H, W, 3) -> logits (N, num_classes), or a list of maps (N, H', W', C).

    Raises:
        TypeError, ValueError: an x of another rank, width or dtype, or too small for batch
            statistics.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from cbam_core.architectures import Architecture
        >>> architecture = Architecture.named("resnet18", attention="cbam", num_classes=10)
        >>> network, x = Backbone(architecture), jnp.ones((2, 64, 64, 3))
        >>> variables = jax.jit(network.init)(jax.random.key(0), x)
        >>> network.apply(variables, x, use_running_average=True).shape
        (2, 10)
    """

    architecture: Architecture
    _: KW_ONLY
    features_only: bool = False
    use_running_average: bool | None = None

    def setup(self) -> None:
        architecture = self.architecture
        self.stem = Stem(architecture, **self.options)
        build = SeparableBlock if architecture.kind == "separable" else ResidualBlock
        for blocks in architecture.stages:
            stage = blocks[0].path.partition(".")[0]
            setattr(self, stage, Stage(build, blocks, **self.options))
        self.tail = attention(architecture.tail_attention, **self.options)
        if not self.features_only:
            head = DualPoolingHead if architecture.head == "dual_pooling" else PlainHead
            options: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            self.head = head(architecture.features, architecture.num_classes, **options)

    def features(self, x: Array, use_running_average: bool | None = None) -> list[Array]:
        """The map behind the stem and behind each stage, the last with the tail's attention."""
        x = jnp.asarray(x, self.dtype)
        check_pictures(x.shape, x.dtype, channel_axis=-1)
        fixed = self.is_evaluating(use_running_average)
        maps = [self.stem(x, fixed)]
        for number in range(1, len(self.architecture.depths) + 1):
            maps.append(getattr(self, f"stage{number}")(maps[-1], fixed))
        return [*maps[:-1], self.tail(maps[-1], fixed)]

    def __call__(self, x: Array, use_running_average: bool | None = None) -> Array | list[Array]:
        maps = self.features(x, use_running_average)
        if self.features_only:
            return maps
        return self.head(maps[-1], self.is_evaluating(use_running_average))

    def is_evaluating(self, use_running_average: bool | None) -> bool:
        """The mode by the field or the argument; `init` leaves the statistics as they start."""
        return self.is_initializing() or nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )


def conv_and_norm(
    unit: Unit, *, dtype: Dtype | None, param_dtype: Dtype, axis_name: str | None
) -> tuple[nn.Conv, BatchNorm]:
    """The two layers of a unit, the convolution padded alike on both sides."""
    conv = nn.Conv(
        unit.outputs,
        (unit.kernel_size,) * 2,
        strides=unit.stride,
        padding=unit.kernel_size // 2,
        feature_group_count=unit.groups,
        use_bias=False,
        dtype=dtype,
        param_dtype=param_dtype,
    )
    options: dict[str, Any] = {"param_dtype": param_dtype, "axis_name": axis_name}
    return conv, BatchNorm(NORM_EPS, NORM_MOMENTUM, **options)


def attention(spec: CBAMSpec | None, **options: Any) -> Callable[[Array, bool], Array]:
    """The attention of a spec; the identity where there is none."""
    return CBAM.from_spec(spec, **options) if spec else identity


def projection(unit: Unit | None, **options: Any) -> Callable[[Array, bool], Array]:
    """The shortcut of a block; the identity where it is x itself."""
    return Projection(unit, **options) if unit else identity


def identity(x: Array, use_running_average: bool) -> Array:
    """x itself, in either mode."""
    return x


def build(
    name: str,
    *,
    attention: str | None = None,
    spec: CBAMSpec | str | None = None,
    placement: str | None = None,
    stem: str | None = None,
    stride_on: str | None = None,
    num_classes: int | None = None,
    head: str | None = None,
    features_only: bool = False,
    dtype: Dtype | None = None,
    param_dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    use_running_average: bool | None = None,
    **fields: Any,
) -> Backbone:
    """The network of a factory.

    Its variables come from `network.init`, or, the same in every framework, from
    `initial_variables`; `pretrained` gives both from a file.

    Args:
        name: of the factory, a key of `cbam_core.ARCHITECTURES`.
        attention, placement, stem, stride_on, num_classes, head, ...: see
            `cbam_core.Architecture`, which has the defaults.
        spec: of the attention, a preset's name or a CBAMSpec, whose channels do not count; the
            authors' if None.
        features_only, dtype, param_dtype, axis_name, use_running_average: see `Backbone`.

    Raises:
        ValueError, TypeError: an argument that no such network can have.
    """
    architecture, _ = plan(
        name,
        weights=None,
        spec=spec,
        features_only=features_only,
        init=None,
        seed=0,
        attention=attention,
        placement=placement,
        stem=stem,
        stride_on=stride_on,
        num_classes=num_classes,
        head=head,
        **fields,
    )
    return Backbone(
        architecture,
        features_only=features_only,
        dtype=dtype,
        param_dtype=param_dtype,
        axis_name=axis_name,
        use_running_average=use_running_average,
    )


def resnet18(**arguments: Any) -> Backbone:
    """ResNet-18; see `build` for the arguments.

    >>> import jax
    >>> network, x = resnet18(attention="cbam"), jnp.ones((1, 32, 32, 3))
    >>> variables = jax.eval_shape(network.init, jax.random.key(0), x)
    >>> sum(p.size for p in jax.tree.leaves(variables["params"]))
    11779392
    """
    return build("resnet18", **arguments)


def resnet34(**arguments: Any) -> Backbone:
    """ResNet-34; see `build` for the arguments."""
    return build("resnet34", **arguments)


def resnet50(**arguments: Any) -> Backbone:
    """ResNet-50; see `build` for the arguments."""
    return build("resnet50", **arguments)


def resnet101(**arguments: Any) -> Backbone:
    """ResNet-101; see `build` for the arguments."""
    return build("resnet101", **arguments)


def resnet152(**arguments: Any) -> Backbone:
    """ResNet-152; see `build` for the arguments."""
    return build("resnet152", **arguments)


def resnext50_32x4d(**arguments: Any) -> Backbone:
    """ResNeXt-50 of 32 groups of width 4; see `build` for the arguments."""
    return build("resnext50_32x4d", **arguments)


def resnext101_32x4d(**arguments: Any) -> Backbone:
    """ResNeXt-101 of 32 groups of width 4; see `build` for the arguments."""
    return build("resnext101_32x4d", **arguments)


def wide_resnet18(*, widen: float | None = None, **arguments: Any) -> Backbone:
    """ResNet-18, `widen` times as wide behind its stem; see `build` for the other arguments."""
    return build("wide_resnet18", widen=widen, **arguments)


def mobilenet(*, widen: float | None = None, **arguments: Any) -> Backbone:
    """MobileNet, `widen` times as wide; see `build` for the other arguments."""
    return build("mobilenet", widen=widen, **arguments)
