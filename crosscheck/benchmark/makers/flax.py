"""Blocks and networks in Flax nnx."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from flax import nnx
from jax import Array

from cbam_core import CBAMSpec, initial_network, initial_weights
from cbam_flax import CBAM, ops
from cbam_flax.backbones import Backbone
from cbam_flax.weights import load_canonical
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
        yield _entry(name, make, initial_weights(spec), plan, kernels.path(ops, x, on))


def networks(x: Array, plan: Plan) -> Iterator[Entry]:
    none, cbam = plan.architecture(None), plan.architecture("cbam")
    yield _entry("none", functools.partial(Backbone, none), initial_network(none), plan)
    for name, on in (("ours", True), ("plain", False)):
        make = functools.partial(Backbone, cbam, **kernels.switch(Backbone, on))
        yield _entry(name, make, initial_network(cbam), plan, kernels.path(ops, x, on))


def _entry(
    name: str,
    make: Callable[..., CBAM | Backbone],
    weights: Mapping[str, np.ndarray],
    plan: Plan,
    path: str = "",
) -> Entry:
    def build(training: bool) -> Model:
        # Only the shapes: what draws values would take JAX long to compile.
        module = nnx.eval_shape(lambda: make(param_dtype=plan.dtype, rngs=nnx.Rngs(0)))
        load_canonical(module, weights)
        module.set_attributes(use_running_average=not training, raise_if_not_found=False)
        graph, *states = nnx.split(module, nnx.Param, ...)
        params, others = states

        def call(params: nnx.State, x: Array) -> tuple[Any, nnx.State]:
            merged = nnx.merge(graph, params, others, copy=True)
            return merged(x), nnx.state(merged, nnx.Not(nnx.Param))

        return Model(call, params)

    return Entry(name, build, path)
