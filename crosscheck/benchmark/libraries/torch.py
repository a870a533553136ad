"""Runs of a model with PyTorch."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from crosscheck.benchmark.candidate import Model
from crosscheck.benchmark.plan import Plan

_PLACES = {"cpu": "cpu", "gpu": "cuda"}


def prepare(plan: Plan) -> None:
    if plan.device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU here; run with --device cpu")
    torch.set_num_threads(plan.threads)


def options(plan: Plan) -> dict[str, Any]:
    """Of modules and tensors."""
    return {"device": _PLACES[plan.device], "dtype": getattr(torch, plan.dtype)}


def array(shape: tuple[int, ...], plan: Plan, seed: int = 0) -> Tensor:
    drawn = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return torch.from_numpy(drawn).to(**options(plan))


def wait(result: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def copy(x: Tensor) -> Callable[[], Tensor]:
    into = torch.zeros_like(x)
    return lambda: into.copy_(x)


def scale(x: Tensor) -> Callable[[], Tensor]:
    return lambda: x * 1.0001


class Passes:
    """The passes of a model in a mode, "eager" or "compiled".

    Args:
        build: makes the model, for training or for evaluation.
        x, cotangent: of the input and of the output.
        by_input: whether a training pass has the gradient by x too, as inside of a network.
    """

    def __init__(
        self,
        build: Callable[[bool], Model],
        x: Tensor,
        cotangent: Tensor,
        *,
        mode: str,
        by_input: bool,
    ) -> None:
        self.x, self.cotangent = x, cotangent
        self.leaf = x.detach().requires_grad_(by_input)
        self.build, self.mode, self.by_input = build, mode, by_input

    @functools.cached_property
    def evaluated(self) -> Model:
        return _in(self.mode, self.build(False))

    @functools.cached_property
    def trained(self) -> Model:
        return _in(self.mode, self.build(True))

    def forward(self) -> Tensor:
        with torch.no_grad():
            return self.evaluated.call(self.x)

    def training(self) -> Any:
        y = self.trained.call(self.leaf)
        sources = [self.leaf] * self.by_input + list(self.trained.weights)
        return torch.autograd.grad(y, sources, self.cotangent)

    def kept(self) -> int:
        """Bytes that the forward pass keeps for the backward one, beyond x, y and the weights."""
        kept: list[Tensor] = []

        def pack(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            y = self.trained.call(self.leaf)
        known = _storages([self.leaf, y, *self.trained.weights])
        return sum(size for where, size in _storages(kept).items() if where not in known)

    def allocated(self) -> int:
        """Bytes that a forward pass allocates, whether they are freed again or not."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.x.is_cuda
        self.forward()
        with profile(activities=activities, profile_memory=True) as profiled:
            wait(self.forward())
        # In the trace alone each allocation stands by itself; the averages have what is left.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json")
            profiled.export_chrome_trace(str(path))
            events = json.loads(path.read_text())["traceEvents"]
        # 0 is the CPU, 1 a GPU, in PyTorch's numbers of devices.
        changes = [event["args"] for event in events if event["name"] == "[memory]"]
        own = [c["Bytes"] for c in changes if c["Device Type"] == int(self.x.is_cuda)]
        return sum(size for size in own if size > 0)


def _in(mode: str, model: Model) -> Model:
    if mode == "eager":
        return model
    return model._replace(call=torch.compile(model.call, dynamic=False))


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Where each storage lies -> its bytes."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
