"""ResNet, ResNeXt, Wide ResNet and MobileNet, with attention or without, for PyTorch.

A network is built from a `cbam_core.Architecture`, whose paths are its modules' names; feature
maps are (N, C, H, W) of any size.

- ResNet: He et al., https://arxiv.org/abs/1512.03385; ResNeXt: Xie et al.,
  https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko and Komodakis,
  https://arxiv.org/abs/1605.07146; MobileNet: Howard et al., https://arxiv.org/abs/1704.04861.
- Attention in the blocks: Woo et al., https://arxiv.org/abs/1807.06521, figure 3.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core import Architecture, CBAMSpec, check_pictures
from cbam_core.architectures import NORM_EPS, NORM_MOMENTUM, Block, Unit
from cbam_core.planning import plan
from cbam_torch.attention import CBAM
from cbam_torch.layers import BatchNorm
from cbam_torch.weights import load_canonical, shapes_of

if TYPE_CHECKING:
    from cbam_core import Checkpoint


class Stem(nn.Module):
    """relu(norm(conv(x))), then attention where there is one, then the max pool likewise."""

    def __init__(self, architecture: Architecture, **options: Any) -> None:
        super().__init__()
        self.conv, self.norm = conv_and_norm(architecture.stem_unit, **options)
        self.attention = attention(architecture.stem_attention, **options)
        self.has_max_pool = architecture.has_max_pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(F.relu(self.norm(self.conv(x))))
        return F.max_pool2d(x, 3, stride=2, padding=1) if self.has_max_pool else x


class ResidualBlock(nn.Module):
    """relu(attention(units(x)) + shortcut(x)), basic or bottleneck; a relu between the units."""

    def __init__(self, block: Block, **options: Any) -> None:
        super().__init__()
        self.depth = len(block.units)
        for number, unit in enumerate(block.units, 1):
            conv, norm = conv_and_norm(unit, **options)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"norm{number}", norm)
        self.attention = attention(next(iter(block.attentions.values()), None), **options)
        self.projection: nn.Module = nn.Identity()
        if block.projection:
            conv, norm = conv_and_norm(block.projection, **options)
            self.projection = nn.Sequential()
            self.projection.add_module("conv", conv)
            self.projection.add_module("norm", norm)

    def units(self, x: Tensor) -> Tensor:
        for number in range(1, self.depth + 1):
            conv, norm = self.get_submodule(f"conv{number}"), self.get_submodule(f"norm{number}")
            x = norm(conv(x))
            x = F.relu(x) if number < self.depth else x
        return x

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.attention(self.units(x)) + self.projection(x))


class SeparableBlock(nn.Module):
    """attention(relu(norm(conv(x)))) of a depthwise convolution, then of a pointwise one."""

    def __init__(self, block: Block, **options: Any) -> None:
        super().__init__()
        depthwise, pointwise = block.units
        self.conv1, self.norm1 = conv_and_norm(depthwise, **options)
        self.conv2, self.norm2 = conv_and_norm(pointwise, **options)
        specs = block.attentions
        self.attention1 = attention(specs.get(f"{block.path}.attention1"), **options)
        self.attention2 = attention(specs.get(f"{block.path}.attention2"), **options)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention1(F.relu(self.norm1(self.conv1(x))))
        return self.attention2(F.relu(self.norm2(self.conv2(x))))


class PlainHead(nn.Module):
    """linear(avg over space): (N, C, H, W) -> (N, num_classes)."""

    def __init__(self, features: int, num_classes: int, **options: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(features, num_classes, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class DualPoolingHead(nn.Module):
    """linear(dropout(reduce([avg over space ; max over space]))): (N, C, H, W) -> (N, num_classes).

    `reduce` is a 1x1 convolution from 2 C back to C channels, on a map of one position.
    """

    def __init__(
        self, features: int, num_classes: int, *, dropout: float = 0.5, **options: Any
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(2 * features, features, **options)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, num_classes, **options)

    def forward(self, x: Tensor) -> Tensor:
        descriptors = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
        return self.linear(self.dropout(self.reduce(descriptors)))


class Backbone(nn.Module):
    """The network of an architecture.

    Args:
        architecture: what to build.
        features_only: whether the head is left out and `forward` gives the maps of the stem and
            of every stage, as detectors want them.
        device, dtype: of the parameters; a norm's stay at least float32.
        synchronized: whether the norms take their statistics over all processes of
            torch.distributed.

    Shape:
        x (N, 3, H, W) -> logits (N, num_classes), or a list of maps (N, C, H', W').

    Raises:
        TypeError, ValueError: an x of another rank, width or dtype, or too small for batch
            statistics.

    Example:
        >>> import torch
        >>> from cbam_core.architectures import Architecture
        >>> network = Backbone(Architecture.named("resnet18", attention="cbam", num_classes=10))
        >>> network(torch.randn(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        features_only: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        synchronized: bool = False,
    ) -> None:
        super().__init__()
        self.architecture, self.features_only = architecture, features_only
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        with_norm = {**options, "synchronized": synchronized}
        self.stem = Stem(architecture, **with_norm)
        build = SeparableBlock if architecture.kind == "separable" else ResidualBlock
        self.stages: list[str] = []
        for blocks in architecture.stages:
            stage = nn.Sequential()
            for block in blocks:
                stage.add_module(block.path.partition(".")[2], build(block, **with_norm))
            self.stages.append(blocks[0].path.partition(".")[0])
            self.add_module(self.stages[-1], stage)
        self.tail = attention(architecture.tail_attention, **with_norm)
        if not features_only:
            head = DualPoolingHead if architecture.head == "dual_pooling" else PlainHead
            self.head = head(architecture.features, architecture.num_classes, **options)

    def features(self, x: Tensor) -> list[Tensor]:
        """The map behind the stem and behind each stage, the last with the tail's attention."""
        check_pictures(x.shape, x.dtype, channel_axis=1)
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(self.get_submodule(stage)(maps[-1]))
        return [*maps[:-1], self.tail(maps[-1])]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        maps = self.features(x)
        return maps if self.features_only else self.head(maps[-1])


def conv_and_norm(unit: Unit, *, synchronized: bool, **options: Any) -> tuple[nn.Conv2d, BatchNorm]:
    """The two layers of a unit, the convolution padded alike on both sides."""
    conv = nn.Conv2d(
        unit.inputs,
        unit.outputs,
        unit.kernel_size,
        stride=unit.stride,
        padding=unit.kernel_size // 2,
        groups=unit.groups,
        bias=False,
        **options,
    )
    options = {"synchronized": synchronized, **options}
    return conv, BatchNorm(unit.outputs, NORM_EPS, NORM_MOMENTUM, **options)


def attention(spec: CBAMSpec | None, **options: Any) -> nn.Module:
    """The attention of a spec; the identity where there is none."""
    return CBAM.from_spec(spec, **options) if spec else nn.Identity()


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
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
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
        init: a scheme of `cbam_core.initial_network`, the same values in every framework; torch's
            own initial values if None.
        seed: of `init`.
        device, dtype, synchronized: see `Backbone`.

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
        device=device,
        dtype=dtype,
        synchronized=synchronized,
    )
    if values is not None:
        load_canonical(network, {name: values[name] for name in shapes_of(network)})
    return network


def resnet18(**arguments: Any) -> Backbone:
    """ResNet-18; see `build` for the arguments.

    >>> sum(p.numel() for p in resnet18(attention="cbam").parameters())
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
