"""ResNet, ResNeXt, Wide ResNet and MobileNet, with attention or without, for Keras 3.

A network is built from a `cbam_core.Architecture`, whose paths are its layers' names; feature maps
are (N, H, W, C) of any size, which may be unknown until a graph runs. The dtype policy of a
network is that of all its layers; norms and the gates of attentions compute in at least float32
under every policy.

- ResNet: He et al., https://arxiv.org/abs/1512.03385; ResNeXt: Xie et al.,
  https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko and Komodakis,
  https://arxiv.org/abs/1605.07146; MobileNet: Howard et al., https://arxiv.org/abs/1704.04861.
- Attention in the blocks: Woo et al., https://arxiv.org/abs/1807.06521, figure 3.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import keras
from keras import KerasTensor as Tensor

from cbam_core import Architecture, CBAMSpec, check_pictures
from cbam_core.architectures import NORM_EPS, NORM_MOMENTUM, Block, Unit
from cbam_core.planning import plan
from cbam_keras import ops
from cbam_keras.attention import CBAM
from cbam_keras.layers import BatchNorm, Conv2D, Linear, check_data_format
from cbam_keras.weights import load_canonical, shapes_of

if TYPE_CHECKING:
    from cbam_core import Checkpoint


class Stem(keras.layers.Layer):
    """relu(norm(conv(x))), then attention where there is one, then the max pool likewise."""

    def __init__(
        self, architecture: Architecture, *, synchronized: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        shared: dict[str, Any] = {"dtype": self.dtype_policy, "synchronized": synchronized}
        with keras.name_scope(self.name):
            self.conv, self.norm = conv_and_norm(architecture.stem_unit, **shared)
            self.attention = attention(architecture.stem_attention, name="attention", **shared)
        self.has_max_pool = architecture.has_max_pool
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        x = ops.relu(self.norm(self.conv(x), training=training))
        x = self.attention(x, training=training)
        return ops.max_pool(x) if self.has_max_pool else x


class ResidualBlock(keras.layers.Layer):
    """relu(attention(units(x)) + shortcut(x)), basic or bottleneck; a relu between the units."""

    def __init__(self, block: Block, *, synchronized: bool = False, **options: Any) -> None:
        super().__init__(**options)
        shared: dict[str, Any] = {"dtype": self.dtype_policy, "synchronized": synchronized}
        self.depth = len(block.units)
        with keras.name_scope(self.name):
            for number, unit in enumerate(block.units, 1):
                conv, norm = conv_and_norm(unit, **shared)
                setattr(self, f"conv{number}", conv)
                setattr(self, f"norm{number}", norm)
            spec = next(iter(block.attentions.values()), None)
            self.attention = attention(spec, name="attention", **shared)
            self.projection = projection(block.projection, name="projection", **shared)
        self.built = True

    def units(self, x: Tensor, training: bool = False) -> Tensor:
        for number in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            x = norm(conv(x), training=training)
            x = ops.relu(x) if number < self.depth else x
        return x

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        refined = self.attention(self.units(x, training=training), training=training)
        return ops.relu(refined + self.projection(x, training=training))


class Projection(keras.layers.Layer):
    """norm(conv(x)), the shortcut where a block changes the shape of its map."""

    def __init__(self, unit: Unit, *, synchronized: bool = False, **options: Any) -> None:
        super().__init__(**options)
        shared: dict[str, Any] = {"dtype": self.dtype_policy, "synchronized": synchronized}
        with keras.name_scope(self.name):
            self.conv, self.norm = conv_and_norm(unit, **shared)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return self.norm(self.conv(x), training=training)


class SeparableBlock(keras.layers.Layer):
    """attention(relu(norm(conv(x)))) of a depthwise convolution, then of a pointwise one."""

    def __init__(self, block: Block, *, synchronized: bool = False, **options: Any) -> None:
        super().__init__(**options)
        shared: dict[str, Any] = {"dtype": self.dtype_policy, "synchronized": synchronized}
        depthwise, pointwise = block.units
        first, second = (block.attentions.get(f"{block.path}.attention{n}") for n in (1, 2))
        with keras.name_scope(self.name):
            self.conv1, self.norm1 = conv_and_norm(depthwise, **shared)
            self.conv2, self.norm2 = conv_and_norm(pointwise, **shared)
            self.attention1 = attention(first, name="attention1", **shared)
            self.attention2 = attention(second, name="attention2", **shared)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        x = ops.relu(self.norm1(self.conv1(x), training=training))
        x = self.attention1(x, training=training)
        x = ops.relu(self.norm2(self.conv2(x), training=training))
        return self.attention2(x, training=training)


class Stage(keras.layers.Layer):
    """Blocks one behind the other."""

    def __init__(
        self,
        build: type[ResidualBlock | SeparableBlock],
        blocks: tuple[Block, ...],
        *,
        synchronized: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        shared: dict[str, Any] = {"dtype": self.dtype_policy, "synchronized": synchronized}
        self.depth = len(blocks)
        with keras.name_scope(self.name):
            for number, block in enumerate(blocks):
                layer = build(block, name=f"block{number}", **shared)
                setattr(self, f"block{number}", layer)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        for number in range(self.depth):
            x = getattr(self, f"block{number}")(x, training=training)
        return x


class PlainHead(keras.layers.Layer):
    """linear(avg over space): (N, H, W, C) -> (N, num_classes)."""

    def __init__(self, features: int, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        with keras.name_scope(self.name):
            self.linear = linear(features, num_classes, name="linear", dtype=self.dtype_policy)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        _, (average,) = ops.pool_space(x, ("avg",))
        return self.linear(keras.ops.cast(average, x.dtype))


@keras.saving.register_keras_serializable(package="cbam")
class DualPoolingHead(keras.layers.Layer):
    """linear(dropout(reduce([avg over space ; max over space]))): (N, H, W, C) -> (N, num_classes).

    `reduce` is a 1x1 convolution from 2 C back to C channels, on a map of one position.
    """

    def __init__(
        self, features: int, num_classes: int, *, dropout: float = 0.5, **options: Any
    ) -> None:
        super().__init__(**options)
        self.features, self.num_classes = features, num_classes
        policy = self.dtype_policy
        with keras.name_scope(self.name):
            self.reduce = linear(2 * features, features, name="reduce", dtype=policy)
            self.dropout = keras.layers.Dropout(dropout, name="dropout", dtype=policy)
            self.linear = linear(features, num_classes, name="linear", dtype=policy)
        self.built = True

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        _, descriptors = ops.pool_space(x, ("avg", "max"))
        reduced = self.reduce(keras.ops.cast(keras.ops.concatenate(descriptors, -1), x.dtype))
        return self.linear(self.dropout(reduced, training=training))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "features": self.features,
            "num_classes": self.num_classes,
            "dropout": self.dropout.rate,
        }


@keras.saving.register_keras_serializable(package="cbam")
class Backbone(keras.Model):
    """The network of an architecture.

    It is a model with its own `call`, not a functional one, so that its layers stand under their
    paths, `network.stage1.block0.conv1`, as in the other packages; it has its weights from the
    beginning, and calling it on a `keras.Input` makes it a part of a functional model.

    Args:
        architecture: what to build.
        features_only: whether the head is left out and a call gives the maps of the stem and of
            every stage, as detectors want them.
        data_format: "channels_last", "channels_first" for x (N, 3, H, W) and maps alike, or None
            for Keras' own setting; inside all is channels last.
        synchronized: whether the norms take their statistics over all replicas of a tf.distribute
            strategy, on the TensorFlow backend; on JAX keras.distribution does so by itself.
        **kwargs: name, dtype and the like, see `keras.Model`.

    Shape:
        x (N, H, W, 3) -> logits (N, num_classes), or a list of maps (N, H', W', C).

    Raises:
        TypeError, ValueError: an x of another rank, width or dtype, or too small for batch
            statistics.

    Example:
        >>> import keras
        >>> from cbam_core.architectures import Architecture
        >>> network = Backbone(Architecture.named("resnet18", attention="cbam", num_classes=10))
        >>> tuple(network(keras.random.normal((2, 64, 64, 3))).shape)
        (2, 10)
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        features_only: bool = False,
        data_format: str | None = None,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        shared: dict[str, Any] = {"dtype": policy, "synchronized": synchronized}
        self.architecture, self.features_only = architecture, features_only
        self.synchronized = synchronized
        self.data_format = check_data_format(data_format)
        build = SeparableBlock if architecture.kind == "separable" else ResidualBlock
        with keras.name_scope(self.name):
            self.stem = Stem(architecture, name="stem", **shared)
            for blocks in architecture.stages:
                stage = blocks[0].path.partition(".")[0]
                setattr(self, stage, Stage(build, blocks, name=stage, **shared))
            self.tail = attention(architecture.tail_attention, name="tail", **shared)
            if not features_only:
                head = DualPoolingHead if architecture.head == "dual_pooling" else PlainHead
                features, num_classes = architecture.features, architecture.num_classes
                self.head = head(features, num_classes, name="head", dtype=policy)
        self.built = True

    def features(self, x: Tensor, training: bool = False) -> list[Tensor]:
        """The map behind the stem and behind each stage, the last with the tail's attention."""
        maps = self._features(x, training)
        first = self.data_format == "channels_first"
        return [keras.ops.moveaxis(part, -1, 1) for part in maps] if first else maps

    def _features(self, x: Tensor, training: bool) -> list[Tensor]:
        """The same, channels last."""
        first = self.data_format == "channels_first"
        check_pictures(x.shape, x.dtype, channel_axis=1 if first else -1)
        maps = [self.stem(keras.ops.moveaxis(x, 1, -1) if first else x, training=training)]
        for number in range(1, len(self.architecture.depths) + 1):
            maps.append(getattr(self, f"stage{number}")(maps[-1], training=training))
        return [*maps[:-1], self.tail(maps[-1], training=training)]

    def call(self, x: Tensor, training: bool = False) -> Tensor | list[Tensor]:
        if self.features_only:
            return self.features(x, training=training)
        return self.head(self._features(x, training)[-1], training=training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "architecture": self.architecture.to_dict(),
            "features_only": self.features_only,
            "data_format": self.data_format,
            "synchronized": self.synchronized,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Backbone:
        architecture = Architecture.from_dict(config["architecture"])
        return cls(**{**config, "architecture": architecture})


def conv_and_norm(unit: Unit, *, dtype: Any, synchronized: bool) -> tuple[Conv2D, BatchNorm]:
    """The two layers of a unit, built; the convolution is padded alike on both sides."""
    conv = Conv2D(
        unit.outputs,
        unit.kernel_size,
        strides=unit.stride,
        padding="same",
        data_format="channels_last",
        groups=unit.groups,
        use_bias=False,
        name=unit.conv.rpartition(".")[2],
        dtype=dtype,
    )
    norm = BatchNorm(
        NORM_EPS,
        NORM_MOMENTUM,
        synchronized=synchronized,
        name=unit.norm.rpartition(".")[2],
        dtype=dtype,
    )
    conv.build((None, None, None, unit.inputs))
    norm.build((None, None, None, unit.outputs))
    return conv, norm


def linear(inputs: int, outputs: int, **options: Any) -> Linear:
    """A linear layer, built."""
    layer = Linear(outputs, **options)
    layer.build((None, inputs))
    return layer


def projection(unit: Unit | None, *, synchronized: bool, **options: Any) -> keras.layers.Layer:
    """The shortcut of a block; the identity where it is x itself."""
    if unit is None:
        return keras.layers.Identity(**options)
    return Projection(unit, synchronized=synchronized, **options)


def attention(spec: CBAMSpec | None, *, synchronized: bool, **options: Any) -> keras.layers.Layer:
    """The attention of a spec, built; the identity where there is none."""
    if spec is None:
        return keras.layers.Identity(**options)
    block = CBAM.from_spec(spec, data_format="channels_last", synchronized=synchronized, **options)
    block.build()
    return block


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
    data_format: str | None = None,
    dtype: Any = None,
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
        init: a scheme of `cbam_core.initial_network`, the same values in every framework; Keras'
            own initial values if None.
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

    >>> import math
    >>> sum(math.prod(w.shape) for w in resnet18(attention="cbam").trainable_weights)
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
