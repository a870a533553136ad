"""Blocks and networks in PyTorch: ours, the public structures and the peers that install."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

from torch import Tensor, nn

import cbam_torch
from cbam_core import CBAMSpec
from cbam_torch import ops
from cbam_torch.backbones import Backbone
from crosscheck.benchmark import kernels
from crosscheck.benchmark.candidate import Entry, Model
from crosscheck.benchmark.libraries import torch as torch_library
from crosscheck.benchmark.plan import Plan
from crosscheck.benchmark.structures import STRUCTURES, Official


def library() -> ModuleType:
    return torch_library


def blocks(x: Tensor, plan: Plan) -> Iterator[Entry]:
    channels = x.shape[1]
    spec = CBAMSpec.preset("official", channels)
    for name, on in (("ours", True), ("plain", False)):
        yield _entry(name, functools.partial(_block, spec, on), plan, kernels.path(ops, x, on))
    for name, structure in STRUCTURES.items():
        yield _entry(name, functools.partial(structure, channels), plan)
    if importlib.util.find_spec("pytorchcv"):
        from pytorchcv.models.cbamresnet import CbamBlock

        yield _entry("pytorchcv", functools.partial(CbamBlock, channels), plan)


def networks(x: Tensor, plan: Plan) -> Iterator[Entry]:
    yield _entry("none", lambda: Backbone(plan.architecture(None)), plan)

    def with_block(block: Callable[[CBAMSpec], nn.Module]) -> nn.Module:
        network = Backbone(plan.architecture("cbam"))
        for path, module in list(network.named_modules()):
            if isinstance(module, cbam_torch.CBAM):
                network.set_submodule(path, block(module.spec))
        return network

    for name, on in (("ours", True), ("plain", False)):
        build = functools.partial(with_block, functools.partial(_block, on=on))
        yield _entry(name, build, plan, kernels.path(ops, x, on))
    yield _entry("official", lambda: with_block(lambda spec: Official(spec.channels)), plan)


def _block(spec: CBAMSpec, on: bool) -> cbam_torch.CBAM:
    return cbam_torch.CBAM.from_spec(spec, **kernels.switch(cbam_torch.CBAM, on))


def _entry(name: str, module: Callable[[], nn.Module], plan: Plan, path: str = "") -> Entry:
    def build(training: bool) -> Model:
        built = module().to(**torch_library.options(plan)).train(training)
        return Model(built, list(built.parameters()))

    return Entry(name, build, path)
