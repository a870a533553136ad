"""What a block or a network costs, from its description alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from cbam_core.architectures import Architecture, Unit, network_shapes
from cbam_core.spec import CBAMSpec
from cbam_core.weights import STATISTICS, spatial_maps, weight_shapes


@dataclass(frozen=True)
class Part:
    """What one part of a network costs.

    Attributes:
        path: the stem, a block, an attention or the head.
        parameters: trainable ones.
        flops: multiply-adds of convolutions and linear layers.
    """

    path: str
    parameters: int
    flops: int


def parameters(described: CBAMSpec | Architecture) -> int:
    """Trainable parameters; running statistics do not count.

    >>> parameters(CBAMSpec(512))
    32866
    >>> parameters(Architecture.named("resnet50", attention="cbam"))
    28089624
    """
    if isinstance(described, CBAMSpec):
        return _trainable(weight_shapes(described))
    return _trainable(network_shapes(described))


def flops(described: CBAMSpec | Architecture, *size: int) -> int:
    """Multiply-adds of convolutions and linear layers for one map of `size`, as the paper counts.

    Pooling, gates, norms and the scaling do not count, as in the paper's tables. thop counts
    the average pooling as well: for C=512 on 7 x 7 that is 512 * (49 + 1) more, 95,938 in all.

    >>> flops(CBAMSpec(512), 7, 7)
    70338
    >>> flops(Architecture.named("resnet50", stride_on="1x1"), 224, 224)
    3857973248
    """
    if isinstance(described, Architecture):
        return sum(part.flops for part in parts(described, *size))
    spec = described
    if len(size) != spec.rank or min(size) < 1:
        raise ValueError(
            f"size={size} does not fit rank={spec.rank}; pass {spec.rank} positive integers"
        )
    positions = math.prod(size)
    total = 0
    if spec.has_channel_gate:
        passes = 1 if spec.pooling == "light" else len(spec.channel_pools)
        total += passes * 2 * spec.channels * spec.hidden_channels
    if spec.has_spatial_gate:
        total += positions * spec.kernel_size**spec.rank * spatial_maps(spec)
        if spec.spatial_descriptor == "conv":
            total += positions * spec.channels
    return total


def parts(architecture: Architecture, height: int, width: int) -> Iterator[Part]:
    """The cost of each part of a network for one picture of `height` x `width`."""
    shapes, attended = network_shapes(architecture), dict(architecture.attentions())

    def part(path: str, multiply_adds: int) -> Part:
        # What is inside an attention counts there, not in the block around it.
        inside = [f"{other}." for other in attended if other != path]
        own = {
            name: shape
            for name, shape in shapes.items()
            if name.startswith(f"{path}.") and not name.startswith(tuple(inside))
        }
        return Part(path, _trainable(own), multiply_adds)

    def attend(path: str, spec: CBAMSpec | None) -> Iterator[Part]:
        if spec is not None:
            yield part(path, flops(spec, *size))

    size = architecture.stem_unit.size_after((height, width))
    yield part("stem", _multiply_adds(architecture.stem_unit, size))
    yield from attend("stem.attention", architecture.stem_attention)
    if architecture.has_max_pool:
        size = ((size[0] - 1) // 2 + 1, (size[1] - 1) // 2 + 1)
    for stage in architecture.stages:
        for block in stage:
            total, paths = 0, list(block.attentions)
            behind: list[Part] = []
            for place, unit in enumerate(block.units):
                size = unit.size_after(size)
                total += _multiply_adds(unit, size)
                # A MobileNet attends to every unit, a residual block to the last.
                if paths and (len(paths) > 1 or place == len(block.units) - 1):
                    path = paths[place if len(paths) > 1 else 0]
                    behind += attend(path, block.attentions[path])
            total += _multiply_adds(block.projection, size) if block.projection else 0
            yield part(block.path, total)
            yield from behind
    yield from attend("tail", architecture.tail_attention)
    kernels = (s for n, s in shapes.items() if n.startswith("head.") and n.endswith(".kernel"))
    yield part("head", sum(math.prod(shape) for shape in kernels))


def _multiply_adds(unit: Unit, size: tuple[int, int]) -> int:
    """Of a convolution whose output has `size`."""
    return math.prod(size) * unit.kernel_size**2 * unit.inputs // unit.groups * unit.outputs


def _trainable(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for name, shape in shapes.items() if not is_statistic(name))


def is_statistic(name: str) -> bool:
    """Whether a canonical name is a running statistic's, in a block or in a network.

    >>> is_statistic("stage1.block0.norm1.mean"), is_statistic("spatial.norm.scale")
    (True, False)
    """
    owner, _, leaf = name.rpartition(".")
    is_norm = owner.rpartition(".")[2].startswith("norm")
    return name in STATISTICS or (is_norm and leaf in ("mean", "var"))
