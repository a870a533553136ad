"""The three primitives and their gradients in Triton, for maps (N, A, B) in order on a GPU.

They are those of `cbam_core/native/primitives.cpp`, where names and formulas are explained. A
program has a block of one side of a sample, rows or columns, and walks over the other side tile by
tile, so memory is read in long runs, once. Where samples and blocks alone would leave a card idle,
several programs share a walk, and what each of them found is joined in order: the bits depend on
shapes alone. Maps are float32, bfloat16, float16 or float64; gates, descriptors and all arithmetic
are float32, or float64 for maps of float64.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# The numbers of a tile, 16 for each of the 128 threads of a program, and how many of them lie
# together in memory at least: more along a walk, whose blocks are as short as their tiles then.
NUMBERS = 2048
RUN_OF_BLOCK = 128
RUN_OF_WALK = 256
# As many programs as keep a card busy.
PROGRAMS = 1024
# Above this many numbers in a sample, offsets are int64; those of a sample itself always are.
LARGE = 2**30
# No fused multiply-add: what equalled the maximum equals it in the backward pass.
EXACT = {"enable_fp_fusion": False}


class Walk:
    """How programs share x: blocks of one side, tiles along the other, `shares` of each walk."""

    def __init__(self, shape: tuple[int, int, int], x: Tensor, along_rows: bool) -> None:
        """`along_rows`: each walk goes along a row, and a block is of rows; else of columns."""
        samples, rows, columns = shape
        least = RUN_OF_WALK if along_rows else RUN_OF_BLOCK
        height, width = triton.next_power_of_2(rows), triton.next_power_of_2(columns)
        width = min(width, max(least, NUMBERS // height))
        height = min(height, NUMBERS // width)
        if along_rows:
            block, walk, steps, tile = rows, columns, (columns, 1), (height, width)
        else:
            block, walk, steps, tile = columns, rows, (1, columns), (width, height)
        self.blocks, tiles = triton.cdiv(block, tile[0]), triton.cdiv(walk, tile[1])
        each = triton.cdiv(tiles, min(tiles, max(1, PROGRAMS // (samples * self.blocks))))
        self.shares = triton.cdiv(tiles, each)
        self.grid = (samples * self.shares * self.blocks,)
        self.arguments = (samples, block, walk, *steps, self.shares, each)
        is_double = x.dtype == torch.float64
        self.wide = torch.float64 if is_double else torch.float32
        self.options: dict[str, Any] = {
            "BLOCK": tile[0],
            "TILE": tile[1],
            "WIDE": tl.float64 if is_double else tl.float32,
            "INDEX": tl.int64 if rows * columns > LARGE else tl.int32,
            **EXACT,
        }


def pool_rows(shape, x, gate, avg, most, ties) -> None:
    _run_pool(Walk(shape, x, along_rows=True), x, gate, avg, most, ties)


def pool_columns(shape, x, gate, avg, most, ties) -> None:
    _run_pool(Walk(shape, x, along_rows=False), x, gate, avg, most, ties)


def _run_pool(walk: Walk, x: Tensor, gate: Tensor | None, *found: Tensor) -> None:
    if walk.shares == 1:
        _pool[walk.grid](x, gate, *found, *walk.arguments, **walk.options, IS_WHOLE=True)
        return
    parts = x.new_empty((3, walk.shares, found[0].numel()), dtype=walk.wide)
    _pool[walk.grid](x, gate, *parts, *walk.arguments, **walk.options, IS_WHOLE=False)
    size, count = found[0].numel(), walk.arguments[2]
    grid = (triton.cdiv(size, 128),)
    _join[grid](*parts, *found, size, walk.shares, count, SIZE=128, **EXACT)


# The gradients walk the other way, so that a block has its part of the gate's gradient together.


def pool_rows_backward(shape, x, gate, most, ties, d_avg, d_max, d_y, d_x, d_gate) -> None:
    walk = Walk(shape, x, along_rows=False)
    _run_pool_backward(walk, x, gate, most, ties, d_avg, d_max, d_y, d_x, d_gate)


def pool_columns_backward(shape, x, gate, most, ties, d_avg, d_max, d_y, d_x, d_gate) -> None:
    walk = Walk(shape, x, along_rows=True)
    _run_pool_backward(walk, x, gate, most, ties, d_avg, d_max, d_y, d_x, d_gate)


def _run_pool_backward(walk: Walk, *arguments: Tensor | None) -> None:
    *known, d_gate = arguments
    parts = _parts(d_gate, walk.shares)
    _pool_backward[walk.grid](*known, parts, *walk.arguments, **walk.options)
    _sum_parts(parts, d_gate)


def scale(shape, x, rows, columns, residual, y) -> None:
    walk = Walk(shape, x, along_rows=False)
    _scale[walk.grid](x, rows, columns, y, *walk.arguments, **walk.options, RESIDUAL=residual)


def scale_backward(shape, x, rows, columns, residual, d_y, d_x, d_rows, d_columns) -> None:
    walk = Walk(shape, x, along_rows=False)
    row_parts, column_parts = _parts(d_rows, walk.blocks), _parts(d_columns, walk.shares)
    known = (x, rows, columns, d_y, d_x, row_parts, column_parts)
    _scale_backward[walk.grid](*known, *walk.arguments, **walk.options, RESIDUAL=residual)
    _sum_parts(row_parts, d_rows)
    _sum_parts(column_parts, d_columns)


def _parts(total: Tensor | None, count: int) -> Tensor | None:
    """Where programs put their parts of a sum; the sum itself where there is one part."""
    return total if total is None or count == 1 else total.new_empty((count, *total.shape))


def _sum_parts(parts: Tensor | None, total: Tensor | None) -> None:
    if parts is not None and parts is not total:
        torch.sum(parts, 0, out=total)


# --------------------------------------------------------------------------------- of one program
#
# Pointers that are None stand for what is not there, or not wanted. A program's tile is (BLOCK,
# TILE), of its block and of its walk, whichever of the two is contiguous.


@triton.jit
def _place(size, shares, BLOCK: tl.constexpr):
    """The sample, the share of the walk and the block that a program has."""
    blocks = tl.cdiv(size, BLOCK)
    program = tl.program_id(0)
    rest = program // blocks
    return (rest // shares).to(tl.int64), rest % shares, program % blocks


@triton.jit
def _offsets(b, w, block, walk, block_step, walk_step, INDEX: tl.constexpr):
    """Which numbers of a tile are inside the map, and where they are in their sample."""
    inside = (b < block)[:, None] & (w < walk)[None, :]
    return inside, b.to(INDEX)[:, None] * block_step + w.to(INDEX)[None, :] * walk_step


@triton.jit
def _pool(
    x,
    gate,
    avg,
    most,
    ties,
    samples,
    kept,
    reduced,
    kept_step,
    reduced_step,
    shares,
    tiles,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    INDEX: tl.constexpr,
    IS_WHOLE: tl.constexpr,
):
    """Of gate * x the sum, or mean where `IS_WHOLE`, maximum and ties of it: (shares, N, kept)."""
    sample, share, block = _place(kept, shares, BLOCK)
    k = block * BLOCK + tl.arange(0, BLOCK)
    first = sample * kept * reduced
    total = tl.zeros([BLOCK, TILE], WIDE)
    largest = tl.full([BLOCK, TILE], float("-inf"), WIDE)
    number = tl.zeros([BLOCK, TILE], tl.int32)
    for tile in range(share * tiles, (share + 1) * tiles):
        r = tile * TILE + tl.arange(0, TILE)
        inside, offset = _offsets(k, r, kept, reduced, kept_step, reduced_step, INDEX)
        value = tl.load(x + first + offset, mask=inside, other=0).to(WIDE)
        if gate is not None:
            value = tl.load(gate + sample * reduced + r, mask=r < reduced, other=0)[None, :] * value
        total += value
        value = tl.where(inside, value, float("-inf"))
        is_equal = (inside & (value == largest)).to(tl.int32)
        number = tl.where(value > largest, 1, number + is_equal)
        largest = tl.maximum(largest, value, propagate_nan=tl.PropagateNan.ALL)
    # The lanes of a tile become one. Of numbers of which any is NaN the maximum is NaN, and none is
    # equal to it.
    is_nan = largest != largest
    is_any_nan = tl.max(is_nan.to(tl.int32), 1) > 0
    top = tl.max(tl.where(is_nan, float("-inf"), largest), 1)
    number = tl.sum(tl.where(largest == top[:, None], number, 0), 1)
    place = (share * samples + sample) * kept + k
    result = tl.sum(total, 1)
    if IS_WHOLE:
        result = result / reduced
    tl.store(avg + place, result, mask=k < kept)
    tl.store(most + place, tl.where(is_any_nan, float("nan"), top), mask=k < kept)
    tl.store(ties + place, tl.where(is_any_nan, 0, number).to(WIDE), mask=k < kept)


@triton.jit
def _join(totals, mosts, numbers, avg, most, ties, size, shares, count, SIZE: tl.constexpr):
    """What the shares of each walk found, (shares, size), made one."""
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = place < size
    total = tl.load(totals + place, mask=inside, other=0)
    largest = tl.load(mosts + place, mask=inside, other=0)
    number = tl.load(numbers + place, mask=inside, other=0)
    for share in range(1, shares):
        place_of_share = share * size + place
        total += tl.load(totals + place_of_share, mask=inside, other=0)
        other = tl.load(mosts + place_of_share, mask=inside, other=0)
        other_number = tl.load(numbers + place_of_share, mask=inside, other=0)
        equal = tl.where(other == largest, number + other_number, number)
        number = tl.where(other > largest, other_number, equal)
        largest = tl.maximum(largest, other, propagate_nan=tl.PropagateNan.ALL)
    tl.store(avg + place, total / count, mask=inside)
    tl.store(most + place, largest, mask=inside)
    tl.store(ties + place, tl.where(largest == largest, number, 0), mask=inside)


@triton.jit
def _pool_backward(
    x,
    gate,
    most,
    ties,
    d_avg,
    d_max,
    d_y,
    d_x,
    d_gate,
    samples,
    reduced,
    kept,
    reduced_step,
    kept_step,
    shares,
    tiles,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    INDEX: tl.constexpr,
):
    """d_x, and parts of d_gate, (shares, N, reduced)."""
    sample, share, block = _place(reduced, shares, BLOCK)
    r = block * BLOCK + tl.arange(0, BLOCK)
    first = sample * kept * reduced
    if gate is not None:
        factor = tl.load(gate + sample * reduced + r, mask=r < reduced, other=0)[:, None]
    if d_gate is not None:
        sums = tl.zeros([BLOCK, TILE], WIDE)
    for tile in range(share * tiles, (share + 1) * tiles):
        k = tile * TILE + tl.arange(0, TILE)
        place = sample * kept + k
        inside, offset = _offsets(r, k, reduced, kept, reduced_step, kept_step, INDEX)
        value = tl.load(x + first + offset, mask=inside, other=0).to(WIDE)
        d_value = tl.zeros([BLOCK, TILE], WIDE)
        if d_avg is not None:
            mean = tl.load(d_avg + place, mask=k < kept, other=0) / reduced
            d_value += mean[None, :]
        if d_max is not None:
            number = tl.load(ties + place, mask=k < kept, other=1)
            part = tl.load(d_max + place, mask=k < kept, other=0) / number
            largest = tl.load(most + place, mask=k < kept, other=0)[None, :]
            scaled = value
            if gate is not None:
                scaled = factor * value
            # To multiply with: 0 * infinity is NaN, as it is for a mask.
            d_value += (scaled == largest).to(WIDE) * part[None, :]
        if d_gate is not None:
            sums += value * d_value
        if d_x is not None:
            if gate is not None:
                d_value = factor * d_value
            if d_y is not None:
                d_value += tl.load(d_y + first + offset, mask=inside, other=0).to(WIDE)
            tl.store(d_x + first + offset, d_value, mask=inside)
    if d_gate is not None:
        place_of_gate = (share * samples + sample) * reduced + r
        tl.store(d_gate + place_of_gate, tl.sum(sums, 1), mask=r < reduced)


@triton.jit
def _scale(
    x,
    row_gate,
    column_gate,
    y,
    samples,
    columns,
    rows,
    column_step,
    row_step,
    shares,
    tiles,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    INDEX: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """y = column_gate * row_gate * x (+ x)."""
    sample, share, block = _place(columns, shares, BLOCK)
    j = block * BLOCK + tl.arange(0, BLOCK)
    first = sample * rows * columns
    if column_gate is not None:
        of_column = tl.load(column_gate + sample * columns + j, mask=j < columns, other=0)[:, None]
    for tile in range(share * tiles, (share + 1) * tiles):
        i = tile * TILE + tl.arange(0, TILE)
        inside, offset = _offsets(j, i, columns, rows, column_step, row_step, INDEX)
        value = tl.load(x + first + offset, mask=inside, other=0).to(WIDE)
        scaled = value
        if row_gate is not None:
            of_row = tl.load(row_gate + sample * rows + i, mask=i < rows, other=0)[None, :]
            scaled = of_row * scaled
        if column_gate is not None:
            scaled = of_column * scaled
        if RESIDUAL:
            scaled = value + scaled
        tl.store(y + first + offset, scaled, mask=inside)


@triton.jit
def _scale_backward(
    x,
    row_gate,
    column_gate,
    d_y,
    d_x,
    d_rows,
    d_columns,
    samples,
    columns,
    rows,
    column_step,
    row_step,
    shares,
    tiles,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    WIDE: tl.constexpr,
    INDEX: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """d_x, and parts of d_rows, (blocks, N, rows), and of d_columns, (shares, N, columns)."""
    sample, share, block = _place(columns, shares, BLOCK)
    j = block * BLOCK + tl.arange(0, BLOCK)
    first = sample * rows * columns
    if column_gate is not None:
        of_column = tl.load(column_gate + sample * columns + j, mask=j < columns, other=0)[:, None]
    if d_columns is not None:
        sums = tl.zeros([BLOCK, TILE], WIDE)
    for tile in range(share * tiles, (share + 1) * tiles):
        i = tile * TILE + tl.arange(0, TILE)
        inside, offset = _offsets(j, i, columns, rows, column_step, row_step, INDEX)
        d = tl.load(d_y + first + offset, mask=inside, other=0).to(WIDE)
        if row_gate is not None:
            of_row = tl.load(row_gate + sample * rows + i, mask=i < rows, other=0)[None, :]
        if d_rows is not None or d_columns is not None:
            product = tl.load(x + first + offset, mask=inside, other=0).to(WIDE) * d
            if d_columns is not None:
                if row_gate is not None:
                    sums += of_row * product
                else:
                    sums += product
            if d_rows is not None:
                if column_gate is not None:
                    product = of_column * product
                place = (block * samples + sample) * rows + i
                tl.store(d_rows + place, tl.sum(product, 0), mask=i < rows)
        if d_x is not None:
            scaled = d
            if row_gate is not None:
                scaled = of_row * scaled
            if column_gate is not None:
                scaled = of_column * scaled
            if RESIDUAL:
                scaled = d + scaled
            tl.store(d_x + first + offset, scaled, mask=inside)
    if d_columns is not None:
        place_of_column = (share * samples + sample) * columns + j
        tl.store(d_columns + place_of_column, tl.sum(sums, 1), mask=j < columns)
