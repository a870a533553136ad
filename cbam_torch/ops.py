"""Pooling and gates: the operations on which public CBAMs differ, one rule for all packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """x itself, or in float32 where its dtype is a half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def pool_space(
    x: Tensor, pools: Sequence[str], spatial: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """x (N, C, *S) -> x, and of Ms * x one descriptor (N, C) for each name in `pools`.

    x is handed on to the next primitive, so that the gradients of all three meet in one buffer.
    """
    refined = _refined(x, spatial)
    space = tuple(range(2, x.ndim))
    return x, [POOLS[pool](refined, space).flatten(1) for pool in pools]


def pool_channels(x: Tensor, channel: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """x (N, C, *S) -> x, and of Mc * x the maps [avg, max], each (N, 1, *S)."""
    refined = _refined(x, channel)
    return x, [avg(refined, (1,)), max(refined, (1,))]


def scale(
    x: Tensor,
    channel: Tensor | None = None,
    spatial: Tensor | None = None,
    *,
    residual: bool = False,
) -> Tensor:
    """Ms * Mc * x, plus x where `residual`, rounded to the dtype of x once: (N, C, *S)."""
    refined = _refined(_refined(x, channel), spatial)
    return (x + refined if residual else refined).to(x.dtype)


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
