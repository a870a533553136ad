"""Pooling and gates: the operations on which public CBAMs differ, one rule for all packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cbam_core.kernels import kernels_setting
from cbam_torch import fused
from cbam_torch.compiling import constant

# The pools for which there are kernels, and the numbers that a map has at least to be worth one.
AVG_MAX = ("avg", "max")
LEAST = 131072


def at_least_float32(x: Tensor) -> Tensor:
    """x itself, or in float32 where its dtype is a half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def path(x: Tensor, *gates: Tensor | None, kernels: bool = True) -> str:
    """What the primitives run on for x, (N, C, *S): a kind of kernels, or their "composition".

    "native" kernels know float32, float64 and bfloat16 on a CPU, "triton" those and float16 on a
    CUDA device, in memory where channels come first or last. Plain operations run where `kernels`
    is False or the environment variable CBAM_KERNELS is "off", for maps so small that a kernel is
    done before it is called, for export and tracing, under functorch's transforms, in forward mode,
    and for subclasses of Tensor.

    Example:
        >>> import torch
        >>> from cbam_torch import ops
        >>> ops.path(torch.ones(2, 8, 7, 7), kernels=False)
        'composition'
    """
    setting = _setting() if kernels else "off"
    # Before the size is, since an exported graph would be for maps on its side of LEAST alone.
    if setting == "off" or _is_watched(x):
        return "composition"
    pays = setting == "always" or x.numel() >= LEAST
    return (fused.kernels_for(x, *gates) if pays else None) or "composition"


@constant
def _setting() -> str:
    return kernels_setting()


def _is_watched(x: Tensor) -> bool:
    """Whether something beside autograd and torch.compile looks on, which a kernel would escape."""
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        type(x) not in (Tensor, torch.nn.Parameter)
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch.autograd.forward_ad._current_level >= 0
    )


def pool_space(
    x: Tensor, pools: Sequence[str], spatial: Tensor | None = None, *, kernels: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """x (N, C, *S) -> x, and of Ms * x one descriptor (N, C) for each name in `pools`.

    x is handed on to the next primitive, so that the gradients of all three meet in one map.
    """
    if path(x, spatial, kernels=kernels) != "composition" and set(pools) <= set(AVG_MAX):
        x, found = fused.pool(x, spatial, True, _descriptors)
        return x, [found[AVG_MAX.index(pool)] for pool in pools]
    return x, _descriptors(x, spatial, pools)


def pool_channels(
    x: Tensor, channel: Tensor | None = None, *, kernels: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """x (N, C, *S) -> x, and of Mc * x the maps [avg, max], each (N, 1, *S)."""
    if path(x, channel, kernels=kernels) != "composition":
        return fused.pool(x, channel, False, _maps)
    return x, _maps(x, channel)


def scale(
    x: Tensor,
    channel: Tensor | None = None,
    spatial: Tensor | None = None,
    *,
    residual: bool = False,
    kernels: bool = True,
) -> Tensor:
    """Ms * Mc * x, plus x where `residual`, rounded to the dtype of x once: (N, C, *S)."""
    if path(x, channel, spatial, kernels=kernels) != "composition":
        return fused.scale(x, channel, spatial, residual, _product)
    return _product(x, channel, spatial, residual)[0]


def _descriptors(x: Tensor, spatial: Tensor | None, pools: Sequence[str] = AVG_MAX) -> list[Tensor]:
    refined, space = _refined(x, spatial), tuple(range(2, x.ndim))
    return [POOLS[pool](refined, space).flatten(1) for pool in pools]


def _maps(x: Tensor, channel: Tensor | None) -> list[Tensor]:
    refined = _refined(x, channel)
    return [avg(refined, (1,)), max(refined, (1,))]


def _product(
    x: Tensor, channel: Tensor | None, spatial: Tensor | None, residual: bool
) -> list[Tensor]:
    refined = _refined(_refined(x, channel), spatial)
    return [(x + refined if residual else refined).to(x.dtype)]


def _refined(x: Tensor, gate: Tensor | None) -> Tensor:
    x = at_least_float32(x)
    return x if gate is None else gate * x


def avg(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The mean over `axes`, which keep the size 1, as in all four pools."""
    return x.mean(axes, keepdim=True)


def max(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The maximum over `axes`; amax splits the gradient evenly among ties."""
    return x.amax(axes, keepdim=True)


def lp(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The square root of the sum of squares; its gradient is 0 where all of x is 0."""
    squares = (x * x).sum(axes, keepdim=True)
    empty = squares == 0
    # The root's infinite slope at 0 would turn the gradient into NaN, so 0 never reaches it.
    return torch.where(empty, 1.0, squares).sqrt().masked_fill(empty, 0.0)


def lse(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The logarithm of the sum of exponentials."""
    return x.logsumexp(axes, keepdim=True)


def hard_sigmoid(x: Tensor) -> Tensor:
    """clip((x + 3)/6, 0, 1), the hard sigmoid of today's frameworks; gradient 0 at both kinks."""
    return 1 - F.relu(1 - F.relu((x + 3) / 6))


def hard_sigmoid_keras2(x: Tensor) -> Tensor:
    """clip(0.2 x + 0.5, 0, 1), the hard sigmoid of Keras 2; gradient 0 at both kinks."""
    return 1 - F.relu(1 - F.relu(0.2 * x + 0.5))


def double_sigmoid(x: Tensor) -> Tensor:
    """2 sigmoid(x), exactly 1 at 0."""
    return 2 * torch.sigmoid(x)


POOLS: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "avg": avg,
    "max": max,
    "lp": lp,
    "lse": lse,
}
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "double_sigmoid": double_sigmoid,
}
