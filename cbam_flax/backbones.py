"""ResNet, ResNeXt, Wide ResNet and MobileNet, with attention or without, for Flax nnx.

A network is built from a `cbam_core.Architecture`, whose paths are its modules' names; feature
maps are (N, H, W, C) of any size.

- ResNet: He et al., https://arxiv.org/abs/1512.03385; ResNeXt: Xie et al.,
  https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko and Komodakis,
  https://arxiv.org/abs/1605.07146; MobileNet: Howard et al., https://arxiv.org/abs/1704.04861.
- Attention in the blocks: Woo et al., https://arxiv.org/abs/1807.06521, figure 3.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import Array

from cbam_core import Architecture, CBAMSpec, check_pictures
from cbam_core.architectures import NORM_EPS, NORM_MOMENTUM, Block, Unit
from cbam_core.planning import plan
from cbam_flax.attention import CBAM
from cbam_flax.layers import BatchNorm
from cbam_flax.ops import avg, max, relu
from cbam_flax.weights import load_canonical, shapes_of

if TYPE_CHECKING:
    from cbam_core import Checkpoint


class Stem(nnx.Module):
    """relu(norm(conv(x))), then attention where there is one, then the max pool likewise."""

    def __init__(self, architecture: Architecture, **options: Any) -> None:
        self.conv, self.norm = conv_and_norm(architecture.stem_unit, **options)
        self.attention = attention(architecture.stem_attention, **options)
        self.has_max_pool = architecture.has_max_pool

    def __call__(self, x: Array) -> Array:
        x = self.attention(relu(self.norm(self.conv(x))))
        return nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if self.has_max_pool else x


class ResidualBlock(nnx.Module):
    """relu(attention(units(x)) + shortcut(x)), basic or bottleneck; a relu between the units."""

    def __init__(self, block: Block, **options: Any) -> None:
        self.depth = len(block.units)
        for number, unit in enumerate(block.units, 1):
            conv, norm = conv_and_norm(unit, **options)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"norm{number}", norm)
        self.attention = attention(next(iter(block.attentions.values()), None), **options)
        self.projection = projection(block.projection, **options)

    def units(self, x: Array) -> Array:
        for number in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            x = norm(conv(x))
            x = relu(x) if number < self.depth else x
        return x

    def __call__(self, x: Array) -> Array:
        return relu(self.attention(self.units(x)) + self.projection(x))


class Projection(nnx.Module):
    """norm(conv(x)), the shortcut where a block changes the shape of its map."""

    def __init__(self, unit: Unit, **options: Any) -> None:
        self.conv, self.norm = conv_and_norm(unit, **options)

    def __call__(self, x: Array) -> Array:
        return self.norm(self.conv(x))


class SeparableBlock(nnx.Module):
    """attention(relu(norm(conv(x)))) of a depthwise convolution, then of a pointwise one."""

    def __init__(self, block: Block, **options: Any) -> None:
        depthwise, pointwise = block.units
        self.conv1, self.norm1 = conv_and_norm(depthwise, **options)
        self.conv2, self.norm2 = conv_and_norm(pointwise, **options)
        specs = block.attentions
        self.attention1 = attention(specs.get(f"{block.path}.attention1"), **options)
        self.attention2 = attention(specs.get(f"{block.path}.attention2"), **options)

    def __call__(self, x: Array) -> Array:
        x = self.attention1(relu(self.norm1(self.conv1(x))))
        return self.attention2(relu(self.norm2(self.conv2(x))))


class Stage(nnx.Module):
    """Blocks one behind the other."""

    def __init__(
        self, build: type[ResidualBlock | SeparableBlock], blocks: tuple[Block, ...], **options: Any
    ) -> None:
        self.depth = len(blocks)
        for number, block in enumerate(blocks):
            setattr(self, f"block{number}", build(block, **options))

    def __call__(self, x: Array) -> Array:
        for number in range(self.depth):
            x = getattr(self, f"block{number}")(x)
        return x


class PlainHead(nnx.Module):
    """linear(avg over space): (N, H, W, C) -> (N, num_classes)."""

    def __init__(self, features: int, num_classes: int, **options: Any) -> None:
        self.linear = nnx.Linear(features, num_classes, **options)

    def __call__(self, x: Array) -> Array:
        return self.linear(x.mean((-3, -2)))


class DualPoolingHead(nnx.Module):
    """linear(dropout(reduce([avg over space ; max over space]))): (N, H, W, C) -> (N, num_classes).

    `reduce` is a 1x1 convolution from 2 C back to C channels, on a map of one position.
    """

    def __init__(
        self, features: int, num_classes: int, *, dropout: float = 0.5, **options: Any
    ) -> None:
        self.reduce = nnx.Linear(2 * features, features, **options)
        self.dropout = nnx.Dropout(dropout, rngs=options["rngs"])
        self.linear = nnx.Linear(features, num_classes, **options)

    def __call__(self, x: Array) -> Array:
        space = (-3, -2)
        descriptors = jnp.concatenate([avg(x, space), max(x, space)], -1).squeeze(space)
        return self.linear(self.dropout(self.reduce(descriptors)))


class Backbone(nnx.Module):
    """The network of an architecture.

    Args:
        architecture: what to build.
        features_only: whether the head is left out and a call gives the maps of the stem and
            of every stage, as detectors want them.
        dtype: of the computation and the output, to which the input is cast; None for that of the
            input and the parameters together.
        param_dtype: of the parameters; a norm's stay at least float32.
        axis_name: the mapped axis (of jax.pmap, say) over which the norms take their statistics.
        rngs: for the parameters' initial values, and for a head's dropout.

    Shape:
        x (N, H, W, 3) -> logits (N, num_classes), or a list of maps (N, H', W', C).

    Raises:
        TypeError, ValueError: an x of another rank, width or dtype, or too small for batch
            statistics.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from cbam_core.architectures import Architecture
        >>> architecture = Architecture.named("resnet18", attention="cbam", num_classes=10)
        >>> network = Backbone(architecture, rngs=nnx.Rngs(0))
        >>> network(jnp.ones((2, 64, 64, 3))).shape
        (2, 10)
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        features_only: bool = False,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.architecture, self.features_only, self.dtype = architecture, features_only, dtype
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        with_norm = {**options, "axis_name": axis_name}
        self.stem = Stem(architecture, **with_norm)
        build = SeparableBlock if architecture.kind == "separable" else ResidualBlock
        for blocks in architecture.stages:
            stage = blocks[0].path.partition(".")[0]
            setattr(self, stage, Stage(build, blocks, **with_norm))
        self.tail = attention(architecture.tail_attention, **with_norm)
        if not features_only:
            head = DualPoolingHead if architecture.head == "dual_pooling" else PlainHead
            self.head = head(architecture.features, architecture.num_classes, **options)

    def features(self, x: Array) -> list[Array]:
        """The map behind the stem and behind each stage, the last with the tail's attention."""
        x = jnp.asarray(x, self.dtype)
        check_pictures(x.shape, x.dtype, channel_axis=-1)
        maps = [self.stem(x)]
        for number in range(1, len(self.architecture.depths) + 1):
            maps.append(getattr(self, f"stage{number}")(maps[-1]))
        return [*maps[:-1], self.tail(maps[-1])]

    def __call__(self, x: Array) -> Array | list[Array]:
        maps = self.features(x)
        return maps if self.features_only else self.head(maps[-1])


def conv_and_norm(
    unit: Unit, *, dtype: Dtype | None, param_dtype: Dtype, axis_name: str | None, rngs: nnx.Rngs
) -> tuple[nnx.Conv, BatchNorm]:
    """The two layers of a unit, the convolution padded alike on both sides."""
    conv = nnx.Conv(
        unit.inputs,
        unit.outputs,
        (unit.kernel_size,) * 2,
        strides=unit.stride,
        padding=unit.kernel_size // 2,
        feature_group_count=unit.groups,
        use_bias=False,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )
    options: dict[str, Any] = {"param_dtype": param_dtype, "axis_name": axis_name}
    return conv, BatchNorm(unit.outputs, NORM_EPS, NORM_MOMENTUM, **options)


def attention(spec: CBAMSpec | None, **options: Any) -> Callable[[Array], Array]:
    """The attention of a spec; the identity where there is none."""
    return CBAM.from_spec(spec, **options) if spec else jax.nn.identity


def projection(unit: Unit | None, **options: Any) -> Callable[[Array], Array]:
    """The shortcut of a block; the identity where it is x itself."""
    return Projection(unit, **options) if unit else jax.nn.identity


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
    dtype: Dtype | None = None,
    param_dtype: Dtype = jnp.float32,
    axis_name: str | None = None,
    rngs: nnx.Rngs,
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
        init: a scheme of `cbam_core.initial_network`, the same values in every framework; nnx's
            own initial values if None.
        seed: of `init`.
        dtype, param_dtype, axis_name, rngs: see `Backbone`.

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
    options: dict[str, Any] = {
        "features_only": features_only,
        "dtype": dtype,
        "param_dtype": param_dtype,
        "axis_name": axis_name,
    }
    if values is None:
        return Backbone(architecture, rngs=rngs, **options)
    # Only the shapes: what draws other values would take JAX long to compile.
    network = nnx.eval_shape(
        lambda: Backbone(architecture, rngs=nnx.Rngs(params=0, dropout=0), **options)
    )
    load_canonical(network, {name: values[name] for name in shapes_of(network)})
    if architecture.head == "dual_pooling" and not features_only:
        nnx.reseed(network, dropout=rngs.dropout())
    return network


def resnet18(**arguments: Any) -> Backbone:
    """ResNet-18; see `build` for the arguments.

    >>> import jax
    >>> network = resnet18(attention="cbam", rngs=nnx.Rngs(0))
    >>> sum(p.size for p in jax.tree.leaves(nnx.state(network, nnx.Param)))
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
