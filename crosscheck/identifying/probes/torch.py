"""PyTorch modules. They are probed on a copy, on the CPU and in at least float32."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from crosscheck.identifying.probes.calls import leaves

# The usual layout of feature maps; the other one is tried after it.
CHANNELS_FIRST = True


@contextmanager
def borrow(module: nn.Module) -> Iterator[nn.Module]:
    # A tensor that some earlier call has left behind with its graph can't be copied otherwise.
    left = [value for part in module.modules() for value in vars(part).values()]
    memo = {id(t): t.detach() for t in left if isinstance(t, Tensor) and not t.is_leaf}
    copied = copy.deepcopy(module, memo).cpu()
    threads = torch.get_num_threads()
    # The maps are too small to be shared between threads.
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield copied.float() if dtype(copied).itemsize < 4 else copied
    finally:
        torch.set_num_threads(threads)


def modules(module: nn.Module) -> list[nn.Module]:
    return list(module.modules())


def dtype(module: nn.Module) -> torch.dtype:
    return next((w.dtype for w in _tensors(module).values()), torch.float32)


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in _tensors(module).items()}


def assign(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    with torch.no_grad():
        for name, tensor in _tensors(module).items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


def call(module: nn.Module, x: np.ndarray, training: bool) -> list[np.ndarray]:
    with torch.no_grad():
        returned = module.train(training)(_tensor(module, x))
    return [y.double().numpy() for y in leaves(returned) if isinstance(y, Tensor)]


def gradient(module: nn.Module, x: np.ndarray, index: int, cotangent: np.ndarray) -> np.ndarray:
    leaf = _tensor(module, x).requires_grad_()
    # A module may change its input in place, which is forbidden for a leaf.
    y = [y for y in leaves(module.eval()(leaf.clone())) if isinstance(y, Tensor)][index]
    if not y.requires_grad:
        return np.zeros(x.shape)
    dy = torch.from_numpy(cotangent.copy()).to(y.dtype)
    (dx,) = torch.autograd.grad(y, leaf, dy, materialize_grads=True)
    return dx.double().numpy()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {n: t for n, t in named if not is_lazy(t) and t.is_floating_point()}


def _tensor(module: nn.Module, x: np.ndarray) -> Tensor:
    return torch.from_numpy(x.copy()).to(dtype(module))
