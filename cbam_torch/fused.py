"""The primitives by kernels, with gradients of their own.

For the backward pass they keep x, the gates, and of each pooled number the maximum and how often it
occurs; all else is computed again. The gradients of the three primitives meet in one map: each
hands x on, and adds its part to the gradient of what it handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cbam_torch import cuda, native

# A primitive by plain operations, for derivatives of its gradient.
Composition = Callable[..., Any]
# On a gradient of x that a primitive has made for the one before it, and that nobody else has seen.
_MARK = "_is_gradient_of_cbam"


def kernels_for(x: Tensor, *gates: Tensor | None) -> str | None:
    """The name of the kernels for maps like x, (N, C, *S), and gates like these."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    fits = (
        x.numel() > 0
        and (_channels_come_first(x) or _channels_come_last(x))
        and all(gate is None or gate.dtype == wide for gate in gates)
    )
    if not fits:
        return None
    return "triton" if cuda.knows(x) else "native" if native.knows(x) else None


def pool(
    x: Tensor, gate: Tensor | None, over_space: bool, composition: Composition
) -> tuple[Tensor, list[Tensor]]:
    """x, and [avg, max] of gate * x over space, (N, C), or over channels, (N, 1, *S).

    `composition(x, gate)` is [avg, max].
    """
    if _has_gradient(x, gate):
        x, avg, most = _Pool.apply(x, gate, over_space, composition)
    else:
        avg, most, _ = _operation(_pool)(x, gate, over_space)
    return x, [avg, most]


def scale(
    x: Tensor,
    channel: Tensor | None,
    spatial: Tensor | None,
    residual: bool,
    composition: Composition,
) -> Tensor:
    """Ms * Mc * x, plus x where `residual`; `composition(x, channel, spatial, residual)` is [y]."""
    if _has_gradient(x, channel, spatial):
        return _Scale.apply(x, channel, spatial, residual, composition)
    return _operation(_scale)(x, channel, spatial, residual)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor | None, over_space: bool, composition: Composition
    ) -> tuple[Tensor, Tensor, Tensor]:
        avg, most, ties = _operation(_pool)(x, gate, over_space)
        ctx.save_for_backward(x, gate, most, ties)
        ctx.over_space, ctx.composition = over_space, composition
        ctx.set_materialize_grads(False)
        if not ctx.needs_input_grad[0]:
            ctx.mark_non_differentiable(x)
        return x, avg, most

    @staticmethod
    def backward(
        ctx: Any, d_y: Tensor | None, d_avg: Tensor | None, d_max: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, gate, most, ties = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if _is_differentiated_again():
            d_x, d_gate = _gradients(ctx.composition, (x, gate), (d_avg, d_max))
            return _sum(d_y, d_x), d_gate, None, None
        found = _operation(_pool_backward)(
            x, gate, most, ties, d_avg, d_max, d_y, ctx.over_space, *wanted
        )
        return *_made(found, wanted), None, None


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        channel: Tensor | None,
        spatial: Tensor | None,
        residual: bool,
        composition: Composition,
    ) -> Tensor:
        ctx.save_for_backward(x, channel, spatial)
        ctx.residual, ctx.composition = residual, composition
        return _operation(_scale)(x, channel, spatial, residual)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[:3]
        if _is_differentiated_again():
            return *_gradients(ctx.composition, inputs, (d_y,), ctx.residual), None, None
        found = _operation(_scale_backward)(*inputs, ctx.residual, d_y, *wanted)
        return *_made(found, wanted), None, None


def _has_gradient(*inputs: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in inputs)


def _made(found: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    """The gradients that are wanted, that of x first and marked as one that is ours to change."""
    if not torch.compiler.is_compiling():
        setattr(found[0], _MARK, True)
    return [one if is_wanted else None for one, is_wanted in zip(found, wanted, strict=True)]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


# ------------------------------------------------------------------------ derivatives of gradients


def _is_differentiated_again() -> bool:
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _gradients(
    composition: Composition,
    inputs: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    *options: Any,
) -> list[Tensor | None]:
    """The gradients of `composition`, themselves differentiable, of the inputs that need one."""
    # Of aliases, since a gate is made of x, and the gradient shall not go through it here.
    aliases = [None if one is None else one.view_as(one) for one in inputs]
    outputs = composition(*aliases, *options)
    known = [(y, d_y) for y, d_y in zip(outputs, upstream, strict=True) if d_y is not None]
    wanted = [one for one in aliases if one is not None and one.requires_grad]
    if not known:
        return [None] * len(aliases)
    ys, d_ys = zip(*known, strict=True)
    found = iter(torch.autograd.grad(ys, wanted, d_ys, create_graph=True))
    return [next(found) if one is not None and one.requires_grad else None for one in aliases]


# ---------------------------------------------------------------------- the kernels, called on maps


def _pool(x: Tensor, gate: Tensor | None, over_space: bool) -> tuple[Tensor, Tensor, Tensor]:
    """avg, max, and how many positions or channels are the maximum."""
    found = _new_descriptors(x, gate, over_space)
    name = "pool_rows" if over_space is _channels_come_first(x) else "pool_columns"
    _run(name, x, _in_order(gate), *found)
    return found


def _pool_backward(
    x: Tensor,
    gate: Tensor | None,
    most: Tensor,
    ties: Tensor,
    d_avg: Tensor | None,
    d_max: Tensor | None,
    d_y: Tensor | None,
    over_space: bool,
    of_x: bool,
    of_gate: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of x, which has that of the x handed on, d_y, and of the gate."""
    d_x = d_y if d_y is not None and hasattr(d_y, _MARK) else _new_gradient(x, x, of_x)
    d_gate = _new_gradient(x, gate, of_gate)
    is_row = over_space is _channels_come_first(x)
    name = "pool_rows_backward" if is_row else "pool_columns_backward"
    known = (_in_order(gate), most, ties, _in_order(d_avg), _in_order(d_max), _like(x, d_y))
    _run(name, x, *known, d_x, d_gate)
    return d_x, d_gate


def _scale(x: Tensor, channel: Tensor | None, spatial: Tensor | None, residual: bool) -> Tensor:
    y = torch.empty_like(x)
    _run("scale", x, *_rows_first(x, _in_order(channel), _in_order(spatial)), residual, y)
    return y


def _scale_backward(
    x: Tensor,
    channel: Tensor | None,
    spatial: Tensor | None,
    residual: bool,
    d_y: Tensor,
    of_x: bool,
    of_channel: bool,
    of_spatial: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and of both gates."""
    d_x = _new_gradient(x, x, of_x)
    d_channel, d_spatial = (
        _new_gradient(x, channel, of_channel),
        _new_gradient(x, spatial, of_spatial),
    )
    gates = _rows_first(x, _in_order(channel), _in_order(spatial))
    asked = (d_x, *_rows_first(x, d_channel, d_spatial))
    _run("scale_backward", x, *gates, residual, _like(x, d_y), *asked)
    return d_x, d_channel, d_spatial


def _run(name: str, x: Tensor, *arguments: Tensor | bool | None) -> None:
    """Call the kernel of that name for x, as samples of rows and columns."""
    samples, channels = x.shape[:2]
    shape = (samples, *_rows_first(x, channels, x.numel() // (samples * channels)))
    kernels = cuda if cuda.knows(x) else native
    kernels.run(name, shape, x, *arguments)


def _rows_first(x: Tensor, channels: Any, positions: Any) -> tuple[Any, Any]:
    return (channels, positions) if _channels_come_first(x) else (positions, channels)


def _channels_come_first(x: Tensor) -> bool:
    return x.is_contiguous()


def _channels_come_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


def _in_order(small: Tensor | None) -> Tensor | None:
    return None if small is None else small.contiguous()


def _like(x: Tensor, d_y: Tensor | None) -> Tensor | None:
    """d_y in memory as x is."""
    return d_y if d_y is None or d_y.stride() == x.stride() else torch.empty_like(x).copy_(d_y)


def _new_descriptors(
    x: Tensor, gate: Tensor | None, over_space: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = x.shape[:2] if over_space else (x.shape[0], 1, *x.shape[2:])
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    avg, most, ties = (x.new_empty(shape, dtype=wide) for _ in range(3))
    return avg, most, ties


def _new_gradient(x: Tensor, of: Tensor | None, is_wanted: bool) -> Tensor:
    """Memory for a gradient; empty where nobody wants it, since an operation returns tensors."""
    return torch.empty_like(of) if of is not None and is_wanted else x.new_empty(0)


# ---------------------------------------------------------- the same as operations of torch.compile

_NAMES: dict[Callable[..., Any], str] = {
    _pool: "pool",
    _pool_backward: "pool_backward",
    _scale: "scale",
    _scale_backward: "scale_backward",
}
_OPERATIONS: dict[Callable[..., Any], Any] = {
    function: torch.library.custom_op(f"cbam::{name}", function, mutates_args=())
    for function, name in _NAMES.items()
}


def _operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """A node of the graph while one is made; elsewhere the function itself, which is faster."""
    return _OPERATIONS[function] if torch.compiler.is_compiling() else function


_OPERATIONS[_pool].register_fake(_new_descriptors)
_OPERATIONS[_scale].register_fake(lambda x, channel, spatial, residual: torch.empty_like(x))


@_OPERATIONS[_pool_backward].register_fake
def _(x, gate, most, ties, d_avg, d_max, d_y, over_space, of_x, of_gate):
    return _new_gradient(x, x, of_x), _new_gradient(x, gate, of_gate)


@_OPERATIONS[_scale_backward].register_fake
def _(x, channel, spatial, residual, d_y, of_x, of_channel, of_spatial):
    return (
        _new_gradient(x, x, of_x),
        _new_gradient(x, channel, of_channel),
        _new_gradient(x, spatial, of_spatial),
    )
