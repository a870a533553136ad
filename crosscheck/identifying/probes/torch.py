"""PyTorch modules, scripted ones as well. They are given back as they were."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from crosscheck.identifying.probes.calls import leaves

# The usual layout of feature maps; the other one is tried after it.
CHANNELS_FIRST = True


@contextmanager
def borrow(module: nn.Module) -> Iterator[nn.Module]:
    if any(is_lazy(parameter) for parameter in module.parameters()) or _is_half(module):
        # What is lazy can't be undone, and half precisions would tell little.
        yield copy.deepcopy(module).float()
        return
    # Otherwise no copy: a function that some part keeps would still refer to the module itself.
    attributes = [(vars(part), _kept(vars(part))) for part in module.modules()]
    # A scripted part keeps its mode elsewhere.
    modes = [(part, part.training) for part in module.modules()]
    values = [(tensor, tensor.detach().clone()) for tensor in _named(module).values()]
    with torch.random.fork_rng(devices=[]), _single_thread(), _full_precision():
        try:
            yield module
        finally:
            for own, kept in attributes:
                _restore(own, kept)
            for part, mode in modes:
                part.training = mode
            for tensor, value in values:
                tensor.data.copy_(value)


def _is_half(module: nn.Module) -> bool:
    return any(t.dtype in (torch.float16, torch.bfloat16) for t in _named(module).values())


Kept = dict[str, tuple[Any, dict | None]]


def _kept(attributes: Mapping[str, Any]) -> Kept:
    """The attributes of a part, and what stands in those that are dicts."""
    return {n: (v, dict(v) if type(v) is dict else None) for n, v in attributes.items()}


def _restore(attributes: dict[str, Any], kept: Kept) -> None:
    attributes.clear()
    for name, (value, items) in kept.items():
        attributes[name] = value
        if items is not None:
            value.clear()
            value.update(items)


@contextmanager
def _single_thread() -> Iterator[None]:
    """The maps are too small to be shared between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 on a GPU."""
    places: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def modules(module: nn.Module) -> list[nn.Module]:
    return list(module.modules())


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: _array(tensor) for name, tensor in _tensors(module).items()}


def assign(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    for name, tensor in _tensors(module).items():
        # Not the tensor itself, which would spoil a backward pass that its owner has before him.
        tensor.data.copy_(torch.from_numpy(np.array(arrays[name])))


def call(module: nn.Module, x: np.ndarray, training: bool) -> list[np.ndarray]:
    with torch.no_grad():
        return [
            _array(y).astype(np.float64) for y in _outputs(module.train(training), _leaf(module, x))
        ]


def gradient(module: nn.Module, x: np.ndarray, index: int, cotangent: np.ndarray) -> np.ndarray:
    leaf = _leaf(module, x).requires_grad_()
    y = _outputs(module.eval(), leaf)[index]
    if not y.requires_grad:
        return np.zeros(x.shape)
    dy = torch.from_numpy(cotangent.copy()).to(y)
    (dx,) = torch.autograd.grad(y, leaf, dy, materialize_grads=True)
    return _array(dx).astype(np.float64)


def _outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    # A module may change its input in place, which is forbidden for a leaf.
    return [y for y in leaves(module(x.clone())) if isinstance(y, Tensor)]


def _leaf(module: nn.Module, x: np.ndarray) -> Tensor:
    like = next(iter(_tensors(module).values()), torch.empty(0))
    return torch.from_numpy(x.copy()).to(like.device, like.dtype)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in _named(module).items() if tensor.is_floating_point()}


def _named(module: nn.Module) -> dict[str, Tensor]:
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: tensor for name, tensor in named if not is_lazy(tensor)}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()
