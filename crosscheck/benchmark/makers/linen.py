"""Blocks and networks in Flax linen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from cbam_core import CBAMSpec
from cbam_flax import ops
from cbam_flax.linen.attention import CBAM
from cbam_flax.linen.backbones import Backbone
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
        yield _entry(name, make, x, plan, kernels.path(ops, x, on))


def networks(x: Array, plan: Plan) -> Iterator[Entry]:
    yield _entry("none", functools.partial(Backbone, plan.architecture(None)), x, plan)
    for name, on in (("ours", True), ("plain", False)):
        options = kernels.switch(Backbone, on)
        make = functools.partial(Backbone, plan.architecture("cbam"), **options)
        yield _entry(name, make, x, plan, kernels.path(ops, x, on))


def _entry(
    name: str, make: Callable[..., nn.Module], x: Array, plan: Plan, path: str = ""
) -> Entry:
    def build(training: bool) -> Model:
        module = make(param_dtype=plan.dtype, use_running_average=not training)
        variables = jax.jit(module.init)(jax.random.key(0), x[:2])
        statistics = variables.get("batch_stats", {})

        def call(params: Any, x: Array) -> tuple[Array, Any]:
            state = {"params": params, "batch_stats": statistics}
            return module.apply(state, x, mutable=["batch_stats"])

        return Model(call, variables["params"])

    return Entry(name, build, path)
