"""The kernels for CUDA against the plain composition, by Triton's interpreter: run by test_cuda.py.

TRITON_INTERPRET=1 CBAM_KERNELS=always python tests/native/interpreted.py float32
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import product

import torch
from torch import Tensor

from cbam_torch import CBAM, cuda, ops, triton_kernels

# Of every rank, sizes that fill no tile and sizes that take several in both directions.
SHAPES = [(2, 5, 7), (2, 20, 9, 8), (2, 4, 3, 5, 6), (1, 1, 1, 1), (1, 20, 3, 100), (1, 300, 2, 1)]
ORDERS = ("channel_spatial", "spatial_channel", "parallel", "channel", "spatial")
FORWARD = ("pool_rows", "pool_columns", "scale")
KERNELS = (*FORWARD, *(f"{name}_backward" for name in FORWARD))
# Errors relative to the largest number. The interpreter cuts digits of bfloat16 off, where cards
# round, so its three steps to the gradient of x may each be wrong by a whole last digit.
LIMITS = {
    torch.float64: 1e-13,
    torch.float32: 3e-6,
    torch.float16: 3 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 3.5 * torch.finfo(torch.bfloat16).eps,
}


def block(x: Tensor, order: str, residual: bool, kernels: bool) -> list[Tensor]:
    """y of a block whose gates have weights of each place, and the gradients of x and of them."""
    draw = torch.Generator().manual_seed(1)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    samples, channels, *space = x.shape
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    of_channel = torch.rand(2, samples, channels, generator=draw).to(wide).requires_grad_()
    of_space = torch.rand(2, samples, 1, *space, generator=draw).to(wide).requires_grad_()

    def channel_gate(x: Tensor, spatial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, pooled = ops.pool_space(x, ops.AVG_MAX, spatial, kernels=kernels)
        logits = (torch.stack(pooled) * of_channel).sum(0)
        return x, torch.sigmoid(logits)[(..., *[None] * len(space))]

    def spatial_gate(x: Tensor, channel: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, pooled = ops.pool_channels(x, channel, kernels=kernels)
        return x, torch.sigmoid((torch.stack(pooled) * of_space).sum(0))

    at, channel, spatial = x, None, None
    if order == "spatial_channel":
        at, spatial = spatial_gate(at)
        at, channel = channel_gate(at, spatial)
    elif order != "spatial":
        at, channel = channel_gate(at)
    if order in ("channel_spatial", "parallel", "spatial"):
        at, spatial = spatial_gate(at, channel if order == "channel_spatial" else None)
    y = ops.scale(at, channel, spatial, residual=residual, kernels=kernels)
    d_y = torch.randn(y.shape, generator=draw).to(y)
    inputs = [x, *([of_channel] * (channel is not None)), *([of_space] * (spatial is not None))]
    return [y, *torch.autograd.grad(y, inputs, d_y)]


def error(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """The largest error, relative to the largest number; NaN and infinities are the same.

    `dtype` is that of the map, of whose rounding it is.
    """
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    finite = expected.isfinite()
    torch.testing.assert_close(found[~finite], expected[~finite], rtol=0, atol=0, equal_nan=True)
    a, b = found[finite].double(), expected[finite].double()
    largest = b.abs().max() if len(b) else torch.zeros(())
    worst = ((a - b).abs().max() / largest).item() if largest else 0.0
    assert worst <= LIMITS[dtype], worst
    return worst


def compare(x: Tensor, order: str, residual: bool) -> float:
    """The largest error of a block by kernels."""
    found, expected = (block(x, order, residual, kernels) for kernels in (True, False))
    assert found[0].is_contiguous() == x.is_contiguous()
    return max(error(a, b, x.dtype) for a, b in zip(found, expected, strict=True))


def maps(shape: tuple[int, ...], dtype: torch.dtype, has_ties: bool, channels_last: bool) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = (torch.relu((2 * x).round()) if has_ties else x).to(dtype)
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if channels_last else x


def every_order_and_memory(dtype: torch.dtype) -> float:
    cases = product(SHAPES, enumerate(ORDERS), (False, True))
    return max(
        compare(maps(shape, dtype, (number + last) % 2 == 0, last), order, number % 2 == 0)
        for shape, (number, order), last in cases
    )


def long_walks_in_large_maps(dtype: torch.dtype) -> None:
    """As where programs abound, each walks over several tiles; and where offsets are int64."""
    programs, large = triton_kernels.PROGRAMS, triton_kernels.LARGE
    triton_kernels.PROGRAMS, triton_kernels.LARGE = 1, 0
    for order, last in product(ORDERS[:2], (False, True)):
        compare(maps((1, 20, 3, 100), dtype, False, last), order, False)
    triton_kernels.PROGRAMS, triton_kernels.LARGE = programs, large


def nan_and_infinity(dtype: torch.dtype) -> None:
    for number, order, last in product(
        (float("nan"), float("inf"), float("-inf")), ORDERS[:3], (False, True)
    ):
        x = maps((2, 20, 9, 8), dtype, False, last)
        x[1, 3, 2, 5] = number
        compare(x, order, False)
    x = maps((2, 20, 9, 8), dtype, False, False)
    x[0, 2] = float("-inf")
    compare(x, "channel", False)


def each_result_and_gradient_alone(dtype: torch.dtype) -> None:
    """As where gates are frozen; and the NaN of a whole block would hide those of a primitive."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    draw = torch.Generator().manual_seed(2)
    x = maps((2, 20, 9, 8), dtype, True, False)
    x[0, 1, 2, 3], x[0, 4], x[0, 5:, 6, 7], x[1, :, 1, 1] = float("nan"), *[float("-inf")] * 3
    channel = torch.rand(2, 20, 1, 1, generator=draw).to(wide)
    spatial = torch.rand(2, 1, 9, 8, generator=draw).to(wide)

    def pooled_space(number: int, kernels: bool, x: Tensor, gate: Tensor) -> Tensor:
        return ops.pool_space(x, ops.AVG_MAX, gate, kernels=kernels)[1][number]

    def pooled_channels(number: int, kernels: bool, x: Tensor, gate: Tensor) -> Tensor:
        return ops.pool_channels(x, gate, kernels=kernels)[1][number]

    def scaled(kernels: bool, *inputs: Tensor) -> Tensor:
        return ops.scale(*inputs, kernels=kernels)

    for result, inputs in (
        *((partial(pooled_space, number), [x, spatial]) for number in range(2)),
        *((partial(pooled_channels, number), [x, channel]) for number in range(2)),
        (scaled, [x, channel, spatial]),
    ):
        for wanted in range(len(inputs)):
            given = [one.clone().requires_grad_(k == wanted) for k, one in enumerate(inputs)]
            found, expected = result(True, *given), result(False, *given)
            error(found, expected, dtype)
            d = torch.rand(found.shape, generator=draw).to(found)
            gradients = (torch.autograd.grad(y, given[wanted], d)[0] for y in (found, expected))
            error(*gradients, dtype)


def the_same_bits_again(dtype: torch.dtype) -> None:
    x = maps((1, 20, 3, 100), dtype, True, False)
    first, second = (block(x, "channel_spatial", True, True) for _ in range(2))
    assert all(map(torch.equal, first, second))


def each_kernel_once_when_compiled(dtype: torch.dtype) -> None:
    module = CBAM(20, reduction=4, dtype=dtype)
    x = maps((2, 20, 9, 8), dtype, False, False).requires_grad_()
    expected = torch.autograd.grad(module(x).sum(), x)[0]
    called = []
    run = cuda.run
    cuda.run = lambda name, *arguments: (called.append(name), run(name, *arguments))
    found = torch.autograd.grad(torch.compile(module, backend="aot_eager")(x).sum(), x)[0]
    cuda.run = run
    assert sorted(called) == sorted(KERNELS), called
    torch.testing.assert_close(found, expected)


def main(name: str) -> None:
    dtype = getattr(torch, name)
    path = ops.path(torch.ones(1, 2, 3, 4, dtype=dtype))
    assert path == "triton", path
    worst = every_order_and_memory(dtype)
    long_walks_in_large_maps(dtype)
    nan_and_infinity(dtype)
    each_result_and_gradient_alone(dtype)
    the_same_bits_again(dtype)
    if dtype == torch.float32:
        each_kernel_once_when_compiled(dtype)
    print(f"{name}: at most {worst:.1e} of the largest number")


if __name__ == "__main__":
    main(sys.argv[1])
