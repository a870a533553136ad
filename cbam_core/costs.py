"""What a CBAM costs, from its spec alone."""

from __future__ import annotations

import math

from cbam_core.spec import CBAMSpec
from cbam_core.weights import STATISTICS, spatial_maps, weight_shapes


def parameters(spec: CBAMSpec) -> int:
    """Trainable parameters; the norm's running statistics do not count.

    >>> parameters(CBAMSpec(512))
    32866
    """
    shapes = weight_shapes(spec)
    return sum(math.prod(shape) for name, shape in shapes.items() if name not in STATISTICS)


def flops(spec: CBAMSpec, *size: int) -> int:
    """Multiply-adds of the MLP and the convolutions for one map of `size`, the paper's convention.

    Pooling, gates, the norm and the scaling do not count, as in the paper's tables. thop counts
    the average pooling as well: for C=512 on 7 x 7 that is 512 * (49 + 1) more, 95,938 in all.

    >>> flops(CBAMSpec(512), 7, 7)
    70338
    """
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
