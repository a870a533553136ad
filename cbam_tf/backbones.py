"""ResNet, ResNeXt, Wide ResNet and MobileNet, with attention or without, for TensorFlow.

A network is built from a `cbam_core.Architecture`, whose paths are its modules' names; feature
maps are (N, H, W, C) of any size, which may be unknown until a graph runs. `training`, a Python
bool, is whether norms take their statistics from x and move the running ones, and whether a head
drops out.

- ResNet: He et al., https://arxiv.org/abs/1512.03385; ResNeXt: Xie et al.,
  https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko and Komodakis,
  https://arxiv.org/abs/1605.07146; MobileNet: Howard et al., https://arxiv.org/abs/1704.04861.
- Attention in the blocks: Woo et al., https://arxiv.org/abs/1807.06521, figure 3.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from cbam_core import Architecture, CBAMSpec, check_pictures
from cbam_core.architectures import NORM_EPS, NORM_MOMENTUM, Block, Unit
from cbam_core.planning import plan
from cbam_tf import ops
from cbam_tf.attention import CBAM
from cbam_tf.layers import (
    CHANNEL_AXIS,
    BatchNorm,
    Conv,
    Dropout,
    Identity,
    Linear,
    check_data_format,
)
from cbam_tf.weights import load_canonical, shapes_of

if TYPE_CHECKING:
    from cbam_core import Checkpoint


class Stem(tf.Module):
    """relu(norm(conv(x))), then attention where there is one, then the max pool likewise."""

    def __init__(
        self, architecture: Architecture, *, name: str | None = None, **options: Any
    ) -> None:
        super().__init__(name)
        with self.name_scope:
            self.conv, self.norm = conv_and_norm(architecture.stem_unit, **options)
            self.attention = attention(architecture.stem_attention, name="attention", **options)
        self.has_max_pool = architecture.has_max_pool

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = ops.relu(self.norm(self.conv(x), training=training))
        x = self.attention(x, training=training)
        return ops.max_pool(x) if self.has_max_pool else x


class ResidualBlock(tf.Module):
    """relu(attention(units(x)) + shortcut(x)), basic or bottleneck; a relu between the units."""

    def __init__(self, block: Block, *, name: str | None = None, **options: Any) -> None:
        super().__init__(name)
        self.depth = len(block.units)
        with self.name_scope:
            for number, unit in enumerate(block.units, 1):
                conv, norm = conv_and_norm(unit, **options)
                setattr(self, f"conv{number}", conv)
                setattr(self, f"norm{number}", norm)
            spec = next(iter(block.attentions.values()), None)
            self.attention = attention(spec, name="attention", **options)
            self.projection = projection(block.projection, name="projection", **options)

    def units(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for number in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            x = norm(conv(x), training=training)
            x = ops.relu(x) if number < self.depth else x
        return x

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        refined = self.attention(self.units(x, training=training), training=training)
        return ops.relu(refined + self.projection(x, training=training))


class Projection(tf.Module):
    """norm(conv(x)), the shortcut where a block changes the shape of its map."""

    def __init__(self, unit: Unit, *, name: str | None = None, **options: Any) -> None:
        super().__init__(name)
        with self.name_scope:
            self.conv, self.norm = conv_and_norm(unit, **options)

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.norm(self.conv(x), training=training)


class SeparableBlock(tf.Module):
    """attention(relu(norm(conv(x)))) of a depthwise convolution, then of a pointwise one."""

    def __init__(self, block: Block, *, name: str | None = None, **options: Any) -> None:
        super().__init__(name)
        depthwise, pointwise = block.units
        first, second = (block.attentions.get(f"{block.path}.attention{n}") for n in (1, 2))
        with self.name_scope:
            self.conv1, self.norm1 = conv_and_norm(depthwise, **options)
            self.conv2, self.norm2 = conv_and_norm(pointwise, **options)
            self.attention1 = attention(first, name="attention1", **options)
            self.attention2 = attention(second, name="attention2", **options)

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = ops.relu(self.norm1(self.conv1(x), training=training))
        x = self.attention1(x, training=training)
        x = ops.relu(self.norm2(self.conv2(x), training=training))
        return self.attention2(x, training=training)


class Stage(tf.Module):
    """Blocks one behind the other."""

    def __init__(
        self,
        build: type[ResidualBlock | SeparableBlock],
        blocks: tuple[Block, ...],
        *,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name)
        self.depth = len(blocks)
        with self.name_scope:
            for number, block in enumerate(blocks):
                setattr(self, f"block{number}", build(block, name=f"block{number}", **options))

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for number in range(self.depth):
            x = getattr(self, f"block{number}")(x, training=training)
        return x


class PlainHead(tf.Module):
    """linear(avg over space): (N, H, W, C) -> (N, num_classes)."""

    def __init__(
        self, features: int, num_classes: int, *, name: str | None = None, **options: Any
    ) -> None:
        super().__init__(name)
        with self.name_scope:
            self.linear = Linear(features, num_classes, bias=True, name="linear", **options)

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        _, (average,) = ops.pool_space(x, ("avg",))
        return self.linear(tf.cast(average, x.dtype))


class DualPoolingHead(tf.Module):
    """linear(dropout(reduce([avg over space ; max over space]))): (N, H, W, C) -> (N, num_classes).

    `reduce` is a 1x1 convolution from 2 C back to C channels, on a map of one position.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        dropout: float = 0.5,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name)
        with self.name_scope:
            self.reduce = Linear(2 * features, features, bias=True, name="reduce", **options)
            self.dropout = Dropout(dropout, name="dropout")
            self.linear = Linear(features, num_classes, bias=True, name="linear", **options)

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        _, descriptors = ops.pool_space(x, ("avg", "max"))
        reduced = self.reduce(tf.cast(tf.concat(descriptors, -1), x.dtype))
        return self.linear(self.dropout(reduced, training=training))


class Backbone(tf.Module):
    """The network of an architecture.

    Args:
        architecture: what to build.
        features_only: whether the head is left out and a call gives the maps of the stem and of
            every stage, as detectors want them.
        data_format: "channels_last", or "channels_first" for x (N, 3, H, W) and maps alike; inside
            all is channels last.
        dtype: of the parameters; a norm's stay at least float32.
        synchronized: whether the norms take their statistics over all replicas of a tf.distribute
            strategy.

    Shape:
        x (N, H, W, 3) -> logits (N, num_classes), or a list of maps (N, H', W', C).

    Raises:
        TypeError, ValueError: an x of another rank, width or dtype, or too small for batch
            statistics.

    Example:
        >>> import tensorflow as tf
        >>> from cbam_core.architectures import Architecture
        >>> network = Backbone(Architecture.named("resnet18", attention="cbam", num_classes=10))
        >>> network(tf.random.normal([2, 64, 64, 3])).shape
        TensorShape([2, 10])
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        features_only: bool = False,
        data_format: str = "channels_last",
        dtype: tf.DType = tf.float32,
        synchronized: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.architecture, self.features_only = architecture, features_only
        self.data_format = check_data_format(data_format)
        with_norm = {"dtype": dtype, "synchronized": synchronized}
        build = SeparableBlock if architecture.kind == "separable" else ResidualBlock
        with self.name_scope:
            self.stem = Stem(architecture, name="stem", **with_norm)
            for blocks in architecture.stages:
                stage = blocks[0].path.partition(".")[0]
                setattr(self, stage, Stage(build, blocks, name=stage, **with_norm))
            self.tail = attention(architecture.tail_attention, name="tail", **with_norm)
            if not features_only:
                head = DualPoolingHead if architecture.head == "dual_pooling" else PlainHead
                features, num_classes = architecture.features, architecture.num_classes
                self.head = head(features, num_classes, dtype=dtype, name="head")

    def features(self, x: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """The map behind the stem and behind each stage, the last with the tail's attention."""
        maps = self._features(x, training)
        first = self.data_format == "channels_first"
        return [tf.transpose(part, (0, 3, 1, 2)) for part in maps] if first else maps

    def _features(self, x: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """The same, channels last."""
        maps = [self.stem(self._channels_last(x), training=training)]
        for number in range(1, len(self.architecture.depths) + 1):
            maps.append(getattr(self, f"stage{number}")(maps[-1], training=training))
        return [*maps[:-1], self.tail(maps[-1], training=training)]

    def _channels_last(self, x: tf.Tensor) -> tf.Tensor:
        """x, checked, in the layout in which the network computes on every device."""
        x = tf.convert_to_tensor(x)
        shape = (None,) * 4 if x.shape.rank is None else tuple(x.shape)
        check_pictures(shape, x.dtype, channel_axis=CHANNEL_AXIS[self.data_format])
        if self.data_format == "channels_last":
            return tf.ensure_shape(x, (None, None, None, 3))
        return tf.transpose(tf.ensure_shape(x, (None, 3, None, None)), (0, 2, 3, 1))

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor | list[tf.Tensor]:
        if self.features_only:
            return self.features(x, training=training)
        return self.head(self._features(x, training)[-1], training=training)


def conv_and_norm(unit: Unit, *, dtype: tf.DType, synchronized: bool) -> tuple[Conv, BatchNorm]:
    """The two layers of a unit, the convolution padded alike on both sides."""
    conv = Conv(
        2,
        unit.inputs,
        unit.outputs,
        unit.kernel_size,
        stride=unit.stride,
        groups=unit.groups,
        bias=False,
        dtype=dtype,
        name=unit.conv.rpartition(".")[2],
    )
    norm = BatchNorm(
        unit.outputs,
        NORM_EPS,
        NORM_MOMENTUM,
        dtype=dtype,
        synchronized=synchronized,
        name=unit.norm.rpartition(".")[2],
    )
    return conv, norm


def projection(unit: Unit | None, *, name: str, **options: Any) -> tf.Module:
    """The shortcut of a block; the identity where it is x itself."""
    return Projection(unit, name=name, **options) if unit else Identity(name)


def attention(spec: CBAMSpec | None, *, name: str, **options: Any) -> tf.Module:
    """The attention of a spec; the identity where there is none."""
    return CBAM.from_spec(spec, name=name, **options) if spec else Identity(name)


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
    weights: os.PathLike[str] | str | Checkpoint | None = None,
    init: str | None = None,
    seed: int = 0,
    data_format: str = "channels_last",
    dtype: tf.DType = tf.float32,
    synchronized: bool = False,
    **fields: Any,
) -> Backbone:
    """The network of a factory.

    Args:
        name: of the factory, a key of `cbam_core.ARCHITECTURES`.
        attention, placement, stem, stride_on, num_classes, head, ...: see
            `cbam_core.Architecture`, which has the defaults.
        spec: of the attention, a preset's name or a CBAMSpec, whose channels do not count; the
            authors' if None.
        features_only: see `Backbone`.
        weights: a file of a whole network in any dialect, or what `cbam_core.read` found in it;
            the architecture comes from there. head="new" gives it a new head of `num_classes`,
            and an attention that it lacks is new; a warning names what is.
        init: a scheme of `cbam_core.initial_network`, the same values in every framework; he_normal
            kernels if None.
        seed: of `init`.
        data_format, dtype, synchronized: see `Backbone`.

    Raises:
        ValueError, TypeError: an argument that no such network can have, or another than the
            network of the file.
        FileNotFoundError, ImportError, CheckpointError: as `cbam_core.read`.
    """
    architecture, values = plan(
        name,
        weights=weights,
        spec=spec,
        features_only=features_only,
        init=init,
        seed=seed,
        attention=attention,
        placement=placement,
        stem=stem,
        stride_on=stride_on,
        num_classes=num_classes,
        head=head,
        **fields,
    )
    network = Backbone(
        architecture,
        features_only=features_only,
        data_format=data_format,
        dtype=dtype,
        synchronized=synchronized,
    )
    if values is not None:
        load_canonical(network, {name: values[name] for name in shapes_of(network)})
    return network


def resnet18(**arguments: Any) -> Backbone:
    """ResNet-18; see `build` for the arguments.

    >>> sum(v.shape.num_elements() for v in resnet18(attention="cbam").trainable_variables)
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
