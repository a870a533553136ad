"""Blocks and networks in Flax nnx."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from flax import nnx
from jax import Array

from cbam_core import CBAMSpec
from cbam_flax import CBAM, ops
from cbam_flax.backbones import Backbone
from crosscheck.benchmark import kernels
from crosscheck.benchmark.candidate import Entry, Model
from crosscheck.benchmark.libraries import jax as jax_library
from crosscheck.benchmark.plan import Plan


def library() -> ModuleType:
    return jax_library


def blocks(x: Array, plan: Plan) -> Iterator[Entry]:
    spec = CBAMSpec.preset("official", x.shape[-1])
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(CBAM.from_spec, spec, **kernels.switch(CBAM, on))
        yield _entry(name, make, plan, kernels.path(ops, x, on))


def networks(x: Array, plan: Plan) -> Iterator[Entry]:
    yield _entry("none", functools.partial(Backbone, plan.architecture(None)), plan)
    for name, on in (("ours", True), ("plain", False)):
        options = kernels.switch(Backbone, on)
        make = functools.partial(Backbone, plan.architecture("cbam"), **options)
        yield _entry(name, make, plan, kernels.path(ops, x, on))


def _entry(name: str, make: Callable[..., nnx.Module], plan: Plan, path: str = "") -> Entry:
    def build(training: bool) -> Model:
        module = make(param_dtype=plan.dtype, rngs=nnx.Rngs(0))
        module.set_attributes(use_running_average=not training, raise_if_not_found=False)
        graph, *states = nnx.split(module, nnx.Param, ...)
        params, others = states

        def call(params: nnx.State, x: Array) -> tuple[Array, Any]:
            merged = nnx.merge(graph, params, others, copy=True)
            return merged(x), nnx.state(merged, nnx.Not(nnx.Param))

        return Model(call, params)

    return Entry(name, build, path)
