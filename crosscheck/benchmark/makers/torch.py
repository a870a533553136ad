"""Blocks and networks in PyTorch: ours, the public structures and the peers that install."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

from torch import Tensor, nn

from cbam_core import Architecture, CBAMSpec
from cbam_torch import CBAM, ops
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
        make = functools.partial(CBAM.from_spec, spec, kernels=on)
        yield _entry(name, make, plan, ops.path(x, kernels=on))
    for name, structure in STRUCTURES.items():
        yield _entry(name, functools.partial(structure, channels), plan)
    if importlib.util.find_spec("pytorchcv"):
        from pytorchcv.models.cbamresnet import CbamBlock

        yield _entry("pytorchcv", functools.partial(CbamBlock, channels), plan)


def networks(x: Tensor, plan: Plan) -> Iterator[Entry]:
    none, cbam = plan.architecture(None), plan.architecture("cbam")
    yield _entry("none", functools.partial(Backbone, none), plan)
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(_network, cbam, on)
        yield _entry(name, make, plan, ops.path(x, kernels=on))
    yield _entry("official", functools.partial(_official_network, cbam), plan)


def _network(architecture: Architecture, on: bool) -> Backbone:
    network = Backbone(architecture)
    kernels.set_all(network.modules(), on)
    return network


def _official_network(architecture: Architecture) -> Backbone:
    """The network with the structure of the authors' module in the places of our blocks."""
    network = Backbone(architecture)
    for path, module in list(network.named_modules()):
        if isinstance(module, CBAM):
            network.set_submodule(path, Official(module.spec.channels))
    return network


def _entry(name: str, make: Callable[[], nn.Module], plan: Plan, path: str = "") -> Entry:
    def build(training: bool) -> Model:
        module = make().to(**torch_library.options(plan)).train(training)
        return Model(module, list(module.parameters()))

    return Entry(name, build, path)
